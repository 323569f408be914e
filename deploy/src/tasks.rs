//! Long-lived tasks by name, owned by the composition root.
//!
//! Must always hold: none ends before it was told to; if one does, the process goes down and says which.

use anyhow::{Context as _, anyhow};
use std::collections::HashMap;
use std::future::Future;
use tokio::task::{Id, JoinSet};

/// The tasks. Dropping the set ends them all.
#[derive(Default)]
pub struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts one.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until any of them ends, and says how. Cancel-safe. Without tasks: never.
    pub async fn unexpected_end(&mut self) -> anyhow::Error {
        match self.next_end().await {
            Some((name, Ok(()))) => anyhow!("{name} ended although nobody asked it to"),
            Some((name, Err(error))) => error.context(format!("{name} failed")),
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of one that was asked to end, if it still runs. How others end meanwhile does not matter any more.
    pub async fn end_of(&mut self, name: &str) -> anyhow::Result<()> {
        while self.names.values().any(|running| *running == name) {
            match self.next_end().await {
                Some((ended, result)) if ended == name => return result.context(ended),
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }

    async fn next_end(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let (id, result) = match self.running.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(error.into())),
        };
        Some((self.names.remove(&id).unwrap_or("a task"), result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn the_first_to_end_is_named_however_it_ends() {
        let first = |task: fn() -> anyhow::Result<()>| async move {
            let mut tasks = Tasks::default();
            tasks.spawn("the eternal", pending());
            tasks.spawn("the mortal", async move { task() });
            format!("{:#}", tasks.unexpected_end().await)
        };
        assert_eq!(first(|| Ok(())).await, "the mortal ended although nobody asked it to");
        assert_eq!(first(|| Err(anyhow!("no disk"))).await, "the mortal failed: no disk");
        assert!(first(|| panic!("bug")).await.starts_with("the mortal failed: task "));
    }

    #[tokio::test]
    async fn the_end_of_a_named_task_is_its_result() {
        let mut tasks = Tasks::default();
        tasks.spawn("other", async { Ok(()) });
        tasks.spawn("eternal", pending());
        tasks.spawn("asked", async { Err(anyhow!("late")) });
        assert_eq!(format!("{:#}", tasks.end_of("asked").await.unwrap_err()), "asked: late");
        assert!(tasks.end_of("asked").await.is_ok(), "it has ended before");
    }
}
