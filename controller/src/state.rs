//! The metadata state machine: a deterministic function of commands and of the times stored with them.
//!
//! Owns every topic, consumer group, store group and proxy. Each member of the controller applies the same log to it and
//! gets the same. What must always hold:
//! - a refused command changes nothing;
//! - an identity is given once, and the counters outlive what they counted;
//! - each group has exactly one dead-letter topic, of its derived name, and each dead-letter topic has its group;
//! - a queue stays on its store group; the number of queues that the message groups of a topic share never changes, and each
//!   is a queue that was made;
//! - a store group is removed only after the leader of its last epoch confirmed that it takes no messages and holds none,
//!   unless by force;
//! - the epoch of a store group grows with each of its leaderships, and a data folder belongs to one store group.

mod digest;
mod groups;
mod keeping;
mod members;
mod parts;
mod put_back;
mod rules;
mod spread;
mod stores;
mod topics;

use digest::ObjectSum;
pub(crate) use keeping::{Keeping, KeptGroup, NamedLeader};
pub(crate) use parts::StateParts;

use gantry_proto::model::{
    ClusterId, ConsumerGroup, FolderId, GroupId, GroupName, LostIds, MetadataChange, MetadataCommand, MetadataOutcome,
    MetadataRefusal, MetadataVersion, ProxyId, ProxyMember, StoreGroup, StoreGroupId, StoreGroupName, Timestamp, Topic,
    TopicId, TopicName,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use rules::Rules;

/// All metadata at one version. Clones share what the maps hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataState {
    version: MetadataVersion,
    counters: Counters,
    cluster: Option<ClusterId>,
    /// Ordered maps throughout: nothing here may depend on the order of a hash table.
    topics: BTreeMap<TopicId, Arc<Topic>>,
    groups: BTreeMap<GroupId, Arc<ConsumerGroup>>,
    topic_ids: BTreeMap<TopicName, TopicId>,
    group_ids: BTreeMap<GroupName, GroupId>,
    store_groups: BTreeMap<StoreGroupId, Arc<StoreGroup>>,
    store_group_ids: BTreeMap<StoreGroupName, StoreGroupId>,
    /// Whose data a folder holds.
    folders: BTreeMap<FolderId, StoreGroupId>,
    proxies: BTreeMap<ProxyId, Arc<ProxyMember>>,
    /// Of everything in the maps of objects.
    sum: ObjectSum,
    /// What was given by a history that this one does not have.
    lost: Option<Arc<LostIds>>,
    /// One for each store group.
    keepings: BTreeMap<StoreGroupId, Arc<KeptGroup>>,
}

/// The last identities given, and the rules in force. They never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) last_topic: TopicId,
    pub(crate) last_group: GroupId,
    pub(crate) last_store_group: StoreGroupId,
    pub(crate) rules: Rules,
}

/// What a command would do, decided but not done: absorbing it makes the next version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) outcome: MetadataOutcome,
    pub(crate) changes: Vec<MetadataChange>,
    pub(crate) counters: Counters,
    /// What is kept of a store group from now on.
    pub(crate) keeping: Option<(StoreGroupId, Keeping)>,
}

impl MetadataState {
    /// Carries a command out: its outcome, and the changes for those who watch. `at` is the time stored with the command.
    pub fn apply(
        &mut self,
        command: &MetadataCommand,
        at: Timestamp,
    ) -> Result<(MetadataOutcome, Vec<MetadataChange>), MetadataRefusal> {
        let decision = self.decide(command, at)?;
        self.absorb(&decision);
        Ok((decision.outcome, decision.changes))
    }

    /// How many commands were applied.
    pub fn version(&self) -> MetadataVersion {
        self.version
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Arc<ConsumerGroup>> {
        self.groups.get(self.group_ids.get(name)?)
    }

    /// All topics by identity.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// All groups by identity.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Arc<ConsumerGroup>> {
        self.groups.values()
    }

    /// The cluster's identity, once it was founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// All store groups by identity.
    pub fn store_groups(&self) -> impl ExactSizeIterator<Item = &Arc<StoreGroup>> {
        self.store_groups.values()
    }

    /// The store group of that identity.
    pub fn store_group(&self, id: StoreGroupId) -> Option<&Arc<StoreGroup>> {
        self.store_groups.get(&id)
    }

    /// The store group of that name.
    pub fn store_group_named(&self, name: &StoreGroupName) -> Option<&Arc<StoreGroup>> {
        self.store_groups.get(self.store_group_ids.get(name)?)
    }

    /// What is kept of a store group.
    pub(crate) fn keeping(&self, id: StoreGroupId) -> Option<&Keeping> {
        self.keepings.get(&id).map(|kept| &kept.1)
    }

    fn keep(&mut self, kept: Arc<KeptGroup>) {
        let before = self.keepings.insert(kept.0, kept.clone());
        self.sum.replace(before.as_ref(), Some(&kept));
    }

    /// All proxies by identity.
    pub fn proxies(&self) -> impl ExactSizeIterator<Item = &Arc<ProxyMember>> {
        self.proxies.values()
    }

    /// The proxy of that identity.
    pub fn proxy(&self, id: ProxyId) -> Option<&Arc<ProxyMember>> {
        self.proxies.get(&id)
    }

    /// The rules by which commands are decided.
    pub(crate) fn rules(&self) -> Rules {
        self.counters.rules
    }

    /// A number for everything that the state holds. Equal states have equal ones; those of different states differ, but
    /// for a chance of one in 2^64.
    pub(crate) fn digest(&self) -> u64 {
        self.sum.with(&self.head())
    }

    /// How many things there are: what copying and writing the state costs.
    pub(crate) fn object_count(&self) -> usize {
        self.topics.len() + self.groups.len() + self.store_groups.len() + self.proxies.len()
    }

    /// The changes that lead from nothing to this state, beginning with [`MetadataChange::Reset`]. What others refer to
    /// comes before them.
    pub fn to_changes(&self) -> Vec<MetadataChange> {
        let mut changes = vec![MetadataChange::Reset];
        changes.extend(self.cluster.map(MetadataChange::ClusterInitialized));
        let Counters { last_topic, last_group, .. } = self.counters;
        changes.push(MetadataChange::Given { last_topic, last_group, lost: self.lost.clone() });
        changes.extend(self.store_groups.values().cloned().map(MetadataChange::StoreGroupUpsert));
        changes.extend(self.topics.values().cloned().map(MetadataChange::TopicUpsert));
        changes.extend(self.groups.values().cloned().map(MetadataChange::GroupUpsert));
        changes.extend(self.proxies.values().cloned().map(MetadataChange::ProxyUpsert));
        changes
    }

    /// What a command would do to this state.
    pub(crate) fn decide(&self, command: &MetadataCommand, at: Timestamp) -> Result<Decision, MetadataRefusal> {
        match command {
            MetadataCommand::CreateTopic { name, topic_type, queue_count } => {
                self.create_topic(name, *topic_type, *queue_count, at)
            }
            MetadataCommand::AlterTopic { name, topic_type, queue_count } => {
                self.alter_topic(name, *topic_type, *queue_count)
            }
            MetadataCommand::DeleteTopic { name } => self.delete_topic(name),
            MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff } => {
                self.create_group(name, *fifo, *max_attempts, backoff, at)
            }
            MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff } => {
                self.alter_group(name, *fifo, *max_attempts, backoff.as_ref())
            }
            MetadataCommand::DeleteGroup { name } => self.delete_group(name),
            MetadataCommand::InitCluster { cluster } => Ok(self.found(*cluster)),
            MetadataCommand::JoinStore { store_group, folder, address, last_epoch, process, place, secret } => {
                let joining = stores::Joining {
                    folder: *folder,
                    address,
                    last_epoch: *last_epoch,
                    process: *process,
                    place: *place,
                    secret,
                };
                self.join_store(store_group, &joining, at)
            }
            MetadataCommand::NoteLeading { store_group, epoch } => Ok(self.note_leading(*store_group, *epoch)),
            MetadataCommand::NoteDurable { store_group, epoch, to } => self.note_durable(*store_group, *epoch, *to),
            MetadataCommand::RaiseIds(known) => self.raise_ids(*known),
            MetadataCommand::EndStoreLease { store_group, epoch } => Ok(self.end_lease(*store_group, *epoch)),
            MetadataCommand::DrainStoreGroup { name } => self.drain_store_group(name),
            MetadataCommand::ActivateStoreGroup { name } => self.activate_store_group(name),
            MetadataCommand::CloseStoreGroup { name } => self.close_store_group(name),
            MetadataCommand::NoteClosed { store_group, epoch, since } => {
                Ok(self.note_closed(*store_group, *epoch, *since))
            }
            MetadataCommand::RemoveStoreGroup { name, force } => self.remove_store_group(name, *force),
            MetadataCommand::SpreadTopics { after, limit } => self.spread_topics(after.as_ref(), *limit),
            MetadataCommand::JoinProxy { id, address, version } => Ok(self.join_proxy(*id, address, version, at)),
            MetadataCommand::RemoveProxy { id } => Ok(self.remove_proxy(*id)),
            MetadataCommand::RaiseRules { to } => self.raise_rules(*to),
        }
    }

    /// Whoever does not know the rules has stopped before it came here.
    fn raise_rules(&self, to: u32) -> Result<Decision, MetadataRefusal> {
        match Rules::of(to).filter(|to| *to >= self.rules()) {
            Some(rules) => {
                let counters = Counters { rules, ..self.counters };
                Ok(Decision { outcome: MetadataOutcome::Rules(to), changes: Vec::new(), counters, keeping: None })
            }
            None => Err(MetadataRefusal::Rules { now: self.rules().number(), asked: to }),
        }
    }

    /// Does what was decided on this very state.
    pub(crate) fn absorb(&mut self, decision: &Decision) {
        for change in &decision.changes {
            self.absorb_change(change);
        }
        if let Some((id, keeping)) = &decision.keeping {
            self.keep(Arc::new(KeptGroup(*id, keeping.clone())));
        }
        self.counters = decision.counters;
        self.version.0 += 1;
    }

    /// What was decided: an outcome, and the changes that bring it about without giving an identity.
    fn decided(&self, outcome: MetadataOutcome, changes: Vec<MetadataChange>) -> Decision {
        Decision { outcome, changes, counters: self.counters, keeping: None }
    }

    fn absorb_change(&mut self, change: &MetadataChange) {
        match change {
            // The last is only ever made by watchers.
            MetadataChange::Reset | MetadataChange::NotUnderstood(_) => {}
            MetadataChange::Given { lost, .. } => self.lost = lost.clone(),
            MetadataChange::TopicUpsert(topic) => {
                self.topic_ids.insert(topic.name.clone(), topic.id);
                self.sum.replace(self.topics.insert(topic.id, topic.clone()).as_ref(), Some(topic));
            }
            MetadataChange::TopicRemoved(id) => {
                if let Some(topic) = self.topics.remove(id) {
                    self.sum.replace(Some(&topic), None);
                    self.topic_ids.remove(&topic.name);
                }
            }
            MetadataChange::GroupUpsert(group) => {
                self.group_ids.insert(group.name.clone(), group.id);
                self.sum.replace(self.groups.insert(group.id, group.clone()).as_ref(), Some(group));
            }
            MetadataChange::GroupRemoved(id) => {
                if let Some(group) = self.groups.remove(id) {
                    self.sum.replace(Some(&group), None);
                    self.group_ids.remove(&group.name);
                }
            }
            MetadataChange::ClusterInitialized(cluster) => self.cluster = Some(*cluster),
            MetadataChange::StoreGroupUpsert(group) => {
                self.store_group_ids.insert(group.name.clone(), group.id);
                self.folders.extend(group.replicas.iter().map(|replica| (replica.folder, group.id)));
                self.sum.replace(self.store_groups.insert(group.id, group.clone()).as_ref(), Some(group));
            }
            MetadataChange::StoreGroupRemoved(id) => {
                if let Some(group) = self.store_groups.remove(id) {
                    self.sum.replace(Some(&group), None);
                    self.store_group_ids.remove(&group.name);
                    self.sum.replace(self.keepings.remove(id).as_ref(), None);
                    for replica in &group.replicas {
                        self.folders.remove(&replica.folder);
                    }
                }
            }
            MetadataChange::ProxyUpsert(proxy) => {
                self.sum.replace(self.proxies.insert(proxy.id, proxy.clone()).as_ref(), Some(proxy));
            }
            MetadataChange::ProxyRemoved(id) => {
                self.sum.replace(self.proxies.remove(id).as_ref(), None);
            }
        }
    }
}

impl Counters {
    /// Gives a topic identity.
    fn next_topic(&mut self) -> TopicId {
        let next = self.last_topic.0.checked_add(1).expect("fewer than 2^32 topics are created in a cluster's life");
        self.last_topic = TopicId(next);
        self.last_topic
    }

    /// Gives a group identity.
    fn next_group(&mut self) -> GroupId {
        let next = self.last_group.0.checked_add(1).expect("fewer than 2^32 groups are created in a cluster's life");
        self.last_group = GroupId(next);
        self.last_group
    }

    /// Gives a store group identity.
    fn next_store_group(&mut self) -> StoreGroupId {
        let next =
            self.last_store_group.0.checked_add(1).expect("fewer than 2^32 store groups join in a cluster's life");
        self.last_store_group = StoreGroupId(next);
        self.last_store_group
    }
}

#[cfg(test)]
mod tests;
