//! Commands, what they do and why they do not, and the changes that watchers see.

use super::{Malformed, Wire, required};
use crate::contract::MetadataError;
use crate::model::{
    BackoffPolicy, ClusterId, ConsumerGroup, Epoch, FolderId, GroupId, GroupName, GroupSecret, KnownIds, LogOffset,
    LostIds, MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion, PlaceId, ProcessId,
    ProxyId, ProxyMember, Removed, StoreGroup, StoreGroupId, StoreGroupName, Topic, TopicId, TopicName, TopicType,
};
use crate::wire::controller::v1 as wire;
use std::ops::RangeInclusive;
use std::sync::Arc;

impl Wire for MetadataCommand {
    type Message = wire::MetadataCommand;

    fn to_wire(&self) -> wire::MetadataCommand {
        use wire::metadata_command::{
            AlterGroup, AlterTopic, Command, CreateGroup, CreateTopic, EndLease, JoinProxy, JoinStore, NoteClosed,
            NoteDurable, NoteLeading, SpreadTopics,
        };
        let command = match self {
            MetadataCommand::CreateTopic { name, topic_type, queue_count } => Command::CreateTopic(CreateTopic {
                name: name.to_wire(),
                r#type: topic_type.to_wire(),
                queue_count: *queue_count,
            }),
            MetadataCommand::AlterTopic { name, topic_type, queue_count } => Command::AlterTopic(AlterTopic {
                name: name.to_wire(),
                r#type: topic_type.as_ref().map(Wire::to_wire),
                queue_count: *queue_count,
            }),
            MetadataCommand::DeleteTopic { name } => Command::DeleteTopic(name.to_wire()),
            MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff } => Command::CreateGroup(CreateGroup {
                name: name.to_wire(),
                fifo: *fifo,
                max_attempts: *max_attempts,
                backoff: Some(backoff.to_wire()),
            }),
            MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff } => Command::AlterGroup(AlterGroup {
                name: name.to_wire(),
                fifo: *fifo,
                max_attempts: *max_attempts,
                backoff: backoff.as_ref().map(Wire::to_wire),
            }),
            MetadataCommand::DeleteGroup { name } => Command::DeleteGroup(name.to_wire()),
            MetadataCommand::InitCluster { cluster } => Command::Found(cluster.to_wire()),
            MetadataCommand::JoinStore { store_group: group, folder, address, last_epoch, process, place, secret } => {
                Command::JoinStore(JoinStore {
                    group: group.to_wire(),
                    folder: folder.to_wire(),
                    address: address.to_string(),
                    last_epoch: last_epoch.0,
                    process: process.to_wire(),
                    place: place.as_ref().map(Wire::to_wire),
                    secret: secret.to_wire(),
                })
            }
            MetadataCommand::NoteLeading { store_group: group, epoch } => {
                Command::NoteLeading(NoteLeading { group: group.0, epoch: epoch.0 })
            }
            MetadataCommand::EndStoreLease { store_group: group, epoch } => {
                Command::EndLease(EndLease { group: group.0, epoch: epoch.0 })
            }
            MetadataCommand::DrainStoreGroup { name } => Command::DrainStoreGroup(name.to_wire()),
            MetadataCommand::ActivateStoreGroup { name } => Command::ActivateStoreGroup(name.to_wire()),
            MetadataCommand::CloseStoreGroup { name } => Command::CloseStoreGroup(name.to_wire()),
            MetadataCommand::NoteClosed { store_group: group, epoch, since } => {
                Command::NoteClosed(NoteClosed { group: group.0, epoch: epoch.0, since: since.0 })
            }
            MetadataCommand::RemoveStoreGroup { name, force: false } => Command::RemoveStoreGroup(name.to_wire()),
            MetadataCommand::RemoveStoreGroup { name, force: true } => Command::ForceStoreGroupAway(name.to_wire()),
            MetadataCommand::SpreadTopics { after, limit } => {
                Command::SpreadTopics(SpreadTopics { after: after.as_ref().map(Wire::to_wire), limit: *limit })
            }
            MetadataCommand::JoinProxy { id, address, version } => Command::JoinProxy(JoinProxy {
                id: id.to_wire(),
                address: address.to_string(),
                version: version.to_string(),
            }),
            MetadataCommand::RemoveProxy { id } => Command::RemoveProxy(id.to_wire()),
            MetadataCommand::RaiseRules { to } => Command::RaiseRules(*to),
            MetadataCommand::NoteDurable { store_group: group, epoch, to } => {
                Command::NoteDurable(NoteDurable { group: group.0, epoch: epoch.0, to: to.0 })
            }
            MetadataCommand::RaiseIds(known) => Command::RaiseIds(known.to_wire()),
        };
        // The first rules are not named.
        let rules = Some(self.rules()).filter(|rules| *rules > 1).unwrap_or_default();
        wire::MetadataCommand { command: Some(command), rules }
    }

    fn from_wire(message: wire::MetadataCommand) -> Result<MetadataCommand, Malformed> {
        use wire::metadata_command::Command;
        Ok(match message.command.ok_or(Malformed("metadata command"))? {
            Command::CreateTopic(create) => MetadataCommand::CreateTopic {
                name: TopicName::from_wire(create.name)?,
                topic_type: TopicType::from_wire(create.r#type)?,
                queue_count: create.queue_count,
            },
            Command::AlterTopic(alter) => MetadataCommand::AlterTopic {
                name: TopicName::from_wire(alter.name)?,
                topic_type: alter.r#type.map(TopicType::from_wire).transpose()?,
                queue_count: alter.queue_count,
            },
            Command::DeleteTopic(name) => MetadataCommand::DeleteTopic { name: TopicName::from_wire(name)? },
            Command::CreateGroup(create) => MetadataCommand::CreateGroup {
                name: GroupName::from_wire(create.name)?,
                fifo: create.fifo,
                max_attempts: create.max_attempts,
                backoff: required(create.backoff, "backoff policy of a new group")?,
            },
            Command::AlterGroup(alter) => MetadataCommand::AlterGroup {
                name: GroupName::from_wire(alter.name)?,
                fifo: alter.fifo,
                max_attempts: alter.max_attempts,
                backoff: alter.backoff.map(BackoffPolicy::from_wire).transpose()?,
            },
            Command::DeleteGroup(name) => MetadataCommand::DeleteGroup { name: GroupName::from_wire(name)? },
            Command::Found(cluster) => MetadataCommand::InitCluster { cluster: ClusterId::from_wire(cluster)? },
            Command::JoinStore(join) => MetadataCommand::JoinStore {
                store_group: StoreGroupName::from_wire(join.group)?,
                folder: FolderId::from_wire(join.folder)?,
                address: join.address.into(),
                last_epoch: Epoch(join.last_epoch),
                process: ProcessId::from_wire(join.process)?,
                place: join.place.map(PlaceId::from_wire).transpose()?,
                secret: GroupSecret::from_wire(join.secret)?,
            },
            Command::NoteLeading(note) => {
                MetadataCommand::NoteLeading { store_group: StoreGroupId(note.group), epoch: Epoch(note.epoch) }
            }
            Command::EndLease(end) => {
                MetadataCommand::EndStoreLease { store_group: StoreGroupId(end.group), epoch: Epoch(end.epoch) }
            }
            Command::DrainStoreGroup(name) => {
                MetadataCommand::DrainStoreGroup { name: StoreGroupName::from_wire(name)? }
            }
            Command::ActivateStoreGroup(name) => {
                MetadataCommand::ActivateStoreGroup { name: StoreGroupName::from_wire(name)? }
            }
            Command::RemoveStoreGroup(name) => {
                MetadataCommand::RemoveStoreGroup { name: StoreGroupName::from_wire(name)?, force: false }
            }
            Command::ForceStoreGroupAway(name) => {
                MetadataCommand::RemoveStoreGroup { name: StoreGroupName::from_wire(name)?, force: true }
            }
            Command::CloseStoreGroup(name) => {
                MetadataCommand::CloseStoreGroup { name: StoreGroupName::from_wire(name)? }
            }
            Command::NoteClosed(note) => MetadataCommand::NoteClosed {
                store_group: StoreGroupId(note.group),
                epoch: Epoch(note.epoch),
                since: MetadataVersion(note.since),
            },
            Command::SpreadTopics(spread) => MetadataCommand::SpreadTopics {
                after: spread.after.map(TopicName::from_wire).transpose()?,
                limit: spread.limit,
            },
            Command::JoinProxy(join) => MetadataCommand::JoinProxy {
                id: ProxyId::from_wire(join.id)?,
                address: join.address.into(),
                version: join.version.into(),
            },
            Command::RemoveProxy(id) => MetadataCommand::RemoveProxy { id: ProxyId::from_wire(id)? },
            Command::RaiseRules(to) => MetadataCommand::RaiseRules { to },
            Command::NoteDurable(note) => MetadataCommand::NoteDurable {
                store_group: StoreGroupId(note.group),
                epoch: Epoch(note.epoch),
                to: LogOffset(note.to),
            },
            Command::RaiseIds(known) => MetadataCommand::RaiseIds(KnownIds::from_wire(known)?),
        })
    }
}

/// Ranges of identities as they travel.
pub fn put_ranges(ranges: &[RangeInclusive<u32>]) -> Vec<wire::LostIds> {
    ranges.iter().map(|range| wire::LostIds { first: *range.start(), last: *range.end() }).collect()
}

/// Ranges of identities that travelled.
pub fn read_ranges(ranges: Vec<wire::LostIds>) -> Vec<RangeInclusive<u32>> {
    ranges.into_iter().map(|range| range.first..=range.last).collect()
}

/// The last identity before the first that is lost.
fn before_lost(lost: &[RangeInclusive<u32>], last: u32) -> u32 {
    lost.iter().map(|range| range.start().saturating_sub(1)).min().map_or(last, |before| before.min(last))
}

impl Wire for MetadataOutcome {
    type Message = wire::MetadataOutcome;

    fn to_wire(&self) -> wire::MetadataOutcome {
        use wire::metadata_outcome::{Outcome, Spread};
        let outcome = match self {
            MetadataOutcome::Topic(topic) => Outcome::Topic(topic.to_wire()),
            MetadataOutcome::Group(group) => Outcome::Group(group.to_wire()),
            MetadataOutcome::Deleted => Outcome::Deleted(wire::Nothing {}),
            MetadataOutcome::Cluster(cluster) => Outcome::Cluster(cluster.to_wire()),
            MetadataOutcome::StoreGroup(group) => Outcome::StoreGroup(group.to_wire()),
            MetadataOutcome::Spread { changed, next } => {
                Outcome::Spread(Spread { changed: *changed, next: next.as_ref().map(Wire::to_wire) })
            }
            MetadataOutcome::Proxy(proxy) => Outcome::Proxy(proxy.to_wire()),
            MetadataOutcome::Rules(rules) => Outcome::Rules(*rules),
            MetadataOutcome::Ids(ids) => Outcome::Ids(ids.to_wire()),
        };
        wire::MetadataOutcome { outcome: Some(outcome) }
    }

    fn from_wire(message: wire::MetadataOutcome) -> Result<MetadataOutcome, Malformed> {
        use wire::metadata_outcome::Outcome;
        Ok(match message.outcome.ok_or(Malformed("outcome of a metadata command"))? {
            Outcome::Topic(topic) => MetadataOutcome::Topic(Wire::from_wire(topic)?),
            Outcome::Group(group) => MetadataOutcome::Group(Wire::from_wire(group)?),
            Outcome::Deleted(_) => MetadataOutcome::Deleted,
            Outcome::Cluster(cluster) => MetadataOutcome::Cluster(ClusterId::from_wire(cluster)?),
            Outcome::StoreGroup(group) => MetadataOutcome::StoreGroup(Wire::from_wire(group)?),
            Outcome::Spread(spread) => MetadataOutcome::Spread {
                changed: spread.changed,
                next: spread.next.map(TopicName::from_wire).transpose()?,
            },
            Outcome::Proxy(proxy) => MetadataOutcome::Proxy(Wire::from_wire(proxy)?),
            Outcome::Rules(rules) => MetadataOutcome::Rules(rules),
            Outcome::Ids(ids) => MetadataOutcome::Ids(KnownIds::from_wire(ids)?),
        })
    }
}

impl Wire for MetadataChange {
    type Message = wire::MetadataChange;

    fn to_wire(&self) -> wire::MetadataChange {
        use wire::metadata_change::Change;
        let change = match self {
            MetadataChange::Reset => Change::Reset(wire::Nothing {}),
            MetadataChange::Given { last_topic, last_group, lost } => Change::Given(match lost {
                None => wire::Given { last_topic: last_topic.0, last_group: last_group.0, put_back: None },
                // Who does not know the lost ones must not take them for removed.
                Some(lost) => wire::Given {
                    last_topic: before_lost(&lost.topics, last_topic.0),
                    last_group: before_lost(&lost.groups, last_group.0),
                    put_back: Some(wire::PutBack {
                        last_topic: last_topic.0,
                        last_group: last_group.0,
                        topics: put_ranges(&lost.topics),
                        groups: put_ranges(&lost.groups),
                    }),
                },
            }),
            MetadataChange::TopicUpsert(topic) => Change::TopicUpsert(topic.to_wire()),
            MetadataChange::TopicRemoved(id) => Change::TopicRemoved(id.0),
            MetadataChange::GroupUpsert(group) => Change::GroupUpsert(group.to_wire()),
            MetadataChange::GroupRemoved(id) => Change::GroupRemoved(id.0),
            MetadataChange::ClusterInitialized(cluster) => Change::Founded(cluster.to_wire()),
            MetadataChange::StoreGroupUpsert(group) => Change::StoreGroupUpsert(group.to_wire()),
            MetadataChange::StoreGroupRemoved(id) => Change::StoreGroupRemoved(id.0),
            MetadataChange::ProxyUpsert(proxy) => Change::ProxyUpsert(proxy.to_wire()),
            MetadataChange::ProxyRemoved(id) => Change::ProxyRemoved(id.to_wire()),
            // As a watcher would have to get it.
            MetadataChange::NotUnderstood(Some(Removed::Topic(id))) => {
                Change::TopicUpsert(wire::Topic { id: id.0, ..wire::Topic::default() })
            }
            MetadataChange::NotUnderstood(Some(Removed::Group(id))) => {
                Change::GroupUpsert(wire::Group { id: id.0, ..wire::Group::default() })
            }
            MetadataChange::NotUnderstood(None) => {
                return wire::MetadataChange { change: None, skippable: false };
            }
        };
        // All of these matter to somebody.
        wire::MetadataChange { change: Some(change), skippable: false }
    }

    fn from_wire(message: wire::MetadataChange) -> Result<MetadataChange, Malformed> {
        use wire::metadata_change::Change;
        Ok(match message.change.ok_or(Malformed("metadata change"))? {
            Change::Reset(_) => MetadataChange::Reset,
            Change::Given(wire::Given { last_topic, last_group, put_back: None }) => {
                MetadataChange::Given { last_topic: TopicId(last_topic), last_group: GroupId(last_group), lost: None }
            }
            Change::Given(wire::Given { put_back: Some(put_back), .. }) => {
                let wire::PutBack { last_topic, last_group, topics, groups } = put_back;
                let lost = LostIds { topics: read_ranges(topics), groups: read_ranges(groups) };
                let (last_topic, last_group) = (TopicId(last_topic), GroupId(last_group));
                MetadataChange::Given { last_topic, last_group, lost: Some(Arc::new(lost)) }
            }
            Change::TopicUpsert(topic) => MetadataChange::TopicUpsert(Arc::<Topic>::from_wire(topic)?),
            Change::TopicRemoved(id) => MetadataChange::TopicRemoved(TopicId(id)),
            Change::GroupUpsert(group) => MetadataChange::GroupUpsert(Arc::<ConsumerGroup>::from_wire(group)?),
            Change::GroupRemoved(id) => MetadataChange::GroupRemoved(GroupId(id)),
            Change::Founded(cluster) => MetadataChange::ClusterInitialized(ClusterId::from_wire(cluster)?),
            Change::StoreGroupUpsert(group) => MetadataChange::StoreGroupUpsert(Arc::<StoreGroup>::from_wire(group)?),
            Change::StoreGroupRemoved(id) => MetadataChange::StoreGroupRemoved(StoreGroupId(id)),
            Change::ProxyUpsert(proxy) => MetadataChange::ProxyUpsert(Arc::<ProxyMember>::from_wire(proxy)?),
            Change::ProxyRemoved(id) => MetadataChange::ProxyRemoved(ProxyId::from_wire(id)?),
        })
    }
}

/// A change as a watcher takes it, and what of it was not understood and matters. What may be about a topic or a group
/// comes as [`MetadataChange::NotUnderstood`]; without any change, the message was about neither.
pub fn watched(message: wire::MetadataChange) -> (Option<MetadataChange>, Option<Malformed>) {
    use wire::metadata_change::Change;
    let identity = match &message.change {
        None if message.skippable => return (None, None),
        // Identities begin at 1: a newer one may be elsewhere.
        Some(Change::TopicUpsert(topic)) => Some((topic.id > 0).then_some(Removed::Topic(TopicId(topic.id)))),
        Some(Change::GroupUpsert(group)) => Some((group.id > 0).then_some(Removed::Group(GroupId(group.id)))),
        Some(Change::StoreGroupUpsert(_) | Change::ProxyUpsert(_) | Change::ProxyRemoved(_)) => None,
        _ => Some(None),
    };
    match MetadataChange::from_wire(message) {
        Ok(change) => (Some(change), None),
        Err(unknown) => (identity.map(MetadataChange::NotUnderstood), Some(unknown)),
    }
}

impl Wire for MetadataError {
    type Message = wire::MetadataFailure;

    fn to_wire(&self) -> wire::MetadataFailure {
        use wire::metadata_failure::Reason;
        let reason = match self {
            MetadataError::Refused(refusal) => Reason::Refused(refusal.to_wire()),
            MetadataError::Unavailable(why) => Reason::Unavailable(why.clone()),
            MetadataError::Unknown(why) => Reason::Unknown(why.clone()),
        };
        wire::MetadataFailure { reason: Some(reason) }
    }

    fn from_wire(message: wire::MetadataFailure) -> Result<MetadataError, Malformed> {
        use wire::metadata_failure::Reason;
        Ok(match message.reason.ok_or(Malformed("failure of a metadata command"))? {
            Reason::Refused(refusal) => MetadataError::Refused(MetadataRefusal::from_wire(refusal)?),
            Reason::Unavailable(why) => MetadataError::Unavailable(why),
            Reason::Unknown(why) => MetadataError::Unknown(why),
        })
    }
}
