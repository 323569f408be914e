//! What this proxy keeps about a topic in use: where its queues are. Worked out again only when the
//! topic or a store group changed.

use crate::metrics::{Metrics, SendMeters};
use gantry_proto::model::{MetadataView, Placement, QueueId, StoreGroup, Topic};
use parking_lot::RwLock;
use std::sync::{Arc, OnceLock};

/// One topic.
pub(crate) struct TopicPaths {
    sent: OnceLock<SendMeters>,
    placed: RwLock<Arc<Placed>>,
}

/// Where a topic's queues are, as of one state of the metadata.
pub(super) struct Placed {
    pub(super) topic: Arc<Topic>,
    store_groups_revision: u64,
    /// All of them, in order.
    pub(super) queues: Vec<Place>,
    /// Those that take messages.
    pub(super) writable: Vec<Place>,
    /// The groups that have queues of it, each once, in order.
    pub(super) groups: Vec<Arc<StoreGroup>>,
}

/// A queue and its store group.
pub(super) type Place = (QueueId, Arc<StoreGroup>);

impl TopicPaths {
    pub(super) fn new(topic: &Arc<Topic>, view: &MetadataView) -> TopicPaths {
        let placed = RwLock::new(Arc::new(Placed::new(topic, view)));
        TopicPaths { sent: OnceLock::new(), placed }
    }

    /// The counters of what is sent to it.
    pub(crate) fn meters(&self, topic: &Topic, metrics: &Metrics) -> &SendMeters {
        self.sent.get_or_init(|| metrics.send_meters(topic.name.as_str()))
    }

    /// Where its queues are now.
    pub(super) fn placed(&self, topic: &Arc<Topic>, view: &MetadataView) -> Arc<Placed> {
        let seen = self.placed.read().clone();
        if seen.store_groups_revision == view.store_groups_revision() && Arc::ptr_eq(&seen.topic, topic) {
            return seen;
        }
        let new = Arc::new(Placed::new(topic, view));
        *self.placed.write() = new.clone();
        new
    }
}

impl Placed {
    pub(super) fn new(topic: &Arc<Topic>, view: &MetadataView) -> Placed {
        // Read first: if a group changes meanwhile, the result is worked out once more.
        let store_groups_revision = view.store_groups_revision();
        let (queues, writable) = (view.queues_of(topic), view.writable_queues_of(topic));
        let mut groups: Vec<Arc<StoreGroup>> = queues.iter().map(|(_, group)| group.clone()).collect();
        groups.sort_by_key(|group| group.id);
        groups.dedup_by_key(|group| group.id);
        Placed { topic: topic.clone(), store_groups_revision, queues, writable, groups }
    }

    /// Whether a queue takes messages.
    pub(super) fn is_writable(&self, queue: QueueId) -> bool {
        self.writable.binary_search_by_key(&queue, |(queue, _)| *queue).is_ok()
    }

    /// The queue of a message group. `None`: its store group is gone.
    pub(super) fn lane(&self, hash: u64) -> Option<&Place> {
        let queue = match &self.topic.placement {
            Placement::Spread { lanes, .. } => *lanes.get(consistent_hash(hash, lanes.len() as u32) as usize)?,
            Placement::EveryGroup => {
                return self.writable.get(consistent_hash(hash, self.writable.len() as u32) as usize);
            }
        };
        let index = self.queues.binary_search_by_key(&queue, |(queue, _)| *queue).ok()?;
        self.queues.get(index)
    }

    /// Whether the same groups have its queues.
    pub(super) fn same_groups(&self, other: &Placed) -> bool {
        self.groups.iter().map(|group| group.id).eq(other.groups.iter().map(|group| group.id))
    }
}

/// What decides on the queue of a message group, and where a message is tried first. FNV-1a: every proxy and every version
/// must agree on it.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Jump consistent hash (Lamping, Veach 2014): with more buckets, only what moves to new ones moves.
fn consistent_hash(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0_u64, 0_u64);
    while next < u64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as u64;
    }
    bucket as u32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use gantry_proto::model::{
        Epoch, MetadataChange, MetadataVersion, StoreGroupId, StoreGroupName, StoreGroupState, Timestamp, TopicId,
        TopicName, TopicType,
    };

    fn store_group(id: u32, state: StoreGroupState) -> MetadataChange {
        MetadataChange::StoreGroupUpsert(Arc::new(StoreGroup {
            id: StoreGroupId(id),
            name: StoreGroupName::parse(&format!("store-{id}")).unwrap(),
            state,
            replicas: Vec::new(),
            in_sync: Vec::new(),
            leader: None,
            epoch: Epoch(1),
            created_at: Timestamp::ZERO,
        }))
    }

    fn apply(view: &MetadataView, changes: &[MetadataChange]) {
        view.apply(MetadataVersion(view.version().0 + 1), changes);
    }

    fn topic(placement: Placement) -> Arc<Topic> {
        Arc::new(Topic {
            id: TopicId(1),
            name: TopicName::parse("orders").unwrap(),
            topic_type: TopicType::Mixed,
            placement,
            dead_letter_of: None,
            created_at: Timestamp::ZERO,
        })
    }

    /// A topic whose four queues are on two groups in turn.
    pub(in super::super) fn two_groups(view: &MetadataView) -> Arc<Topic> {
        let topic = topic(Placement::spread(4, &[StoreGroupId(1), StoreGroupId(2)], 0));
        let groups = [1, 2].map(|id| store_group(id, StoreGroupState::Active));
        apply(view, &groups);
        apply(view, &[MetadataChange::TopicUpsert(topic.clone())]);
        topic
    }

    #[test]
    fn places_follow_the_topic_and_the_store_groups_and_are_kept_in_between() {
        let view = MetadataView::default();
        let topic = two_groups(&view);
        let paths = TopicPaths::new(&topic, &view);
        let before = paths.placed(&topic, &view);
        apply(&view, &[MetadataChange::TopicRemoved(TopicId(77))]);
        assert!(Arc::ptr_eq(&before, &paths.placed(&topic, &view)), "nothing that concerns it has changed");
        assert_eq!(before.writable.len(), 4);
        apply(&view, &[store_group(2, StoreGroupState::Draining)]);
        let drained = paths.placed(&topic, &view);
        assert_eq!(drained.writable.iter().map(|(queue, _)| queue.0).collect::<Vec<_>>(), [0, 2]);
        assert!(!drained.is_writable(QueueId(1)) && drained.same_groups(&before));
        apply(&view, &[MetadataChange::StoreGroupRemoved(StoreGroupId(2))]);
        assert!(!paths.placed(&topic, &view).same_groups(&before));
    }

    #[test]
    fn message_groups_stay_where_they_are_when_a_topic_grows_or_a_group_drains() {
        let view = MetadataView::default();
        let small = two_groups(&view);
        let paths = TopicPaths::new(&small, &view);
        let hashes: Vec<u64> = (0..100).map(|n| stable_hash(&format!("group-{n}"))).collect();
        let lanes = |topic: &Arc<Topic>| -> Vec<QueueId> {
            let placed = paths.placed(topic, &view);
            hashes.iter().map(|hash| placed.lane(*hash).unwrap().0).collect()
        };
        let before = lanes(&small);
        apply(&view, &[store_group(2, StoreGroupState::Draining), store_group(3, StoreGroupState::Active)]);
        let Placement::Spread { groups, lanes: kept } = &small.placement else { panic!("not spread") };
        let grown = groups.iter().copied().chain([StoreGroupId(3); 2]).collect();
        let large = topic(Placement::Spread { groups: grown, lanes: kept.clone() });
        assert_eq!(lanes(&large), before);
        // Only what the controller moves, moves.
        let moved = topic(Placement::Spread {
            lanes: [0, 4, 2, 5].map(QueueId).into(),
            groups: match &large.placement {
                Placement::Spread { groups, .. } => groups.clone(),
                Placement::EveryGroup => panic!("not spread"),
            },
        });
        let expected = before.iter().map(|queue| match queue.0 {
            1 => QueueId(4),
            3 => QueueId(5),
            _ => *queue,
        });
        assert_eq!(lanes(&moved), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_message_group_keeps_its_queue_and_few_groups_move_when_lanes_are_added() {
        let groups: Vec<String> = (0..2000).map(|n| format!("group-{n}")).collect();
        let mut counts = [0; 8];
        let mut moved = 0;
        for group in &groups {
            let queue = consistent_hash(stable_hash(group), 8);
            assert_eq!(queue, consistent_hash(stable_hash(group), 8));
            counts[queue as usize] += 1;
            let grown = consistent_hash(stable_hash(group), 10);
            assert!(grown == queue || grown >= 8, "only to new queues");
            moved += usize::from(grown != queue);
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
        assert!((300..500).contains(&moved), "{moved}");
        assert_eq!(consistent_hash(stable_hash("orders"), 8), 7, "part of the protocol between proxies: never changes");
    }
}
