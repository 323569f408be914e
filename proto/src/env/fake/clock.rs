use crate::env::Clock;
use crate::model::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A clock that moves only when told to. Clones show the same time.
#[derive(Clone, Debug)]
pub struct FakeClock {
    millis: Arc<AtomicU64>,
    /// What it was advanced by, in milliseconds.
    advanced: Arc<AtomicU64>,
    begun: Instant,
}

/// An ordinary day in 2026: tests that mistake a span for an instant should fail.
const START_MILLIS: u64 = 1_780_000_000_000;

impl FakeClock {
    /// A clock that shows a fixed day.
    pub fn new() -> FakeClock {
        FakeClock { millis: Arc::new(AtomicU64::new(START_MILLIS)), advanced: Arc::default(), begun: Instant::now() }
    }

    /// Sets the clock, backwards too. The monotonic one stands still.
    pub fn set(&self, now: Timestamp) {
        self.millis.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Lets time pass, by whole milliseconds, and says what the clock shows then.
    pub fn advance(&self, by: Duration) -> Timestamp {
        let now = self.now().after(by);
        self.advanced.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.set(now);
        now
    }
}

impl Default for FakeClock {
    fn default() -> FakeClock {
        FakeClock::new()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Instant {
        self.begun + Duration::from_millis(self.advanced.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_show_the_same_time() {
        let clock = FakeClock::new();
        let other = clock.clone();
        let before = other.now();
        clock.advance(Duration::from_millis(1500));
        assert_eq!(other.now().since(before), Duration::from_millis(1500));
        let monotonic = clock.monotonic();
        other.set(Timestamp::from_millis(7));
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_millis(7), monotonic));
        clock.advance(Duration::from_millis(1));
        assert_eq!(other.monotonic(), monotonic + Duration::from_millis(1));
    }
}
