//! The controller: owner of the metadata (topics, consumer groups, store groups, proxies), which proxies and stores watch,
//! and of the leases by which stores may write.
//!
//! It has one or several members, each a [`Controller`] with a data folder. One of them leads; any of them takes every
//! call. A standalone server runs the same with one member and [`NoPeers`].
//!
//! A proposal's way, each step in a module of its own:
//!
//! 1. `service` takes it. A member that does not lead passes it on to the one that does, once.
//! 2. `proposer` gathers what waits into one entry of the log, with the time at which it is to be carried out.
//! 3. `raft` makes the entry durable on most members: one sync each. From then on it is never lost.
//! 4. Each member applies the entry to its [`MetadataState`] and publishes the changes to everybody who watches (`feed`).
//! 5. The answers go out, refusals too: a refusal may rest on a change of the same entry.
//!
//! A member whose disk failed is opened again in its process (`host`).
//!
//! Leases and signs of life do not go through the log: the member that leads keeps them in memory (`liveness`), has most
//! members confirm that it leads before it grants anything, and proposes a command when one of them has ended (`duties`).
//!
//! What must always hold:
//! - Nothing is answered or published before it is durable on most members.
//! - The state is a function of the commands and of the times stored with them; `apply` knows no clock and no disk. The
//!   version counts carried-out commands, so it is the same on all members.
//! - Members of different versions decide alike: by the rules that the state names (`state::rules`). One whose state differs
//!   from the others' stops (`comparing`); so does one that does not know what was decided.
//! - Identities, versions and epochs are never used twice, whatever is deleted. A controller that was put back to an earlier
//!   state is told by the stores which were given (`heard_ids`).
//! - Two leases of one store group never overlap, whichever members granted them.
//! - No threads, no time but tokio's, no randomness but the environment's: a seed determines everything.

mod codec;
mod comparing;
mod config;
mod controller;
mod duties;
mod feed;
mod heard_ids;
mod host;
mod inspect;
mod liveness;
mod no_peers;
mod open_error;
mod proposer;
mod raft;
mod rebuild;
mod service;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use config::{ControllerConfig, STANDALONE};
pub use controller::{Controller, Failed};
pub use host::ControllerHost;
pub use inspect::{
    Acknowledged, FolderMetadata, StoredContent, StoredValue, Unreadable, inspect, inspect_acknowledged, metadata_in,
};
pub use liveness::LeaseSettings;
pub use no_peers::NoPeers;
pub use open_error::{OpenError, way_out};
pub use rebuild::{Rebuild, RebuildError, RebuiltGroup, RebuiltMetadata, RebuiltTopic, is_lost};
pub use state::MetadataState;
