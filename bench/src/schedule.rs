//! When each call of a run is due. Pure: the time is passed in.
//!
//! One schedule is shared by all producers of a run; each takes the next call that nobody took. In an open loop the due
//! times are fixed before the first call, so a server that stalls delays calls but never their due times, and latency
//! counted from there shows the stall (no coordinated omission). In a closed loop a call starts when an earlier one ended.

use super::clock::Moment;
use std::sync::atomic::{AtomicU64, Ordering};

/// What ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Nothing starts at or after this moment.
    Until(Moment),
    /// That many messages are sent.
    Count(u64),
}

/// The calls of a run, in order.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Moment,
    limit: Limit,
    batch: u64,
    /// Between two calls; `None` in a closed loop.
    interval_nanos: Option<f64>,
    taken: AtomicU64,
}

/// One call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Latency counts from here.
    pub(crate) due: Moment,
    /// Messages to send in it.
    pub(crate) messages: u64,
}

impl Schedule {
    /// Calls of `batch` messages from `start` on: `rate` messages per second, or a closed loop.
    pub(crate) fn new(rate: Option<f64>, batch: u32, start: Moment, limit: Limit) -> Schedule {
        let interval_nanos = rate.map(|rate| f64::from(batch) * 1e9 / rate);
        Schedule { start, limit, batch: batch.into(), interval_nanos, taken: AtomicU64::new(0) }
    }

    /// The next call, or `None` when the run is over. In a closed loop it is due `now`, or when the run begins.
    pub(crate) fn take(&self, now: Moment) -> Option<Ticket> {
        if matches!(self.limit, Limit::Until(end) if now >= end) {
            return None;
        }
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = self.due(index).unwrap_or(now.max(self.start));
        let messages = match self.limit {
            Limit::Until(end) if due >= end => 0,
            Limit::Until(_) => self.batch,
            Limit::Count(count) => count.saturating_sub(index.saturating_mul(self.batch)).min(self.batch),
        };
        (messages > 0).then_some(Ticket { due, messages })
    }

    /// Messages of an open loop that were due before `ended` and that nobody took: neither the server nor the number of
    /// calls in flight kept up.
    pub(crate) fn unsent(&self, ended: Moment) -> u64 {
        let Some(interval) = self.interval_nanos else { return 0 };
        let (until, count) = match self.limit {
            Limit::Until(end) => (end.min(ended), u64::MAX),
            Limit::Count(count) => (ended, count),
        };
        let calls_due = (until.since(self.start).as_nanos() as f64 / interval).ceil() as u64;
        let messages = |calls: u64| calls.saturating_mul(self.batch).min(count);
        messages(calls_due).saturating_sub(messages(self.taken.load(Ordering::Relaxed)))
    }

    fn due(&self, index: u64) -> Option<Moment> {
        // Exact to the nanosecond for the first hundred days: nothing adds up from call to call.
        let offset = index as f64 * self.interval_nanos?;
        Some(Moment::from_unix_nanos(self.start.as_unix_nanos().saturating_add(offset as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Moment = Moment::from_unix_nanos(1_000_000_000);

    fn at(millis: u64) -> Moment {
        START.after(Duration::from_millis(millis))
    }

    fn open(rate: f64, batch: u32, limit: Limit) -> Schedule {
        Schedule::new(Some(rate), batch, START, limit)
    }

    #[test]
    fn open_loop_due_times_do_not_depend_on_when_calls_are_taken() {
        let schedule = open(100.0, 1, Limit::Until(at(1000)));
        let taken_at = [0, 0, 700, 701, 5];
        let due: Vec<_> = taken_at.iter().map(|&now| schedule.take(at(now)).unwrap().due).collect();
        assert_eq!(due, [at(0), at(10), at(20), at(30), at(40)]);
    }

    #[test]
    fn closed_loop_calls_are_due_when_taken() {
        let schedule = Schedule::new(None, 4, START, Limit::Until(at(1000)));
        assert_eq!(schedule.take(at(3)), Some(Ticket { due: at(3), messages: 4 }));
        assert_eq!(schedule.take(at(999)), Some(Ticket { due: at(999), messages: 4 }));
        assert_eq!(schedule.take(at(1000)), None);
        assert_eq!(schedule.unsent(at(1000)), 0);
    }

    #[test]
    fn nothing_is_due_at_or_after_the_end() {
        let schedule = open(100.0, 1, Limit::Until(at(25)));
        let due: Vec<_> = std::iter::from_fn(|| schedule.take(at(0))).map(|ticket| ticket.due).collect();
        assert_eq!(due, [at(0), at(10), at(20)]);
    }

    #[test]
    fn a_count_ends_with_what_is_left_of_a_batch() {
        let schedule = Schedule::new(None, 4, START, Limit::Count(10));
        let sizes: Vec<_> = std::iter::from_fn(|| schedule.take(at(0))).map(|ticket| ticket.messages).collect();
        assert_eq!(sizes, [4, 4, 2]);
        assert_eq!(schedule.take(at(0)), None);
    }

    #[test]
    fn a_batch_is_due_less_often_for_the_same_rate() {
        let schedule = open(1000.0, 10, Limit::Count(30));
        let due: Vec<_> = std::iter::from_fn(|| schedule.take(at(0))).map(|ticket| ticket.due).collect();
        assert_eq!(due, [at(0), at(10), at(20)]);
    }

    #[test]
    fn unsent_counts_what_was_due_and_never_taken() {
        let schedule = open(1000.0, 1, Limit::Until(at(100)));
        for _ in 0..40 {
            schedule.take(at(0)).unwrap();
        }
        assert_eq!(schedule.unsent(at(50)), 10);
        assert_eq!(schedule.unsent(at(100)), 60);
        assert_eq!(schedule.unsent(at(200)), 60, "nothing is due after the end");
        assert_eq!(schedule.unsent(at(10)), 0);
    }

    #[test]
    fn an_interrupted_count_leaves_the_due_part_unsent() {
        let schedule = open(1000.0, 3, Limit::Count(10));
        schedule.take(at(0)).unwrap();
        assert_eq!(schedule.unsent(at(4)), 3);
        assert_eq!(schedule.unsent(at(60_000)), 7);
    }

    #[test]
    fn due_times_do_not_drift() {
        let schedule = open(3.0, 1, Limit::Count(u64::MAX));
        schedule.taken.store(3 * 86_400, Ordering::Relaxed);
        assert_eq!(schedule.take(START).unwrap().due, START.after(Duration::from_secs(86_400)));
    }
}
