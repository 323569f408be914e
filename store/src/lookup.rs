//! Finds messages by their id or one of their keys, over the whole retained log. What is absent costs no read: it is in no
//! filter of a sealed segment and not among the hashes of the others.

use crate::commit_log::segment::ReadError;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, MessageHead, QueueId, QueueOffset, Timestamp, TopicId};

/// A message that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagePlace {
    pub queue: QueueId,
    /// Its place there.
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    /// When the store took it.
    pub store_time: Timestamp,
}

impl Store {
    /// The confirmed messages of a topic that have this id or this key, oldest first, at most `max`. Blocks while it reads.
    pub fn find_messages(&self, topic: TopicId, id_or_key: &str, max: usize) -> Result<Vec<MessagePlace>, StoreError> {
        let confirmed_to = self.log.confirmed.get();
        let mut places = Vec::new();
        for at in self.queues.find(crate::commit_log::record::key_hash(topic, id_or_key))? {
            if at >= confirmed_to || places.len() == max {
                break;
            }
            let record = match self.log.read_record_blocking(at) {
                Ok(record) => record,
                Err(ReadError::Gone(_)) => continue,
                Err(error) => return Err(StoreError::Unreadable(error.to_string())),
            };
            let unreadable = |why: String| StoreError::Unreadable(format!("the message at log offset {at}: {why}"));
            let span = record.message_span().map_err(|error| unreadable(error.to_string()))?;
            let head = MessageHead::parse(span.head(&record.bytes)).map_err(|error| unreadable(error.to_string()))?;
            // Another text may have the same hash.
            let is_it = head.message_id == id_or_key || head.keys.contains(&id_or_key);
            if is_it && record.header.topic == topic && self.holds(&record.header) {
                let (queue, queue_offset) = (record.header.queue, record.header.queue_offset);
                places.push(MessagePlace { queue, queue_offset, log_offset: at, store_time: record.header.store_time });
            }
        }
        Ok(places)
    }
}
