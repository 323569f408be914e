//! A sleep that ends within tens of microseconds of its time.
//!
//! tokio's timers have a resolution of one millisecond, which an open loop would report as latency. Each producer owns
//! one timer.

use super::clock::{Moment, RunClock};

pub(crate) struct PreciseTimer {
    clock: RunClock,
    #[cfg(target_os = "linux")]
    descriptor: Option<descriptor::TimerDescriptor>,
}

impl PreciseTimer {
    /// A timer on `clock`. Without a descriptor of the system it still works, at tokio's resolution.
    pub(crate) fn new(clock: RunClock) -> PreciseTimer {
        PreciseTimer {
            clock,
            #[cfg(target_os = "linux")]
            descriptor: descriptor::TimerDescriptor::new().ok(),
        }
    }

    /// Returns at `due` or soon after it; at once when it has passed. Cancel safe.
    pub(crate) async fn until(&mut self, due: Moment) {
        loop {
            let left = due.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            #[cfg(target_os = "linux")]
            if let Some(descriptor) = &mut self.descriptor
                && descriptor.wait(due, left).await.is_ok()
            {
                continue;
            }
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(target_os = "linux")]
mod descriptor {
    use super::Moment;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use std::os::fd::OwnedFd;
    use std::time::Duration;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A `timerfd`, armed again only for another moment.
    pub(crate) struct TimerDescriptor {
        timer: AsyncFd<OwnedFd>,
        armed_for: Option<Moment>,
    }

    impl TimerDescriptor {
        pub(crate) fn new() -> std::io::Result<TimerDescriptor> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK.union(TimerfdFlags::CLOEXEC))?;
            #[expect(
                deprecated,
                reason = "unsound only for types that do not own their descriptor; the other one is unsafe"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(TimerDescriptor { timer, armed_for: None })
        }

        /// Returns when the timer fired, and now and then too early. Cancel safe.
        pub(crate) async fn wait(&mut self, due: Moment, left: Duration) -> std::io::Result<()> {
            if self.armed_for != Some(due) {
                let value = Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(left.subsec_nanos()),
                };
                let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
                self.armed_for = Some(due);
            }
            let mut ready = self.timer.readable().await?;
            // Arming resets the expiration count, so it need not be read.
            ready.clear_ready();
            self.armed_for = None;
            Ok(())
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
