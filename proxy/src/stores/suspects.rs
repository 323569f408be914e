//! Store groups that did not do what they were asked a moment ago.

use gantry_proto::model::StoreGroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long others are preferred. Then one more call finds out.
const SUSPICION: Duration = Duration::from_secs(1);

/// Groups that sends avoid for a moment, where another one can take the message.
#[derive(Default)]
pub(crate) struct Suspects {
    any: AtomicBool,
    until: Mutex<BTreeMap<StoreGroupId, Instant>>,
}

impl Suspects {
    /// Suspects a group from now on.
    pub(crate) fn add(&self, group: StoreGroupId) {
        let mut until = self.until.lock();
        until.insert(group, Instant::now() + SUSPICION);
        self.any.store(true, Ordering::Release);
    }

    /// Whether it is suspected. Costs nothing while nobody is.
    pub(crate) fn contains(&self, group: StoreGroupId) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        let mut until = self.until.lock();
        until.retain(|_, end| *end > now);
        if until.is_empty() {
            // Both under the lock, so none is overlooked.
            self.any.store(false, Ordering::Release);
        }
        until.contains_key(&group)
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
