//! Whose turn it is to give messages: the store group that was drawn from least recently.

use gantry_proto::model::StoreGroupId;
use std::collections::BTreeMap;

/// The turns of one consumer group on one topic, as this proxy took them. Lost with the proxy: then all are equal again.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    turns: u64,
    last: BTreeMap<StoreGroupId, u64>,
}

impl Rotation {
    /// The groups in the order in which they are drawn from. The first one counts as drawn at once, so that a receive at
    /// the same time begins elsewhere.
    pub(crate) fn begin(&mut self, mut groups: Vec<StoreGroupId>) -> Vec<StoreGroupId> {
        groups.sort_by_key(|group| (self.last.get(group).copied().unwrap_or_default(), *group));
        if let Some(first) = groups.first() {
            self.drawn(*first);
        }
        groups
    }

    /// A group was asked: the others go first now.
    pub(crate) fn drawn(&mut self, group: StoreGroupId) {
        self.turns += 1;
        self.last.insert(group, self.turns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_waiting_group_goes_first() {
        let mut rotation = Rotation::default();
        let groups = || [1, 2, 3].map(StoreGroupId).to_vec();
        assert_eq!(rotation.begin(groups()), [1, 2, 3].map(StoreGroupId));
        assert_eq!(rotation.begin(groups()), [2, 3, 1].map(StoreGroupId));
        rotation.drawn(StoreGroupId(3));
        assert_eq!(rotation.begin(groups()), [1, 2, 3].map(StoreGroupId));
    }

    proptest! {
        /// Receives come one after the other; at each, some groups have messages and some are up. A group that has
        /// messages and is up gives some within as many receives as there are groups.
        #[test]
        fn no_group_starves(count in 1_u32..6, steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..200)) {
            let mut rotation = Rotation::default();
            let ids: Vec<StoreGroupId> = (1..=count).map(StoreGroupId).collect();
            let mut waiting = BTreeMap::new();
            for (filled, up) in steps {
                let has = |mask: u8, id: &StoreGroupId| mask >> (id.0 - 1) & 1 == 1;
                let mut served = None;
                for id in rotation.begin(ids.clone()) {
                    rotation.drawn(id);
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
