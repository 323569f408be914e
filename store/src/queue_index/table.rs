//! The queues of all topics, and the indexes of all segments.

use super::unsealed::{Unsealed, UnsealedSegment};
use super::{IndexEntry, IndexedSegment, Queue, QueueRow, SealedIndex, SealedIndexError, SealedSet, TopicQueues};
use crate::commit_log::damage::DamageRegister;
use crate::commit_log::segment::Segment;
use gantry_proto::contract::StoreError;
use gantry_proto::env::Files;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// All queues of this store.
#[derive(Default)]
pub(crate) struct QueueTable {
    topics: RwLock<HashMap<TopicId, Arc<TopicQueues>>>,
    /// Where queues begin that nothing is known of.
    begin: QueueOffset,
    /// The largest id among them.
    last_topic: AtomicU32,
    pub sealed: Arc<SealedSet>,
    unsealed: Unsealed,
    /// Queues that differ from what the last checkpoint says, each once.
    changed: Mutex<Vec<Arc<Queue>>>,
}

impl QueueTable {
    /// Without queues. Those that nothing is known of begin at `begin`.
    pub(crate) fn beginning_at(begin: QueueOffset) -> QueueTable {
        QueueTable { begin, ..QueueTable::default() }
    }

    /// Where queues begin that nothing is known of.
    pub(crate) fn queues_begin(&self) -> QueueOffset {
        self.begin
    }

    /// The topic's queues, if something was written to it or it was opened.
    pub(crate) fn get(&self, topic: TopicId) -> Option<Arc<TopicQueues>> {
        self.topics.read().get(&topic).cloned()
    }

    /// The topic's queues, with these among them. They must be on this store group.
    pub(crate) fn open(&self, topic: TopicId, queues: impl IntoIterator<Item = QueueId>) -> Arc<TopicQueues> {
        let found = self.get(topic);
        let topic = found.unwrap_or_else(|| {
            self.last_topic.fetch_max(topic.0, Ordering::Relaxed);
            let fresh = || Arc::new(TopicQueues::new(topic, self.begin, self.sealed.clone()));
            self.topics.write().entry(topic).or_insert_with(fresh).clone()
        });
        for queue in queues {
            topic.open(queue);
        }
        topic
    }

    /// One queue, which must be on this store group.
    pub(crate) fn open_queue(&self, topic: TopicId, queue: QueueId) -> Arc<Queue> {
        self.open(topic, []).open(queue)
    }

    /// Forgets what a topic held that was deleted, up to these ends of its queues, but not how far queue offsets were given.
    pub(crate) fn forget(&self, topic: &TopicQueues, ends: &[(Arc<Queue>, QueueOffset)]) {
        topic.set_removed(true);
        for (queue, end) in ends {
            if queue.raise_min(*end) {
                self.changed.lock().push(queue.clone());
            }
        }
    }

    /// All topics, by id.
    pub(crate) fn list(&self) -> Vec<Arc<TopicQueues>> {
        let mut topics: Vec<_> = self.topics.read().values().cloned().collect();
        topics.sort_unstable_by_key(|topic| topic.id);
        topics
    }

    /// The largest topic of which anything is or was here: also of deleted ones it is kept how far offsets were given.
    pub(crate) fn last_topic(&self) -> TopicId {
        TopicId(self.last_topic.load(Ordering::Relaxed))
    }

    /// Adds a message that was just put into the log, in the segment that begins at `segment`, with the hashes of its id and
    /// its keys. The log's tail is locked.
    pub(crate) fn push(&self, queue: &Arc<Queue>, segment: LogOffset, entry: IndexEntry, hashes: &[u64]) {
        let pushed = queue.push(entry, segment);
        self.pushed(queue, segment, &entry, hashes, pushed);
    }

    /// During recovery: adds a message that was read back. False: it does not follow what its queue holds. `gap`: where the
    /// last part of the log before it ends that is damaged, or was.
    #[must_use]
    pub(crate) fn recover(
        &self,
        queue: &Arc<Queue>,
        segment: LogOffset,
        entry: IndexEntry,
        hashes: &[u64],
        gap: Option<LogOffset>,
    ) -> bool {
        let Some(pushed) = queue.recover(entry, segment, gap) else { return false };
        self.pushed(queue, segment, &entry, hashes, pushed);
        true
    }

    /// During recovery: a message that a sealed index has was read back.
    pub(crate) fn recover_sealed(&self, queue: &Arc<Queue>, offset: QueueOffset) {
        if queue.recover_sealed(offset) {
            self.changed.lock().push(queue.clone());
        }
    }

    /// During recovery: what the checkpoint says of a queue.
    pub(crate) fn restore(&self, row: &QueueRow) {
        self.open_queue(row.topic, row.queue).restore(row.min, row.next);
    }

    /// Writes the index of a segment that is full from what is in memory, and lets the queues use it. Segments are sealed in
    /// order. `damaged`: the ranges of the segment of which entries may be missing.
    pub(crate) fn seal(
        &self,
        files: &dyn Files,
        dir: &Path,
        (base, end): (LogOffset, LogOffset),
        damaged: &[Range<LogOffset>],
    ) -> Result<(), SealedIndexError> {
        let segment = self.unsealed.get(base).unwrap_or_else(|| Arc::new(UnsealedSegment::new(base)));
        let index = Arc::new(SealedIndex::seal(files, dir, &segment, end, damaged)?);
        // In this order, so that an entry is always in one of the two.
        self.sealed.push(IndexedSegment { base, end, index: Some(index) });
        for queue in segment.queues() {
            queue.sealed_before(end);
        }
        self.unsealed.forget_before(end);
        Ok(())
    }

    /// Builds the index of a segment, if it is missing, and notes in the register what it finds damaged now.
    pub(crate) fn build_missing(
        &self,
        files: &dyn Files,
        dir: &Path,
        segment: &Segment,
        damage: (&DamageRegister, Timestamp),
    ) -> Result<(), SealedIndexError> {
        let Some(end) = self.sealed.missing_end(segment.base) else { return Ok(()) };
        let aside = SealedIndex::rebuild_aside(files, dir, segment, end, damage)?;
        let _placing = self.sealed.placing.lock();
        if self.sealed.missing_end(segment.base).is_none() {
            // The segment went meanwhile.
            damage.0.forget_before(end);
            return aside.discard(files);
        }
        let index = aside.place(files, dir)?;
        tracing::info!(segment = %segment.path.display(), "built the index of a sealed segment");
        self.sealed.replace(Arc::new(index));
        Ok(())
    }

    /// Forgets the oldest sealed segment: it is gone, and the queues begin behind it. Returns the topics that lost messages,
    /// if that is known.
    pub(crate) fn drop_oldest(&self) -> Option<BTreeSet<TopicId>> {
        let segments = self.sealed.list();
        let oldest = segments.front()?;
        let mut topics = BTreeSet::new();
        let raised = oldest.index.as_ref().map(|index| {
            index.runs(|run| {
                topics.insert(run.topic);
                let queue = self.get(run.topic).and_then(|topic| topic.queue(run.queue));
                if let Some(queue) = queue
                    && queue.raise_min(run.end())
                {
                    self.changed.lock().push(queue);
                }
            })
        });
        let known = matches!(raised, Some(Ok(())));
        if !known {
            // Found out queue by queue at the next read: see `Queue::find_begin`.
            self.sealed.forget_begins();
        }
        self.sealed.pop_front();
        known.then_some(topics)
    }

    /// Places of messages with that hash of an id or a key. Another text may have the same hash.
    pub(crate) fn find(&self, hash: u64) -> Result<Vec<LogOffset>, StoreError> {
        let mut found = Vec::new();
        // In this order: a segment that is sealed meanwhile is looked at twice.
        self.unsealed.find(hash, &mut found);
        self.sealed.find_hash(hash, &mut found)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Queues that changed since they were taken last.
    pub(crate) fn take_changed(&self) -> Vec<QueueRow> {
        let changed = std::mem::take(&mut *self.changed.lock());
        let is_here = |queue: &&Arc<Queue>| self.get(queue.topic).is_some_and(|topic| topic.holds(queue));
        changed.iter().filter(is_here).map(|queue| queue.capture()).collect()
    }

    fn pushed(
        &self,
        queue: &Arc<Queue>,
        segment: LogOffset,
        entry: &IndexEntry,
        hashes: &[u64],
        pushed: super::queue::Pushed,
    ) {
        let unsealed = self.unsealed.segment(segment);
        if pushed.enters_segment {
            unsealed.add_queue(queue);
        }
        if pushed.changed {
            self.changed.lock().push(queue.clone());
        }
        let place = (entry.log_offset.0 - segment.0) as u32;
        let mut rows = unsealed.hashes();
        hashes.iter().for_each(|hash| rows.push(*hash, place));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_lack_predecessors_only_where_the_log_is_damaged_between_the_two() {
        let recovers = |offset: u64, gap: Option<u64>| {
            let table = QueueTable::default();
            let queue = table.open_queue(TopicId(1), QueueId(0));
            let entry = |offset, at| IndexEntry { len: 50, ..IndexEntry::damaged(QueueOffset(offset), LogOffset(at)) };
            assert!(table.recover(&queue, LogOffset(0), entry(0, 100), &[], None));
            table.recover(&queue, LogOffset(0), entry(offset, 300), &[], gap.map(LogOffset))
        };
        assert!(recovers(1, None) && recovers(1, Some(50)) && recovers(2, Some(200)));
        assert!(!recovers(2, None) && !recovers(2, Some(100)), "the damage lies in front of both");
        assert!(!recovers(0, Some(200)), "nor does an offset come twice");
    }

    #[test]
    fn a_queue_must_begin_where_it_did_when_its_records_were_written() {
        let recovers = |begin: u64, offset: u64| {
            let table = QueueTable::beginning_at(QueueOffset(begin));
            let queue = table.open_queue(TopicId(1), QueueId(0));
            let entry = IndexEntry { len: 50, ..IndexEntry::damaged(QueueOffset(offset), LogOffset(100)) };
            let follows = table.recover(&queue, LogOffset(0), entry, &[], None);
            queue.confirm_all();
            let mut found = Vec::new();
            queue.scan(QueueOffset(offset), 1, &mut found).unwrap();
            (follows, found.len())
        };
        assert_eq!((recovers(0, 0), recovers(10, 10)), ((true, 1), (true, 1)));
        assert_eq!(recovers(0, 10), (false, 0), "the log does not open");
        assert_eq!(recovers(10, 0), (true, 0), "the record is hidden");
    }
}
