//! Where a topic's queues are.

use super::{QueueId, StoreGroupId};
use std::sync::Arc;

/// Which store group has which queue of a topic. A queue never moves and never goes: (topic, queue, offset) means one
/// message for ever. A topic grows onto other groups by new queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each queue has its store group.
    Spread {
        /// By queue id.
        store_groups: Arc<[StoreGroupId]>,
        /// The queues that message groups are hashed onto. Their number is fixed when the topic is created, so that message
        /// groups stay where they are when the topic grows. An entry changes only when its queue's store group is drained.
        message_group_queues: Arc<[QueueId]>,
    },
    /// One queue on every store group, also on later ones: a dead letter stays on the store group that gave the message up.
    /// Queue `n` is on store group `n + 1`.
    EveryGroup,
}

impl Placement {
    /// `count` new queues on the store groups `over`, in turn, beginning at the position `first`. `over` is not empty.
    pub fn spread(count: u32, over: &[StoreGroupId], first: usize) -> Placement {
        let groups = (0..count as usize).map(|queue| over[(first + queue) % over.len()]).collect();
        Placement::Spread { store_groups: groups, message_group_queues: (0..count).map(QueueId).collect() }
    }

    /// The store group that has the queue. `None`: there is no such queue.
    pub fn store_group(&self, queue: QueueId) -> Option<StoreGroupId> {
        match self {
            Placement::Spread { store_groups: groups, .. } => groups.get(queue.0 as usize).copied(),
            Placement::EveryGroup => Some(StoreGroupId(queue.0 + 1)),
        }
    }

    /// How many queues were ever made: their ids are below this. For [`Placement::EveryGroup`], on store groups up to
    /// `newest`.
    pub fn queue_count(&self, newest: StoreGroupId) -> u32 {
        match self {
            Placement::Spread { store_groups: groups, .. } => groups.len() as u32,
            Placement::EveryGroup => newest.0,
        }
    }

    /// The queues on a store group, in order.
    pub fn queues_on(&self, group: StoreGroupId) -> impl Iterator<Item = QueueId> {
        let (spread, one) = match self {
            Placement::Spread { store_groups: groups, .. } => (&groups[..], None),
            Placement::EveryGroup => (&[][..], group.0.checked_sub(1).map(QueueId)),
        };
        let spread = spread.iter().zip(0..).filter(move |(of, _)| **of == group).map(|(_, queue)| QueueId(queue));
        spread.chain(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StoreGroupId = StoreGroupId(1);
    const B: StoreGroupId = StoreGroupId(2);

    #[test]
    fn queues_are_dealt_out_in_turn() {
        let placement = Placement::spread(3, &[A, B], 1);
        assert_eq!(
            (0..4).map(|q| placement.store_group(QueueId(q))).collect::<Vec<_>>(),
            [Some(B), Some(A), Some(B), None]
        );
        assert_eq!(placement.queues_on(B).collect::<Vec<_>>(), [QueueId(0), QueueId(2)]);
        assert_eq!(placement.queue_count(B), 3);
    }

    #[test]
    fn every_group_has_one_queue_of_dead_letters() {
        let placement = Placement::EveryGroup;
        assert_eq!(placement.queues_on(B).collect::<Vec<_>>(), [QueueId(1)]);
        assert_eq!(placement.store_group(QueueId(1)), Some(B));
        assert_eq!(placement.queue_count(B), 2);
    }
}
