//! Where each group is on each topic: the delivery state of one (group, topic) with its lock, and the receives that wait
//! for it.

use crate::delivery::DeliveryState;
use crate::upkeep::{ShardKey, Upkeep};
use gantry_proto::model::{GroupId, QueueId, QueueOffset, Removed, Timestamp, TopicId};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Messages of one group that [`ProgressTable::each_set_aside`] gives in one go.
pub(crate) const SET_ASIDE_MAX: usize = 4096;

/// All shards of this store.
#[derive(Default)]
pub(crate) struct ProgressTable {
    shards: RwLock<BTreeMap<ShardKey, Arc<Shard>>>,
    upkeep: Arc<Upkeep>,
    unsaved: Arc<Mutex<Unsaved>>,
    unobserved: Arc<Mutex<Vec<ShardKey>>>,
}

/// In what the shards differ from the last checkpoint.
#[derive(Default)]
struct Unsaved {
    /// Each once.
    changed: Vec<ShardKey>,
    gone: Vec<ShardKey>,
}

/// One group's progress on one topic.
pub(crate) struct Shard {
    pub group: GroupId,
    pub topic: TopicId,
    progress: Mutex<Progress>,
    upkeep: Arc<Upkeep>,
    arrivals: Notify,
    waiting: AtomicUsize,
    unsaved: Arc<Mutex<Unsaved>>,
    /// Differs from what the last checkpoint says. Changes under the shard's lock.
    changed: AtomicBool,
    /// A record is on its way that its group or topic was deleted. Changes under the shard's lock.
    closed: AtomicBool,
    /// Queues that have grown since the state was locked last.
    grown: Mutex<BTreeSet<QueueId>>,
    has_grown: AtomicBool,
    unobserved: Arc<Mutex<Vec<ShardKey>>>,
    /// It is among them.
    is_unobserved: AtomicBool,
    has_series: AtomicBool,
}

/// What a shard's lock guards.
struct Progress {
    state: DeliveryState,
    /// When its first end is noted.
    end_noted: Option<Timestamp>,
    /// Since when it is noted that messages are to become dead letters.
    spent_noted: Option<Timestamp>,
    /// No dead letter is made before this: it did not work.
    postponed: Option<Timestamp>,
    /// A receive found more than the group may hold, which is so much: whoever makes room wakes one.
    full_at: Option<usize>,
    /// The group or the topic was deleted.
    removed: bool,
}

/// A shard's state, locked. Tells [`Upkeep`] of changes when it is dropped, and wakes a receive if there is room again.
pub(crate) struct ShardGuard<'a> {
    shard: &'a Shard,
    progress: MutexGuard<'a, Progress>,
    /// Ends that were noted before have been looked at.
    looked_for_ends: bool,
    /// Those were made that were to be made.
    dead_lettered: bool,
}

/// Counts a receive as waiting while it lives.
pub(crate) struct Waiting<'a> {
    shard: &'a Shard,
}

impl ProgressTable {
    pub(crate) fn get(&self, group: GroupId, topic: TopicId) -> Option<Arc<Shard>> {
        self.shards.read().get(&(group, topic)).cloned()
    }

    /// The shard, made from `state` if there is none yet. `made` is told of it before anybody else has it.
    pub(crate) fn open(
        &self,
        group: GroupId,
        topic: TopicId,
        state: DeliveryState,
        made: impl FnOnce(&Arc<Shard>),
    ) -> Arc<Shard> {
        let mut shards = self.shards.write();
        if let Some(shard) = shards.get(&(group, topic)) {
            return shard.clone();
        }
        let (end_noted, spent_noted, postponed, full_at) = (None, None, None, None);
        let progress = Progress { state, end_noted, spent_noted, postponed, full_at, removed: false };
        let shard = Arc::new(Shard {
            group,
            topic,
            progress: Mutex::new(progress),
            upkeep: self.upkeep.clone(),
            arrivals: Notify::new(),
            waiting: AtomicUsize::new(0),
            unsaved: self.unsaved.clone(),
            changed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            grown: Mutex::default(),
            has_grown: AtomicBool::new(false),
            unobserved: self.unobserved.clone(),
            is_unobserved: AtomicBool::new(false),
            has_series: AtomicBool::new(false),
        });
        shard.is_to_be_observed();
        made(&shard);
        shards.insert((group, topic), shard.clone());
        // What its state holds is noted.
        drop(shard.lock());
        shard
    }

    /// Forgets a shard whose group or topic was deleted.
    pub(crate) fn remove(&self, group: GroupId, topic: TopicId) -> Option<Arc<Shard>> {
        let shard = self.shards.write().remove(&(group, topic))?;
        self.unsaved.lock().gone.push((group, topic));
        let mut progress = shard.progress.lock();
        progress.removed = true;
        self.upkeep.ends.note(shard.key(), progress.end_noted.take(), None);
        self.upkeep.spent.note(shard.key(), progress.spent_noted.take(), None);
        for owner in progress.state.owners() {
            self.upkeep.note_owner(owner, shard.key(), false);
        }
        drop(progress);
        Some(shard)
    }

    /// The largest group of which there is progress.
    pub(crate) fn last_group(&self) -> GroupId {
        self.shards.read().last_key_value().map_or_else(GroupId::default, |((group, _), _)| *group)
    }

    /// The shards that changed since they were taken last, and those that were forgotten.
    pub(crate) fn take_unsaved(&self) -> (Vec<Arc<Shard>>, Vec<ShardKey>) {
        let Unsaved { changed, gone } = std::mem::take(&mut *self.unsaved.lock());
        let shards = self.shards.read();
        (changed.iter().filter_map(|key| shards.get(key).cloned()).collect(), gone)
    }

    /// The shards whose state or whose queues changed since they were taken last.
    pub(crate) fn take_unobserved(&self) -> Vec<Arc<Shard>> {
        let keys = std::mem::take(&mut *self.unobserved.lock());
        let shards = self.shards.read();
        let found: Vec<_> = keys.iter().filter_map(|key| shards.get(key).cloned()).collect();
        // Before anybody looks: what changes from now on is looked at again.
        found.iter().for_each(|shard| shard.is_unobserved.store(false, Ordering::SeqCst));
        found
    }

    /// Which shards have something to be done for them.
    pub(crate) fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Those of one group, by topic.
    pub(crate) fn of_group(&self, group: GroupId) -> Vec<Arc<Shard>> {
        let of_group = (group, TopicId(0))..=(group, TopicId(u32::MAX));
        self.shards.read().range(of_group).map(|(_, shard)| shard.clone()).collect()
    }

    /// All of them, by group and topic: in the order in which records are made for them.
    pub(crate) fn list(&self) -> Vec<Arc<Shard>> {
        self.shards.read().values().cloned().collect()
    }

    /// Gives `work` all messages that groups have set aside, some of one group at a time.
    pub(crate) fn each_set_aside<E>(
        &self,
        mut work: impl FnMut(&Shard, Vec<(QueueId, QueueOffset)>) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in self.list().into_iter().filter(|shard| !shard.is_closed()) {
            let mut last = None;
            loop {
                let set_aside = {
                    let state = shard.lock();
                    if state.damaged() == 0 { Vec::new() } else { state.set_aside_messages(last, SET_ASIDE_MAX) }
                };
                last = set_aside.last().copied();
                if last.is_none() {
                    break;
                }
                work(&shard, set_aside)?;
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Locks the state, which knows then which queues have grown.
    pub(crate) fn lock(&self) -> ShardGuard<'_> {
        let mut progress = self.progress.lock();
        if self.has_grown.swap(false, Ordering::SeqCst) {
            progress.state.grew(std::mem::take(&mut *self.grown.lock()));
        }
        ShardGuard { shard: self, progress, looked_for_ends: false, dead_lettered: false }
    }

    /// A queue has grown: the next receive looks there.
    pub(crate) fn grew(&self, queue: QueueId) {
        self.grown.lock().insert(queue);
        self.has_grown.store(true, Ordering::SeqCst);
        self.is_to_be_observed();
    }

    /// What is measured of it may be another number than before.
    pub(crate) fn is_to_be_observed(&self) {
        if !self.is_unobserved.swap(true, Ordering::SeqCst) {
            self.unobserved.lock().push(self.key());
        }
    }

    /// Whether it has gauges of its own. If not, it has from now on if `may` says so.
    pub(crate) fn has_series(&self, may: impl FnOnce() -> bool) -> bool {
        let has = self.has_series.load(Ordering::Relaxed) || may();
        self.has_series.store(has, Ordering::Relaxed);
        has
    }

    /// To be called under the shard's lock before a record that changes it is put into the log: the next checkpoint must
    /// have it.
    pub(crate) fn will_change(&self) {
        self.is_to_be_observed();
        if !self.changed.swap(true, Ordering::SeqCst) {
            self.unsaved.lock().changed.push(self.key());
        }
    }

    /// No record of it is made from now on, or again.
    pub(crate) fn set_closed(&self, closed: bool) {
        let _progress = self.progress.lock();
        self.closed.store(closed, Ordering::SeqCst);
    }

    /// Its group or topic was deleted: no record of it is made any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// To be called under the shard's lock: a checkpoint gets it as it is now.
    pub(crate) fn is_saved(&self) {
        self.changed.store(false, Ordering::SeqCst);
    }

    /// Whether it ends when that is deleted.
    pub(crate) fn is_of(&self, removed: Removed) -> bool {
        match removed {
            Removed::Topic(topic) => self.topic == topic,
            Removed::Group(group) => self.group == group,
        }
    }

    pub(crate) fn key(&self) -> ShardKey {
        (self.group, self.topic)
    }

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

impl ShardGuard<'_> {
    /// There are messages, but the group may not hold more than `inflight_max`. When it holds fewer a receive is woken.
    pub(crate) fn is_full(&mut self, inflight_max: usize) {
        self.progress.full_at = Some(inflight_max);
    }

    /// What has ended is known.
    pub(crate) fn looked_for_ends(mut self) {
        self.looked_for_ends = true;
    }

    /// The dead letters were made that were to be made; those that could not be are tried again at `postponed`.
    pub(crate) fn dead_lettered(mut self, postponed: Option<Timestamp>) {
        self.progress.postponed = postponed;
        self.dead_lettered = true;
    }
}

impl Deref for ShardGuard<'_> {
    type Target = DeliveryState;

    fn deref(&self) -> &DeliveryState {
        &self.progress.state
    }
}

impl DerefMut for ShardGuard<'_> {
    fn deref_mut(&mut self) -> &mut DeliveryState {
        &mut self.progress.state
    }
}

impl Drop for ShardGuard<'_> {
    fn drop(&mut self) {
        let Progress { state, end_noted, spent_noted, postponed, full_at, removed } = &mut *self.progress;
        if *removed {
            return;
        }
        if full_at.is_some_and(|full_at| state.inflight() < full_at) {
            *full_at = None;
            self.shard.wake_one();
        }
        for (owner, holds) in state.take_owner_changes() {
            self.shard.upkeep.note_owner(owner, self.shard.key(), holds);
        }
        // Ends move on all the time: only an earlier one is worth the indexes' lock, as long as nobody has looked.
        let end = state.next_end();
        let earlier = end.is_some_and(|end| end_noted.is_none_or(|noted| end < noted));
        if earlier || (self.looked_for_ends && end != *end_noted) {
            self.shard.upkeep.ends.note(self.shard.key(), *end_noted, end);
            *end_noted = end;
        }
        let spent = state.has_spent().then_some(postponed.unwrap_or_default());
        if (spent.is_some() && spent_noted.is_none()) || (self.dead_lettered && spent != *spent_noted) {
            self.shard.upkeep.spent.note(self.shard.key(), *spent_noted, spent);
            *spent_noted = spent;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_measured_again() {
        let progress = ProgressTable::default();
        let open = |number| progress.open(GroupId(number), TopicId(1), DeliveryState::default(), |_| {});
        let shards: Vec<_> = (0..100).map(open).collect();
        let measured = || progress.take_unobserved().iter().map(|shard| shard.group.0).collect::<Vec<_>>();
        assert_eq!(measured().len(), 100);
        assert_eq!(measured(), Vec::<u32>::new());
        for _ in 0..3 {
            shards[7].grew(QueueId(3));
            shards[9].will_change();
        }
        assert_eq!(measured(), [7, 9]);
        assert_eq!(measured(), Vec::<u32>::new());
        shards[9].grew(QueueId(1));
        assert!(progress.remove(GroupId(7), TopicId(1)).is_some());
        shards[7].grew(QueueId(1));
        assert_eq!(measured(), [9]);
    }

    #[test]
    fn a_state_knows_the_queues_that_grew_once_it_is_locked() {
        let progress = ProgressTable::default();
        let shard = progress.open(GroupId(1), TopicId(1), DeliveryState::default(), |_| {});
        for queue in [5, 3, 5] {
            shard.grew(QueueId(queue));
        }
        drop(shard.lock());
        assert!(shard.grown.lock().is_empty());
        shard.grew(QueueId(8));
        assert_eq!(*shard.grown.lock(), [QueueId(8)].into());
    }
}
