//! Which store group is asked for messages first: the one that was asked least recently.

use gantry_proto::model::StoreGroupId;
use std::collections::BTreeMap;

/// When each store group was asked for messages of one topic for one consumer group, by this proxy. Lost with the proxy:
/// then all begin alike.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    turns: u64,
    last_turn: BTreeMap<StoreGroupId, u64>,
}

impl Rotation {
    /// The store groups in the order in which to ask them. The first one counts as asked at once, so that a receive at the
    /// same time begins with another one.
    pub(crate) fn begin(&mut self, mut store_groups: Vec<StoreGroupId>) -> Vec<StoreGroupId> {
        store_groups.sort_by_key(|id| (self.last_turn.get(id).copied().unwrap_or_default(), *id));
        if let Some(first) = store_groups.first() {
            self.asked(*first);
        }
        store_groups
    }

    /// A store group was asked: the others go first now.
    pub(crate) fn asked(&mut self, store_group: StoreGroupId) {
        self.turns += 1;
        self.last_turn.insert(store_group, self.turns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_waiting_store_group_goes_first() {
        let mut rotation = Rotation::default();
        let groups = || [1, 2, 3].map(StoreGroupId).to_vec();
        assert_eq!(rotation.begin(groups()), [1, 2, 3].map(StoreGroupId));
        assert_eq!(rotation.begin(groups()), [2, 3, 1].map(StoreGroupId));
        rotation.asked(StoreGroupId(3));
        assert_eq!(rotation.begin(groups()), [1, 2, 3].map(StoreGroupId));
    }

    proptest! {
        /// Receives come one after the other; at each, some store groups have messages and some are up. One that has
        /// messages and is up gives some within as many receives as there are store groups.
        #[test]
        fn no_store_group_starves(count in 1_u32..6, steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..200)) {
            let mut rotation = Rotation::default();
            let ids: Vec<StoreGroupId> = (1..=count).map(StoreGroupId).collect();
            let mut waiting = BTreeMap::new();
            for (filled, up) in steps {
                let has = |mask: u8, id: &StoreGroupId| mask >> (id.0 - 1) & 1 == 1;
                let mut served = None;
                for id in rotation.begin(ids.clone()) {
                    rotation.asked(id);
                    if has(filled, &id) && has(up, &id) {
                        served = Some(id);
                        break;
                    }
                }
                for id in &ids {
                    if !has(filled, id) || !has(up, id) || served == Some(*id) {
                        waiting.insert(*id, 0);
                    } else {
                        let receives = waiting.entry(*id).or_default();
                        *receives += 1;
                        prop_assert!(*receives < count, "{id} waited for {receives} receives");
                    }
                }
            }
        }
    }
}
