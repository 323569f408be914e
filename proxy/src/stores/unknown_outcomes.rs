//! Appends with unknown outcome: the messages may be stored or not.

use gantry_proto::model::{StoreGroupId, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a producer's own retry is expected.
const EXPECTED_FOR: Duration = Duration::from_secs(60);
/// Most messages that are remembered; then the oldest are forgotten.
const REMEMBERED_MAX: usize = 100_000;

/// The store group that may have stored a message, by topic and hash of the message's id. When its producer sends it again,
/// only that store group can tell. Lost with the proxy: a retry through another proxy still begins with the same store
/// group, if that one answers.
#[derive(Default)]
pub(crate) struct UnknownOutcomes {
    any: AtomicBool,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    store_groups: BTreeMap<(TopicId, u64), StoreGroupId>,
    /// Oldest first.
    until: VecDeque<(Instant, (TopicId, u64))>,
}

impl UnknownOutcomes {
    /// Remembers that `store_group` may have stored the message.
    pub(crate) fn add(&self, topic: TopicId, id_hash: u64, store_group: StoreGroupId) {
        let mut remembered = self.remembered.lock();
        if remembered.store_groups.insert((topic, id_hash), store_group).is_none() {
            remembered.until.push_back((Instant::now() + EXPECTED_FOR, (topic, id_hash)));
        }
        if remembered.until.len() > REMEMBERED_MAX {
            remembered.forget_oldest();
        }
        self.any.store(true, Ordering::Release);
    }

    /// The store group that may have stored the message. Takes no lock while nothing is remembered.
    pub(crate) fn get(&self, topic: TopicId, id_hash: u64) -> Option<StoreGroupId> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let mut remembered = self.remembered.lock();
        while remembered.until.front().is_some_and(|(until, _)| *until <= now) {
            remembered.forget_oldest();
        }
        if remembered.until.is_empty() {
            // `any` and the map change under the same lock, so no entry is overlooked.
            self.any.store(false, Ordering::Release);
        }
        remembered.store_groups.get(&(topic, id_hash)).copied()
    }
}

impl Remembered {
    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.until.pop_front() {
            self.store_groups.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_is_forgotten_when_no_retry_is_expected_any_more() {
        let outcomes = UnknownOutcomes::default();
        let (topic, store_group) = (TopicId(1), StoreGroupId(2));
        assert_eq!(outcomes.get(topic, 7), None);
        outcomes.add(topic, 7, store_group);
        assert_eq!(outcomes.get(topic, 7), Some(store_group));
        assert_eq!(outcomes.get(topic, 8), None);
        assert_eq!(outcomes.get(TopicId(3), 7), None);
        tokio::time::advance(EXPECTED_FOR).await;
        assert_eq!(outcomes.get(topic, 7), None);
        assert!(!outcomes.any.load(Ordering::Acquire));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let outcomes = UnknownOutcomes::default();
        for id_hash in 0..REMEMBERED_MAX as u64 + 10 {
            outcomes.add(TopicId(1), id_hash, StoreGroupId(1));
        }
        let remembered = outcomes.remembered.lock();
        assert_eq!((remembered.store_groups.len(), remembered.until.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
