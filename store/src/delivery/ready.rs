//! Derived: which queues may have messages that were never delivered, so that a receive looks at no others.
//!
//! Whoever lets a queue grow says so ([`DeliveryState::grew`]); a receive that finds nothing in a queue strikes it off. What
//! must always hold: a queue that is not held has nothing that was never delivered, as of the last growth that was told
//! (`a_plan_that_was_not_carried_out_hides_nothing`, `any_history_keeps_the_promises`).
//!
//! [`DeliveryState::grew`]: super::DeliveryState::grew

use gantry_proto::model::QueueId;
use std::collections::BTreeSet;

/// The queues. The default: nobody has looked yet, and any of them may have something.
#[derive(Debug, Default)]
pub(super) struct ReadyQueues {
    held: Option<BTreeSet<QueueId>>,
}

impl ReadyQueues {
    /// It may have something from now on.
    pub(super) fn insert(&mut self, queue: QueueId) {
        if let Some(held) = &mut self.held {
            held.insert(queue);
        }
    }

    /// It has nothing.
    pub(super) fn remove(&mut self, queue: QueueId) {
        if let Some(held) = &mut self.held {
            held.remove(&queue);
        }
    }

    /// Finds them among the first `count` queues, if nobody has looked yet.
    pub(super) fn find(&mut self, count: u32, has_something: impl Fn(QueueId) -> bool) {
        self.held.get_or_insert_with(|| (0..count).map(QueueId).filter(|queue| has_something(*queue)).collect());
    }

    /// Those that are held, unless nobody has looked yet.
    pub(super) fn held(&self) -> Option<&BTreeSet<QueueId>> {
        self.held.as_ref()
    }

    /// Those that are held, beginning with the first at or behind `turn`.
    pub(super) fn in_turn(&self, turn: QueueId) -> impl Iterator<Item = QueueId> {
        self.held.iter().flat_map(move |held| held.range(turn..).chain(held.range(..turn)).copied())
    }
}
