//! The outside world, passed in: time, randomness, files, sockets and threads. The real ones live in `gantry-deploy`; [`fake`] has
//! stand-ins that a test can stop, seed and crash.

mod files;
mod network;
mod workers;

#[cfg(feature = "fake")]
pub mod fake;

pub use files::{
    DirEntry, DirectoryLock, File, FileIdentity, FileStatus, Files, OpenMode, is_unreadable, make_durable,
};
pub use network::{Addressed, Connection, Listener, Network};
pub use workers::{WorkPanicked, Workers};

use crate::model::Timestamp;
use std::sync::Arc;
use tokio::time::Instant;

/// Wall-clock time, as it is stamped on records. It may jump: measure spans with tokio's `Instant` inside tasks.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;

    /// Monotonic time, to compare with wall-clock time.
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// Random bytes for keys, ids and jitter.
pub trait Random: Send + Sync + 'static {
    /// Fills `buffer` with bytes that nobody can predict (in production) or that a seed determines (in simulation).
    fn fill(&self, buffer: &mut [u8]);
}

/// Everything a tier may ask of the machine.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub files: Arc<dyn Files>,
    pub network: Arc<dyn Network>,
    /// Threads for what blocks.
    pub workers: Arc<dyn Workers>,
}
