//! Consensus: one log of commands, the same on every member, durable on most of them before anything is answered.
//!
//! [openraft] decides; here is what it stands on. `log_store` and `state_machine` keep everything in one file (`disk`, over
//! `backend`), `network` carries the members' calls, `node` puts it together for the rest of the crate.

mod acknowledged;
mod backend;
mod codec;
mod digests;
mod disk;
mod incoming;
mod log_store;
mod messages;
mod network;
mod node;
mod offline;
mod state_machine;
#[cfg(test)]
mod tests;
mod type_config;

pub use acknowledged::Slots;
pub(crate) use acknowledged::{NAME as ACKNOWLEDGED, read as read_acknowledged};
pub(crate) use disk::{FILE, LOCK, TEMPORARY, is_there, make_with_snapshot, read_values};
pub(crate) use messages::Kind;
pub(crate) use node::{Leader, Leadership, Node, NodeError, Peer};
pub use offline::FolderMetadata;
pub(crate) use type_config::Batch;
