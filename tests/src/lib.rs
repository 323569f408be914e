//! End to end: the `gantry` binary as it ships, driven by unmodified official clients.
//!
//! [`Server`] starts, kills and restarts the binary, as one process or as a cluster of them. [`Client`] runs one language's scenario program from `clients/`,
//! building it first if need be. A scenario is added once per language there and once in the list of the test that
//! runs it.

#![allow(clippy::disallowed_methods, reason = "these tests are about real processes in real time")]

pub mod attack;
mod client;
mod durations;
mod port;
mod process;
mod server;

pub use client::{Client, Outcome, Running, assert_all_there_once};
pub use durations::Durations;
pub use process::{help, said};
pub use server::{Server, Shape};

use std::path::PathBuf;
use std::time::Duration;

/// How long anything may take before a test gives up on it. A machine that builds at the same time is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder that cargo builds into.
fn target_dir() -> PathBuf {
    // A test binary is target/PROFILE/deps/NAME.
    let own = std::env::current_exe().expect("a process knows its executable");
    own.ancestors().nth(3).expect("a test binary lies three folders below the target folder").to_owned()
}
