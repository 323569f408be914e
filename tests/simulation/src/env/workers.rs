use super::Machine;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_proto::env::{WorkPanicked, Workers};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Does work at once but not immediately: after a while that the machine draws, so that disks of different speed order
/// things differently. Work is atomic; a crash comes before or after it, or cuts the power in its middle.
pub struct SimWorkers {
    machine: Arc<Machine>,
}

impl SimWorkers {
    pub(super) fn new(machine: Arc<Machine>) -> SimWorkers {
        SimWorkers { machine }
    }

    /// How long the next work waits. Mostly not at all or a little, now and then noticeably.
    fn wait(&self) -> Duration {
        let draw = &self.machine.draw;
        let usual = match draw.below(100) {
            0..60 => 0,
            60..95 => 1 + draw.below(2),
            95..99 => 2 + draw.below(8),
            _ => 10 + draw.below(40),
        };
        match self.machine.slow_millis.load(Ordering::SeqCst) {
            0 => Duration::from_millis(usual),
            slow => Duration::from_millis(usual + slow / 4 + draw.below(slow)),
        }
    }
}

impl Workers for SimWorkers {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkPanicked>> {
        let wait = self.wait();
        // A task of its own: work that began comes to its end even if nobody waits for it.
        let task = tokio::spawn(async move {
            if wait.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(wait).await;
            }
            catch_unwind(AssertUnwindSafe(work)).map_err(|_| WorkPanicked)
        });
        async move { task.await.unwrap_or(Err(WorkPanicked)) }.boxed()
    }
}
