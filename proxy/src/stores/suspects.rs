//! Store groups that failed a moment ago.

use gantry_proto::model::StoreGroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long other store groups are preferred. Then one more call shows how it is.
const SUSPICION: Duration = Duration::from_secs(1);

/// Store groups that sends avoid for a moment, where another one can take the message.
#[derive(Default)]
pub(crate) struct Suspects {
    any: AtomicBool,
    until: Mutex<BTreeMap<StoreGroupId, Instant>>,
}

impl Suspects {
    pub(crate) fn add(&self, store_group: StoreGroupId) {
        let mut until = self.until.lock();
        until.insert(store_group, Instant::now() + SUSPICION);
        self.any.store(true, Ordering::Release);
    }

    /// Takes no lock while no store group is suspected.
    pub(crate) fn contains(&self, store_group: StoreGroupId) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        let mut until = self.until.lock();
        until.retain(|_, end| *end > now);
        if until.is_empty() {
            // `any` and the map change under the same lock, so no entry is overlooked.
            self.any.store(false, Ordering::Release);
        }
        until.contains_key(&store_group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn suspicion_passes() {
        let suspects = Suspects::default();
        let (a, b) = (StoreGroupId(1), StoreGroupId(2));
        assert!(!suspects.contains(a));
        suspects.add(a);
        assert!(suspects.contains(a) && !suspects.contains(b));
        tokio::time::advance(SUSPICION).await;
        assert!(!suspects.contains(a));
        suspects.add(b);
        assert!(suspects.contains(b));
    }
}
