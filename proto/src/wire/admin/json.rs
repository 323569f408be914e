//! How messages of the operator's API are written as JSON, where not as they are. `build.rs` names the fields. Scripts rely
//! on it: fields are added, never renamed.

use super::v1;
use super::v1::backoff_policy::Strategy;
use prost_types::{Duration, Timestamp};
use serde::{Serialize, Serializer};
use std::time::SystemTime;

/// A kind of topic, as operators write it.
pub fn topic_type_name(topic_type: v1::TopicType) -> &'static str {
    match topic_type {
        v1::TopicType::Unspecified => "unknown",
        v1::TopicType::Normal => "normal",
        v1::TopicType::Fifo => "fifo",
        v1::TopicType::Delay => "delay",
        v1::TopicType::Transaction => "transaction",
        v1::TopicType::Mixed => "mixed",
    }
}

/// The last second that RFC 3339 can write: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// RFC 3339 in UTC. None for an instant that cannot be written so.
pub fn rfc_3339(timestamp: Option<Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let seconds = u64::try_from(timestamp.seconds).ok().filter(|seconds| *seconds <= LAST_SECOND)?;
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let instant = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::new(seconds, nanos))?;
    Some(humantime::format_rfc3339_millis(instant).to_string())
}

/// Whole milliseconds; none is 0.
pub fn millis(duration: Option<Duration>) -> u64 {
    let duration = duration.and_then(|duration| std::time::Duration::try_from(duration).ok()).unwrap_or_default();
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn topic_type<S: Serializer>(topic_type: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    topic_type_name(v1::TopicType::try_from(*topic_type).unwrap_or_default()).serialize(serializer)
}

/// Null stands for what an empty text stands for.
pub(super) fn unless_empty<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(serializer)
}

pub(super) fn instant<S: Serializer>(timestamp: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    rfc_3339(*timestamp).serialize(serializer)
}

pub(super) fn backoff<S: Serializer>(policy: &Option<v1::BackoffPolicy>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Backoff {
        Customized { next_ms: Vec<u64> },
        Exponential { initial_ms: u64, max_ms: u64, multiplier: f64 },
    }
    let strategy = policy.as_ref().and_then(|policy| policy.strategy.as_ref());
    let backoff = strategy.map(|strategy| match strategy {
        Strategy::Customized(backoff) => {
            Backoff::Customized { next_ms: backoff.next.iter().map(|pause| millis(Some(*pause))).collect() }
        }
        Strategy::Exponential(backoff) => Backoff::Exponential {
            initial_ms: millis(backoff.initial),
            max_ms: millis(backoff.max),
            multiplier: backoff.multiplier,
        },
    });
    backoff.serialize(serializer)
}
