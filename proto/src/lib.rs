//! What Gantry's tiers say to each other. No I/O and no tasks live here, and this crate depends on no other of ours.
//!
//! - [`wire`]: generated protocol types. Only the proxy, the client, the bench and the tests use the client protocol ([`wire::v2`]).
//! - [`model`]: domain newtypes. Parsing is their only constructor, so a value in hand is valid.
//! - [`contract`]: the traits where tiers meet, [`contract::StoreService`] and [`contract::MetadataService`].
//! - [`convert`]: the contract's types as messages of the controller's protocol, and back.
//! - [`env`]: the outside world as traits, so that a simulation can replace it.

pub mod contract;
pub mod convert;
pub mod env;
pub mod model;
pub mod wire;
