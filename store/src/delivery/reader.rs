//! What delivery asks of the queues of a topic.

use crate::queue_index::IndexEntry;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{QueueId, QueueOffset};

/// The queues of one topic. May change between two calls (messages arrive, retention removes some), but only forwards.
pub(crate) trait QueueReader {
    /// Queues are counted from 0.
    fn queue_count(&self) -> u32;

    /// First retained offset, and the first offset that consumers must not see yet.
    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset);

    /// Adds entries from `from` on to `out`, consecutive ones, at least one and at most `max`. None if `from` is not held.
    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError>;
}
