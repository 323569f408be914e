//! A topic's route: its queues and the store groups that have them. Kept for topics in use, and computed again only when
//! the topic or a store group has changed.

use super::StoreGroups;
use gantry_proto::model::{MetadataView, Placement, QueueId, StoreGroup, Topic, fnv1a};
use std::sync::Arc;

/// Where a topic's queues are, as of one state of the metadata.
pub(super) struct Route {
    topic: Arc<Topic>,
    store_groups_revision: u64,
    /// All queues, in order.
    pub(super) queues: Vec<RoutedQueue>,
    /// Those that take messages, in order.
    pub(super) writable: Vec<RoutedQueue>,
    /// The store groups that have queues of the topic, each once, in order.
    pub(super) store_groups: Vec<Arc<StoreGroup>>,
}

/// A queue and where it is.
#[derive(Clone)]
pub(crate) struct RoutedQueue {
    pub(crate) queue: QueueId,
    /// The store group that has it.
    pub(crate) store_group: Arc<StoreGroup>,
    /// Whether it takes messages.
    pub(crate) writable: bool,
}

impl StoreGroups {
    /// The route of a topic that is sent to or received from.
    pub(super) fn route(&self, topic: &Arc<Topic>) -> Arc<Route> {
        let kept = self.routes.read().get(&topic.id).cloned();
        if let Some(route) = kept.filter(|route| route.is_current(topic, &self.view)) {
            return route;
        }
        let route = Arc::new(Route::new(topic, &self.view));
        self.routes.write().insert(topic.id, route.clone());
        route
    }

    /// A topic's queues, in order, on store groups that exist. Whoever asks only for them does not put the topic in use.
    pub(crate) fn queues_of(&self, topic: &Arc<Topic>) -> Vec<RoutedQueue> {
        let kept = self.routes.read().get(&topic.id).cloned();
        match kept.filter(|route| route.is_current(topic, &self.view)) {
            Some(route) => route.queues.clone(),
            None => Route::new(topic, &self.view).queues,
        }
    }

    /// How many queues a topic has, also those whose store groups are gone: the number never shrinks. `None`: none of its
    /// store groups exists. Whoever asks only for it does not put the topic in use.
    pub(crate) fn queue_count(&self, topic: &Arc<Topic>) -> Option<u32> {
        let here = self.view.queues_of(topic).len() as u32;
        let count = match &topic.placement {
            Placement::Spread { store_groups, .. } => store_groups.len() as u32,
            Placement::EveryGroup => here,
        };
        (here > 0).then_some(count)
    }
}

impl Route {
    pub(super) fn new(topic: &Arc<Topic>, view: &MetadataView) -> Route {
        // Read first: if a store group changes meanwhile, the route is computed once more.
        let store_groups_revision = view.store_groups_revision();
        let takes_messages = view.writable_queues_of(topic);
        let is_writable = |queue: QueueId| takes_messages.binary_search_by_key(&queue, |(queue, _)| *queue).is_ok();
        let queues: Vec<RoutedQueue> = (view.queues_of(topic).into_iter())
            .map(|(queue, store_group)| RoutedQueue { queue, store_group, writable: is_writable(queue) })
            .collect();
        let writable = queues.iter().filter(|routed| routed.writable).cloned().collect();
        let mut store_groups: Vec<Arc<StoreGroup>> = queues.iter().map(|routed| routed.store_group.clone()).collect();
        store_groups.sort_by_key(|store_group| store_group.id);
        store_groups.dedup_by_key(|store_group| store_group.id);
        Route { topic: topic.clone(), store_groups_revision, queues, writable, store_groups }
    }

    fn is_current(&self, topic: &Arc<Topic>, view: &MetadataView) -> bool {
        self.store_groups_revision == view.store_groups_revision() && Arc::ptr_eq(&self.topic, topic)
    }

    /// The queue of a message group, chosen by the hash of its name. `None`: the queue's store group is gone.
    pub(super) fn message_group_queue(&self, hash: u64) -> Option<&RoutedQueue> {
        let queue = match &self.topic.placement {
            Placement::Spread { message_group_queues: lanes, .. } => {
                *lanes.get(consistent_hash(hash, lanes.len() as u32) as usize)?
            }
            Placement::EveryGroup => {
                return self.writable.get(consistent_hash(hash, self.writable.len() as u32) as usize);
            }
        };
        let index = self.queues.binary_search_by_key(&queue, |routed| routed.queue).ok()?;
        self.queues.get(index)
    }

    /// Whether the same store groups have its queues.
    pub(super) fn same_store_groups(&self, other: &Route) -> bool {
        let ids = |route: &Route| route.store_groups.iter().map(|store_group| store_group.id).collect::<Vec<_>>();
        ids(self) == ids(other)
    }
}

/// Chooses the queue of a message group, and the queue that a message is tried on first. FNV-1a: every proxy and every
/// version must agree on it.
pub(crate) fn stable_hash(text: &str) -> u64 {
    fnv1a(text.bytes())
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
    use gantry_proto::contract::{StoreService, Stores};
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

    struct NoStores;

    impl Stores for NoStores {
        fn leader_of(&self, _: &StoreGroup) -> Option<Arc<dyn StoreService>> {
            None
        }

        fn trouble_with(&self, _: &StoreGroup) -> Option<String> {
            None
        }
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
    pub(in super::super) fn two_store_groups(view: &MetadataView) -> Arc<Topic> {
        let topic = topic(Placement::spread(4, &[StoreGroupId(1), StoreGroupId(2)], 0));
        let groups = [1, 2].map(|id| store_group(id, StoreGroupState::Active));
        apply(view, &groups);
        apply(view, &[MetadataChange::TopicUpsert(topic.clone())]);
        topic
    }

    #[test]
    fn routes_follow_the_topic_and_the_store_groups_and_are_kept_in_between() {
        let view = Arc::new(MetadataView::default());
        let topic = two_store_groups(&view);
        let stores = StoreGroups::new(Arc::new(NoStores), view.clone());
        let before = stores.route(&topic);
        apply(&view, &[MetadataChange::TopicRemoved(TopicId(77))]);
        assert!(Arc::ptr_eq(&before, &stores.route(&topic)), "nothing that concerns it has changed");
        assert_eq!(before.writable.len(), 4);
        apply(&view, &[store_group(2, StoreGroupState::Draining)]);
        let drained = stores.route(&topic);
        assert_eq!(drained.writable.iter().map(|routed| routed.queue.0).collect::<Vec<_>>(), [0, 2]);
        assert!(!drained.queues[1].writable && drained.same_store_groups(&before));
        apply(&view, &[MetadataChange::StoreGroupRemoved(StoreGroupId(2))]);
        assert!(!stores.route(&topic).same_store_groups(&before));
    }

    #[test]
    fn message_groups_stay_where_they_are_when_a_topic_grows_or_a_group_drains() {
        let view = MetadataView::default();
        let small = two_store_groups(&view);
        let hashes: Vec<u64> = (0..100).map(|n| stable_hash(&format!("group-{n}"))).collect();
        let queues = |topic: &Arc<Topic>| -> Vec<QueueId> {
            let route = Route::new(topic, &view);
            hashes.iter().map(|hash| route.message_group_queue(*hash).unwrap().queue).collect()
        };
        let before = queues(&small);
        apply(&view, &[store_group(2, StoreGroupState::Draining), store_group(3, StoreGroupState::Active)]);
        let Placement::Spread { store_groups: groups, message_group_queues: kept } = &small.placement else {
            panic!("not spread")
        };
        let grown = groups.iter().copied().chain([StoreGroupId(3); 2]).collect();
        let large = topic(Placement::Spread { store_groups: grown, message_group_queues: kept.clone() });
        assert_eq!(queues(&large), before);
        // Only what the controller moves, moves.
        let moved = topic(Placement::Spread {
            message_group_queues: [0, 4, 2, 5].map(QueueId).into(),
            store_groups: match &large.placement {
                Placement::Spread { store_groups: groups, .. } => groups.clone(),
                Placement::EveryGroup => panic!("not spread"),
            },
        });
        let expected = before.iter().map(|queue| match queue.0 {
            1 => QueueId(4),
            3 => QueueId(5),
            _ => *queue,
        });
        assert_eq!(queues(&moved), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_message_group_keeps_its_queue_and_few_groups_move_when_queues_are_added() {
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
