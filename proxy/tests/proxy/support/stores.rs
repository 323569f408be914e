//! Store groups of which each has one fake store, up or down.

use super::FakeStore;
use gantry_proto::contract::{StoreService, Stores};
use gantry_proto::model::{
    Epoch, FolderId, Replica, StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState, Timestamp,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub(crate) struct FakeStores {
    groups: Mutex<BTreeMap<StoreGroupId, (Arc<FakeStore>, bool)>>,
}

impl FakeStores {
    pub(crate) fn add(&self, id: StoreGroupId, store: Arc<FakeStore>) {
        self.groups.lock().unwrap().insert(id, (store, true));
    }

    /// Whether the group has a leader that answers.
    pub(crate) fn set_up(&self, id: StoreGroupId, up: bool) {
        self.groups.lock().unwrap().get_mut(&id).unwrap().1 = up;
    }
}

impl Stores for FakeStores {
    fn leader_of(&self, group: &StoreGroup) -> Option<Arc<dyn StoreService>> {
        let groups = self.groups.lock().unwrap();
        let (store, up) = groups.get(&group.id)?;
        up.then(|| store.clone() as Arc<dyn StoreService>)
    }

    fn trouble_with(&self, group: &StoreGroup) -> Option<String> {
        let up = self.groups.lock().unwrap().get(&group.id).is_some_and(|(_, up)| *up);
        (!up).then(|| format!("{} speaks another version", group.name))
    }
}

/// An active group with one replica.
pub(crate) fn store_group(id: StoreGroupId, state: StoreGroupState) -> Arc<StoreGroup> {
    let folder = FolderId([id.0 as u8; 16]);
    Arc::new(StoreGroup {
        id,
        name: StoreGroupName::parse(&format!("store-{id}")).unwrap(),
        state,
        replicas: vec![Replica { folder, address: format!("10.0.0.{id}:9000").into() }],
        in_sync: vec![folder],
        leader: Some(folder),
        epoch: Epoch(1),
        created_at: Timestamp::ZERO,
    })
}
