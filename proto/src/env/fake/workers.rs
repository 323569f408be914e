use crate::env::{WorkPanicked, Workers};
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does the work at once, on the thread that asks for it: no thread decides what comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineWorkers;

impl Workers for InlineWorkers {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkPanicked>> {
        ready(catch_unwind(AssertUnwindSafe(work)).map_err(|_| WorkPanicked)).boxed()
    }
}
