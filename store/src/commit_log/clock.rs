//! The log's time: the wall clock, except that it never goes back and never stands still.
//!
//! The end of a delivery is a time in a record, so it has to mean the same after a restart: that is why it is the wall
//! clock's and not a monotonic one's. A wall clock that goes ahead is believed; after a machine slept it is right. One that
//! goes back is not followed: whoever set it right by an hour would hold every ended delivery back for that hour. The
//! log's time goes on then from where it was, at 7/8 of its pace, until the wall clock has caught up.
//!
//! What must always hold: what [`LogClock::now`] returns is never before what it returned
//! (`time_never_goes_back_and_never_stands_still`).

use gantry_proto::env::Clock;
use gantry_proto::model::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How far back the wall clock may be before that is logged.
const WORTH_MENTIONING: Duration = Duration::from_secs(1);

/// Reads the log's time. One per log.
pub(crate) struct LogClock {
    clock: Arc<dyn Clock>,
    latest: Mutex<Latest>,
}

impl LogClock {
    /// For a log whose newest record is of `newest`.
    pub(crate) fn new(clock: Arc<dyn Clock>, newest: Timestamp) -> LogClock {
        let latest = Latest { time: newest, at: clock.monotonic(), mentioned: false };
        LogClock { clock, latest: Mutex::new(latest) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let (wall, at) = (self.clock.now(), self.clock.monotonic());
        self.latest.lock().follow(wall, at)
    }
}

/// The last moment at which the wall clock was followed.
struct Latest {
    time: Timestamp,
    at: Instant,
    /// That it went back since then was logged.
    mentioned: bool,
}

impl Latest {
    fn follow(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let own = self.time.after(at.saturating_duration_since(self.at) * 7 / 8);
        if wall >= own {
            *self = Latest { time: wall, at, mentioned: false };
            return wall;
        }
        let behind = own.since(wall);
        if behind > WORTH_MENTIONING && !std::mem::replace(&mut self.mentioned, true) {
            tracing::warn!(
                ?behind,
                "the machine's clock is behind the times in the log: it went back. The log goes on a little slower until \
                 the clock has caught up; the times of new messages are ahead of the clock until then"
            );
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn latest() -> Latest {
        Latest { time: START, at: Instant::now(), mentioned: false }
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_clock_that_goes_ahead_is_followed() {
        let (mut latest, begun) = (latest(), Instant::now());
        assert_eq!(latest.follow(START.after(millis(5)), begun + millis(5)), START.after(millis(5)));
        assert_eq!(latest.follow(START.after(millis(90_000)), begun + millis(6)), START.after(millis(90_000)));
    }

    #[test]
    fn a_clock_that_goes_back_is_caught_up_with_at_seven_eighths_of_the_pace() {
        let mut latest = latest();
        let begun = latest.at;
        let set_back = Timestamp::from_millis(START.as_millis() - 1_000);
        assert_eq!(latest.follow(set_back, begun), START);
        // Looking often must not make time stand still.
        for elapsed in 1..8_000 {
            let now = latest.follow(set_back.after(millis(elapsed)), begun + millis(elapsed));
            assert_eq!(now, START.after(millis(elapsed) * 7 / 8));
        }
        let caught_up = set_back.after(millis(8_001));
        assert_eq!(latest.follow(caught_up, begun + millis(8_001)), caught_up);
    }

    proptest! {
        #[test]
        fn time_never_goes_back_and_never_stands_still(steps in proptest::collection::vec((-5_000i64..5_000, 0u64..5_000), 1..50)) {
            let mut latest = latest();
            let (mut wall, mut at) = (START.as_millis() as i64, latest.at);
            let mut before = latest.follow(START, at);
            for (jump, elapsed) in steps {
                wall = (wall + jump + elapsed as i64).max(0);
                at += millis(elapsed);
                let now = latest.follow(Timestamp::from_millis(wall as u64), at);
                // A fraction of a millisecond is dropped.
                prop_assert!(now.since(before) + millis(1) >= millis(elapsed) * 7 / 8);
                prop_assert!(now >= before && now.as_millis() >= wall as u64);
                before = now;
            }
        }
    }
}
