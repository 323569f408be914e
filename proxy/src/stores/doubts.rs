//! Messages of which it is not known whether they are stored.

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
/// only that group can tell. Lost with the proxy: then the retry begins with the same group as long as that one answers.
#[derive(Default)]
pub(crate) struct Doubts {
    any: AtomicBool,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    groups: BTreeMap<(TopicId, u64), StoreGroupId>,
    /// Oldest first.
    until: VecDeque<(Instant, (TopicId, u64))>,
}

impl Doubts {
    /// Remembers that `group` may have stored the message.
    pub(crate) fn add(&self, topic: TopicId, id_hash: u64, group: StoreGroupId) {
        let mut remembered = self.remembered.lock();
        if remembered.groups.insert((topic, id_hash), group).is_none() {
            remembered.until.push_back((Instant::now() + EXPECTED_FOR, (topic, id_hash)));
        }
        if remembered.until.len() > REMEMBERED_MAX {
            remembered.forget_oldest();
        }
        self.any.store(true, Ordering::Release);
    }

    /// The group that may have stored the message. Costs nothing while nothing is in doubt.
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
            // Both under the lock, so none is overlooked.
            self.any.store(false, Ordering::Release);
        }
        remembered.groups.get(&(topic, id_hash)).copied()
    }
}

impl Remembered {
    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.until.pop_front() {
            self.groups.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn doubts_pass_when_no_retry_is_to_be_expected_any_more() {
        let doubts = Doubts::default();
        let (topic, group) = (TopicId(1), StoreGroupId(2));
        assert_eq!(doubts.get(topic, 7), None);
        doubts.add(topic, 7, group);
        assert_eq!(doubts.get(topic, 7), Some(group));
        assert_eq!(doubts.get(topic, 8), None);
        assert_eq!(doubts.get(TopicId(3), 7), None);
        tokio::time::advance(EXPECTED_FOR).await;
        assert_eq!(doubts.get(topic, 7), None);
        assert!(!doubts.any.load(Ordering::Acquire));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let doubts = Doubts::default();
        for id_hash in 0..REMEMBERED_MAX as u64 + 10 {
            doubts.add(TopicId(1), id_hash, StoreGroupId(1));
        }
        let remembered = doubts.remembered.lock();
        assert_eq!((remembered.groups.len(), remembered.until.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
