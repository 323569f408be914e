//! Queues: which message is at which queue offset. Derived from the log.
//!
//! Messages of segments that are still in memory have their entries here ([`queue`]); each sealed segment has one
//! immutable file with the entries of all its queues and the hashes of its message ids and keys ([`sealed`]). So the
//! number of files follows the bytes stored, not the number of queues.

mod entry;
mod queue;
mod sealed;

pub(crate) use entry::IndexEntry;
pub(crate) use queue::{Queue, QueueTable, QueuesById, TopicQueues};
pub(crate) use sealed::{SealedIndex, SealedIndexError};
