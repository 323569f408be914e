//! The queues of all topics, and what each of them holds.

use super::{IndexEntry, SealedIndex};
use crate::progress::Shard;
use gantry_proto::contract::{QueueStatus, StoreError};
use gantry_proto::model::{LogOffset, MetadataView, QueueId, QueueOffset, Timestamp, Topic, TopicId};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All queues of this store.
#[derive(Default)]
pub(crate) struct QueueTable {
    topics: RwLock<HashMap<TopicId, Arc<TopicQueues>>>,
}

/// The queues that one topic has on this store group, and the groups that consume from them.
pub(crate) struct TopicQueues {
    pub id: TopicId,
    /// By queue id; `None` for those on other store groups. Shared so that a receive takes all of them with one count.
    queues: RwLock<Arc<QueuesById>>,
    shards: Arc<RwLock<Vec<Arc<Shard>>>>,
    /// What was last found out about the topic's other queues: see [`TopicQueues::has_active_queue`].
    active: Mutex<Option<ActiveQueue>>,
}

/// Queues by id; `None` for those on other store groups.
pub(crate) type QueuesById = Vec<Option<Arc<Queue>>>;

/// Whether some queue of a topic is on an active store group, as these metadata say.
struct ActiveQueue {
    topic: Arc<Topic>,
    store_groups_revision: u64,
    exists: bool,
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

    /// The topic's queues, with these among them. They must be on this store group.
    pub(crate) fn open(&self, topic: TopicId, queues: impl IntoIterator<Item = QueueId>) -> Arc<TopicQueues> {
        let found = self.get(topic);
        let topic = found.unwrap_or_else(|| {
            let fresh = || {
                let (queues, shards, active) = Default::default();
                Arc::new(TopicQueues { id: topic, queues, shards, active })
            };
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

    /// Forgets a topic that was deleted.
    pub(crate) fn remove(&self, topic: TopicId) -> Option<Arc<TopicQueues>> {
        self.topics.write().remove(&topic)
    }

    /// All topics, by id.
    pub(crate) fn list(&self) -> Vec<Arc<TopicQueues>> {
        let mut topics: Vec<_> = self.topics.read().values().cloned().collect();
        topics.sort_unstable_by_key(|topic| topic.id);
        topics
    }

    /// Adds the runs of a sealed segment, whose entries were (if at all) the oldest recent ones. Segments are added in
    /// order.
    pub(crate) fn add_sealed(&self, index: &Arc<SealedIndex>) -> Result<(), StoreError> {
        for run in index.runs()? {
            let queue = self.open_queue(run.topic, run.queue);
            queue.add_sealed(run.first, run.count, run.position, index.clone());
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
        self.queues.read().get(id.0 as usize).cloned().flatten()
    }

    pub(crate) fn queues(&self) -> Arc<QueuesById> {
        self.queues.read().clone()
    }

    /// The queues that are here, in order.
    pub(crate) fn list(&self) -> Vec<Arc<Queue>> {
        self.queues.read().iter().flatten().cloned().collect()
    }

    /// Whether some queue of the topic is on an active store group. Looked for anew only when `topic` or a store group has
    /// changed.
    pub(crate) fn has_active_queue(&self, topic: Arc<Topic>, view: &MetadataView) -> bool {
        let store_groups_revision = view.store_groups_revision();
        let mut active = self.active.lock();
        match &*active {
            Some(known)
                if known.store_groups_revision == store_groups_revision && Arc::ptr_eq(&known.topic, &topic) =>
            {
                known.exists
            }
            _ => {
                let exists = view.has_active_queue(&topic);
                *active = Some(ActiveQueue { topic, store_groups_revision, exists });
                exists
            }
        }
    }

    /// Lets a group's shard hear of new messages.
    pub(crate) fn attach(&self, shard: Arc<Shard>) {
        self.shards.write().push(shard);
    }

    /// The group is gone.
    pub(crate) fn detach(&self, shard: &Arc<Shard>) {
        self.shards.write().retain(|attached| !Arc::ptr_eq(attached, shard));
    }

    fn open(&self, id: QueueId) -> Arc<Queue> {
        if let Some(queue) = self.queue(id) {
            return queue;
        }
        let mut queues = self.queues.write();
        let queues = Arc::make_mut(&mut queues);
        let place = id.0 as usize;
        if queues.len() <= place {
            queues.resize(place + 1, None);
        }
        let fresh = || {
            let (confirmed_end, holdings) = Default::default();
            Arc::new(Queue { topic: self.id, id, confirmed_end, holdings, shards: self.shards.clone() })
        };
        queues[place].get_or_insert_with(fresh).clone()
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
