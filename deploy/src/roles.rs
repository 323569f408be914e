//! The composition roots: what a process of each role is made of, and in which order it starts and stops. Everything is
//! built here, and nothing is reachable through a static.
//!
//! | role | parts, in the order of their start |
//! |---|---|
//! | [`Standalone`] | controller with one voter, store, proxy: each gets the objects below it behind their contracts |
//! | [`ControllerRole`] | controller, its port for peers |
//! | [`StoreRole`] | link to the controller, store, its port for peers |
//! | [`ProxyRole`] | link to the controller, links to the stores, proxy |
//!
//! They stop the other way round, each part with a deadline. Must always hold: nobody is served before the metadata are
//! known and what is served is open; what is below outlives the last call from above.

mod controller;
mod peers;
mod proxy;
mod standalone;
mod store;
mod view;

pub use controller::ControllerRole;
pub use proxy::ProxyRole;
pub use standalone::Standalone;
pub use store::StoreRole;
