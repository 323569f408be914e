//! The controller's vocabulary as protocol messages and back: in calls, in the replicated log and in snapshots alike.
//!
//! Both ends of a call need it, and so does the controller's disk. What must always hold:
//! - What cannot be understood is an error, never a guess, and never a panic. It says that it was not understood, not that it
//!   is damaged: whether bytes are what was written, only a checksum can say.
//! - Equal values give equal bytes: there are no maps in these messages.

mod membership;
mod metadata;
mod model;
mod refusal;
mod replies;
#[cfg(test)]
mod tests;

pub use metadata::{put_ranges, read_ranges, watched};
use std::time::Duration;

/// A message, or a part of one, that this version does not understand: most likely of a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is not one that this version understands")]
pub struct Malformed(pub &'static str);

/// A type of the contract that travels as a protocol message.
pub trait Wire: Sized {
    type Message;

    /// The value as a message.
    fn to_wire(&self) -> Self::Message;

    /// The value that a message carries.
    fn from_wire(message: Self::Message) -> Result<Self, Malformed>;
}

/// What must be there, though the protocol cannot say so.
pub fn required<T: Wire>(message: Option<T::Message>, what: &'static str) -> Result<T, Malformed> {
    T::from_wire(message.ok_or(Malformed(what))?)
}

/// Nanoseconds, at most as many as fit: more than 500 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
