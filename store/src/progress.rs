//! Where each group is on each topic: the delivery state of one (group, topic) with its lock, and the receives that wait
//! for it.

use crate::delivery::DeliveryState;
use gantry_proto::model::{GroupId, TopicId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All shards of this store.
#[derive(Default)]
pub(crate) struct ProgressTable {
    shards: RwLock<BTreeMap<(GroupId, TopicId), Arc<Shard>>>,
}

/// One group's progress on one topic.
pub(crate) struct Shard {
    pub group: GroupId,
    pub topic: TopicId,
    pub state: Mutex<DeliveryState>,
    arrivals: Notify,
    waiting: AtomicUsize,
}

/// Counts a receive as waiting while it lives.
pub(crate) struct Waiting<'a> {
    shard: &'a Shard,
}

impl ProgressTable {
    pub(crate) fn get(&self, group: GroupId, topic: TopicId) -> Option<Arc<Shard>> {
        self.shards.read().get(&(group, topic)).cloned()
    }

    /// The shard, made from `state` if there is none yet. True: it was made.
    pub(crate) fn open(&self, group: GroupId, topic: TopicId, state: DeliveryState) -> (Arc<Shard>, bool) {
        let mut shards = self.shards.write();
        if let Some(shard) = shards.get(&(group, topic)) {
            return (shard.clone(), false);
        }
        let shard = Arc::new(Shard {
            group,
            topic,
            state: Mutex::new(state),
            arrivals: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        shards.insert((group, topic), shard.clone());
        (shard, true)
    }

    /// Forgets a shard whose group or topic was deleted.
    pub(crate) fn remove(&self, group: GroupId, topic: TopicId) -> Option<Arc<Shard>> {
        self.shards.write().remove(&(group, topic))
    }

    /// All of them, by group and topic: in the order in which records are made for them.
    pub(crate) fn list(&self) -> Vec<Arc<Shard>> {
        self.shards.read().values().cloned().collect()
    }
}

impl Shard {
    /// Wakes one waiting receive, if any waits.
    pub(crate) fn wake_one(&self) {
        // Sequentially consistent with `wait`: either the receive sees the message or this sees the receive.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.arrivals.notify_one();
        }
    }

    /// Wakes all waiting receives: the store is going down, or the topic is gone.
    pub(crate) fn wake_all(&self) {
        self.arrivals.notify_waiters();
    }

    /// Counts a receive in, before it looks for messages.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { shard: self }
    }
}

impl Waiting<'_> {
    /// Completes at the next wake-up.
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.shard.arrivals.notified()
    }

    /// Receives that wait on this shard, this one included.
    pub(crate) fn count(&self) -> usize {
        self.shard.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shard.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
