//! gRPC between the tiers: both ends of every contract of [`gantry_proto::contract`].
//!
//! The calling end is a link ([`StoreLink`], [`LinkedStores`], [`ControllerLink`], [`ConsensusLink`]) that implements the
//! contract. At the other end the implementation is put into [`PeerServices`], which a [`PeerServer`] serves. Neither end can
//! tell whether the other one is in the same process.
//!
//! - [`transport`]: HTTP/2 connections between peers, through the `Network` that is passed in.
//! - [`security`]: who may connect to a peer at all.
//! - [`store`]: one stream that carries all calls of a connection to a store.
//! - [`controller`]: calls to the controller, the watched metadata, and its members' calls to one another.
//!
//! A [`LocalPeer`] is this process as a peer. Every protocol has versions (`versions`). Before any call, each end says which
//! peer it means: a peer that is another one, or of another cluster, is refused by name.
//!
//! What must always hold:
//! - A call that fails says truly whether it may have taken effect.
//! - A peer is served nothing before it has proved that it belongs to the cluster; a peer of another cluster is served
//!   nothing at all.
//! - A message that this version does not know is skipped or refused, and ends nothing else.
//! - Every wait and every queue is bounded. A dead connection is noticed within seconds, and made again with backoff.
//! - Every task ends with the link or the server that owns it. Time is tokio's; randomness is passed in.

pub mod controller;
// Reads files, as only tests may.
#[cfg(test)]
#[path = "../tests/golden/mod.rs"]
mod golden;
mod local_peer;
pub mod security;
pub mod store;
pub mod transport;
mod versions;

pub use controller::{ConsensusLink, ControllerLink};
pub use local_peer::{LocalPeer, OtherCluster};
pub use security::{MutualTls, PeerCredentials, SharedToken};
pub use store::{LinkedStores, StoreIdentity, StoreLink};
pub use transport::{PeerServer, PeerServices};
