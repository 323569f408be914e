//! The real world behind [`Env`]: the one place of the program that asks the operating system for time, randomness,
//! files, sockets and threads.
//!
//! `main` builds it once with [`system`] and passes it to every tier.

mod files;
mod network;
mod workers;

pub use files::SystemFiles;
pub(crate) use files::too_many_files;
pub use network::SystemNetwork;
pub use workers::TokioWorkers;

use gantry_proto::env::{Clock, Env, Random};
use gantry_proto::model::Timestamp;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The operating system's clock, randomness, files and sockets, and the threads of the runtime that asks.
pub fn system() -> Env {
    Env {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        files: Arc::new(SystemFiles),
        network: Arc::new(SystemNetwork),
        workers: Arc::new(TokioWorkers),
    }
}

/// The system's wall clock.
pub struct SystemClock;

/// The operating system's random numbers.
pub struct SystemRandom;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock that everybody else is passed")]
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as the epoch: an instant that is never negative.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::ZERO.after(since_epoch)
    }
}

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // Keys and ids must not be made without randomness, and a machine without it cannot be served by going on.
        getrandom::fill(buffer).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_a_plausible_year() {
        let years = SystemClock.now().as_millis() / 1000 / 60 / 60 / 24 / 365;
        assert!((50..200).contains(&years), "{years} years since 1970");
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemRandom.fill(&mut a);
        SystemRandom.fill(&mut b);
        assert_ne!(a, b);
    }
}
