//! The controller, as stores, proxies, operators and its own members reach it.
//!
//! [`ControllerLink`] asks one member of the controller for as long as that one answers, then the next. [`ConsensusLink`]
//! carries the calls among the members.
//!
//! What must always hold: a call that may have been carried out is not repeated at another member, unless twice has the same
//! effect as once; every call ends within a bounded time; a watch lasts as long as its link, and yields whole versions only.

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
