//! A process that runs, in a runtime of its own with a monotonic clock of its own.
//!
//! Owned by its machine's [`Host`](crate::faults::Host), driven by the run, between the steps of the network. That is what
//! makes it possible not to drive it: a process that is paused (SIGSTOP, a virtual machine that stalls) does nothing, not
//! one of its tasks, while everybody else goes on; when it goes on it has its old state and its clock has gone forward,
//! before any of its tasks can look at it. A pause comes between two polls of a task, never within one.

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Duration, advance, sleep};

/// A process. It dies when it is dropped, whatever it was doing.
pub struct Running {
    runtime: Runtime,
    main: JoinHandle<()>,
    /// How far its clock is behind, if it was not driven.
    missed: Duration,
}

impl Running {
    /// Starts `main`. The process ends when that does.
    pub fn start(main: impl Future<Output = ()> + Send + 'static) -> Running {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = built.expect("a runtime without I/O needs nothing of the system");
        let main = runtime.spawn(main);
        Running { runtime, main, missed: Duration::ZERO }
    }

    /// Lets it do what it does within `span` of its clock.
    pub fn drive(&mut self, span: Duration) {
        let missed = std::mem::take(&mut self.missed);
        self.runtime.block_on(async {
            if !missed.is_zero() {
                advance(missed).await;
            }
            sleep(span).await;
        });
    }

    /// Time goes by without it.
    pub fn miss(&mut self, span: Duration) {
        self.missed += span;
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.main.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_process_that_is_not_driven_does_nothing_and_then_finds_its_clock_gone_forward() {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        let mut process = Running::start(async move {
            let (start, mut last) = (Instant::now(), Instant::now());
            // In a task of its own: all of a process pauses.
            let ticking = tokio::spawn(async move {
                while last.elapsed() < 100 * MS {
                    last = Instant::now();
                    counted.fetch_add(1, Ordering::SeqCst);
                    sleep(10 * MS).await;
                }
            });
            ticking.await.unwrap();
            assert!(start.elapsed() >= 5000 * MS);
        });
        (0..50).for_each(|_| process.drive(MS));
        let before = ticks.load(Ordering::SeqCst);
        assert!((4..=6).contains(&before), "{before}");
        process.miss(5000 * MS);
        assert_eq!(ticks.load(Ordering::SeqCst), before);
        assert!(!process.has_ended());
        (0..20).for_each(|_| process.drive(MS));
        assert_eq!(ticks.load(Ordering::SeqCst), before);
        assert!(process.has_ended());
    }
}
