//! A sleep that ends within tens of microseconds of its time.
//!
//! tokio's timers have a resolution of one millisecond, which an open loop would report as latency.

use super::clock::{Moment, RunClock};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::OwnedFd;
use tokio::io::{Interest, unix::AsyncFd};

pub(crate) struct PreciseTimer {
    clock: RunClock,
    /// A `timerfd`. Without one it still works, at tokio's resolution.
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl PreciseTimer {
    pub(crate) fn new(clock: RunClock) -> PreciseTimer {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        #[expect(
            deprecated,
            reason = "unsound only for types that do not own their descriptor; the other one is unsafe"
        )]
        let descriptor = timer.ok().and_then(|timer| AsyncFd::with_interest(timer, Interest::READABLE).ok());
        PreciseTimer { clock, descriptor }
    }

    /// Returns at `due` or soon after it; at once when it has passed. Cancel safe.
    pub(crate) async fn until(&mut self, due: Moment) {
        loop {
            let left = due.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            let it_value = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            if let Some(timer) = &self.descriptor
                && timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).is_ok()
                && let Ok(mut ready) = timer.readable().await
            {
                // Arming resets the expiration count, so it need not be read.
                ready.clear_ready();
            } else {
                tokio::time::sleep(left).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::Clock;
    use gantry_proto::model::Timestamp;
    use std::time::Duration;

    struct Noon;
    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(43_200_000)
        }
    }

    #[tokio::test]
    async fn never_returns_early_and_forgets_abandoned_waits() {
        let clock = RunClock::set_by(&Noon);
        let mut timer = PreciseTimer::new(clock);
        for _ in 0..20 {
            let soon = clock.now().after(Duration::from_millis(2));
            tokio::select! {
                () = timer.until(soon.after(Duration::from_secs(60))) => panic!("returned a minute early"),
                () = tokio::time::sleep(Duration::from_micros(100)) => {}
            }
            timer.until(soon).await;
            assert!(clock.now() >= soon);
        }
        let past = Moment::from_unix_nanos(1);
        timer.until(past).await;
    }
}
