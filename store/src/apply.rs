//! What each record does to the state: written once, for the leader that puts it into the log and for recovery that reads it
//! back.
//!
//! The leader has a record's parts at hand, and holds the locks that order them: it calls the function of the kind. Whoever
//! has only the bytes lets an [`Applier`] read them, which calls the same functions.
//!
//! What must always hold: no clock, no I/O, no choice. Whatever is decided was decided before the record was written, so that
//! recovery makes the same state (`without_a_checkpoint_everything_comes_from_a_log_that_is_whole`,
//! `any_history_keeps_the_promises`).

use crate::commit_log::damage::DamagedRange;
use crate::commit_log::record::{MESSAGE_RECORD_LEN_MIN, Origin, RecordError, RecordHeader, RecordKind, parse_removed};
use crate::commit_log::segment::ScannedRecord;
use crate::dedup::DedupWindow;
use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::given_up::GivenUp;
use crate::progress::{ProgressTable, Shard};
use crate::queue_index::{IndexEntry, Indexed, Queue, QueueTable};
use gantry_proto::model::{GroupId, LogOffset, MessageHead, QueueId, QueueOffset, Removed, TopicId};
use std::collections::HashMap;
use std::sync::Arc;

/// A message that is in the log.
pub(crate) struct Arrival<'a> {
    pub entry: IndexEntry,
    /// Where its segment begins.
    pub segment: LogOffset,
    /// Of its id and its keys.
    pub hashes: &'a [u64],
    /// Under which a repeated send finds it, unless it was none that was sent.
    pub remember: Option<u64>,
}

/// A message was put into the log: it is the next of `queue`. The log's tail is locked.
pub(crate) fn message(queues: &QueueTable, queue: &Arc<Queue>, dedup: Option<&mut DedupWindow>, arrival: &Arrival<'_>) {
    queues.push(queue, arrival.segment, arrival.entry, arrival.hashes);
    remember(dedup, arrival);
}

/// A message was read back. False: it does not follow what the queue holds, nor may anything be missing in between.
#[must_use]
fn message_read(
    queues: &QueueTable,
    queue: &Arc<Queue>,
    dedup: &mut DedupWindow,
    arrival: &Arrival<'_>,
    gap: Option<LogOffset>,
) -> bool {
    let follows = queues.recover(queue, arrival.segment, arrival.entry, arrival.hashes, gap);
    remember(Some(dedup), arrival);
    follows
}

fn remember(dedup: Option<&mut DedupWindow>, arrival: &Arrival<'_>) {
    if let Some((dedup, key)) = dedup.zip(arrival.remember) {
        dedup.insert(key, arrival.entry.log_offset, arrival.entry.store_time);
    }
}

/// A group's progress changes as the record at `at` says.
pub(crate) fn delivery(state: &mut DeliveryState, change: &DeliveryRecord, at: LogOffset) {
    state.apply(change, at);
}

/// A message that a group gave up is a dead letter now: it is finished where it came from.
pub(crate) fn given_up(state: &mut DeliveryState, given_up: &mut GivenUp, origin: &Origin, at: LogOffset) {
    given_up.insert(at, *origin);
    state.finish(origin.queue, origin.queue_offset);
}

/// A topic or a group was deleted: how far groups were is gone, and what the topic's queues held up to `ends`, where they
/// ended at the record. Should the topic ever be written to again, queue offsets go on from there. No lock is held.
pub(crate) fn removed(
    queues: &QueueTable,
    progress: &ProgressTable,
    removed: Removed,
    shards: &[Arc<Shard>],
    ends: &[(Arc<Queue>, QueueOffset)],
) {
    for shard in shards {
        progress.remove(shard.group, shard.topic);
        if let Some(topic) = queues.get(shard.topic) {
            topic.detach(shard);
        }
        // Whoever waits there finds out.
        shard.wake_all();
    }
    if let Removed::Topic(topic) = removed
        && let Some(topic) = queues.get(topic)
    {
        queues.forget(&topic, ends);
    }
}

/// Applies records that somebody wrote before, in the order of the log.
pub(crate) struct Applier {
    pub queues: QueueTable,
    pub progress: ProgressTable,
    pub dedup: DedupWindow,
    pub given_up: GivenUp,
    /// The checkpoint says what records before this came to.
    pub checkpoint_at: LogOffset,
    /// Records before this are in the shard's state already, if that is farther.
    pub good_for: HashMap<(GroupId, TopicId), LogOffset>,
    /// Where the segments begin that have no index and get their entries now. What is before them is in sealed indexes.
    pub unsealed: Vec<LogOffset>,
    /// How many messages may have been in damaged parts so far that nobody knows the queues of.
    pub lost: u64,
    /// What that was at the last message of a queue behind a damaged part: its offset tells how many of the queue were lost
    /// up to there.
    pub lost_before: HashMap<(TopicId, QueueId), u64>,
}

/// No more offsets than that are passed over at a queue's end: each of them is set aside by every group.
const SKIPPED_MAX: u64 = 1 << 16;

impl Applier {
    /// A part of the log cannot be read. `claimed` is what the header there says: it is believed only if it says just what
    /// is expected. Otherwise any queue may have had messages there.
    pub(crate) fn damaged(&mut self, range: DamagedRange, claimed: Option<RecordHeader>) {
        if let Some(claimed) = claimed.filter(|claimed| claimed.kind.is_message() && claimed.end() == range.to)
            && let Some(queue) = self.queues.get(claimed.topic).and_then(|topic| topic.queue(claimed.queue))
            && queue.next() == claimed.queue_offset
        {
            self.queues.recover_sealed(&queue, claimed.queue_offset);
            return;
        }
        // Where the queues go on after what lies before the checkpoint is in it.
        let from = range.from.max(self.checkpoint_at);
        self.lost += range.to.0.saturating_sub(from.0).div_ceil(MESSAGE_RECORD_LEN_MIN as u64);
    }

    /// Everything was applied: queue offsets of messages that were damaged are not given again. Where nobody knows how many
    /// there were at a queue's end, as many are passed over as there can have been; and all that any group has had to do
    /// with, for it would never receive a new message there. A queue that holds nothing has only the latter.
    pub(crate) fn pass_over_lost_offsets(&self) {
        for topic in self.queues.list().iter().filter(|_| self.lost > 0) {
            for queue in topic.list().into_iter().filter(|queue| queue.range().0 < queue.next()) {
                let before = self.lost_before.get(&(queue.topic, queue.id)).copied().unwrap_or_default();
                if let Some(last) = (self.lost - before).min(SKIPPED_MAX).checked_sub(1) {
                    self.queues.recover_sealed(&queue, QueueOffset(queue.next().0 + last));
                }
            }
        }
        for shard in self.progress.list() {
            for (queue, reached) in shard.lock().reached() {
                if let Some(last) = reached.0.checked_sub(1) {
                    self.queues.recover_sealed(&self.queues.open_queue(shard.topic, queue), QueueOffset(last));
                }
            }
        }
    }

    /// Applies one record. `gap`: where the last part of the log before it ends that is damaged, or was.
    pub(crate) fn apply(&mut self, record: &ScannedRecord<'_>, gap: Option<LogOffset>) -> Result<(), RecordError> {
        let (header, body) = (&record.header, record.body());
        match header.kind {
            RecordKind::Message => self.apply_message(record, gap),
            RecordKind::DeadLetter => {
                self.apply_message(record, gap)?;
                let origin = Origin::parse(body)?;
                match self.shard(origin.group, origin.topic, header.log_offset) {
                    Some(shard) => given_up(&mut shard.lock(), &mut self.given_up, &origin, header.log_offset),
                    // Its group's progress was saved later than the rest.
                    None if header.log_offset >= self.checkpoint_at => self.given_up.insert(header.log_offset, origin),
                    None => {}
                }
                Ok(())
            }
            RecordKind::Delivery | RecordKind::Arrival => {
                let (group, topic, change) = DeliveryRecord::decode(body)?;
                if let Some(shard) = self.shard(group, topic, header.log_offset) {
                    delivery(&mut shard.lock(), &change, header.log_offset);
                }
                Ok(())
            }
            RecordKind::TopicRemoved | RecordKind::GroupRemoved => {
                self.apply_removed(parse_removed(header.kind, body)?, header.log_offset);
                Ok(())
            }
            // They say nothing of their own.
            RecordKind::Batch | RecordKind::Unknown(_) => Ok(()),
        }
    }

    fn apply_message(&mut self, record: &ScannedRecord<'_>, gap: Option<LogOffset>) -> Result<(), RecordError> {
        let RecordHeader { kind, len, log_offset, store_time, topic, queue, queue_offset, .. } = record.header;
        let queue = self.queues.open_queue(topic, queue);
        if self.lost > 0 {
            self.lost_before.insert((queue.topic, queue.id), self.lost);
        }
        let after = self.unsealed.partition_point(|base| *base <= log_offset);
        let Some(segment) = after.checked_sub(1).map(|place| self.unsealed[place]) else {
            self.queues.recover_sealed(&queue, queue_offset);
            return Ok(());
        };
        let span = record.message_span()?;
        let head = MessageHead::parse(span.head(record.bytes))?;
        let Indexed { tag_hash, message_group_hash, hashes } = Indexed::of(topic, &head);
        let entry = IndexEntry { queue_offset, log_offset, len, tag_hash, message_group_hash, store_time };
        let remember = (kind == RecordKind::Message).then_some(hashes[0]);
        let arrival = Arrival { entry, segment, hashes: &hashes, remember };
        let follows = message_read(&self.queues, &queue, &mut self.dedup, &arrival, gap);
        if follows { Ok(()) } else { Err(RecordError::Malformed("its queue offset does not follow the one before it")) }
    }

    fn apply_removed(&self, gone: Removed, at: LogOffset) {
        if at < self.checkpoint_at {
            return;
        }
        let shards: Vec<_> = self.progress.list().into_iter().filter(|shard| shard.is_of(gone)).collect();
        let ends = match gone {
            Removed::Topic(topic) => self.queues.get(topic).map(|topic| topic.ends()).unwrap_or_default(),
            Removed::Group(_) => Vec::new(),
        };
        removed(&self.queues, &self.progress, gone, &shards, &ends);
    }

    /// The shard that a record at `at` changes, unless its state has the change already.
    fn shard(&self, group: GroupId, topic: TopicId, at: LogOffset) -> Option<Arc<Shard>> {
        if at < self.checkpoint_at || self.good_for.get(&(group, topic)).is_some_and(|good_for| at < *good_for) {
            return None;
        }
        let shard = self.progress.open(group, topic, DeliveryState::default(), |_| {});
        shard.will_change();
        Some(shard)
    }
}
