//! A store, as a proxy reaches it: one stream in each direction carries all calls.
//!
//! A [`StoreLink`] has three connections to its store: one for appends, one for receives, and one for what ends deliveries or
//! keeps them, so that large deliveries and receives that wait, however many, hold up neither appends nor acknowledgements. When a connection can take more, all calls that wait for it go into one frame, and so do the
//! replies that are ready at the store: they share the cost of the frame. (`examples/hop.rs` measures it against one gRPC
//! call each.)
//!
//! The way of a call: `link` makes it a protocol message (`wire/calls`), `calls` queues it until the connection takes a
//! frame, `exchange` carries it out at the store's end and gathers the replies that are ready, and `calls` hands the answer
//! to the caller. `connection`, `handshake` and `server` make the connections.
//!
//! Calls that end a delivery or keep it (acknowledgements, changed durations, renewals, releases) are answered before pops
//! whose messages wait to be sent, and never in one frame with a large reply.
//!
//! What must always hold:
//! - A call that was never put into a frame fails with [`StoreError::NoLeader`] or [`StoreError::Busy`]. One that was put
//!   into a frame and not answered fails with [`StoreError::Unreachable`].
//! - No message stays invisible because its caller went away: a caller that stops waiting cancels its pop, and if the reply
//!   comes nevertheless, its messages are given back.
//! - A reply that is lost with its connection is given back once the proxy has connected again and has said that it does not
//!   have it (`unreceived`). If the proxy does not come back, nobody knows whether a consumer has it: its leases end by
//!   themselves.
//!
//! [`StoreError::NoLeader`]: gantry_proto::contract::StoreError::NoLeader
//! [`StoreError::Busy`]: gantry_proto::contract::StoreError::Busy
//! [`StoreError::Unreachable`]: gantry_proto::contract::StoreError::Unreachable

mod budget;
mod calls;
mod connection;
mod exchange;
#[cfg(test)]
pub(crate) mod golden;
mod handshake;
mod link;
mod linked_stores;
pub(crate) mod server;
mod unreceived;
pub mod wire;

pub use link::StoreLink;
pub use linked_stores::LinkedStores;

use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use gantry_proto::model::{Epoch, FolderId, StoreGroupId};
use std::time::Duration;

/// A frame takes no more calls or replies once it has this many bytes. A larger call or reply is a frame of its own.
const FRAME_BYTES: usize = 256 << 10;
/// Largest frame: the largest call that a client can make, with what surrounds it.
pub(crate) const FRAME_BYTES_LIMIT: usize = GRPC_MESSAGE_BYTES_MAX + (8 << 20);
/// Largest call: its frame needs some room besides.
const CALL_BYTES_MAX: usize = FRAME_BYTES_LIMIT - (1 << 20);
/// Calls under way on one stream. Waiting pops are most of them.
const CALLS_MAX: usize = 65_536;
/// Bytes of calls that wait for one connection.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Bytes of calls that wait for any connection to a store, in one process.
const QUEUED_BYTES_OF_ALL_MAX: usize = 256 << 20;
/// Bytes of the calls under way that a store holds for one stream.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Bytes of the calls under way that a store holds for all streams together.
const HELD_BYTES_OF_ALL_MAX: usize = 512 << 20;
/// Beyond these bounds, for calls that end deliveries or keep them: large messages must not let leases run out.
const CONTROL_BYTES_MAX: usize = 32 << 20;
/// How long each side waits for the first frame of the other.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a caller waits for an answer, in addition to how long it asks the store to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an attempt to connect may take before the link counts as down.
const CONNECT_GRACE: Duration = Duration::from_millis(500);

/// A store that is served, as it knows itself.
pub trait StoreIdentity: Send + Sync + 'static {
    fn store_group(&self) -> StoreGroupId;

    fn folder(&self) -> FolderId;

    /// The epoch in which it leads, or led last.
    fn epoch(&self) -> Epoch;

    /// A proxy knows of a newer epoch: the store leads no more.
    fn newer_epoch(&self, epoch: Epoch);
}
