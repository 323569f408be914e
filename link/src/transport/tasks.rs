use tokio_util::sync::{CancellationToken, DropGuard};

/// Runs hyper's tasks. They end with the [`TasksGuard`].
#[derive(Clone)]
pub(super) struct Tasks(CancellationToken);

/// Ends the tasks when it is dropped.
pub(super) struct TasksGuard(#[expect(dead_code, reason = "its drop is what matters")] DropGuard);

/// An executor, and the guard that ends its tasks.
pub(super) fn tasks() -> (Tasks, TasksGuard) {
    let token = CancellationToken::new();
    (Tasks(token.clone()), TasksGuard(token.drop_guard()))
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let ended = self.0.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ended => {}
                _ = task => {}
            }
        });
    }
}
