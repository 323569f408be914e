//! The time of a run: wall-clock moments that never jump.
//!
//! Owned by the run and copied to everything in it. Moments of one run can be subtracted exactly; moments that another
//! process wrote into a body are as far off as the two wall clocks.

use gantry_proto::env::Clock;
use std::time::Duration;
use tokio::time::Instant;

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const fn from_unix_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub(crate) const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// `self + span`, at most the last moment that can be told.
    pub(crate) fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How much later `self` is than `earlier`; zero when it is not.
    pub(crate) const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Tells moments: the wall clock, read once, and the monotonic clock from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    anchor: Instant,
    anchored_at: Moment,
}

impl RunClock {
    /// A clock that is set by `wall` now.
    pub(crate) fn set_by(wall: &dyn Clock) -> RunClock {
        RunClock {
            anchor: Instant::now(),
            anchored_at: Moment::from_unix_nanos(wall.now().as_millis().saturating_mul(1_000_000)),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.anchored_at.after(self.anchor.elapsed())
    }
}
