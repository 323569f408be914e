//! Counting what calls did: latency histograms, throughput, errors.
//!
//! Each producer and each consumer connection has a [`Recorder`] of its own, so recording never waits for another; the
//! progress line takes what came since its last look, the runner merges all at the end.

use super::clock::Moment;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// The part of a run that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// Its beginning: the end of the warm-up.
    pub(super) from: Moment,
    /// Its end, exclusive. `None`: when the run ends.
    pub(super) to: Option<Moment>,
}

impl Interval {
    /// True when `moment` lies in it.
    pub(super) fn contains(&self, moment: Moment) -> bool {
        moment >= self.from && self.to.is_none_or(|to| moment < to)
    }
}

/// Latencies and amounts of one kind of call.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// In microseconds.
    latency: Histogram<u64>,
    /// Messages moved.
    pub(super) messages: u64,
    /// Bytes of their bodies.
    pub(super) bytes: u64,
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
    /// Adds one latency.
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // It grows as needed; only what no histogram can hold is refused.
        let _ = self.latency.record(micros);
    }

    /// Adds everything of another sample.
    pub(super) fn merge(&mut self, other: &Sample) {
        // Both grow as needed, so nothing is out of range.
        let _ = self.latency.add(&other.latency);
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    /// The merged samples of several recorders.
    pub(super) fn merged(samples: impl IntoIterator<Item = Sample>) -> Sample {
        let mut all = Sample::default();
        for sample in samples {
            all.merge(&sample);
        }
        all
    }

    /// The distribution; `None` without a single latency.
    pub(super) fn quantiles(&self) -> Option<Quantiles> {
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

    fn clear(&mut self) {
        self.latency.reset();
        self.messages = 0;
        self.bytes = 0;
    }
}

/// A latency distribution, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Quantiles {
    /// Calls or messages behind it.
    pub(super) count: u64,
    /// Arithmetic mean.
    pub(super) mean: u64,
    /// Half were no slower.
    pub(super) p50: u64,
    /// 90 % were no slower.
    pub(super) p90: u64,
    /// 99 % were no slower.
    pub(super) p99: u64,
    /// 99.9 % were no slower.
    pub(super) p99_9: u64,
    /// The slowest.
    pub(super) max: u64,
}

/// Records calls of one kind, of one connection.
#[derive(Debug)]
pub(super) struct Recorder {
    interval: Interval,
    state: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    measured: Sample,
    recent: Sample,
}

impl Recorder {
    /// A recorder that measures within `interval`.
    pub(super) fn new(interval: Interval) -> Recorder {
        Recorder { interval, state: Mutex::default() }
    }

    /// Enters things that ended at `ended`: for each, when it was meant to begin, and the messages and bytes it moved.
    ///
    /// Amounts count when they ended within the interval, latencies when they were meant to begin in it: a call that hangs
    /// across the end is neither throughput nor forgotten.
    pub(super) fn record(&self, ended: Moment, calls: impl IntoIterator<Item = (Moment, u64, u64)>) {
        let mut state = self.state.lock();
        let Recorded { measured, recent } = &mut *state;
        let ended_within = self.interval.contains(ended);
        for (intended, messages, bytes) in calls {
            let latency = ended.since(intended);
            recent.record(latency);
            recent.messages += messages;
            recent.bytes += bytes;
            if self.interval.contains(intended) {
                measured.record(latency);
            }
            if ended_within {
                measured.messages += messages;
                measured.bytes += bytes;
            }
        }
    }

    /// Adds what came since the last call of this to `total`. `spare` is scratch memory.
    pub(super) fn take_recent(&self, total: &mut Sample, spare: &mut Sample) {
        spare.clear();
        std::mem::swap(&mut self.state.lock().recent, spare);
        total.merge(spare);
    }

    /// What was measured so far.
    pub(super) fn measured(&self) -> Sample {
        self.state.lock().measured.clone()
    }
}

/// A call that failed: the code to count it by, and the words of whoever refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub(super) struct Failure {
    /// A name of `apache.rocketmq.v2.Code`, or `GRPC_` and the name of a gRPC code.
    pub(super) code: String,
    /// For people.
    pub(super) text: String,
}

impl Failure {
    /// A failure.
    pub(super) fn new(code: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure { code: code.into(), text: text.into() }
    }
}

/// Errors of a run, counted by operation and code.
#[derive(Debug, Default)]
pub(super) struct ErrorTable {
    rows: Mutex<BTreeMap<(&'static str, String), ErrorRow>>,
}

#[derive(Debug)]
struct ErrorRow {
    count: u64,
    first: String,
}

/// One kind of error in a report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct ErrorCount {
    /// What failed: `send`, `receive`, `ack`, `heartbeat`, `connection`, `telemetry`.
    pub(super) operation: &'static str,
    /// The status code's name.
    pub(super) code: String,
    /// Calls or, for `send` and `ack`, messages.
    pub(super) count: u64,
    /// The text of the first.
    pub(super) first: String,
}

/// Kinds told apart. A server could make up codes without end.
const ERROR_KINDS_MAX: usize = 64;
/// Bytes kept of an error's text.
const ERROR_TEXT_BYTES_MAX: usize = 300;

impl ErrorTable {
    /// Counts `count` failures of one kind.
    pub(super) fn add(&self, operation: &'static str, failure: &Failure, count: u64) {
        let mut rows = self.rows.lock();
        let code = if rows.len() < ERROR_KINDS_MAX { failure.code.as_str() } else { "OTHER" };
        let row = rows.entry((operation, code.to_owned())).or_insert_with(|| ErrorRow {
            count: 0,
            first: failure.text[..failure.text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)].to_owned(),
        });
        row.count += count;
    }

    /// All errors together.
    pub(super) fn total(&self) -> u64 {
        self.rows.lock().values().map(|row| row.count).sum()
    }

    /// Every kind, by operation and code.
    pub(super) fn counts(&self) -> Vec<ErrorCount> {
        let rows = self.rows.lock();
        let count = |((operation, code), row): (&(&'static str, String), &ErrorRow)| ErrorCount {
            operation,
            code: code.clone(),
            count: row.count,
            first: row.first.clone(),
        };
        rows.iter().map(count).collect()
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
        let (mut total, mut spare) = (Sample::default(), Sample::default());
        recorder.record(at(5), [(at(1), 1, 10), (at(2), 1, 10)]);
        recorder.take_recent(&mut total, &mut spare);
        recorder.take_recent(&mut total, &mut spare);
        assert_eq!((total.messages, total.bytes), (2, 20));
        assert_eq!(total.quantiles().unwrap().count, 2);
        assert_eq!(recorder.measured().messages, 0);
    }

    #[test]
    fn merged_quantiles_are_those_of_all_values() {
        let mut halves = [Sample::default(), Sample::default()];
        for micros in 1..=1000u64 {
            halves[(micros % 2) as usize].record(Duration::from_micros(micros));
        }
        let quantiles = Sample::merged(halves).quantiles().unwrap();
        let expected = Quantiles { count: 1000, mean: 501, p50: 500, p90: 900, p99: 990, p99_9: 999, max: 1000 };
        assert_eq!(quantiles, expected);
        assert_eq!(Sample::default().quantiles(), None);
    }

    #[test]
    fn errors_keep_the_first_text_and_a_bounded_number_of_kinds() {
        let table = ErrorTable::default();
        table.add("send", &Failure::new("TOO_MANY_REQUESTS", "slow down"), 3);
        table.add("send", &Failure::new("TOO_MANY_REQUESTS", "again"), 1);
        table.add("ack", &Failure::new("TOO_MANY_REQUESTS", "é".repeat(400)), 1);
        let counts = table.counts();
        assert_eq!(counts[0].first.len(), 300);
        assert_eq!((counts[1].operation, counts[1].count, counts[1].first.as_str()), ("send", 4, "slow down"));
        for code in 0..1000 {
            table.add("receive", &Failure::new(format!("CODE_{code}"), ""), 1);
        }
        assert!(table.counts().len() <= ERROR_KINDS_MAX + 3);
        assert_eq!(table.total(), 1005);
    }
}
