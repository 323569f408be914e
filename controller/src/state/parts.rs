//! A state in parts, as a snapshot keeps it.

use super::{Counters, MetadataState};
use gantry_proto::model::{
    ClusterId, Group, MetadataChange, MetadataVersion, Placement, ProxyMember, StoreGroup, Topic,
};
use std::sync::Arc;

/// Everything that a state is made of; the rest is derived.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StateParts {
    pub(crate) version: MetadataVersion,
    pub(crate) counters: Counters,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) store_groups: Vec<Arc<StoreGroup>>,
    pub(crate) topics: Vec<Arc<Topic>>,
    pub(crate) groups: Vec<Arc<Group>>,
    pub(crate) proxies: Vec<Arc<ProxyMember>>,
}

impl MetadataState {
    /// The parts, each in order of identity.
    pub(crate) fn to_parts(&self) -> StateParts {
        StateParts {
            version: self.version,
            counters: self.counters,
            cluster: self.cluster,
            store_groups: self.store_groups.values().cloned().collect(),
            topics: self.topics.values().cloned().collect(),
            groups: self.groups.values().cloned().collect(),
            proxies: self.proxies.values().cloned().collect(),
        }
    }

    /// A state from its parts; what is wrong with them, if they cannot belong to a state.
    pub(crate) fn from_parts(parts: StateParts) -> Result<MetadataState, &'static str> {
        let StateParts { version, counters, cluster, store_groups, topics, groups, proxies } = parts;
        if topics.iter().any(|topic| topic.id > counters.last_topic) {
            return Err("a topic's id was never given");
        }
        if groups.iter().any(|group| group.id > counters.last_group) {
            return Err("a group's id was never given");
        }
        if store_groups.iter().any(|group| group.id > counters.last_store_group) {
            return Err("a store group's id was never given");
        }
        let folders: usize = store_groups.iter().map(|group| group.replicas.len()).sum();
        let expected =
            [topics.len(), topics.len(), groups.len(), groups.len(), store_groups.len(), store_groups.len(), folders];
        let proxy_count = proxies.len();
        let mut state = MetadataState { version, counters, cluster, ..MetadataState::default() };
        let changes = (store_groups.into_iter().map(MetadataChange::StoreGroupUpsert))
            .chain(topics.into_iter().map(MetadataChange::TopicUpsert))
            .chain(groups.into_iter().map(MetadataChange::GroupUpsert))
            .chain(proxies.into_iter().map(MetadataChange::ProxyUpsert));
        changes.for_each(|change| state.absorb_change(&change));
        let found = [
            state.topics.len(),
            state.topic_ids.len(),
            state.groups.len(),
            state.group_ids.len(),
            state.store_groups.len(),
            state.store_group_ids.len(),
            state.folders.len(),
        ];
        if found != expected || state.proxies.len() != proxy_count {
            return Err("an id or a name occurs twice");
        }
        state.check()?;
        Ok(state)
    }

    /// What must always hold between the parts.
    fn check(&self) -> Result<(), &'static str> {
        for group in self.groups.values() {
            let letters = self.topics.get(&group.dead_letter_topic);
            if letters.and_then(|topic| topic.dead_letter_of.as_ref()) != Some(&group.name) {
                return Err("a group has no dead-letter topic");
            }
        }
        for topic in self.topics.values() {
            if let Placement::Spread { groups, lanes } = &topic.placement {
                if groups.iter().any(|group| *group > self.counters.last_store_group) {
                    return Err("a queue is on a store group that never was");
                }
                if lanes.is_empty() || lanes.iter().any(|lane| lane.0 as usize >= groups.len()) {
                    return Err("a topic's lanes are not its queues");
                }
            }
        }
        for group in self.store_groups.values() {
            let known = |folder| group.replicas.iter().any(|replica| replica.folder == folder);
            if !group.leader.into_iter().chain(group.in_sync.iter().copied()).all(known) {
                return Err("a store group is led by a folder that it does not have");
            }
        }
        Ok(())
    }
}
