//! Queues: which message is at which queue offset. Derived from the log.
//!
//! Messages of segments that have no index yet have their entries with their queues, in memory. Each sealed segment has one
//! immutable file with the entries of all its queues and the hashes of its message ids and keys. So the number of files
//! follows the bytes stored, not the number of queues, and a queue that is idle takes no memory for each segment.
//!
//! # What must always hold
//! - A sealed index is the same, byte for byte, whether it was written from memory or built again from its segment
//!   (`an_index_that_is_made_again_is_the_same`).
//! - Nothing of an index is believed whose checksum does not match; a damaged index is built again
//!   (`a_flipped_bit_in_an_index_is_never_data_and_the_index_is_made_again`).
//! - A queue's offsets are dense. One whose record was lost to damage is answered with an entry that says so
//!   (`damage_in_a_segment_leaves_the_rest_of_its_index_whole`).
//!
//! | file | what |
//! |---|---|
//! | `table` | all queues and all indexes |
//! | `topic`, `queue`, `recent` | a topic's queues; one of them; its newest entries |
//! | `unsealed` | what is known of segments without an index |
//! | `build`, `sealed`, `sealed_set` | writing an index; one of them; all of them |
//! | `blocks`, `filter` | the container and the filter in an index file |

mod blocks;
mod build;
mod entry;
mod filter;
mod queue;
mod recent;
mod sealed;
mod sealed_set;
mod table;
mod topic;
mod unsealed;

pub(crate) use entry::{IndexEntry, Indexed};
use gantry_proto::model::{QueueId, QueueOffset, TopicId};
pub(crate) use queue::Queue;
pub(crate) use sealed::{QueueRun, SealedIndex, SealedIndexError};
pub(crate) use sealed_set::{IndexedSegment, SealedSet};
pub(crate) use table::QueueTable;
pub(crate) use topic::{QueuesById, TopicQueues};

/// What a checkpoint says of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub topic: TopicId,
    pub queue: QueueId,
    /// First retained offset.
    pub min: QueueOffset,
    /// Next offset to be given.
    pub next: QueueOffset,
}
