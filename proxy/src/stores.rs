//! The store groups as the proxy works with them: which of them takes a message, which gives one, which issued a receipt
//! handle, and what to do when one of them does not answer.
//!
//! | what | where |
//! |---|---|
//! | a topic's queues and store groups, kept per topic | `paths` |
//! | sending: another group, or the same one again | `append` |
//! | receiving from many groups, the longest-waiting first | `draw`, `rotation` |
//! | acknowledgements and whatever else names a delivery | `receipts` |
//! | what all groups are asked | `everywhere` |
//! | how long a call may go on, and its pauses | `deadline` |
//!
//! What must hold: a message goes to another group only after an error that says that nothing happened, also when its
//! producer sends it again (`doubts`); a call that may
//! have happened is repeated only on the group that may have carried it out; a topic on one group costs no more than the
//! call to its store.

mod append;
mod deadline;
mod doubts;
mod draw;
mod everywhere;
mod paths;
mod receipts;
mod rotation;
mod suspects;

pub(crate) use append::Sending;
pub(crate) use deadline::{Backoff, Deadline};
pub(crate) use draw::Draw;
pub(crate) use paths::{TopicPaths, stable_hash};

use doubts::Doubts;
use gantry_proto::contract::{StoreError, StoreService, Stores};
use gantry_proto::model::{GroupId, MetadataView, QueueId, StoreGroup, StoreGroupId, Topic, TopicId};
use parking_lot::{Mutex, RwLock};
use paths::Placed;
use rotation::Rotation;
use std::collections::HashMap;
use std::sync::Arc;
use suspects::Suspects;

type Rotations = HashMap<(GroupId, TopicId), Arc<Mutex<Rotation>>>;

/// All store groups. One per proxy.
pub(crate) struct StoreGroups {
    stores: Arc<dyn Stores>,
    view: Arc<MetadataView>,
    paths: RwLock<HashMap<TopicId, Arc<TopicPaths>>>,
    /// Whose turn it is to give messages, for groups and topics that are received from and are on several store groups.
    rotations: Mutex<Rotations>,
    suspects: Suspects,
    doubts: Doubts,
}

impl StoreGroups {
    pub(crate) fn new(stores: Arc<dyn Stores>, view: Arc<MetadataView>) -> StoreGroups {
        StoreGroups {
            stores,
            view,
            paths: RwLock::default(),
            rotations: Mutex::default(),
            suspects: Suspects::default(),
            doubts: Doubts::default(),
        }
    }

    /// What is kept about a topic that is sent to or received from.
    pub(crate) fn paths(&self, topic: &Arc<Topic>) -> Arc<TopicPaths> {
        if let Some(paths) = self.paths.read().get(&topic.id) {
            return paths.clone();
        }
        let new = || Arc::new(TopicPaths::new(topic, &self.view));
        self.paths.write().entry(topic.id).or_insert_with(new).clone()
    }

    /// A topic's queues, in order, on store groups that exist.
    pub(crate) fn queues_of(&self, topic: &Arc<Topic>) -> Vec<QueuePlace> {
        // Asking where they are does not make it a topic in use.
        let known = self.paths.read().get(&topic.id).cloned();
        let placed = match known {
            Some(paths) => paths.placed(topic, &self.view),
            None => Arc::new(Placed::new(topic, &self.view)),
        };
        let place = |(queue, group): &paths::Place| QueuePlace {
            queue: *queue,
            group: group.clone(),
            writable: placed.is_writable(*queue),
        };
        placed.queues.iter().map(place).collect()
    }

    /// Forgets topics and consumer groups that are gone.
    pub(crate) fn forget_what_is_gone(&self) {
        self.paths.write().retain(|topic, _| self.view.topic_by_id(*topic).is_some());
        let known = |(group, topic): &(GroupId, TopicId)| {
            self.view.group_by_id(*group).is_some() && self.view.topic_by_id(*topic).is_some()
        };
        self.rotations.lock().retain(|place, _| known(place));
    }

    /// Why the leader of a group cannot be talked to, for operators.
    pub(crate) fn trouble_with(&self, group: &StoreGroup) -> Option<String> {
        self.stores.trouble_with(group)
    }

    /// The store that leads a group.
    fn leader(&self, group: &StoreGroup) -> Result<Arc<dyn StoreService>, StoreError> {
        self.stores.leader_of(group).ok_or_else(|| no_leader(group))
    }

    /// The store that leads the group of that identity.
    fn leader_by_id(&self, id: StoreGroupId) -> Result<Arc<dyn StoreService>, StoreError> {
        match self.view.store_group(id) {
            Some(group) => self.leader(&group),
            None => Err(StoreError::NoLeader(format!("store group {id} is not there"))),
        }
    }

    fn rotation(&self, group: GroupId, topic: TopicId) -> Arc<Mutex<Rotation>> {
        self.rotations.lock().entry((group, topic)).or_default().clone()
    }
}

/// Where a queue is.
pub(crate) struct QueuePlace {
    pub(crate) queue: QueueId,
    /// The store group that has it.
    pub(crate) group: Arc<StoreGroup>,
    /// Whether it takes messages.
    pub(crate) writable: bool,
}

fn no_leader(group: &StoreGroup) -> StoreError {
    StoreError::NoLeader(format!("store group {} has no leader that answers", group.name))
}

/// True when the same group may well answer in a moment: it is starting, stopping, changing its leader or out of reach.
fn passes(error: &StoreError) -> bool {
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
