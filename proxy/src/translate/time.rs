//! Protocol durations and timestamps. Values that make no sense are `None`.

use gantry_proto::model::Timestamp;
use std::time::Duration;

/// A duration that is not negative.
pub(crate) fn duration(wire: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A duration; zero for one that is negative.
pub(crate) fn duration_or_zero(wire: &prost_types::Duration) -> Duration {
    duration(wire).unwrap_or_default()
}

/// Milliseconds since the Unix epoch; negative before it.
pub(crate) fn timestamp_millis(wire: &prost_types::Timestamp) -> Option<i64> {
    if !(0..1_000_000_000).contains(&wire.nanos) {
        return None;
    }
    wire.seconds.checked_mul(1000)?.checked_add(i64::from(wire.nanos / 1_000_000))
}

pub(crate) fn timestamp_to_wire(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    prost_types::Timestamp { seconds: (millis / 1000) as i64, nanos: (millis % 1000) as i32 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_timestamps_that_mean_nothing_are_none() {
        let wire = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(duration(&wire(1, 500_000_000)), Some(Duration::from_millis(1500)));
        assert_eq!(duration(&wire(-1, 0)), None);
        assert_eq!(duration(&wire(0, -1)), None);
        assert_eq!(duration_or_zero(&wire(-5, 0)), Duration::ZERO);
        let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(timestamp_millis(&wire(-1, 0)), Some(-1000));
        assert_eq!(timestamp_millis(&wire(1, 999_999_999)), Some(1999));
        assert_eq!(timestamp_millis(&wire(i64::MAX, 0)), None);
        assert_eq!(timestamp_millis(&wire(0, 1_000_000_000)), None);
        assert_eq!(timestamp_to_wire(Timestamp::from_millis(1_234)), wire(1, 234_000_000));
    }
}
