//! How topics grow onto store groups, and how message groups leave those that drain.

use super::{Decision, MetadataState};
use gantry_proto::model::{
    MetadataChange, MetadataOutcome, MetadataRefusal, Placement, QueueId, StoreGroupId, Topic, TopicName,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

impl MetadataState {
    /// One page. Repeating it changes nothing more.
    pub(super) fn spread_topics(&self, after: Option<&TopicName>, limit: u32) -> Result<Decision, MetadataRefusal> {
        let active = self.groups_for_queues()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.topic_ids.range::<TopicName, _>((from, Bound::Unbounded));
        let page: Vec<_> = rest.by_ref().take(limit.max(1) as usize).collect();
        let next = page.last().map(|(name, _)| (*name).clone()).filter(|_| rest.next().is_some());
        let changes: Vec<_> = (page.iter().filter_map(|(_, id)| self.topics.get(id)))
            .filter_map(|topic| self.spread(topic, &active))
            .map(|topic| MetadataChange::TopicUpsert(Arc::new(topic)))
            .collect();
        let changed = changes.len() as u32;
        Ok(self.decided(MetadataOutcome::Spread { changed, next }, changes))
    }

    /// The store groups that take new queues, at least one.
    pub(super) fn groups_for_queues(&self) -> Result<Vec<StoreGroupId>, MetadataRefusal> {
        let active: Vec<_> = self.active_store_groups().collect();
        if active.is_empty() { Err(MetadataRefusal::NoStoreGroup) } else { Ok(active) }
    }

    /// The topic as it should be. `None`: as it is.
    fn spread(&self, topic: &Topic, active: &[StoreGroupId]) -> Option<Topic> {
        let Placement::Spread { store_groups, message_group_queues: group_queues } = &topic.placement else {
            return None;
        };
        let mut counts: BTreeMap<StoreGroupId, usize> = active.iter().map(|id| (*id, 0)).collect();
        let mut elsewhere = 0;
        for store_group in store_groups.iter() {
            match counts.get_mut(store_group) {
                Some(count) => *count += 1,
                None if self.store_groups.contains_key(store_group) => elsewhere += 1,
                None => {}
            }
        }
        let room = (self.rules().queue_count_max() as usize).saturating_sub(store_groups.len());
        let most = counts.values().copied().max().unwrap_or(0);
        let wanted = match most {
            // Nothing is on an active store group. One queue is always possible, or the topic could never leave the others.
            0 => (if elsewhere == 0 { store_groups.len() } else { elsewhere })
                .next_multiple_of(active.len())
                .clamp(1, room.max(1)),
            most => counts.values().map(|count| most - count).sum::<usize>().min(room),
        };
        let mut grown = store_groups.to_vec();
        deal(&mut grown, active, wanted, topic.id.0 as usize);
        let group_queues = repointed(&grown, group_queues, active);
        let placement = Placement::Spread { store_groups: grown.into(), message_group_queues: group_queues };
        (placement != topic.placement).then(|| Topic { placement, ..topic.clone() })
    }
}

/// Deals `count` new queues out, each to the store group of `over` (not empty) that has the fewest of them; among equals in
/// turn, beginning with the one that `first` selects.
pub(super) fn deal(store_groups: &mut Vec<StoreGroupId>, over: &[StoreGroupId], count: usize, first: usize) {
    let turn = (0..over.len()).map(|index| over[(first + index) % over.len()]);
    let mut load: Vec<(usize, StoreGroupId)> =
        turn.map(|id| (store_groups.iter().filter(|store_group| **store_group == id).count(), id)).collect();
    for _ in 0..count {
        if let Some((queues, id)) = load.iter_mut().min_by_key(|(queues, _)| *queues) {
            store_groups.push(*id);
            *queues += 1;
        }
    }
}

/// Queues of message groups that are on no active store group are replaced by queues that are, in order.
fn repointed(store_groups: &[StoreGroupId], group_queues: &Arc<[QueueId]>, active: &[StoreGroupId]) -> Arc<[QueueId]> {
    let is_active =
        |queue: &QueueId| store_groups.get(queue.0 as usize).is_some_and(|store_group| active.contains(store_group));
    if group_queues.iter().all(is_active) {
        return group_queues.clone();
    }
    let targets: Vec<QueueId> = (0..store_groups.len() as u32).map(QueueId).filter(is_active).collect();
    let mut targets = targets.iter().copied().cycle();
    group_queues.iter().map(|queue| if is_active(queue) { *queue } else { targets.next().unwrap_or(*queue) }).collect()
}
