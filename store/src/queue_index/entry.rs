//! What a queue knows of a message without reading it.

use gantry_proto::model::{LogOffset, MessageHead, QueueOffset, Timestamp, tag_hash};

/// What a queue knows about one of its messages without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Position in the queue.
    pub queue_offset: QueueOffset,
    /// Where its record begins; of a damaged entry, where about it began.
    pub log_offset: LogOffset,
    /// Bytes of its record. 0: see [`IndexEntry::is_damaged`].
    pub len: u32,
    /// Hash of its tag, see [`gantry_proto::model::tag_hash`].
    pub tag_hash: u32,
    /// Hash of its message group, made like that of a tag. 0: it has none.
    pub message_group_hash: u32,
    /// When the store took it.
    pub store_time: Timestamp,
}

impl IndexEntry {
    /// The entry of an offset whose record was lost to damage around `log_offset`.
    pub(crate) fn damaged(queue_offset: QueueOffset, log_offset: LogOffset) -> IndexEntry {
        let (len, tag_hash, message_group_hash, store_time) = (0, 0, 0, Timestamp::ZERO);
        IndexEntry { queue_offset, log_offset, len, tag_hash, message_group_hash, store_time }
    }

    /// A message was here, and its record is damaged: there is nothing to read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.len == 0
    }
}

/// What of a message's head goes into its entry and into the index of ids and keys.
pub(crate) struct Indexed {
    pub tag_hash: u32,
    pub message_group_hash: u32,
    /// Of the message id first, then of the keys. See [`crate::commit_log::record::key_hash`].
    pub hashes: smallvec::SmallVec<[u64; 4]>,
}

impl Indexed {
    pub(crate) fn of(topic: gantry_proto::model::TopicId, head: &MessageHead<'_>) -> Indexed {
        let hash = |text| crate::commit_log::record::key_hash(topic, text);
        Indexed {
            tag_hash: tag_hash(head.tag),
            message_group_hash: tag_hash(head.message_group),
            hashes: std::iter::once(head.message_id).chain(head.keys.iter().copied()).map(hash).collect(),
        }
    }
}
