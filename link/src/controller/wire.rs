//! The controller's vocabulary as protocol messages and back. What cannot be understood is an error, never a guess.

mod membership;
mod metadata;
mod model;
mod refusal;
#[cfg(test)]
mod tests;

pub(super) use crate::store::wire::{Malformed, nanos};

/// A type of the contract that travels as a protocol message.
pub(super) trait Wire: Sized {
    type Message;

    fn to_wire(&self) -> Self::Message;

    fn from_wire(message: Self::Message) -> Result<Self, Malformed>;
}

/// What must be there, though the protocol cannot say so.
pub(super) fn required<T: Wire>(message: Option<T::Message>, what: &'static str) -> Result<T, Malformed> {
    T::from_wire(message.ok_or(Malformed(what))?)
}
