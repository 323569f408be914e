//! Which sealed segments may go. Pure: the caller measures and removes.

use gantry_proto::model::{LogOffset, Timestamp};
use std::time::Duration;

/// What is kept.
#[derive(Clone, Debug)]
pub struct RetentionPolicy {
    /// A segment goes when its newest record is older than this.
    pub age: Duration,
    /// The oldest go while the log is larger than this.
    pub bytes_max: Option<u64>,
    /// The oldest go while more than this percentage of the disk is used.
    pub disk_used_percent: u8,
}

/// A sealed segment, oldest first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedSegment {
    pub base: LogOffset,
    pub end: LogOffset,
    pub bytes: u64,
    pub newest: Timestamp,
}

/// How many of the oldest segments go.
///
/// `needed_from`: recovery needs the log from here on, whatever the policy says.
/// `space`: bytes of the disk in all and still available.
pub(crate) fn expired(
    policy: &RetentionPolicy,
    sealed: &[SealedSegment],
    active_bytes: u64,
    space: (u64, u64),
    needed_from: LogOffset,
    now: Timestamp,
) -> usize {
    let (disk_total, mut available) = space;
    let mut log_bytes = active_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut count = 0;
    for segment in sealed {
        let old = now.since(segment.newest) > policy.age;
        let large = policy.bytes_max.is_some_and(|max| log_bytes > max);
        let full = used_percent(disk_total, available) > u64::from(policy.disk_used_percent);
        if segment.end > needed_from || !(old || large || full) {
            break;
        }
        log_bytes -= segment.bytes;
        available += segment.bytes;
        count += 1;
    }
    count
}

/// How full a disk is, 0 to 100.
pub(crate) fn used_percent(total: u64, available: u64) -> u64 {
    match total {
        0 => 0,
        total => 100 - (available.min(total) as u128 * 100 / total as u128) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const HOUR: Duration = Duration::from_secs(3600);

    fn policy() -> RetentionPolicy {
        RetentionPolicy { age: 72 * HOUR, bytes_max: None, disk_used_percent: 85 }
    }

    /// `ages`: hours since the newest record, oldest segment first.
    fn segments(ages: &[u32], now: Timestamp) -> Vec<SealedSegment> {
        let newest = |age: u32| Timestamp::from_millis(now.as_millis() - (age * HOUR).as_millis() as u64);
        (ages.iter().zip(1..))
            .map(|(age, n)| SealedSegment {
                base: LogOffset((n - 1) * GIB),
                end: LogOffset(n * GIB),
                bytes: GIB,
                newest: newest(*age),
            })
            .collect()
    }

    #[test]
    fn old_segments_go_and_stop_at_the_first_that_is_young() {
        let now = Timestamp::from_millis(1 << 40);
        let sealed = segments(&[100, 80, 71, 90], now);
        let roomy = (1000 * GIB, 900 * GIB);
        assert_eq!(expired(&policy(), &sealed, GIB, roomy, LogOffset(u64::MAX), now), 2);
    }

    #[test]
    fn the_oldest_go_while_the_log_is_too_large_or_the_disk_too_full() {
        let now = Timestamp::from_millis(1 << 40);
        let sealed = segments(&[3, 2, 1], now);
        let small = RetentionPolicy { bytes_max: Some(2 * GIB), ..policy() };
        assert_eq!(expired(&small, &sealed, GIB, (1000 * GIB, 900 * GIB), LogOffset(u64::MAX), now), 2);
        assert_eq!(expired(&policy(), &sealed, GIB, (100 * GIB, 14 * GIB), LogOffset(u64::MAX), now), 1);
    }

    #[test]
    fn what_recovery_needs_stays() {
        let now = Timestamp::from_millis(1 << 40);
        let sealed = segments(&[100, 100], now);
        assert_eq!(expired(&policy(), &sealed, GIB, (100 * GIB, GIB), LogOffset(GIB), now), 1);
    }
}
