//! gRPC between the tiers: both ends of every contract of [`gantry_proto::contract`].
//!
//! Whoever asks holds a link ([`StoreLink`], [`LinkedStores`], [`ControllerLink`], [`ConsensusLink`]), which implements the
//! contract; whoever is asked gives its implementation to [`PeerServices`], which a [`PeerServer`] serves. Neither can tell
//! whether the other one is in the same process.
//!
//! - [`transport`]: connections between peers, opened and taken through the passed `Network`, all HTTP/2.
//! - [`security`]: who may speak to a peer at all.
//! - [`store`]: one stream that carries all calls of a connection to a store.
//! - [`controller`]: calls to the controller, the watched metadata, and its members' calls to one another.
//!
//! A [`LocalPeer`] is this process among them. All that travels is versioned (`versions`), and everybody says whom it takes
//! the other one for before anything is asked: who is somebody else, or of another cluster, is refused by name.
//!
//! What must always hold: a call that fails says truly whether it may have taken effect; nothing is served to a peer
//! before it has proved that it belongs to the cluster, or to one of another cluster; what a peer says that this version
//! does not know is skipped or refused by itself, and ends nothing else; every wait and every queue is bounded; a dead connection is
//! noticed within seconds and made anew with backoff; every task ends with the link or the server that owns it; time is
//! tokio's and randomness is the passed one.

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
