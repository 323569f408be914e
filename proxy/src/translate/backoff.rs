//! Retry policies for clients.

use gantry_proto::model::BackoffPolicy;
use gantry_proto::wire::v2::{CustomizedBackoff, ExponentialBackoff, RetryPolicy, retry_policy::Strategy};
use std::time::Duration;

/// Always with a strategy: Java and C# consumers do not start without one.
pub(crate) fn backoff_to_wire(policy: &BackoffPolicy, max_attempts: u32) -> RetryPolicy {
    let strategy = match policy {
        BackoffPolicy::Customized(next) => {
            Strategy::CustomizedBackoff(CustomizedBackoff { next: next.iter().map(|d| duration_to_wire(*d)).collect() })
        }
        BackoffPolicy::Exponential { initial, max, multiplier } => Strategy::ExponentialBackoff(ExponentialBackoff {
            initial: Some(duration_to_wire(*initial)),
            max: Some(duration_to_wire(*max)),
            multiplier: *multiplier as f32,
        }),
    };
    RetryPolicy { max_attempts: i32::try_from(max_attempts).unwrap_or(i32::MAX), strategy: Some(strategy) }
}

pub(crate) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}
