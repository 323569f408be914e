//! When outstanding messages become visible again. Derived from the state: never saved, rebuilt from it.
//!
//! An entry may be early (the lease was extended since), never late: whoever finds one due looks at the message itself
//! and puts it back with the true time.

use super::record::Place;
use gantry_proto::model::{QueueId, QueueOffset, Timestamp};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Places by time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    by_time: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
}

impl Schedule {
    pub(super) fn insert(&mut self, at: Timestamp, (queue, offset): Place) {
        self.by_time.insert((at, queue, offset));
    }

    pub(super) fn remove(&mut self, at: Timestamp, (queue, offset): Place) {
        self.by_time.remove(&(at, queue, offset));
    }

    /// Everything that may be due at `now`, earliest first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Place)> + '_ {
        self.by_time
            .iter()
            .take_while(move |(at, ..)| *at <= now)
            .map(|(at, queue, offset)| (*at, (*queue, *offset)))
    }

    /// The first time after `now`.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let from = Bound::Excluded((now, QueueId(u32::MAX), QueueOffset(u64::MAX)));
        self.by_time.range((from, Bound::Unbounded)).next().map(|(at, ..)| *at)
    }
}
