//! When a run that sends begins, what part of it is measured, and what ends it. Pure.

use super::clock::Moment;
use super::flags::SpanArgs;
use super::report::{EndedBy, Seconds};
use super::schedule::Limit;
use super::stats::Interval;
use std::time::Duration;

/// From the end of preparations to the first call, so that all producers begin together.
const LEAD: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// When the first call is due.
    pub(crate) start: Moment,
    pub(crate) limit: Limit,
    /// The measured part.
    pub(crate) interval: Interval,
    /// Not before: the last message of an open loop has its share of the time too.
    ends_after: Moment,
}

impl Timing {
    /// A run that begins soon after `now`. A duration is measured after the warm-up; a count includes it.
    pub(crate) fn plan(now: Moment, span: &SpanArgs, warmup: Duration, rate: Option<f64>) -> Timing {
        let start = now.after(LEAD);
        let from = start.after(warmup);
        let (limit, to, ends_after) = match (span.count, rate) {
            (None, _) => {
                let to = from.after(span.duration.unwrap_or_default());
                (Limit::Until(to), Some(to), to)
            }
            (Some(count), None) => (Limit::Count(count), None, start),
            (Some(count), Some(rate)) => {
                let nanos = count as f64 / rate * 1e9;
                (Limit::Count(count), None, start.after(Duration::from_nanos(nanos as u64)))
            }
        };
        Timing { start, limit, interval: Interval { from, to }, ends_after }
    }

    pub(crate) fn ended_by(&self, interrupted: bool) -> EndedBy {
        match self.limit {
            _ if interrupted => EndedBy::Interrupt,
            Limit::Until(_) => EndedBy::Duration,
            Limit::Count(_) => EndedBy::Count,
        }
    }

    /// How long the parts of the run took, when its last call ended at `ended`.
    pub(crate) fn seconds(&self, ended: Moment, interrupted: bool) -> Seconds {
        let measured_to = match self.limit {
            Limit::Until(to) if interrupted => to.min(ended),
            Limit::Until(to) => to,
            Limit::Count(_) if interrupted => ended,
            Limit::Count(_) => ended.max(self.ends_after),
        };
        Seconds {
            warmup: self.interval.from.min(measured_to).since(self.start),
            measured: measured_to.since(self.interval.from),
            total: ended.max(measured_to).since(self.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_unix_nanos(7_000_000_000);

    fn second(seconds: u64) -> Moment {
        NOW.after(LEAD).after(Duration::from_secs(seconds))
    }

    fn plan(count: Option<u64>, warmup: u64, rate: Option<f64>) -> Timing {
        let span = SpanArgs { duration: Some(Duration::from_secs(10)), count };
        Timing::plan(NOW, &span, Duration::from_secs(warmup), rate)
    }

    fn seconds(timing: Timing, ended: u64, interrupted: bool) -> [u64; 3] {
        let seconds = timing.seconds(second(ended), interrupted);
        [seconds.warmup, seconds.measured, seconds.total].map(|span| span.as_secs())
    }

    #[test]
    fn a_duration_is_measured_whole_after_the_warm_up() {
        let timing = plan(None, 2, None);
        assert_eq!(timing.interval, Interval { from: second(2), to: Some(second(12)) });
        assert_eq!(seconds(timing, 13, false), [2, 10, 13]);
        assert_eq!(seconds(timing, 11, false), [2, 10, 12], "the last call of a slow open loop ends before its time");
    }

    #[test]
    fn an_interrupted_run_is_measured_as_far_as_it_went() {
        let timing = plan(None, 2, None);
        assert_eq!(seconds(timing, 5, true), [2, 3, 5]);
        assert_eq!(seconds(timing, 1, true), [1, 0, 1]);
        assert_eq!(seconds(timing, 14, true), [2, 10, 14]);
        assert_eq!(timing.ended_by(true), EndedBy::Interrupt);
        assert_eq!(timing.ended_by(false), EndedBy::Duration);
    }

    #[test]
    fn a_count_is_measured_to_its_last_call() {
        let timing = plan(Some(30), 0, None);
        assert_eq!(seconds(timing, 4, false), [0, 4, 4]);
        let paced = plan(Some(30), 0, Some(3.0));
        assert_eq!(seconds(paced, 9, false), [0, 10, 10], "30 messages at 3/s are 10 s");
        assert_eq!(seconds(paced, 9, true), [0, 9, 9]);
        assert_eq!(paced.ended_by(false), EndedBy::Count);
    }
}
