//! The time of a run: wall-clock moments that never jump.
//!
//! Moments of one run can be subtracted exactly; moments that another process wrote into a body are as far off as the two
//! wall clocks.

use gantry_proto::env::Clock;
use std::time::Duration;
use tokio::time::Instant;

/// A time since the Unix epoch, in whole nanoseconds.
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
pub(crate) struct RunClock(Instant, Moment);

impl RunClock {
    pub(crate) fn set_by(wall: &dyn Clock) -> RunClock {
        RunClock(Instant::now(), Moment(wall.now().as_millis().saturating_mul(1_000_000)))
    }

    pub(crate) fn now(&self) -> Moment {
        self.1.after(self.0.elapsed())
    }
}
