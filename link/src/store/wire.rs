//! The contract's types as protocol messages and back. What cannot be understood is an error, never a guess.

mod calls;
mod failures;
mod replies;
#[cfg(test)]
mod tests;

pub(crate) use calls::{Request, ack, append, change_invisible, dead_letter, give_back, pop, read, release, renew};
pub(crate) use failures::{Failed, WireFailure};
pub(crate) use replies::{
    acked, appended, popped, progress, queues, read_acked, read_appended, read_popped, read_progress, read_queues,
    read_remains, remains,
};

use std::time::Duration;

/// A message that this version does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is not one that this version understands")]
pub struct Malformed(pub(crate) &'static str);

/// Nanoseconds, at most as many as fit: more than 500 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
