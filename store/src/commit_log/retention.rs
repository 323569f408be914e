//! Which sealed segments may go. Pure: the caller measures and removes.

use gantry_proto::model::{LogOffset, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// What is kept.
#[derive(Clone, Debug)]
pub struct RetentionPolicy {
    /// A segment goes when its newest record is older than this.
    pub age: Duration,
    /// The oldest go while the log is larger than this.
    pub bytes_max: Option<u64>,
    /// The oldest go while more than this percentage of the disk is used, consumed or not. `None`: they stay, and new
    /// messages are refused when the disk is full.
    pub disk_used_percent: Option<u8>,
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
/// `needed_from`: recovery needs the log from here on, whatever the policy says; `None`: nothing of it.
/// `space`: bytes of the disk in all and still available.
pub(crate) fn expired(
    policy: &RetentionPolicy,
    sealed: &[SealedSegment],
    active_bytes: u64,
    space: (u64, u64),
    needed_from: Option<LogOffset>,
    now: Timestamp,
) -> usize {
    let (disk_total, mut available) = space;
    let mut log_bytes = active_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut count = 0;
    for segment in sealed {
        let old = now.since(segment.newest) > policy.age;
        let large = policy.bytes_max.is_some_and(|max| log_bytes > max);
        let used = used_percent(disk_total, available);
        let full = policy.disk_used_percent.is_some_and(|max| used > u64::from(max));
        if needed_from.is_some_and(|from| segment.end > from) || !(old || large || full) {
            break;
        }
        log_bytes -= segment.bytes;
        available += segment.bytes;
        count += 1;
    }
    count
}

/// The time that retention goes by: the wall clock, but never ahead by more than has passed twice over.
///
/// A clock that jumps ahead makes every message old at once; one that was set by mistake cannot be told from a machine that
/// slept, or was off. So a jump is believed little by little: for each hour that passes the time goes ahead two, until it has
/// caught up. Whoever set the clock wrong has as long to notice as the jump is wide, and whoever was away has that long to
/// consume. It begins where it was at the last start.
#[derive(Debug)]
pub(crate) struct BelievedTime {
    time: Timestamp,
    at: Instant,
    mentioned: bool,
}

/// How far ahead the wall clock may be before that is logged.
const WORTH_MENTIONING: Duration = Duration::from_secs(3600);

impl BelievedTime {
    /// `last`: what was believed last, if anything ever was.
    pub(crate) fn starting(last: Option<Timestamp>, wall: Timestamp, at: Instant) -> BelievedTime {
        let time = last.map_or(wall, |last| last.min(wall));
        BelievedTime { time, at, mentioned: false }
    }

    pub(crate) fn follow(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let most = self.time.after(at.saturating_duration_since(self.at) * 2);
        if wall <= most {
            *self = BelievedTime { time: wall, at, mentioned: false };
            return wall;
        }
        let ahead = wall.since(most);
        if ahead > WORTH_MENTIONING && !std::mem::replace(&mut self.mentioned, true) {
            tracing::warn!(
                ?ahead,
                "the machine's clock is far ahead of where it was: it was set, or the server was away. Nothing expires for \
                 that: retention takes as long again to catch up"
            );
        }
        // Not from here on: looking often must not make the time stand still.
        most
    }
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

    #[test]
    fn a_jump_of_the_clock_is_believed_at_twice_the_pace_and_steady_time_at_once() {
        let (begun, start) = (Instant::now(), Timestamp::from_millis(1 << 40));
        let seconds = Duration::from_secs;
        let mut believed = BelievedTime::starting(None, start, begun);
        for millis in 0..5_000 {
            let elapsed = Duration::from_millis(millis);
            assert_eq!(believed.follow(start.after(elapsed), begun + elapsed), start.after(elapsed));
        }
        let jump = seconds(80 * 3600);
        for passed in 5..100 {
            let now = believed.follow(start.after(seconds(passed) + jump), begun + seconds(passed));
            assert!(now <= start.after(seconds(2 * passed)), "{passed} s after the jump");
        }
        // Set right again.
        assert_eq!(believed.follow(start.after(seconds(100)), begun + seconds(100)), start.after(seconds(100)));
        // As long again as the jump was wide, it is true.
        let later = 2 * jump;
        assert_eq!(believed.follow(start.after(later + jump / 2), begun + later), start.after(later + jump / 2));
        // Away, or set while the server was off: not believed at once either, nor a clock that is behind.
        let mut believed = BelievedTime::starting(Some(start), start.after(jump), begun);
        assert_eq!(believed.follow(start.after(jump), begun + seconds(1)), start.after(seconds(2)));
        assert_eq!(BelievedTime::starting(Some(start.after(jump)), start, begun).follow(start, begun), start);
    }

    const GIB: u64 = 1 << 30;
    const HOUR: Duration = Duration::from_secs(3600);

    fn policy() -> RetentionPolicy {
        RetentionPolicy { age: 72 * HOUR, bytes_max: None, disk_used_percent: Some(85) }
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
        assert_eq!(expired(&policy(), &sealed, GIB, roomy, None, now), 2);
    }

    #[test]
    fn the_oldest_go_while_the_log_is_too_large_or_the_disk_too_full() {
        let now = Timestamp::from_millis(1 << 40);
        let sealed = segments(&[3, 2, 1], now);
        let small = RetentionPolicy { bytes_max: Some(2 * GIB), ..policy() };
        assert_eq!(expired(&small, &sealed, GIB, (1000 * GIB, 900 * GIB), None, now), 2);
        assert_eq!(expired(&policy(), &sealed, GIB, (100 * GIB, 14 * GIB), None, now), 1);
        let patient = RetentionPolicy { disk_used_percent: None, ..policy() };
        assert_eq!(expired(&patient, &sealed, GIB, (100 * GIB, 0), None, now), 0);
    }

    #[test]
    fn what_recovery_needs_stays() {
        let now = Timestamp::from_millis(1 << 40);
        let sealed = segments(&[100, 100], now);
        assert_eq!(expired(&policy(), &sealed, GIB, (100 * GIB, GIB), Some(LogOffset(GIB)), now), 1);
    }
}
