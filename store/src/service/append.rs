//! Append: from a request to records in the log's open batch, then the wait for their confirmation.

use crate::commit_log::record::{RecordKind, message_record_len, write_message};
use crate::commit_log::tail::NoRoom;
use crate::queue_index::{IndexEntry, Queue};
use crate::store::Store;
use gantry_proto::contract::{AppendError, AppendReply, AppendRequest, Appended, StoreError};
use gantry_proto::model::{LogOffset, MessageHead, QueueId, StoredMessage, TopicId, tag_hash};
use smallvec::SmallVec;
use std::sync::Arc;

impl Store {
    pub(crate) async fn append_messages(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.disk.admit()?;
        let queue = self.queue(request.topic, request.queue)?;
        let tags = tag_hashes(&request.messages)?;
        let bytes = request.messages.iter().map(message_record_len).sum();
        let (appended, end) = loop {
            match self.push_messages(&queue, &request.messages, &tags, bytes) {
                Err(NoRoom::SegmentNotReady) => self.log.room_for(bytes).await.map_err(append_error)?,
                pushed => break pushed.map_err(append_error)?,
            }
        };
        self.log.confirmed(end).await?;
        Ok(AppendReply { appended })
    }

    fn push_messages(
        &self,
        queue: &Arc<Queue>,
        messages: &[StoredMessage],
        tags: &[u32],
        bytes: usize,
    ) -> Result<(SmallVec<[Appended; 1]>, LogOffset), NoRoom> {
        let mut appended = SmallVec::with_capacity(messages.len());
        let _whole = self.log.whole();
        let mut appender = self.log.begin();
        appender.reserve(bytes)?;
        let store_time = appender.store_time();
        let mut queue_offset = queue.next();
        for (message, tag_hash) in messages.iter().zip(tags) {
            let place = (queue.topic, queue.id, queue_offset);
            let (log_offset, len) = appender.push(RecordKind::Message, place, |out| write_message(out, message));
            queue.push(IndexEntry { queue_offset, log_offset, len, tag_hash: *tag_hash, store_time });
            appended.push(Appended { queue_offset, log_offset, store_time });
            queue_offset = queue_offset.next();
        }
        appender.arrival(queue, queue_offset);
        Ok((appended, appender.end()))
    }

    /// The queue, which exists if the metadata says so.
    pub(crate) fn queue(&self, topic: TopicId, queue: QueueId) -> Result<Arc<Queue>, AppendError> {
        if let Some(found) = self.queues.get(topic).and_then(|topic| topic.queue(queue)) {
            return Ok(found);
        }
        let known = self.view.topic_by_id(topic).ok_or(AppendError::UnknownQueue(topic))?;
        self.queues.open(topic, known.queue_count).queue(queue).ok_or(AppendError::UnknownQueue(topic))
    }
}

fn tag_hashes(messages: &[StoredMessage]) -> Result<SmallVec<[u32; 1]>, AppendError> {
    let hash = |message: &StoredMessage| match MessageHead::parse(&message.head) {
        Ok(head) => Ok(tag_hash(head.tag)),
        Err(error) => Err(StoreError::Unreadable(format!("a message was handed over damaged: {error}"))),
    };
    Ok(messages.iter().map(hash).collect::<Result<_, _>>()?)
}

fn append_error(no_room: NoRoom) -> AppendError {
    match no_room {
        NoRoom::TooLarge { bytes, max } => AppendError::TooLarge { bytes, max },
        other => AppendError::Store(super::no_room(other)),
    }
}
