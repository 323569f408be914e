//! The metadata state machine: a deterministic function of commands and of the times stored with them.
//!
//! Owns every topic and group. The committer applies proposals to it, recovery applies the journal to it, and both get
//! the same. What must always hold:
//! - a refused command changes nothing;
//! - an identity is given once, and the counters outlive what they counted;
//! - each group has exactly one dead-letter topic, of its derived name, and each dead-letter topic has its group.

mod groups;
mod topics;

use gantry_proto::model::{
    Group, GroupId, GroupName, MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion,
    Timestamp, Topic, TopicId, TopicName,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every topic and group at one version. Clones share topics and groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataState {
    version: MetadataVersion,
    counters: Counters,
    /// Ordered maps throughout: nothing here may depend on the order of a hash table.
    topics: BTreeMap<TopicId, Arc<Topic>>,
    groups: BTreeMap<GroupId, Arc<Group>>,
    topic_ids: BTreeMap<TopicName, TopicId>,
    group_ids: BTreeMap<GroupName, GroupId>,
}

/// The last identities given. They never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) last_topic: TopicId,
    pub(crate) last_group: GroupId,
}

/// What a command would do, decided but not done: absorbing it makes the next version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) outcome: MetadataOutcome,
    pub(crate) changes: Vec<MetadataChange>,
    pub(crate) counters: Counters,
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
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(self.group_ids.get(name)?)
    }

    /// All topics by identity.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// All groups by identity.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The changes that lead from nothing to this state, beginning with [`MetadataChange::Reset`].
    pub fn to_changes(&self) -> Vec<MetadataChange> {
        let topics = self.topics.values().cloned().map(MetadataChange::TopicUpsert);
        let groups = self.groups.values().cloned().map(MetadataChange::GroupUpsert);
        std::iter::once(MetadataChange::Reset).chain(topics).chain(groups).collect()
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
        }
    }

    /// Does what was decided on this very state.
    pub(crate) fn absorb(&mut self, decision: &Decision) {
        for change in &decision.changes {
            self.absorb_change(change);
        }
        self.counters = decision.counters;
        self.version.0 += 1;
    }

    /// The last identities given.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// A state from its parts, as a snapshot keeps them; what is wrong with them, if they cannot belong to a state.
    pub(crate) fn from_parts(
        version: MetadataVersion,
        counters: Counters,
        topics: Vec<Topic>,
        groups: Vec<Group>,
    ) -> Result<MetadataState, &'static str> {
        let mut state = MetadataState { version, counters, ..MetadataState::default() };
        let (topic_count, group_count) = (topics.len(), groups.len());
        for topic in topics {
            if topic.id > counters.last_topic {
                return Err("a topic's id was never given");
            }
            state.absorb_change(&MetadataChange::TopicUpsert(Arc::new(topic)));
        }
        for group in groups {
            if group.id > counters.last_group {
                return Err("a group's id was never given");
            }
            state.absorb_change(&MetadataChange::GroupUpsert(Arc::new(group)));
        }
        let counts = [state.topics.len(), state.topic_ids.len(), state.groups.len(), state.group_ids.len()];
        if counts != [topic_count, topic_count, group_count, group_count] {
            return Err("an id or a name occurs twice");
        }
        for group in state.groups.values() {
            let letters = state.topics.get(&group.dead_letter_topic);
            if letters.and_then(|topic| topic.dead_letter_of.as_ref()) != Some(&group.name) {
                return Err("a group has no dead-letter topic");
            }
        }
        Ok(state)
    }

    fn absorb_change(&mut self, change: &MetadataChange) {
        match change {
            MetadataChange::Reset => {}
            MetadataChange::TopicUpsert(topic) => {
                self.topic_ids.insert(topic.name.clone(), topic.id);
                self.topics.insert(topic.id, topic.clone());
            }
            MetadataChange::TopicRemoved(id) => {
                if let Some(topic) = self.topics.remove(id) {
                    self.topic_ids.remove(&topic.name);
                }
            }
            MetadataChange::GroupUpsert(group) => {
                self.group_ids.insert(group.name.clone(), group.id);
                self.groups.insert(group.id, group.clone());
            }
            MetadataChange::GroupRemoved(id) => {
                if let Some(group) = self.groups.remove(id) {
                    self.group_ids.remove(&group.name);
                }
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
}

#[cfg(test)]
mod tests;
