//! The queues of all topics, and what each of them holds.

use super::{IndexEntry, SealedIndex};
use crate::progress::Shard;
use gantry_proto::contract::{QueueStatus, StoreError};
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All queues of this store.
#[derive(Default)]
pub(crate) struct QueueTable {
    topics: RwLock<HashMap<TopicId, Arc<TopicQueues>>>,
}

/// The queues of one topic, and the groups that consume from them.
pub(crate) struct TopicQueues {
    pub id: TopicId,
    /// Shared so that a receive takes all of them with one count.
    queues: RwLock<Arc<Vec<Arc<Queue>>>>,
    shards: Arc<RwLock<Vec<Arc<Shard>>>>,
}

/// One queue.
///
/// `min ≤ confirmed_end ≤ next`: offsets below `confirmed_end` can be delivered, `next` is given to the next message.
pub(crate) struct Queue {
    pub topic: TopicId,
    pub id: QueueId,
    confirmed_end: AtomicU64,
    holdings: Mutex<Holdings>,
    shards: Arc<RwLock<Vec<Arc<Shard>>>>,
}

#[derive(Default)]
struct Holdings {
    /// Next offset to be given.
    next: u64,
    /// Runs in sealed segments, oldest first, without gaps between them.
    sealed: VecDeque<SealedRun>,
    /// Entries that no sealed index has yet; they end at `next`.
    recent: VecDeque<RecentEntry>,
}

struct SealedRun {
    first: u64,
    count: u64,
    /// Where the run begins in the index file.
    position: u64,
    index: Arc<SealedIndex>,
}

/// An [`IndexEntry`] without its queue offset, which its place tells.
struct RecentEntry {
    log_offset: LogOffset,
    len: u32,
    tag_hash: u32,
    store_time: Timestamp,
}

impl QueueTable {
    /// The topic's queues, if something was written to it or it was opened.
    pub(crate) fn get(&self, topic: TopicId) -> Option<Arc<TopicQueues>> {
        self.topics.read().get(&topic).cloned()
    }

    /// The topic's queues, at least `queue_count` of them.
    pub(crate) fn open(&self, topic: TopicId, queue_count: u32) -> Arc<TopicQueues> {
        let found = self.get(topic);
        let topic = found.unwrap_or_else(|| {
            let fresh =
                || Arc::new(TopicQueues { id: topic, queues: RwLock::default(), shards: Arc::new(RwLock::default()) });
            self.topics.write().entry(topic).or_insert_with(fresh).clone()
        });
        topic.grow(queue_count);
        topic
    }

    /// Forgets a topic that was deleted.
    pub(crate) fn remove(&self, topic: TopicId) -> Option<Arc<TopicQueues>> {
        self.topics.write().remove(&topic)
    }

    pub(crate) fn list(&self) -> Vec<Arc<TopicQueues>> {
        self.topics.read().values().cloned().collect()
    }

    /// Adds the runs of a sealed segment, whose entries were (if at all) the oldest recent ones. Segments are added in
    /// order.
    pub(crate) fn add_sealed(&self, index: &Arc<SealedIndex>) -> Result<(), StoreError> {
        for run in index.runs()? {
            let queue = self.open(run.topic, run.queue.0 + 1).queue(run.queue);
            if let Some(queue) = queue {
                queue.add_sealed(run.first, run.count, run.position, index.clone());
            }
        }
        Ok(())
    }

    /// Forgets the runs of a segment that is gone, which was the oldest.
    pub(crate) fn drop_sealed(&self, index: &SealedIndex) -> Result<(), StoreError> {
        for run in index.runs()? {
            if let Some(queue) = self.get(run.topic).and_then(|topic| topic.queue(run.queue)) {
                queue.drop_below(run.first.0 + run.count);
            }
        }
        Ok(())
    }
}

impl TopicQueues {
    pub(crate) fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues.read().get(id.0 as usize).cloned()
    }

    pub(crate) fn queues(&self) -> Arc<Vec<Arc<Queue>>> {
        self.queues.read().clone()
    }

    pub(crate) fn len(&self) -> u32 {
        self.queues.read().len() as u32
    }

    /// Lets a group's shard hear of new messages.
    pub(crate) fn attach(&self, shard: Arc<Shard>) {
        self.shards.write().push(shard);
    }

    /// The group is gone.
    pub(crate) fn detach(&self, shard: &Arc<Shard>) {
        self.shards.write().retain(|attached| !Arc::ptr_eq(attached, shard));
    }

    fn grow(&self, queue_count: u32) {
        if self.len() >= queue_count {
            return;
        }
        let mut queues = self.queues.write();
        let queues = Arc::make_mut(&mut queues);
        for id in queues.len() as u32..queue_count {
            queues.push(Arc::new(Queue {
                topic: self.id,
                id: QueueId(id),
                confirmed_end: AtomicU64::new(0),
                holdings: Mutex::default(),
                shards: self.shards.clone(),
            }));
        }
    }
}

impl Queue {
    /// Next offset to be given. Only meaningful while the log's tail is locked.
    pub(crate) fn next(&self) -> QueueOffset {
        QueueOffset(self.holdings.lock().next)
    }

    /// Adds a message that was just put into the log.
    pub(crate) fn push(&self, entry: IndexEntry) {
        let mut holdings = self.holdings.lock();
        assert_eq!(entry.queue_offset.0, holdings.next, "queue offsets are given in order and without gaps");
        holdings.next += 1;
        holdings.recent.push_back(RecentEntry {
            log_offset: entry.log_offset,
            len: entry.len,
            tag_hash: entry.tag_hash,
            store_time: entry.store_time,
        });
    }

    /// During recovery: adds a message that was read back. False: it does not follow what the queue holds.
    pub(crate) fn recover(&self, entry: IndexEntry) -> bool {
        let mut holdings = self.holdings.lock();
        if holdings.sealed.is_empty() && holdings.recent.is_empty() {
            // What came before it has expired.
            holdings.next = holdings.next.max(entry.queue_offset.0);
        }
        let follows = holdings.next == entry.queue_offset.0;
        drop(holdings);
        if follows {
            self.push(entry);
        }
        follows
    }

    /// During recovery: the queue goes on at `next` although nothing it holds says so (all was expired).
    pub(crate) fn restore_next(&self, next: QueueOffset) {
        let mut holdings = self.holdings.lock();
        if holdings.next < next.0 && holdings.recent.is_empty() {
            // What retention took is not coming back: the queue is empty and begins here.
            holdings.sealed.clear();
            holdings.next = next.0;
        }
    }

    /// Messages before `end` can be delivered.
    pub(crate) fn confirm(&self, end: QueueOffset) {
        self.confirmed_end.fetch_max(end.0, Ordering::SeqCst);
    }

    /// During recovery: everything that was read back can be delivered.
    pub(crate) fn confirm_all(&self) {
        self.confirm(self.next());
    }

    /// Wakes one waiting receive of each group.
    pub(crate) fn wake_receivers(&self) {
        for shard in self.shards.read().iter() {
            shard.wake_one();
        }
    }

    /// First retained offset and first offset that consumers must not see yet.
    pub(crate) fn range(&self) -> (QueueOffset, QueueOffset) {
        let min = self.holdings.lock().min();
        (QueueOffset(min), QueueOffset(self.confirmed_end.load(Ordering::SeqCst).max(min)))
    }

    pub(crate) fn status(&self) -> QueueStatus {
        let (min_offset, max_offset) = self.range();
        QueueStatus { queue: self.id, min_offset, max_offset }
    }

    /// Entries from `from` on, at most `max`, cut where they stop lying together. Empty when `from` is not held.
    pub(crate) fn scan(&self, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        let holdings = self.holdings.lock();
        let recent_from = holdings.next - holdings.recent.len() as u64;
        if from.0 >= recent_from {
            let skip = (from.0 - recent_from) as usize;
            let entries = holdings.recent.iter().enumerate().skip(skip).take(max);
            out.extend(entries.map(|(place, entry)| entry.at(QueueOffset(recent_from + place as u64))));
            return Ok(());
        }
        let after = holdings.sealed.partition_point(|run| run.first <= from.0);
        let Some(run) = after.checked_sub(1).and_then(|place| holdings.sealed.get(place)) else {
            return Ok(());
        };
        let skip = from.0 - run.first;
        if skip >= run.count {
            return Ok(());
        }
        let (index, position, count) = (run.index.clone(), run.position, (run.count - skip).min(max as u64));
        drop(holdings);
        index.read_entries(position, skip, count, from, out)
    }

    fn add_sealed(&self, first: QueueOffset, count: u64, position: u64, index: Arc<SealedIndex>) {
        let mut holdings = self.holdings.lock();
        let end = first.0 + count;
        let recent_from = holdings.next - holdings.recent.len() as u64;
        if holdings.recent.is_empty() && holdings.next <= first.0 {
            // Recovery: the index comes before the entries.
            holdings.next = end;
        } else {
            let covered = end.saturating_sub(recent_from).min(holdings.recent.len() as u64);
            holdings.recent.drain(..covered as usize);
            if holdings.recent.capacity() > 4 * holdings.recent.len() + 16 {
                holdings.recent.shrink_to_fit();
            }
        }
        holdings.sealed.push_back(SealedRun { first: first.0, count, position, index });
    }

    fn drop_below(&self, end: u64) {
        let mut holdings = self.holdings.lock();
        while holdings.sealed.front().is_some_and(|run| run.first + run.count <= end) {
            holdings.sealed.pop_front();
        }
    }
}

impl Holdings {
    fn min(&self) -> u64 {
        match self.sealed.front() {
            Some(run) => run.first,
            None => self.next - self.recent.len() as u64,
        }
    }
}

impl RecentEntry {
    fn at(&self, queue_offset: QueueOffset) -> IndexEntry {
        IndexEntry {
            queue_offset,
            log_offset: self.log_offset,
            len: self.len,
            tag_hash: self.tag_hash,
            store_time: self.store_time,
        }
    }
}
