//! The queues of one topic and the groups that consume from them.

use super::{Queue, SealedSet};
use crate::progress::Shard;
use gantry_proto::model::{MetadataView, QueueId, QueueOffset, Topic, TopicId};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The queues that one topic has on this store group, and the groups that consume from them.
pub(crate) struct TopicQueues {
    pub id: TopicId,
    /// By queue id; `None` for those on other store groups. Shared so that a receive takes all of them with one count.
    queues: RwLock<Arc<QueuesById>>,
    shared: Arc<TopicShared>,
    /// What was last found out about the topic's other queues: see [`TopicQueues::has_active_queue`].
    active: Mutex<Option<ActiveQueue>>,
    /// It was deleted: only the metadata can say that something may be written to it.
    removed: AtomicBool,
}

/// Queues by id; `None` for those on other store groups.
pub(crate) type QueuesById = Vec<Option<Arc<Queue>>>;

/// What the queues of a topic have in common.
pub(super) struct TopicShared {
    pub shards: RwLock<Vec<Arc<Shard>>>,
    /// Where its queues begin, if nothing else is known of them.
    pub begin: QueueOffset,
    pub sealed: Arc<SealedSet>,
}

/// Whether some queue of a topic is on an active store group, as these metadata say.
struct ActiveQueue {
    topic: Arc<Topic>,
    store_groups_revision: u64,
    exists: bool,
}

impl TopicQueues {
    pub(super) fn new(id: TopicId, begin: QueueOffset, sealed: Arc<SealedSet>) -> TopicQueues {
        let (queues, active, removed, shards) = Default::default();
        TopicQueues { id, queues, active, removed, shared: Arc::new(TopicShared { shards, begin, sealed }) }
    }

    /// It was deleted, and the metadata have not named it since.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// It was deleted, or the metadata name it again.
    pub(crate) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Ordering::Release);
    }

    /// Whether any message is retained.
    pub(crate) fn holds_messages(&self) -> bool {
        self.list().iter().any(|queue| queue.range().0 < queue.next())
    }

    /// Next offset to be given, of each queue. Only meaningful while the log's tail is locked.
    pub(crate) fn ends(&self) -> Vec<(Arc<Queue>, QueueOffset)> {
        self.list().into_iter().map(|queue| (queue.clone(), queue.next())).collect()
    }

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

    /// Whether the queue is one of these, and not of a topic that was deleted.
    pub(super) fn holds(&self, queue: &Arc<Queue>) -> bool {
        self.queue(queue.id).is_some_and(|held| Arc::ptr_eq(&held, queue))
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
        self.shared.shards.write().push(shard);
    }

    /// The groups' shards, by group.
    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        let mut shards = self.shared.shards.read().clone();
        shards.sort_unstable_by_key(|shard| shard.group);
        shards
    }

    /// The group is gone.
    pub(crate) fn detach(&self, shard: &Arc<Shard>) {
        self.shared.shards.write().retain(|attached| !Arc::ptr_eq(attached, shard));
    }

    /// The queue, made if need be. It must be on this store group.
    pub(super) fn open(&self, id: QueueId) -> Arc<Queue> {
        if let Some(queue) = self.queue(id) {
            return queue;
        }
        let mut queues = self.queues.write();
        let queues = Arc::make_mut(&mut queues);
        let place = id.0 as usize;
        if queues.len() <= place {
            queues.resize(place + 1, None);
        }
        queues[place].get_or_insert_with(|| Arc::new(Queue::new(self.id, id, self.shared.clone()))).clone()
    }
}
