//! Stand-ins for the outside world that a test can stop, seed, break and crash.
//!
//! Tests of every tier and the simulation build an [`Env`] from here. What must always hold: the same seed and the same
//! calls give the same bytes, and [`FakeFiles`] never keeps more than POSIX promises for a synced file and a synced
//! directory.

mod clock;
mod contents;
mod faults;
mod files;
mod names;
mod network;
mod random;
mod wires;
mod workers;

pub use clock::FakeClock;
pub use faults::FakeOp;
pub use files::FakeFiles;
pub use network::{Loopback, NoNetwork};
pub use random::SeededRandom;
pub use wires::Wires;
pub use workers::InlineWorkers;

use super::Env;
use std::sync::Arc;

/// A machine with an empty disk, a clock that stands still, and randomness that `seed` determines.
pub fn env(seed: u64) -> (Env, FakeFiles, FakeClock) {
    let (files, clock) = (FakeFiles::new(), FakeClock::new());
    let env = Env {
        clock: Arc::new(clock.clone()),
        random: Arc::new(SeededRandom::new(seed)),
        files: Arc::new(files.clone()),
        network: Arc::new(NoNetwork),
        workers: Arc::new(InlineWorkers),
    };
    (env, files, clock)
}
