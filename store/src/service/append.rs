//! Append: from a request to records in the log's open batch, then the wait for their confirmation.
//!
//! A message whose id was seen on its topic a short while ago is not stored again: the producer did not hear the first
//! answer, and gets it now. The same holds for two of one id in one request. Whether the message seen is this one is found
//! out by reading it, under no lock.

use crate::apply::{self, Arrival};
use crate::commit_log::record::{BatchFrame, RecordHeader, RecordKind, message_record_len, write_message};
use crate::commit_log::segment::{ReadError, Record};
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::dedup::DedupWindow;
use crate::draining::Takes;
use crate::queue_index::{IndexEntry, Indexed, Queue};
use crate::store::Store;
use gantry_proto::contract::{AppendError, AppendReply, AppendRequest, Appended, StoreError};
use gantry_proto::model::{LogOffset, MessageHead, QueueId, Removed, StoredMessage, TopicId};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

impl Store {
    pub async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.disk.admit()?;
        self.check_understood(Removed::Topic(request.topic))?;
        let queue = self.queue(request.topic, request.queue)?;
        let home = self.home()?;
        let takes = self.draining.look(&self.view, home);
        if takes != Takes::None && self.draining.is_closed() {
            // It was opened again.
            self.draining.follow(&self.view, home);
        }
        match takes {
            Takes::All => {}
            Takes::Stranded => self.check_writable(request.topic)?,
            Takes::None => return Err(AppendError::Draining),
        }
        let mut drafts: Drafts<'_> =
            request.messages.iter().map(|message| self.draft(&queue, message)).collect::<Result<_, _>>()?;
        find_repeated(&mut drafts)?;
        let frame = if drafts.len() > 1 { BatchFrame::RECORD_LEN } else { 0 };
        let bytes = frame + request.messages.iter().map(message_record_len).sum::<usize>();
        let (appended, end) = loop {
            match self.push_messages(&queue, &drafts, bytes) {
                Err(PushError::NoRoom(NoRoom::SegmentNotReady)) => {
                    self.log.room_for(Purpose::Messages, bytes).await.map_err(append_error)?;
                }
                Err(PushError::Seen) => self.recognize_seen(queue.topic, &mut drafts).await?,
                Err(PushError::Closed) => return Err(AppendError::Draining),
                Err(PushError::NoRoom(no_room)) => return Err(append_error(no_room)),
                Ok(pushed) => break pushed,
            }
        };
        match end {
            Some(end) => self.log.acknowledged(end).await?,
            // All of them were confirmed long ago.
            None => self.log.still_leads()?,
        }
        Ok(AppendReply { appended })
    }

    /// What must be known of a message before the locks are taken.
    fn draft<'a>(&self, queue: &Queue, message: &'a StoredMessage) -> Result<Draft<'a>, AppendError> {
        let head = MessageHead::parse(&message.head)
            .map_err(|error| StoreError::Unreadable(format!("a message was handed over damaged: {error}")))?;
        let indexed = Indexed::of(queue.topic, &head);
        let key = self.dedup_key(queue.topic, head.message_id);
        Ok(Draft { message, message_id: head.message_id, indexed, key, repeats: None, seen: SmallVec::new() })
    }

    /// Puts messages into the log, but for those that are there: all or none. Returns where each is, and where
    /// the records end that were made.
    fn push_messages(
        &self,
        queue: &Arc<Queue>,
        drafts: &[Draft<'_>],
        bytes: usize,
    ) -> Result<(SmallVec<[Appended; 1]>, Option<LogOffset>), PushError> {
        let mut dedup = self.dedup.lock();
        // Before anything is pushed: what was seen must have been looked at.
        if !drafts.iter().all(|draft| draft.is_current(&dedup)) {
            return Err(PushError::Seen);
        }
        let mut appended: SmallVec<[Appended; 1]> = SmallVec::with_capacity(drafts.len());
        let _fail_on_panic = self.log.fail_on_panic();
        let mut appender = self.log.begin();
        // Again, now that the tail is locked: whoever closes the group and then finds the log's end has found them all.
        if self.draining.is_closed() {
            return Err(PushError::Closed);
        }
        appender.reserve(Purpose::Messages, bytes).map_err(PushError::NoRoom)?;
        let fresh: SmallVec<[&Draft<'_>; 1]> = drafts.iter().filter(|draft| draft.is_fresh()).collect();
        if fresh.len() > 1 {
            appender.push_batch_frame(fresh.len(), fresh.iter().map(|draft| message_record_len(draft.message)).sum());
        }
        let store_time = appender.store_time();
        let mut queue_offset = queue.next();
        let first = queue_offset;
        for draft in drafts {
            let known = draft.repeats.map(|earlier| appended[earlier]).or_else(|| draft.same());
            if let Some(known) = known {
                appended.push(known);
                continue;
            }
            let place = (queue.topic, queue.id, queue_offset);
            let (log_offset, len) = appender.push(RecordKind::Message, place, |out| write_message(out, draft.message));
            let Indexed { tag_hash, message_group_hash, hashes } = &draft.indexed;
            let (tag_hash, message_group_hash) = (*tag_hash, *message_group_hash);
            let entry = IndexEntry { queue_offset, log_offset, len, tag_hash, message_group_hash, store_time };
            let arrival = Arrival { entry, segment: appender.segment_base(), hashes, remember: draft.key };
            apply::message(&self.queues, queue, Some(&mut *dedup), &arrival);
            appended.push(Appended { queue_offset, log_offset, store_time });
            queue_offset = queue_offset.next();
        }
        if queue_offset == first {
            return Ok((appended, None));
        }
        appender.arrival(queue, queue_offset);
        Ok((appended, Some(appender.end())))
    }

    /// Looks at the messages that were seen under the ids of these, once they are confirmed.
    async fn recognize_seen(&self, topic: TopicId, drafts: &mut [Draft<'_>]) -> Result<(), AppendError> {
        for draft in drafts {
            let places = draft.key.map(|key| self.dedup.lock().get(key)).unwrap_or_default();
            for at in places {
                if draft.has_seen(at) {
                    continue;
                }
                if at >= self.log.confirmed.get() {
                    // The first copy is being written: its answer is this one's.
                    self.log.confirmed(at.plus(1)).await?;
                }
                let same = match self.log.read_record(at).await? {
                    // What a deleted topic held is gone, even if its id came back.
                    Ok(record) if !self.holds(&record.header) => None,
                    Ok(record) => recognize(topic, draft, &record)?,
                    Err(ReadError::Gone(_)) => None,
                    Err(error) => return Err(StoreError::Unreadable(error.to_string()).into()),
                };
                draft.seen.push(Seen { at, same });
            }
        }
        Ok(())
    }

    /// Whether the message of that record is retained.
    pub(crate) fn holds(&self, header: &RecordHeader) -> bool {
        let queue = self.queues.get(header.topic).and_then(|topic| topic.queue(header.queue));
        queue.is_some_and(|queue| queue.range().0 <= header.queue_offset)
    }

    /// The queue, which exists if the metadata place it on this store group.
    pub(crate) fn queue(&self, topic: TopicId, queue: QueueId) -> Result<Arc<Queue>, AppendError> {
        let here = self.queues.get(topic);
        let removed = here.as_ref().is_some_and(|topic| topic.is_removed());
        if !removed && let Some(found) = here.as_ref().and_then(|topic| topic.queue(queue)) {
            return Ok(found);
        }
        let home = self.home()?;
        let known = self.view.topic_by_id(topic).ok_or(AppendError::UnknownQueue(topic))?;
        match known.placement.store_group(queue) {
            Some(group) if group == home => {
                if let Some(removed) = here.filter(|_| removed) {
                    removed.set_removed(false);
                }
                Ok(self.queues.open_queue(topic, queue))
            }
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

type Drafts<'a> = SmallVec<[Draft<'a>; 1]>;

/// A message about to be appended.
struct Draft<'a> {
    message: &'a StoredMessage,
    message_id: &'a str,
    indexed: Indexed,
    /// Under which it is remembered.
    key: Option<u64>,
    /// The earlier message of the request that this one is.
    repeats: Option<usize>,
    /// What was found under its key.
    seen: SmallVec<[Seen; 1]>,
}

/// A message that was seen under the key of one about to be appended.
#[derive(Clone, Copy)]
struct Seen {
    at: LogOffset,
    /// Where it is, if it is the same one. `None`: another one, or it has expired.
    same: Option<Appended>,
}

enum PushError {
    NoRoom(NoRoom),
    /// Messages were seen under these keys that nobody has looked at yet.
    Seen,
    /// The group was closed meanwhile.
    Closed,
}

impl Draft<'_> {
    /// Whether it is to be stored, as far as is known.
    fn is_fresh(&self) -> bool {
        self.repeats.is_none() && self.same().is_none()
    }

    /// Whether everything that was seen under its key has been looked at.
    fn is_current(&self, dedup: &DedupWindow) -> bool {
        match self.key {
            Some(key) if self.repeats.is_none() => dedup.get(key).into_iter().all(|at| self.has_seen(at)),
            _ => true,
        }
    }

    fn has_seen(&self, at: LogOffset) -> bool {
        self.seen.iter().any(|seen| seen.at == at)
    }

    /// Where it is, if it was stored before.
    fn same(&self) -> Option<Appended> {
        self.seen.iter().find_map(|seen| seen.same)
    }
}

/// Finds messages that are in the request before, with the same id. An error: with another body.
fn find_repeated(drafts: &mut [Draft<'_>]) -> Result<(), AppendError> {
    if drafts.len() < 2 {
        return Ok(());
    }
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(drafts.len());
    for place in 0..drafts.len() {
        let draft = &drafts[place];
        if draft.key.is_none() {
            continue;
        }
        let earlier = *first.entry(draft.message_id).or_insert(place);
        if earlier == place {
            continue;
        }
        if drafts[earlier].message.body != draft.message.body {
            return Err(AppendError::IdReused { message_id: draft.message_id.to_owned() });
        }
        drafts[place].repeats = Some(earlier);
    }
    Ok(())
}

/// Where the message in `record` is, if it is this one: same id, same body. `None`: another one.
fn recognize(topic: TopicId, draft: &Draft<'_>, record: &Record) -> Result<Option<Appended>, AppendError> {
    let Ok(span) = record.message_span() else { return Ok(None) };
    let stored = span.message(&record.bytes);
    let same_id = stored.parse_head().is_ok_and(|head| head.message_id == draft.message_id);
    if record.header.topic != topic || !same_id {
        return Ok(None);
    }
    if stored.body != draft.message.body {
        return Err(AppendError::IdReused { message_id: draft.message_id.to_owned() });
    }
    let RecordHeader { queue_offset, log_offset, store_time, .. } = record.header;
    Ok(Some(Appended { queue_offset, log_offset, store_time }))
}

fn append_error(no_room: NoRoom) -> AppendError {
    match no_room {
        NoRoom::TooLarge { bytes, max } => AppendError::TooLarge { bytes, max },
        other => AppendError::Store(StoreError::from(other)),
    }
}
