//! One queue: what it holds and where to find it.

use super::recent::Recent;
use super::sealed_set::OffsetPlace;
use super::topic::TopicShared;
use super::{IndexEntry, QueueRow};
use gantry_proto::contract::{QueueStatus, StoreError};
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, TopicId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One queue. There may be millions: what is idle takes little memory, and nothing for each segment.
///
/// `min ≤ confirmed_end ≤ next`: offsets below `confirmed_end` can be delivered, `next` is given to the next message.
pub(crate) struct Queue {
    pub topic: TopicId,
    pub id: QueueId,
    confirmed_end: AtomicU64,
    holdings: Mutex<Holdings>,
    shared: Arc<TopicShared>,
}

#[derive(Default)]
struct Holdings {
    /// First offset that is retained.
    min: u64,
    /// Next offset to be given.
    next: u64,
    /// Entries that no sealed index has yet. What is before them is in sealed indexes.
    recent: Option<Box<Recent>>,
    /// Differs from what the last checkpoint says.
    changed: bool,
}

/// What a change of a queue means to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    /// It is the queue's first message in the segment.
    pub enters_segment: bool,
    /// The queue was as the last checkpoint says, and is not any more.
    pub changed: bool,
}

impl Queue {
    pub(super) fn new(topic: TopicId, id: QueueId, shared: Arc<TopicShared>) -> Queue {
        let begin = shared.begin.0;
        let holdings = Mutex::new(Holdings { min: begin, next: begin, ..Holdings::default() });
        Queue { topic, id, confirmed_end: AtomicU64::default(), holdings, shared }
    }

    /// Next offset to be given. Only meaningful while the log's tail is locked.
    pub(crate) fn next(&self) -> QueueOffset {
        QueueOffset(self.holdings.lock().next)
    }

    /// Messages before `end` can be delivered. The groups are told where to look, and not woken.
    pub(crate) fn confirm(&self, end: QueueOffset) {
        self.confirmed_end.fetch_max(end.0, Ordering::SeqCst);
        for shard in self.shared.shards.read().iter() {
            shard.grew(self.id);
        }
    }

    /// During recovery: everything that was read back can be delivered.
    pub(crate) fn confirm_all(&self) {
        self.confirmed_end.fetch_max(self.next().0, Ordering::SeqCst);
    }

    /// Wakes one waiting receive of each group.
    pub(crate) fn wake_receivers(&self) {
        for shard in self.shared.shards.read().iter() {
            shard.wake_one();
        }
    }

    /// First retained offset and first offset that consumers must not see yet.
    pub(crate) fn range(&self) -> (QueueOffset, QueueOffset) {
        let min = self.holdings.lock().min;
        (QueueOffset(min), QueueOffset(self.confirmed_end.load(Ordering::SeqCst).max(min)))
    }

    pub(crate) fn status(&self) -> QueueStatus {
        let (min_offset, max_offset) = self.range();
        QueueStatus { queue: self.id, min_offset, max_offset }
    }

    /// Entries from `from` on, at most `max`, cut where they stop lying together. Empty when `from` is not held. An offset
    /// whose record was damaged has an entry that says so.
    pub(crate) fn scan(&self, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        let recent_from = {
            let holdings = self.holdings.lock();
            if from.0 < holdings.min || from.0 >= holdings.next {
                return Ok(());
            }
            match &holdings.recent {
                Some(recent) if from >= recent.first() => {
                    let before = out.len();
                    recent.copy(from, LogOffset(u64::MAX), max, out);
                    if out.len() == before {
                        // Behind the last entry and below `next`.
                        damaged(from, QueueOffset(holdings.next), max, LogOffset(0), out);
                    }
                    return Ok(());
                }
                Some(recent) => recent.first(),
                None => QueueOffset(holdings.next),
            }
        };
        let sealed = &self.shared.sealed;
        match sealed.find(self.topic, self.id, from)? {
            OffsetPlace::Run(index, run) => {
                index.read_entries(&run, from, max, out).map_err(|error| sealed.unusable(&index, &error))
            }
            OffsetPlace::Nowhere { next, after } => {
                let next = next.unwrap_or(recent_from);
                if self.begins_at(next, after.is_some()) <= from {
                    damaged(from, next, max, after.unwrap_or_default(), out);
                }
                Ok(())
            }
        }
    }

    /// Finds out where its retained messages begin, unless that is known.
    pub(crate) fn find_begin(&self) -> Result<(), StoreError> {
        let (min, end) = self.range();
        if min == end || self.shared.sealed.begins_known() {
            return Ok(());
        }
        self.scan(min, 1, &mut Vec::with_capacity(1))
    }

    /// Where in the log the first retained message lies behind `at`, if there is one.
    pub(crate) fn first_behind(&self, at: LogOffset) -> Result<Option<LogOffset>, StoreError> {
        let (min, end) = self.range();
        let (mut low, mut high, mut found) = (min.0, end.0, None);
        let mut entry = Vec::with_capacity(1);
        while low < high {
            let middle = low + (high - low) / 2;
            entry.clear();
            self.scan(QueueOffset(middle), 1, &mut entry)?;
            match entry.first() {
                Some(entry) if entry.log_offset > at => (high, found) = (middle, Some(entry.log_offset)),
                // Retention was faster: what it took lies before the rest.
                _ => low = middle + 1,
            }
        }
        Ok(found)
    }

    /// Where the queue's retained messages begin, when `next` is the first that is held and not before an offset that is
    /// not; `follows`: others are held before that.
    fn begins_at(&self, next: QueueOffset, follows: bool) -> QueueOffset {
        let mut holdings = self.holdings.lock();
        if !follows && !self.shared.sealed.begins_known() {
            holdings.min = holdings.min.max(next.0);
        }
        QueueOffset(holdings.min)
    }

    /// Adds a message that was just put into the log.
    pub(super) fn push(&self, entry: IndexEntry, segment: LogOffset) -> Pushed {
        let mut holdings = self.holdings.lock();
        assert_eq!(entry.queue_offset.0, holdings.next, "queue offsets are given in order and without gaps");
        holdings.push(entry, segment)
    }

    /// During recovery: adds a message that was read back from a segment without an index. False: it cannot follow what the
    /// queue holds. `gap`: where the last part of the log before it ends that is damaged, or was.
    pub(super) fn recover(&self, entry: IndexEntry, segment: LogOffset, gap: Option<LogOffset>) -> Option<Pushed> {
        let mut holdings = self.holdings.lock();
        let expected = match &holdings.recent {
            Some(recent) => recent.end(),
            // The checkpoint may know of more than what was read so far.
            None if entry.queue_offset.0 < holdings.next => entry.queue_offset,
            None => QueueOffset(holdings.next),
        };
        // Messages may be missing only where the log is damaged between the queue's last one and this.
        let last = holdings.recent.as_ref().and_then(|recent| recent.last_at());
        let missing = || gap.is_some_and(|gap| last.is_none_or(|last| last < gap));
        let follows = entry.queue_offset == expected || entry.queue_offset > expected && missing();
        follows.then(|| holdings.push(entry, segment))
    }

    /// During recovery: a message at `offset` is in a sealed index.
    pub(super) fn recover_sealed(&self, offset: QueueOffset) -> bool {
        let mut holdings = self.holdings.lock();
        let grows = holdings.next <= offset.0;
        holdings.next = holdings.next.max(offset.0 + 1);
        grows && !std::mem::replace(&mut holdings.changed, true)
    }

    /// During recovery: what the checkpoint says.
    pub(super) fn restore(&self, min: QueueOffset, next: QueueOffset) {
        let mut holdings = self.holdings.lock();
        (holdings.min, holdings.next) = (min.0, next.0);
    }

    /// Its messages before `end` are gone. True: it was as the last checkpoint says, and is not any more.
    pub(super) fn raise_min(&self, end: QueueOffset) -> bool {
        let mut holdings = self.holdings.lock();
        if holdings.min >= end.0 {
            return false;
        }
        holdings.min = end.0;
        !std::mem::replace(&mut holdings.changed, true)
    }

    /// The queue for a checkpoint, which then says what it is.
    pub(crate) fn capture(&self) -> QueueRow {
        let mut holdings = self.holdings.lock();
        holdings.changed = false;
        let (min, next) = (QueueOffset(holdings.min), QueueOffset(holdings.next));
        QueueRow { topic: self.topic, queue: self.id, min, next }
    }

    /// Where the entries begin that no sealed index has.
    pub(super) fn recent_from(&self) -> QueueOffset {
        let holdings = self.holdings.lock();
        holdings.recent.as_ref().map_or(QueueOffset(holdings.next), |recent| recent.first())
    }

    /// Copies at most `max` of those, of records before `end`.
    pub(super) fn copy_recent(&self, from: QueueOffset, end: LogOffset, max: usize, out: &mut Vec<IndexEntry>) {
        if let Some(recent) = &self.holdings.lock().recent {
            recent.copy(from, end, max, out);
        }
    }

    /// Entries of records before `end` are in a sealed index.
    pub(super) fn sealed_before(&self, end: LogOffset) {
        let mut holdings = self.holdings.lock();
        if holdings.recent.as_mut().is_some_and(|recent| !recent.drop_before(end)) {
            holdings.recent = None;
        }
    }
}

impl Holdings {
    fn push(&mut self, entry: IndexEntry, segment: LogOffset) -> Pushed {
        // During recovery the checkpoint may know of it already.
        let grows = self.next <= entry.queue_offset.0;
        self.next = self.next.max(entry.queue_offset.0 + 1);
        let recent = self.recent.get_or_insert_with(|| Box::new(Recent::starting(entry.queue_offset, segment)));
        let enters_segment = recent.enters(segment);
        recent.push(entry);
        Pushed { enters_segment, changed: grows && !std::mem::replace(&mut self.changed, true) }
    }
}

/// Entries for offsets in `[from, end)`, whose records were damaged somewhere behind `after`.
fn damaged(from: QueueOffset, end: QueueOffset, max: usize, after: LogOffset, out: &mut Vec<IndexEntry>) {
    let offsets = (from.0..end.0).take(max).map(QueueOffset);
    out.extend(offsets.map(|offset| IndexEntry::damaged(offset, after)));
}
