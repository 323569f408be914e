//! What a panic means to a running server.
//!
//! In a future on the runtime's threads it ends one task: a call fails, or a task of [`Tasks`](crate::tasks::Tasks), whose
//! owner notices. A thread that a tier started by itself (the log's writer, the metadata's) has no such owner: without it
//! everybody would wait for ever, so the process ends, and the next start recovers from the log.

use crate::{runtime, signals};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::thread;

/// From now on panics are logged as errors and counted, and end the process where nobody else would notice.
pub fn report() {
    metrics::describe_counter!(
        "gantry_panics_total",
        "Broken assumptions in the server's code: each is worth a report"
    );
    std::panic::set_hook(Box::new(|panic| {
        log(panic);
        metrics::counter!("gantry_panics_total").increment(1);
        if !is_noticed(thread::current().name()) {
            signals::exit_at_once();
        }
    }));
}

/// For commands that look at damaged files: the database's library panics over some of them, which is caught there and told
/// as damage. Nobody needs its words beside that.
pub fn hide_of_database() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| is_of_database(place.file())) {
            usual(panic);
        }
    }));
}

fn is_of_database(file: &str) -> bool {
    Path::new(file).components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "redb" || part.starts_with("redb-")
    })
}

fn log(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    // Empty unless the environment asks for it (RUST_BACKTRACE).
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, thread = thread::current().name(), backtrace, "panicked: {message}");
}

/// Whether a panic on a thread of that name ends no more than a task. On a single core the main thread is the runtime.
fn is_noticed(thread: Option<&str>) -> bool {
    matches!(thread, Some(runtime::THREAD_NAME | "main"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_is_hidden() {
        assert!(is_of_database("/registry/src/index-1/redb-4.0.0/src/tree_store/btree.rs"));
        assert!(is_of_database("vendor/redb/src/db.rs"));
        assert!(!is_of_database("controller/src/raft/disk.rs"));
    }

    #[test]
    fn only_the_runtimes_threads_may_lose_a_task() {
        let worker = runtime::block_on_server(async {
            let name = tokio::task::spawn_blocking(|| is_noticed(thread::current().name()));
            Ok(name.await? && is_noticed(Some("main")))
        });
        assert!(worker.unwrap());
        assert!(!is_noticed(Some("gantry-log-writer")));
        assert!(!is_noticed(None));
    }
}
