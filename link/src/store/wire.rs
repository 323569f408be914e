//! The store contract's types as protocol messages, and back. What is not understood is an error, never a guess.

mod calls;
mod failures;
mod replies;
#[cfg(test)]
mod tests;

pub(crate) use calls::{
    Request, ack, append, change_invisible, dead_letter, give_back, is_control, pop, release, renew, understand,
};
pub(crate) use failures::{AsFailure, WireFailure};
pub(crate) use replies::{
    acked, appended, popped, progress, queues, read_acked, read_appended, read_popped, read_progress, read_queues,
    read_remains, remains,
};

pub use gantry_proto::convert::Malformed;
pub(crate) use gantry_proto::convert::nanos;
