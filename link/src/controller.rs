//! The controller, as stores, proxies, operators and its own members reach it.
//!
//! [`ControllerLink`] keeps to one member of the controller while that one answers, and goes on to the next when it does
//! not. What a member decides comes back as it decided it, refusals too. [`ConsensusLink`] carries what members say to
//! one another.
//!
//! What must always hold: a call that may have been carried out is not made again at another member, unless carrying it
//! out twice is the same as once; every call ends within a bounded time; a watch goes on for as long as the link lives,
//! and what it yields are whole versions.

mod consensus;
#[cfg(test)]
pub(crate) mod golden;
mod link;
pub(crate) mod server;
mod watch;

pub use consensus::ConsensusLink;
pub use link::ControllerLink;

/// Bytes of a page of a watch, unless one change is larger.
const PAGE_BYTES: usize = 256 << 10;
/// Largest reply of a member: a page with a change that is larger than a page should be, a status of a large cluster.
const REPLY_BYTES_MAX: usize = 16 << 20;
