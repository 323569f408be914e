//! The result of a run: as a table for people, or as one JSON document.
//!
#![doc = include_str!("report/json.md")]

mod table;
pub(crate) mod units;

use super::body::RunId;
use super::clock::Moment;
use super::errors::ErrorCount;
use super::flags::{OutputFormat, Plan};
use super::stats::{Quantiles, Sample};
use super::tracker::Counts;
use serde::{Serialize, Serializer};
use std::time::{Duration, UNIX_EPOCH};

/// What the fields of the JSON document mean.
pub(crate) const JSON_FIELDS: &str = include_str!("report/json.md");

/// What a run found out. As JSON it is the document.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    format: u32,
    benchmark: &'static str,
    gantry_version: &'static str,
    run_id: String,
    started_at: String,
    ok: bool,
    /// Why the run counts as failed: nothing when it does not.
    pub(crate) failures: Vec<String>,
    pub(crate) ended_by: EndedBy,
    pub(crate) seconds: Seconds,
    parameters: Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) produce: Option<ProduceResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consume: Option<ConsumeResult>,
    pub(crate) errors: Vec<ErrorCount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndedBy {
    Duration,
    /// Its messages were sent or received.
    Count,
    /// Nothing new came.
    Idle,
    Interrupt,
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Seconds {
    /// Not measured.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) warmup: Duration,
    #[serde(serialize_with = "as_seconds")]
    pub(crate) measured: Duration,
    /// From the first call due to the end of the last.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) total: Duration,
}

/// How much was moved in the measured part.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Amount {
    messages: u64,
    bytes: u64,
    messages_per_second: f64,
    mib_per_second: f64,
}

impl Amount {
    /// What a sample holds, over the time it took.
    pub(crate) fn new(sample: &Sample, measured: Duration) -> Amount {
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
pub(crate) struct ProduceResult {
    #[serde(flatten)]
    pub(crate) amount: Amount,
    pub(crate) acknowledged: u64,
    pub(crate) unsent: u64,
    pub(crate) latency_us: Option<Quantiles>,
    pub(crate) start_delay_us: Option<Quantiles>,
}

/// What consumers did.
#[derive(Debug, Serialize)]
pub(crate) struct ConsumeResult {
    #[serde(flatten)]
    pub(crate) amount: Amount,
    pub(crate) acknowledged: u64,
    pub(crate) empty_receives: u64,
    pub(crate) end_to_end_us: Option<Quantiles>,
    pub(crate) receive_latency_us: Option<Quantiles>,
    pub(crate) ack_latency_us: Option<Quantiles>,
    pub(crate) integrity: Integrity,
}

/// What became of the messages.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Integrity {
    /// What the counts add up to.
    pub(crate) received: u64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(crate) gaps: Option<u64>,
    pub(crate) lost: Option<u64>,
    pub(crate) complete: bool,
}

impl Report {
    /// A report without results.
    pub(crate) fn new(plan: Plan, run: RunId, started: Moment, ended_by: EndedBy, seconds: Seconds) -> Report {
        Report {
            format: 1,
            benchmark: plan.benchmark,
            gantry_version: env!("CARGO_PKG_VERSION"),
            run_id: run.to_string(),
            started_at: humantime::format_rfc3339_millis(UNIX_EPOCH + started.since_epoch()).to_string(),
            ok: true,
            failures: Vec::new(),
            ended_by,
            seconds,
            parameters: plan,
            produce: None,
            consume: None,
            errors: Vec::new(),
        }
    }

    /// With what counts as a failure.
    pub(crate) fn judged(mut self) -> Report {
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
            if let (EndedBy::Idle, Some(count)) = (self.ended_by, self.parameters.span.count) {
                let [came, wanted] = [integrity.counts.unique, count].map(units::count);
                failures.push(format!("only {came} of {wanted} messages came"));
            }
        }
        self.ok = failures.is_empty();
        self.failures = failures;
        self
    }

    /// As text that ends with a newline.
    pub(crate) fn render(&self, format: OutputFormat) -> anyhow::Result<String> {
        Ok(match format {
            OutputFormat::Table => table::render(self),
            OutputFormat::Json => serde_json::to_string_pretty(self)? + "\n",
        })
    }
}

fn as_seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(units::rounded(span.as_secs_f64(), 3))
}

#[cfg(test)]
mod tests;
