use gantry_proto::model::{LogOffset, QueueOffset, Timestamp};

/// What a queue knows about one of its messages without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Position in the queue.
    pub queue_offset: QueueOffset,
    /// Where its record begins.
    pub log_offset: LogOffset,
    /// Bytes of its record.
    pub len: u32,
    /// Hash of its tag, see [`gantry_proto::model::tag_hash`].
    pub tag_hash: u32,
    /// When the store took it.
    pub store_time: Timestamp,
}
