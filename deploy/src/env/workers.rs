use futures_util::future::{BoxFuture, FutureExt as _};
use gantry_proto::env::{WorkPanicked, Workers};

/// The threads that tokio keeps for what blocks. Must be used inside a tokio runtime.
pub struct TokioWorkers;

impl Workers for TokioWorkers {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkPanicked>> {
        let running = tokio::task::spawn_blocking(work);
        async move { running.await.map_err(|_| WorkPanicked) }.boxed()
    }
}
