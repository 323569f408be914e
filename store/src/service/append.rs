//! Append: from a request to records in the log's open batch, then the wait for their confirmation.
//!
//! A message whose id was seen on its topic a short while ago is not stored again: the producer did not hear the first
//! answer, and gets it now.

use crate::commit_log::record::{BatchFrame, RecordHeader, RecordKind, message_record_len, write_message};
use crate::commit_log::segment::ReadError;
use crate::commit_log::tail::NoRoom;
use crate::queue_index::{IndexEntry, Indexed, Queue};
use crate::store::Store;
use gantry_proto::contract::{AppendError, AppendReply, AppendRequest, Appended, StoreError};
use gantry_proto::model::{LogOffset, MessageHead, QueueId, StoredMessage, TopicId};
use smallvec::SmallVec;
use std::sync::Arc;

impl Store {
    pub(crate) async fn append_messages(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.disk.admit()?;
        let queue = self.queue(request.topic, request.queue)?;
        if self.draining.look(&self.view, self.home()?) {
            self.check_writable(request.topic)?;
        }
        let drafts: SmallVec<[Draft<'_>; 1]> =
            request.messages.iter().map(|message| self.draft(&queue, message)).collect::<Result<_, _>>()?;
        let bytes = request.messages.iter().map(message_record_len).sum();
        let (appended, end) = loop {
            match self.push_messages(&queue, &drafts, bytes) {
                Err(PushError::NoRoom(NoRoom::SegmentNotReady)) => {
                    self.log.room_for(bytes).await.map_err(append_error)?;
                }
                // The first copy is being written: its answer is this one's.
                Err(PushError::Underway(at)) => self.log.confirmed(at.plus(1)).await?,
                Err(PushError::NoRoom(no_room)) => return Err(append_error(no_room)),
                Err(PushError::Refused(error)) => return Err(error),
                Ok(pushed) => break pushed,
            }
        };
        self.log.acknowledged(end).await?;
        Ok(AppendReply { appended })
    }

    /// What must be known of a message before the locks are taken.
    fn draft<'a>(&self, queue: &Queue, message: &'a StoredMessage) -> Result<Draft<'a>, AppendError> {
        let head = MessageHead::parse(&message.head)
            .map_err(|error| StoreError::Unreadable(format!("a message was handed over damaged: {error}")))?;
        let indexed = Indexed::of(queue.topic, &head);
        let key = self.dedup_key(queue.topic, head.message_id);
        Ok(Draft { message, message_id: head.message_id, indexed, key })
    }

    /// Puts messages into the log, but for those that are there. Returns where each is, and what to wait for.
    fn push_messages(
        &self,
        queue: &Arc<Queue>,
        drafts: &[Draft<'_>],
        bytes: usize,
    ) -> Result<(SmallVec<[Appended; 1]>, LogOffset), PushError> {
        let mut dedup = self.dedup.lock();
        // Before anything is pushed: all or none.
        let mut known: SmallVec<[Option<Appended>; 1]> = SmallVec::with_capacity(drafts.len());
        for draft in drafts {
            let seen = draft.key.and_then(|key| dedup.get(key));
            known.push(seen.map_or(Ok(None), |at| self.recognize(queue.topic, draft, at))?);
        }
        let mut appended = SmallVec::with_capacity(drafts.len());
        let _whole = self.log.whole();
        let mut appender = self.log.begin();
        let fresh = known.iter().filter(|known| known.is_none()).count();
        let frame = if fresh > 1 { BatchFrame::RECORD_LEN } else { 0 };
        appender.reserve(bytes + frame).map_err(PushError::NoRoom)?;
        if fresh > 1 {
            let fresh_bytes = drafts.iter().zip(&known).filter(|(_, known)| known.is_none());
            appender.push_batch_frame(fresh, fresh_bytes.map(|(draft, _)| message_record_len(draft.message)).sum());
        }
        let store_time = appender.store_time();
        let mut queue_offset = queue.next();
        let first = queue_offset;
        for (draft, known) in drafts.iter().zip(known) {
            if let Some(known) = known {
                appended.push(known);
                continue;
            }
            let place = (queue.topic, queue.id, queue_offset);
            let (log_offset, len) = appender.push(RecordKind::Message, place, |out| write_message(out, draft.message));
            let Indexed { tag_hash, message_group_hash, hashes } = &draft.indexed;
            let (tag_hash, message_group_hash) = (*tag_hash, *message_group_hash);
            let entry = IndexEntry { queue_offset, log_offset, len, tag_hash, message_group_hash, store_time };
            self.queues.push(queue, appender.segment_base(), entry, hashes);
            if let Some(key) = draft.key {
                dedup.insert(key, log_offset, store_time);
            }
            appended.push(Appended { queue_offset, log_offset, store_time });
            queue_offset = queue_offset.next();
        }
        if queue_offset == first {
            // All of them were confirmed long ago.
            return Ok((appended, LogOffset(0)));
        }
        appender.arrival(queue, queue_offset);
        Ok((appended, appender.end()))
    }

    /// The message at `at` if it is this one: same id, same body. `None`: another one, or it has expired.
    fn recognize(&self, topic: TopicId, draft: &Draft<'_>, at: LogOffset) -> Result<Option<Appended>, PushError> {
        if at >= self.log.confirmed.get() {
            return Err(PushError::Underway(at));
        }
        let record = match self.log.segments.read_whole(at) {
            Ok(record) => record,
            Err(ReadError::Gone(_)) => return Ok(None),
            Err(error) => return Err(PushError::Refused(StoreError::Unreadable(error.to_string()).into())),
        };
        let Ok(span) = record.message_span() else { return Ok(None) };
        let stored = span.message(&record.bytes);
        let same_id = stored.parse_head().is_ok_and(|head| head.message_id == draft.message_id);
        if record.header.topic != topic || !same_id {
            return Ok(None);
        }
        if stored.body != draft.message.body {
            let message_id = draft.message_id.to_owned();
            return Err(PushError::Refused(AppendError::IdReused { message_id }));
        }
        let RecordHeader { queue_offset, log_offset, store_time, .. } = record.header;
        Ok(Some(Appended { queue_offset, log_offset, store_time }))
    }

    /// The queue, which exists if the metadata place it on this store group.
    pub(crate) fn queue(&self, topic: TopicId, queue: QueueId) -> Result<Arc<Queue>, AppendError> {
        if let Some(found) = self.queues.get(topic).and_then(|topic| topic.queue(queue)) {
            return Ok(found);
        }
        let home = self.home()?;
        let known = self.view.topic_by_id(topic).ok_or(AppendError::UnknownQueue(topic))?;
        match known.placement.store_group(queue) {
            Some(group) if group == home => Ok(self.queues.open_queue(topic, queue)),
            _ => Err(AppendError::UnknownQueue(topic)),
        }
    }

    /// Refuses messages while the store group is being drained and the topic has other queues that take them.
    fn check_writable(&self, topic: TopicId) -> Result<(), AppendError> {
        let known = self.view.topic_by_id(topic).ok_or(AppendError::UnknownQueue(topic))?;
        if self.queues.open(topic, []).has_active_queue(known, &self.view) {
            Err(AppendError::Draining)
        } else {
            Ok(())
        }
    }
}

/// A message about to be appended.
struct Draft<'a> {
    message: &'a StoredMessage,
    message_id: &'a str,
    indexed: Indexed,
    /// Under which it is remembered.
    key: Option<u64>,
}

enum PushError {
    NoRoom(NoRoom),
    /// A message with the same id lies there and is not confirmed yet.
    Underway(LogOffset),
    Refused(AppendError),
}

fn append_error(no_room: NoRoom) -> AppendError {
    match no_room {
        NoRoom::TooLarge { bytes, max } => AppendError::TooLarge { bytes, max },
        other => AppendError::Store(super::no_room(other)),
    }
}
