//! Whether the store's group is being drained, looked up again only when a store group changed: every append asks.

use gantry_proto::model::{MetadataView, StoreGroupId, StoreGroupState};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the metadata last said: the revision of the store groups, doubled, and one more if the group is being drained.
pub(crate) struct Draining(AtomicU64);

impl Default for Draining {
    fn default() -> Draining {
        // No revision: the first look looks.
        Draining(AtomicU64::new(u64::MAX))
    }
}

impl Draining {
    /// Whether `group` is being drained. Two atomic loads while nothing changes.
    pub(crate) fn look(&self, view: &MetadataView, group: StoreGroupId) -> bool {
        // Before the group is looked at: if it changes meanwhile, the next look looks again.
        let revision = view.store_groups_revision();
        let known = self.0.load(Ordering::Relaxed);
        if known >> 1 == revision {
            return known & 1 == 1;
        }
        let draining = view.store_group(group).is_some_and(|group| group.state == StoreGroupState::Draining);
        self.0.store(revision << 1 | u64::from(draining), Ordering::Relaxed);
        draining
    }
}
