//! Which store leads a store group, for proxies: the link to it.

use super::QUEUED_BYTES_OF_ALL_MAX;
use super::budget::Budget;
use super::link::StoreLink;
use crate::local_peer::LocalPeer;
use gantry_proto::contract::{StoreService, Stores};
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, MetadataView, StoreGroup, StoreGroupId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Links to the leading stores of store groups, made when a leader is first asked for. A link is dropped when its store group
/// is gone or another store leads it. Calls under way on a dropped link come to their end: it tells the store of the newer
/// epoch, so that receives that wait at a deposed leader end early.
pub struct LinkedStores {
    env: Env,
    local: LocalPeer,
    view: Arc<MetadataView>,
    links: Mutex<Links>,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Links {
    by_store_group: BTreeMap<StoreGroupId, Linked>,
    /// Revision of the store groups that the links were last compared with.
    revision: u64,
}

struct Linked {
    link: Arc<StoreLink>,
    /// The newest epoch that its store was told.
    epoch: Epoch,
}

impl LinkedStores {
    /// No links yet. `view` knows which store groups there are.
    pub fn new(env: &Env, local: &LocalPeer, view: Arc<MetadataView>) -> LinkedStores {
        let budget = Budget::new(QUEUED_BYTES_OF_ALL_MAX);
        LinkedStores { env: env.clone(), local: local.clone(), view, links: Mutex::default(), budget }
    }

    /// Drops the links of store groups that are gone or led by another store.
    fn tidy(&self, links: &mut Links) {
        let revision = self.view.store_groups_revision();
        if revision == links.revision {
            return;
        }
        links.revision = revision;
        links.by_store_group.retain(|id, linked| {
            let store_group = self.view.store_group(*id);
            let replica = store_group.as_deref().and_then(StoreGroup::leading_replica);
            let stays = replica == Some(linked.link.replica());
            if let Some(store_group) = store_group.filter(|_| !stays) {
                linked.learn(store_group.epoch);
            }
            stays
        });
    }
}

impl Linked {
    fn learn(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.link.set_epoch(epoch);
        }
    }
}

impl Stores for LinkedStores {
    fn leader_of(&self, group: &StoreGroup) -> Option<Arc<dyn StoreService>> {
        let mut links = self.links.lock();
        self.tidy(&mut links);
        let replica = group.leading_replica()?;
        let open = || {
            let link =
                StoreLink::open_within(&self.env, &self.local, replica.clone(), group.id, group.epoch, &self.budget);
            Linked { link: Arc::new(link), epoch: group.epoch }
        };
        let linked = links.by_store_group.entry(group.id).or_insert_with(open);
        // A caller may have seen the store group in an older epoch: it gets the newer leader.
        if group.epoch >= linked.epoch && linked.link.replica() != replica {
            linked.learn(group.epoch);
            *linked = open();
        }
        linked.learn(group.epoch);
        let link = linked.link.clone();
        drop(links);
        link.is_up().then_some(link as Arc<dyn StoreService>)
    }

    fn trouble_with(&self, group: &StoreGroup) -> Option<String> {
        self.links.lock().by_store_group.get(&group.id)?.link.trouble()
    }
}
