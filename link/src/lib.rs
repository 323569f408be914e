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
//! What must always hold: a call that fails says truly whether it may have taken effect; nothing is served to a peer
//! before it has proved that it belongs to the cluster; every wait and every queue is bounded; a dead connection is
//! noticed within seconds and made anew with backoff; every task ends with the link or the server that owns it; time is
//! tokio's and randomness is the passed one.

pub mod controller;
pub mod security;
pub mod store;
pub mod transport;

pub use controller::{ConsensusLink, ControllerLink};
pub use security::{MutualTls, PeerCredentials, SharedToken};
pub use store::{LinkedStores, StoreIdentity, StoreLink};
pub use transport::{PeerServer, PeerServices};
