//! Threads for work that blocks.

use super::Env;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Runs what blocks (files, long computations) where it holds up nobody else.
pub trait Workers: Send + Sync + 'static {
    /// Runs `work`, to its end even if the future is dropped. Completes when it is done, or with [`WorkPanicked`].
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkPanicked>>;
}

/// The work panicked and has no result. Whoever reports panics has reported this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked")]
pub struct WorkPanicked;

impl Env {
    /// Runs `work` on a worker and brings its result back.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkPanicked> {
        let result = Arc::new(parking_lot::Mutex::new(None));
        let place = result.clone();
        self.workers.run(Box::new(move || *place.lock() = Some(work()))).await?;
        let result = result.lock().take();
        result.ok_or(WorkPanicked)
    }
}
