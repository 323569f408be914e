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

/// Links to the leading stores of the groups in use, made when they are asked for. A link is dropped when its group is
/// gone or led from elsewhere. Calls under way on it come to their end: while there are any, the store is told of the later
/// epoch, so that receives do not wait on at a leader of yesterday that nobody else can reach.
pub struct LinkedStores {
    env: Env,
    local: LocalPeer,
    view: Arc<MetadataView>,
    links: Mutex<Links>,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Links {
    by_group: BTreeMap<StoreGroupId, Linked>,
    /// Of the store groups when the links were last compared with them.
    revision: u64,
}

struct Linked {
    link: Arc<StoreLink>,
    /// In which its store leads.
    epoch: Epoch,
}

impl LinkedStores {
    /// No links yet. `view` says which groups there are.
    pub fn new(env: &Env, local: &LocalPeer, view: Arc<MetadataView>) -> LinkedStores {
        let budget = Budget::new(QUEUED_BYTES_OF_ALL_MAX);
        LinkedStores { env: env.clone(), local: local.clone(), view, links: Mutex::default(), budget }
    }

    /// Drops the links of groups that are gone or led from elsewhere, if something changed.
    fn tidy(&self, links: &mut Links) {
        let revision = self.view.store_groups_revision();
        if revision == links.revision {
            return;
        }
        links.revision = revision;
        links.by_group.retain(|id, linked| {
            let group = self.view.store_group(*id);
            let replica = group.as_deref().and_then(StoreGroup::leading_replica);
            let stays = replica == Some(linked.link.replica());
            if let Some(group) = group.filter(|_| !stays) {
                linked.learn(group.epoch);
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
        let linked = links.by_group.entry(group.id).or_insert_with(open);
        // A caller may still hold an older picture of the group: the newer leader is asked nevertheless.
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
        self.links.lock().by_group.get(&group.id)?.link.trouble()
    }
}
