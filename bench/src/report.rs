//! The result of a run: as a table for people, or as one JSON document.
//!
#![doc = include_str!("report/json.md")]

mod table;
pub(super) mod units;

use super::args::OutputFormat;
use super::body::RunId;
use super::clock::Moment;
use super::stats::{ErrorCount, Quantiles, Sample};
use super::tracker::Counts;
use serde::{Serialize, Serializer};
use std::time::{Duration, UNIX_EPOCH};

/// What the fields of the JSON document mean.
pub(super) const JSON_FIELDS: &str = include_str!("report/json.md");

/// What a run found out.
#[derive(Debug)]
pub(super) struct Report {
    /// Which benchmark.
    pub(super) benchmark: &'static str,
    /// Which run.
    pub(super) run: RunId,
    /// When preparations began.
    pub(super) started: Moment,
    /// What ended it.
    pub(super) ended_by: EndedBy,
    /// How long it took.
    pub(super) seconds: Seconds,
    /// The flags.
    pub(super) parameters: Parameters,
    /// Of producers.
    pub(super) produce: Option<ProduceResult>,
    /// Of consumers.
    pub(super) consume: Option<ConsumeResult>,
    /// What went wrong.
    pub(super) errors: Vec<ErrorCount>,
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EndedBy {
    /// Its time was over.
    Duration,
    /// Its messages were sent or received.
    Count,
    /// Nothing new came.
    Idle,
    /// Somebody stopped it.
    Interrupt,
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Seconds {
    /// Not measured.
    #[serde(serialize_with = "as_seconds")]
    pub(super) warmup: Duration,
    /// Measured.
    #[serde(serialize_with = "as_seconds")]
    pub(super) measured: Duration,
    /// From the first call due to the end of the last.
    #[serde(serialize_with = "as_seconds")]
    pub(super) total: Duration,
}

/// The flags in force.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Parameters {
    pub(super) endpoints: Vec<String>,
    pub(super) namespace: String,
    pub(super) topic: String,
    pub(super) timeout_ms: u64,
    pub(super) duration_ms: Option<u64>,
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) produce: Option<ProduceParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consume: Option<ConsumeParameters>,
}

/// The flags of producers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProduceParameters {
    pub(super) connections: u32,
    pub(super) inflight: u32,
    pub(super) batch: u32,
    pub(super) size_bytes: usize,
    /// Null in a closed loop.
    pub(super) rate_per_second: Option<f64>,
}

/// The flags of consumers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ConsumeParameters {
    pub(super) group: String,
    /// `simple` or `push`.
    pub(super) client: &'static str,
    pub(super) connections: u32,
    pub(super) pollers: u32,
    pub(super) batch: u32,
    /// Null when nothing is acknowledged.
    pub(super) ack_batch: Option<u32>,
    pub(super) long_poll_ms: u64,
    /// Null for push consumers.
    pub(super) invisible_ms: Option<u64>,
}

/// How much was moved in the measured part.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Amount {
    messages: u64,
    bytes: u64,
    messages_per_second: f64,
    mib_per_second: f64,
}

impl Amount {
    /// What a sample holds, over the time it took.
    pub(super) fn new(sample: &Sample, measured: Duration) -> Amount {
        let per_second = |amount: f64| {
            if measured.is_zero() { 0.0 } else { amount / measured.as_secs_f64() }
        };
        let mib = sample.bytes as f64 / f64::from(1 << 20);
        Amount {
            messages: sample.messages,
            bytes: sample.bytes,
            messages_per_second: units::rounded(per_second(sample.messages as f64), 1),
            mib_per_second: units::rounded(per_second(mib), 2),
        }
    }
}

/// What producers did.
#[derive(Debug, Serialize)]
pub(super) struct ProduceResult {
    #[serde(flatten)]
    pub(super) amount: Amount,
    pub(super) acknowledged: u64,
    pub(super) unsent: u64,
    pub(super) latency_us: Option<Quantiles>,
    pub(super) start_delay_us: Option<Quantiles>,
}

/// What consumers did.
#[derive(Debug, Serialize)]
pub(super) struct ConsumeResult {
    #[serde(flatten)]
    pub(super) amount: Amount,
    pub(super) acknowledged: u64,
    pub(super) empty_receives: u64,
    pub(super) end_to_end_us: Option<Quantiles>,
    pub(super) receive_latency_us: Option<Quantiles>,
    pub(super) ack_latency_us: Option<Quantiles>,
    pub(super) integrity: Integrity,
}

/// What became of the messages.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Integrity {
    #[serde(flatten, serialize_with = "with_sum")]
    pub(super) counts: Counts,
    pub(super) gaps: Option<u64>,
    pub(super) lost: Option<u64>,
    pub(super) complete: bool,
}

/// The document.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    benchmark: &'static str,
    gantry_version: &'static str,
    run_id: String,
    started_at: String,
    ok: bool,
    failures: Vec<String>,
    ended_by: EndedBy,
    seconds: Seconds,
    parameters: &'a Parameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    produce: Option<&'a ProduceResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consume: Option<&'a ConsumeResult>,
    errors: &'a [ErrorCount],
}

impl Report {
    /// Why the run counts as failed: nothing when it does not.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut note = |count: u64, one: &str, many: &str| {
            if count > 0 {
                failures.push(format!("{} {}", units::count(count), if count == 1 { one } else { many }));
            }
        };
        note(self.errors.iter().map(|error| error.count).sum(), "error", "errors");
        if let Some(ConsumeResult { integrity, .. }) = &self.consume {
            note(integrity.lost.unwrap_or(0), "message lost", "messages lost");
            note(integrity.counts.corrupt, "corrupt message", "corrupt messages");
            if let (EndedBy::Idle, Some(count)) = (self.ended_by, self.parameters.count) {
                let [came, wanted] = [integrity.counts.unique, count].map(units::count);
                failures.push(format!("only {came} of {wanted} messages came"));
            }
        }
        failures
    }

    /// As text that ends with a newline.
    pub(super) fn render(&self, format: OutputFormat) -> anyhow::Result<String> {
        Ok(match format {
            OutputFormat::Table => table::render(self),
            OutputFormat::Json => serde_json::to_string_pretty(&self.document())? + "\n",
        })
    }

    fn document(&self) -> Document<'_> {
        let failures = self.failures();
        Document {
            format: 1,
            benchmark: self.benchmark,
            gantry_version: env!("CARGO_PKG_VERSION"),
            run_id: self.run.to_string(),
            started_at: humantime::format_rfc3339_millis(UNIX_EPOCH + self.started.since_epoch()).to_string(),
            ok: failures.is_empty(),
            failures,
            ended_by: self.ended_by,
            seconds: self.seconds,
            parameters: &self.parameters,
            produce: self.produce.as_ref(),
            consume: self.consume.as_ref(),
            errors: &self.errors,
        }
    }
}

/// A span in whole milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn as_seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(units::rounded(span.as_secs_f64(), 3))
}

/// The counts, and what they add up to.
fn with_sum<S: Serializer>(counts: &Counts, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Sum {
        received: u64,
        #[serde(flatten)]
        counts: Counts,
    }
    Sum { received: counts.received(), counts: *counts }.serialize(serializer)
}

#[cfg(test)]
mod tests;
