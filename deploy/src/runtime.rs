//! The threads that futures run on, and the pages that their memory comes in.

use anyhow::Context as _;
use std::future::Future;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Name of the threads of the runtime.
pub const THREAD_NAME: &str = "gantry";

/// How long threads may take to notice that the server has ended.
const LEFTOVERS_DEADLINE: Duration = Duration::from_secs(1);

/// Keeps this process out of transparent huge pages. A server keeps many small things for long (1,000 sessions are 1,000
/// pairs of half-empty buffers); with pages of 2 MiB each of them holds its neighbours' memory too, which made a proxy with
/// 1,000 idle sessions half as large again and sent no message faster. Call it first: pages already there stay as they are.
///
/// It is an advice: where the system does not take it, memory is larger and all else the same.
pub fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Raises the number of files that this process may have open to what the system lets it have: the log alone has two per
/// segment, and each client a connection.
pub fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!(?current, ?maximum, "the limit of open files cannot be raised");
    }
}

/// Runs a server: one worker per core that this process may use. With a single core everything runs on this thread, which
/// spares handing work from one thread to another.
pub fn block_on_server<T>(server: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let cores = available_parallelism().map_or(1, usize::from);
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if cores > 1 {
        builder.worker_threads(cores);
    }
    let runtime = start(&mut builder)?;
    let result = runtime.block_on(server);
    // Whatever had to finish has finished; a thread that still reads or writes must not hold the process up.
    runtime.shutdown_timeout(LEFTOVERS_DEADLINE);
    result
}

/// Runs a short-lived client.
pub fn block_on_client<T>(client: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    start(&mut Builder::new_current_thread())?.block_on(client)
}

fn start(builder: &mut Builder) -> anyhow::Result<Runtime> {
    builder.enable_all().thread_name(THREAD_NAME).build().context("cannot start the threads of the runtime")
}
