//! A store, as a proxy reaches it: one stream in each direction carries all calls.
//!
//! A [`StoreLink`] has two connections to its store (lanes), one for appends and one for everything else, so that large
//! deliveries do not hold up appends. On each, the calls that wait when the connection can take more go into one frame, and
//! so do the replies that are ready: what a frame costs is shared by all that it carries. (`examples/hop.rs` measures it
//! against a gRPC call each.)
//!
//! What ends a delivery or keeps it (acknowledgements, changed durations, renewals, releases) is answered before deliveries
//! that wait to be sent, and never in a frame with a large one.
//!
//! What must always hold: a call that was never put into a frame fails with [`StoreError::NoLeader`] or
//! [`StoreError::Busy`], one that was with [`StoreError::Unreachable`] unless it was answered; no delivery stays hidden
//! because its caller went away: a caller that stops waiting cancels its pop, and a reply that comes nevertheless is
//! given back. (A reply that is lost with its connection is not: nobody knows whether a consumer has it. Its lease ends.)
//!
//! [`StoreError::NoLeader`]: gantry_proto::contract::StoreError::NoLeader
//! [`StoreError::Busy`]: gantry_proto::contract::StoreError::Busy
//! [`StoreError::Unreachable`]: gantry_proto::contract::StoreError::Unreachable

mod budget;
mod calls;
mod exchange;
#[cfg(test)]
pub(crate) mod golden;
mod handshake;
mod lane;
mod link;
mod linked_stores;
pub(crate) mod server;
pub mod wire;

pub use link::StoreLink;
pub use linked_stores::LinkedStores;

use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use gantry_proto::model::{Epoch, FolderId, StoreGroupId};
use std::time::Duration;

/// A frame takes no more calls or replies once it has this many bytes. One that is larger goes alone.
const FRAME_BYTES: usize = 256 << 10;
/// Largest frame: the largest call that a client can make, with what surrounds it.
pub(crate) const FRAME_BYTES_LIMIT: usize = GRPC_MESSAGE_BYTES_MAX + (8 << 20);
/// Largest call: room is left for what else is in its frame.
const CALL_BYTES_MAX: usize = FRAME_BYTES_LIMIT - (1 << 20);
/// Calls under way on one stream. Parked receives are most of them.
const CALLS_MAX: usize = 65_536;
/// Bytes of calls that wait for one connection.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Bytes of calls that wait for any connection to a store, in one process.
const QUEUED_BYTES_OF_ALL_MAX: usize = 256 << 20;
/// Bytes of the calls under way that a store holds for one stream.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Bytes of the calls under way that a store holds for all streams together.
const HELD_BYTES_OF_ALL_MAX: usize = 512 << 20;
/// Beyond these bounds, for what ends deliveries or keeps them: large messages must not let leases run out.
const CONTROL_BYTES_MAX: usize = 32 << 20;
/// The first frame of each side is there within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a caller waits for an answer, beyond what it told the store to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a link may be without its connections before it counts as down, unless an attempt has failed.
const MOMENT: Duration = Duration::from_millis(500);

/// What a store that is served says of itself.
pub trait StoreIdentity: Send + Sync + 'static {
    /// The group that it serves.
    fn group(&self) -> StoreGroupId;

    /// Its data folder.
    fn folder(&self) -> FolderId;

    /// The epoch in which it leads, or led last.
    fn epoch(&self) -> Epoch;

    /// A proxy knows of a newer epoch: the store's leadership is over.
    fn newer_epoch(&self, epoch: Epoch);
}
