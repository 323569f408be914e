//! A state in parts, as a snapshot keeps it.

use super::{Counters, KeptGroup, MetadataState, Rules};
use crate::codec::{CodecError, seal, unseal};
use gantry_proto::convert::{Malformed, Wire, put_ranges, read_ranges};
use gantry_proto::model::{
    ClusterId, ConsumerGroup, GroupId, LostIds, MetadataChange, MetadataVersion, Placement, ProxyMember, StoreGroup,
    StoreGroupId, Topic, TopicId,
};
use gantry_proto::wire::controller::v1 as wire;
use std::sync::Arc;

/// Everything that a state is made of; the rest is derived.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StateParts {
    pub(crate) version: MetadataVersion,
    pub(crate) counters: Counters,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) store_groups: Vec<Arc<StoreGroup>>,
    pub(crate) topics: Vec<Arc<Topic>>,
    pub(crate) groups: Vec<Arc<ConsumerGroup>>,
    pub(crate) proxies: Vec<Arc<ProxyMember>>,
    pub(crate) kept_groups: Vec<Arc<KeptGroup>>,
    pub(crate) lost: Option<Arc<LostIds>>,
}

impl MetadataState {
    /// The state as bytes, with a checksum of their own. Equal states give equal bytes.
    pub(crate) fn sealed(&self) -> Vec<u8> {
        seal(&self.to_parts().to_wire())
    }

    /// The state that was sealed.
    pub(crate) fn unsealed(bytes: &[u8]) -> Result<MetadataState, CodecError> {
        let parts = StateParts::from_wire(unseal(bytes)?)?;
        // The checksum fits: whoever wrote this meant it.
        MetadataState::from_parts(parts).map_err(CodecError::newer)
    }

    /// All that is not an object.
    pub(super) fn head(&self) -> wire::MetadataState {
        let (version, counters, cluster) = (self.version, self.counters, self.cluster);
        StateParts { version, counters, cluster, lost: self.lost.clone(), ..StateParts::default() }.to_wire()
    }

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
            kept_groups: self.keepings.values().cloned().collect(),
            lost: self.lost.clone(),
        }
    }

    /// A state from its parts; what is wrong with them, if they cannot belong to a state.
    pub(crate) fn from_parts(parts: StateParts) -> Result<MetadataState, &'static str> {
        let StateParts { version, counters, cluster, store_groups, topics, groups, proxies, kept_groups, lost } = parts;
        if topics.iter().any(|topic| topic.id > counters.last_topic) {
            return Err("a topic's id was never given");
        }
        if groups.iter().any(|group| group.id > counters.last_group) {
            return Err("a group's id was never given");
        }
        if store_groups.iter().any(|store_group| store_group.id > counters.last_store_group) {
            return Err("a store group's id was never given");
        }
        let folders: usize = store_groups.iter().map(|store_group| store_group.replicas.len()).sum();
        let expected =
            [topics.len(), topics.len(), groups.len(), groups.len(), store_groups.len(), store_groups.len(), folders];
        let proxy_count = proxies.len();
        let mut state = MetadataState { version, counters, cluster, lost, ..MetadataState::default() };
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
        kept_groups.into_iter().for_each(|kept| state.keep(kept));
        if !state.keepings.keys().eq(state.store_groups.keys()) {
            return Err("a store group has no secret");
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
            if let Placement::Spread { store_groups, message_group_queues } = &topic.placement {
                if store_groups.iter().any(|store_group| *store_group > self.counters.last_store_group) {
                    return Err("a queue is on a store group that never was");
                }
                if message_group_queues.is_empty()
                    || message_group_queues.iter().any(|queue| queue.0 as usize >= store_groups.len())
                {
                    return Err("a topic's message groups are on queues that it does not have");
                }
            }
        }
        for store_group in self.store_groups.values() {
            let known = |folder| store_group.replicas.iter().any(|replica| replica.folder == folder);
            if !store_group.leader.into_iter().chain(store_group.in_sync.iter().copied()).all(known) {
                return Err("a store group is led by a folder that it does not have");
            }
        }
        Ok(())
    }
}

impl Wire for StateParts {
    type Message = wire::MetadataState;

    fn to_wire(&self) -> wire::MetadataState {
        wire::MetadataState {
            version: self.version.0,
            last_topic: self.counters.last_topic.0,
            last_group: self.counters.last_group.0,
            last_store_group: self.counters.last_store_group.0,
            cluster: self.cluster.as_ref().map(Wire::to_wire),
            store_groups: self.store_groups.iter().map(Wire::to_wire).collect(),
            topics: self.topics.iter().map(Wire::to_wire).collect(),
            groups: self.groups.iter().map(Wire::to_wire).collect(),
            proxies: self.proxies.iter().map(Wire::to_wire).collect(),
            rules: self.counters.rules.number(),
            kept_groups: self.kept_groups.iter().map(Wire::to_wire).collect(),
            lost_topics: self.lost.as_ref().map(|lost| put_ranges(&lost.topics)).unwrap_or_default(),
            lost_groups: self.lost.as_ref().map(|lost| put_ranges(&lost.groups)).unwrap_or_default(),
        }
    }

    fn from_wire(message: wire::MetadataState) -> Result<StateParts, Malformed> {
        let (topics, groups) = (read_ranges(message.lost_topics), read_ranges(message.lost_groups));
        let lost = LostIds { topics, groups };
        Ok(StateParts {
            version: MetadataVersion(message.version),
            counters: Counters {
                last_topic: TopicId(message.last_topic),
                last_group: GroupId(message.last_group),
                last_store_group: StoreGroupId(message.last_store_group),
                rules: Rules::of(message.rules).ok_or(Malformed("version of the rules"))?,
            },
            cluster: message.cluster.map(ClusterId::from_wire).transpose()?,
            store_groups: all(message.store_groups)?,
            topics: all(message.topics)?,
            groups: all(message.groups)?,
            proxies: all(message.proxies)?,
            kept_groups: all(message.kept_groups)?,
            lost: Some(lost).filter(|lost| *lost != LostIds::default()).map(Arc::new),
        })
    }
}

fn all<T: Wire>(messages: Vec<T::Message>) -> Result<Vec<T>, Malformed> {
    messages.into_iter().map(T::from_wire).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create_group, create_topic, join_store, some_commands};
    use gantry_proto::model::{KnownIds, LogOffset, MetadataCommand, Timestamp};
    use proptest::prelude::*;

    fn applied<'a>(commands: impl IntoIterator<Item = &'a MetadataCommand>) -> MetadataState {
        let mut state = MetadataState::default();
        for (second, command) in commands.into_iter().enumerate() {
            let _ = state.apply(command, Timestamp::from_millis(second as u64 * 1000));
        }
        state
    }

    #[test]
    fn parts_that_cannot_belong_together_are_refused_but_not_called_damaged() {
        let state = applied(&[join_store("s", 1), create_topic("a", 1), create_group("g")]);
        let whole = || state.to_parts();
        assert_eq!(MetadataState::from_parts(whole()), Ok(state.clone()));
        let broken = [
            StateParts { counters: Counters::default(), ..whole() },
            StateParts { topics: [whole().topics, whole().topics].concat(), ..whole() },
            StateParts { topics: whole().topics[..1].to_vec(), ..whole() },
            StateParts { store_groups: [whole().store_groups, whole().store_groups].concat(), ..whole() },
        ];
        for parts in broken {
            let sealed = seal(&parts.to_wire());
            assert!(matches!(MetadataState::unsealed(&sealed), Err(CodecError::Newer(_))));
        }
    }

    proptest! {
        #[test]
        fn a_state_reads_back_as_it_was_written(
            commands in some_commands(0..60),
            raised in proptest::collection::vec((0..20u32, 0..20u32, any::<u64>()), 0..5),
        ) {
            let mut state = applied(&commands);
            state.apply(&MetadataCommand::RaiseRules { to: 2 }, Timestamp::ZERO).unwrap();
            for (topic, group, to) in raised {
                let given = state.given();
                let known = KnownIds {
                    topic: TopicId(given.topic.0 + topic),
                    group: GroupId(given.group.0 + group),
                    ..given
                };
                state.apply(&MetadataCommand::RaiseIds(known), Timestamp::ZERO).unwrap();
                prop_assert_eq!(state.given(), known);
                let _ = state.apply(&create_topic("between", 1), Timestamp::ZERO);
                let first = state.store_groups().next().map(|first| (first.id, first.epoch));
                if let Some((group, epoch)) = first {
                    let note = MetadataCommand::NoteDurable { store_group: group, epoch, to: LogOffset(to) };
                    state.apply(&note, Timestamp::ZERO).unwrap();
                    prop_assert!(state.keeping(group).unwrap().durable >= Some((epoch, LogOffset(to))));
                }
            }
            prop_assert_eq!(MetadataState::unsealed(&state.sealed()), Ok(state));
        }

        /// Kept up with each change, and computed from all that there is.
        #[test]
        fn a_digest_is_that_of_what_the_state_holds(commands in some_commands(0..60)) {
            let mut state = MetadataState::default();
            for command in &commands {
                let before = (state.digest(), state.version());
                let changed = state.apply(command, Timestamp::from_millis(5)).is_ok();
                prop_assert_eq!(changed, (state.digest(), state.version()) != before);
            }
            prop_assert_eq!(MetadataState::from_parts(state.to_parts()).unwrap().digest(), state.digest());
        }

        #[test]
        fn changed_states_are_damaged(commands in some_commands(0..30), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = applied(&commands).sealed();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(matches!(MetadataState::unsealed(&bytes), Err(CodecError::Damaged(_))));
            prop_assert!(matches!(MetadataState::unsealed(&bytes[..at]), Err(CodecError::Damaged(_))));
        }

        /// Behind a checksum that fits, too.
        #[test]
        fn any_parts_are_read_without_a_panic(commands in some_commands(0..30), at in any::<prop::sample::Index>(), byte: u8) {
            use prost::Message as _;
            let mut bytes = applied(&commands).to_parts().to_wire().encode_to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = crate::codec::decode(&bytes).map(StateParts::from_wire).map(|parts| parts.map(MetadataState::from_parts));
        }
    }
}
