//! The store groups as the proxy works with them: which of them takes a message, which gives one, which issued a receipt
//! handle, and what to do when one of them does not answer. (A *group* alone is a consumer group, everywhere in Gantry.)
//!
//! | what | where |
//! |---|---|
//! | a topic's queues and the store groups that have them | `route` |
//! | sending: another store group, or the same one again | `append` |
//! | appends of which nobody knows whether they happened | `unknown_outcomes` |
//! | receiving from many store groups, the longest-waiting first | `pop`, `rotation` |
//! | acknowledgements and other calls with a receipt handle | `receipts` |
//! | what all store groups are asked | `ask_all` |
//! | which deliveries have reached their clients | `arrived` |
//! | how long a call may take, and its pauses | `deadline` |
//!
//! What must hold:
//! - A message goes to another store group only after an error that says that nothing happened, also when its producer
//!   sends it again.
//! - A call that may have happened is repeated only on the store group that may have carried it out.
//! - A topic on one store group costs no more than the call to its store.

mod append;
mod arrived;
mod ask_all;
mod deadline;
mod pop;
mod receipts;
mod rotation;
mod route;
mod suspects;
mod unknown_outcomes;

pub(crate) use append::SendBatch;
pub(crate) use deadline::{Backoff, Deadline};
pub(crate) use pop::PopAttempt;
pub(crate) use route::{RoutedQueue, stable_hash};

use gantry_proto::contract::{StoreError, StoreService, Stores};
use gantry_proto::model::{GroupId, MetadataView, StoreGroup, StoreGroupId, TopicId};
use parking_lot::{Mutex, RwLock};
use rotation::Rotation;
use route::Route;
use std::collections::HashMap;
use std::sync::Arc;
use suspects::Suspects;
use unknown_outcomes::UnknownOutcomes;

type Rotations = HashMap<(GroupId, TopicId), Arc<Mutex<Rotation>>>;

/// All store groups. One per proxy.
pub(crate) struct StoreGroups {
    stores: Arc<dyn Stores>,
    view: Arc<MetadataView>,
    /// Of topics that are sent to or received from.
    routes: RwLock<HashMap<TopicId, Arc<Route>>>,
    /// Which store group is asked for messages first. For topics on several store groups.
    rotations: Mutex<Rotations>,
    suspects: Suspects,
    unknown_outcomes: UnknownOutcomes,
}

impl StoreGroups {
    pub(crate) fn new(stores: Arc<dyn Stores>, view: Arc<MetadataView>) -> StoreGroups {
        StoreGroups {
            stores,
            view,
            routes: RwLock::default(),
            rotations: Mutex::default(),
            suspects: Suspects::default(),
            unknown_outcomes: UnknownOutcomes::default(),
        }
    }

    /// Forgets topics and consumer groups that are gone.
    pub(crate) fn forget_what_is_gone(&self) {
        self.routes.write().retain(|topic, _| self.view.topic_by_id(*topic).is_some());
        let exists = |(group, topic): &(GroupId, TopicId)| {
            self.view.group_by_id(*group).is_some() && self.view.topic_by_id(*topic).is_some()
        };
        self.rotations.lock().retain(|key, _| exists(key));
    }

    /// Why the leader of a store group cannot be talked to, for operators.
    pub(crate) fn trouble_with(&self, store_group: &StoreGroup) -> Option<String> {
        self.stores.trouble_with(store_group)
    }

    /// The store that leads a store group.
    fn leader(&self, store_group: &StoreGroup) -> Result<Arc<dyn StoreService>, StoreError> {
        self.stores.leader_of(store_group).ok_or_else(|| no_leader(store_group))
    }

    fn leader_by_id(&self, id: StoreGroupId) -> Result<Arc<dyn StoreService>, StoreError> {
        match self.view.store_group(id) {
            Some(store_group) => self.leader(&store_group),
            None => Err(StoreError::NoLeader(format!("store group {id} is not there"))),
        }
    }
}

fn no_leader(store_group: &StoreGroup) -> StoreError {
    StoreError::NoLeader(format!("store group {} has no leader that answers", store_group.name))
}

/// Whether the same store group may well answer in a moment: it is starting, stopping, changing its leader or out of reach.
fn is_transient(error: &StoreError) -> bool {
    match error {
        StoreError::NoLeader(_)
        | StoreError::NotLeader(_)
        | StoreError::Interrupted(_)
        | StoreError::Unreachable(_)
        | StoreError::ShuttingDown => true,
        StoreError::Busy(_)
        | StoreError::DiskFull(_)
        | StoreError::WritesStopped(_)
        | StoreError::Unreadable(_)
        | StoreError::Unsupported(_) => false,
    }
}
