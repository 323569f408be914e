//! The controller: owner of the metadata (topics, consumer groups), which proxies and stores watch.
//!
//! A proposal's way, each step in a module of its own:
//!
//! 1. [`Controller`] takes a command and queues it ([`MetadataService::propose`](gantry_proto::contract::MetadataService)).
//! 2. The [`Committer`], the only writer, takes what waits as one batch and decides it on the [`MetadataState`].
//! 3. `journal` makes the batch durable: one frame, one sync.
//! 4. `feed` publishes the changes to everybody who watches.
//! 5. The answers go out, refusals too: a refusal may rest on a change of the same batch.
//!
//! What must always hold:
//! - Nothing is answered or published before it is durable.
//! - The state is a function of the commands and of the times stored with them; `apply` knows no clock and no disk. So
//!   the journal can give way to a replicated log without touching `state` or `codec`.
//! - Identities and versions are never used twice, whatever is deleted.

mod codec;
mod committer;
mod config;
mod controller;
mod feed;
mod journal;
mod open_error;
mod state;
#[cfg(test)]
mod testing;

pub use committer::Committer;
pub use config::ControllerConfig;
pub use controller::Controller;
pub use journal::Recovery;
pub use open_error::OpenError;
pub use state::MetadataState;
