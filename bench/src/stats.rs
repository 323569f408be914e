//! Counting what calls did: latency histograms and throughput.
//!
//! All tasks of a run record into the same [`Stats`], each kind of call behind a lock of its own that is held for
//! a microsecond; the progress line takes what came since its last look, the report what was measured.

use super::clock::Moment;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The part of a run that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) from: Moment,
    /// Its end, exclusive. `None`: when the run ends.
    pub(crate) to: Option<Moment>,
}

impl Interval {
    fn contains(&self, moment: Moment) -> bool {
        moment >= self.from && self.to.is_none_or(|to| moment < to)
    }
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Calls, from their intended time.
    pub(crate) sends: Recorder,
    /// From a call's intended time to its beginning.
    pub(crate) start_delays: Recorder,
    /// First deliveries of messages, from their intended send time to reception.
    pub(crate) arrivals: Recorder,
    /// Receive calls that brought messages.
    pub(crate) receives: Recorder,
    pub(crate) acks: Recorder,
    /// Messages that were acknowledged by the consumers.
    pub(crate) acknowledged: AtomicU64,
    pub(crate) empty_receives: AtomicU64,
}

impl Stats {
    pub(crate) fn new(interval: Interval) -> Stats {
        let [sends, start_delays, arrivals, receives, acks] = [(); 5].map(|()| Recorder::new(interval));
        let [acknowledged, empty_receives] = Default::default();
        Stats { sends, start_delays, arrivals, receives, acks, acknowledged, empty_receives }
    }
}

/// Latencies and amounts of one kind of call.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// In microseconds.
    latency: Histogram<u64>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// Significant decimal digits of a recorded latency.
const LATENCY_DIGITS: u8 = 3;

impl Default for Sample {
    fn default() -> Sample {
        // Fails only for more than five digits.
        let latency = Histogram::new(LATENCY_DIGITS).expect("three digits are possible");
        Sample { latency, messages: 0, bytes: 0 }
    }
}

impl Sample {
    pub(crate) fn record(&mut self, latency: Duration) {
        // It grows as needed; only what no histogram can hold is refused.
        let _ = self.latency.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// The distribution; `None` without a single latency.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        (!self.latency.is_empty()).then(|| Quantiles {
            count: self.latency.len(),
            mean: self.latency.mean().round() as u64,
            p50: self.latency.value_at_quantile(0.5),
            p90: self.latency.value_at_quantile(0.9),
            p99: self.latency.value_at_quantile(0.99),
            p99_9: self.latency.value_at_quantile(0.999),
            max: self.latency.max(),
        })
    }
}

/// A latency distribution, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) mean: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// Records calls of one kind.
#[derive(Debug)]
pub(crate) struct Recorder {
    interval: Interval,
    state: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    measured: Sample,
    recent: Sample,
}

impl Recorder {
    fn new(interval: Interval) -> Recorder {
        Recorder { interval, state: Mutex::default() }
    }

    /// Enters things that ended at `ended`: for each, when it was meant to begin, and the messages and bytes it moved.
    ///
    /// Amounts count when they ended within the interval, latencies when they were meant to begin in it: a call that hangs
    /// across the end is neither throughput nor forgotten.
    pub(crate) fn record(&self, ended: Moment, calls: impl IntoIterator<Item = (Moment, u64, u64)>) {
        let Recorded { measured, recent } = &mut *self.state.lock();
        for (intended, messages, bytes) in calls {
            let (began_within, ended_within) = (self.interval.contains(intended), self.interval.contains(ended));
            for (sample, timed, counted) in [(&mut *recent, true, true), (&mut *measured, began_within, ended_within)] {
                if timed {
                    sample.record(ended.since(intended));
                }
                if counted {
                    sample.messages += messages;
                    sample.bytes += bytes;
                }
            }
        }
    }

    /// What came since the last call of this.
    pub(crate) fn take_recent(&self) -> Sample {
        std::mem::take(&mut self.state.lock().recent)
    }

    pub(crate) fn measured(&self) -> Sample {
        self.state.lock().measured.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_unix_nanos(millis * 1_000_000)
    }

    fn measuring(from: u64, to: u64) -> Recorder {
        Recorder::new(Interval { from: at(from), to: Some(at(to)) })
    }

    #[test]
    fn amounts_count_by_their_end_and_latencies_by_their_intended_beginning() {
        let recorder = measuring(100, 200);
        recorder.record(at(110), [(at(90), 1, 10)]); // begun in the warm-up, ended within
        recorder.record(at(150), [(at(140), 2, 20)]);
        recorder.record(at(900), [(at(190), 4, 40)]); // a stall across the end
        recorder.record(at(250), [(at(240), 8, 80)]);
        let measured = recorder.measured();
        assert_eq!((measured.messages, measured.bytes), (3, 30));
        let quantiles = measured.quantiles().unwrap();
        assert_eq!(quantiles.count, 2);
        assert!(quantiles.max >= 710_000, "the stall is in: {}", quantiles.max);
    }

    #[test]
    fn recent_is_taken_once_whatever_the_interval() {
        let recorder = measuring(100, 200);
        recorder.record(at(5), [(at(1), 1, 10), (at(2), 1, 10)]);
        let (first, second) = (recorder.take_recent(), recorder.take_recent());
        assert_eq!((first.messages, first.bytes), (2, 20));
        assert_eq!(first.quantiles().unwrap().count, 2);
        assert_eq!((second.messages, second.bytes, second.quantiles()), (0, 0, None));
        assert_eq!(recorder.measured().messages, 0);
    }

    #[test]
    fn quantiles_are_those_of_all_values() {
        let mut sample = Sample::default();
        for micros in 1..=1000u64 {
            sample.record(Duration::from_micros(micros));
        }
        let quantiles = sample.quantiles().unwrap();
        let expected = Quantiles { count: 1000, mean: 501, p50: 500, p90: 900, p99: 990, p99_9: 999, max: 1000 };
        assert_eq!(quantiles, expected);
        assert_eq!(Sample::default().quantiles(), None);
    }
}
