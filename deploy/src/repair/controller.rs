//! `gantry repair controller`: the controller's folder of a standalone server is lost or damaged, and its store is there.
//!
//! What the store knows ([`Known`]) becomes the metadata again ([`Rebuild`]). Names that its copy of the metadata lacks are the
//! operator's to give; until then a topic or group is reached by a name that says its number.

use crate::inspect::instant;
use clap::Args;
use gantry_controller::{Rebuild, RebuiltGroup, RebuiltMetadata, RebuiltTopic};
use gantry_proto::env::Env;
use gantry_proto::model::limits::{MAX_ATTEMPTS_DEFAULT, QUEUE_COUNT_MAX};
use gantry_proto::model::{
    BackoffPolicy, GroupId, GroupName, Placement, StoreGroupId, Topic, TopicId, TopicName, TopicType,
};
use gantry_store::repair::{Known, KnownTopic};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which folder, and what the operator knows.
#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    /// The data folder of a standalone server (what --data names).
    pub(super) dir: PathBuf,
    /// The name of a topic, and how many queues it had. Once for each.
    #[arg(long = "topic", value_name = "ID=NAME[:QUEUES]", value_parser = parse_topic)]
    topics: Vec<GivenTopic>,
    /// The name of a consumer group, and whether it delivers in order. Once for each.
    #[arg(long = "group", value_name = "ID=NAME[:fifo]", value_parser = parse_group)]
    groups: Vec<GivenGroup>,
}

#[derive(Clone, Debug)]
struct GivenTopic {
    id: TopicId,
    name: TopicName,
    queues: Option<u32>,
}

#[derive(Clone, Debug)]
struct GivenGroup {
    id: GroupId,
    name: GroupName,
    fifo: bool,
}

/// A repair that was thought through.
pub(super) struct Plan {
    rebuild: Rebuild,
    /// Keeps the store's folder locked.
    _known: Known,
    pub(super) steps: Vec<String>,
    pub(super) lost: Vec<String>,
    made: Made,
}

/// What is made again, for programs.
#[derive(Serialize)]
pub(super) struct Made {
    cluster: String,
    store_group: String,
    topics: Vec<MadeTopic>,
    groups: Vec<MadeGroup>,
    /// Numbers that are known, and of which nothing else is.
    topics_not_made: Vec<u32>,
}

#[derive(Serialize)]
struct MadeTopic {
    id: u32,
    name: String,
    /// `operator`, `store`, `dead letters`, or `nobody`.
    named_by: &'static str,
    queues: u32,
    messages: u64,
}

#[derive(Serialize)]
struct MadeGroup {
    id: u32,
    name: String,
    /// `operator`, `store` or `nobody`.
    named_by: &'static str,
    fifo: bool,
}

fn parse_topic(text: &str) -> Result<GivenTopic, String> {
    let (id, name, queues) = split(text)?;
    let queues = match queues {
        None => None,
        Some(queues) => match queues.parse() {
            Ok(queues) if (1..=QUEUE_COUNT_MAX).contains(&queues) => Some(queues),
            _ => return Err(format!("{queues:?} is not a number of queues from 1 to {QUEUE_COUNT_MAX}")),
        },
    };
    let name = TopicName::parse(name).map_err(|error| error.to_string())?;
    if name.is_derived() {
        return Err(format!("{name} comes with its group: name the group"));
    }
    Ok(GivenTopic { id: TopicId(id), name, queues })
}

fn parse_group(text: &str) -> Result<GivenGroup, String> {
    let (id, name, order) = split(text)?;
    let fifo = match order {
        None => false,
        Some("fifo") => true,
        Some(other) => return Err(format!("{other:?} is not fifo")),
    };
    let name = GroupName::parse(name).map_err(|error| error.to_string())?;
    Ok(GivenGroup { id: GroupId(id), name, fifo })
}

fn split(text: &str) -> Result<(u32, &str, Option<&str>), String> {
    let (id, rest) = text.split_once('=').ok_or("it says no name: write ID=NAME")?;
    let id = id.parse().map_err(|_| format!("{id:?} is not a number"))?;
    let (name, more) = rest.split_once(':').map_or((rest, None), |(name, more)| (name, Some(more)));
    Ok((id, name, more))
}

impl Plan {
    /// `store`: the store's folder in the data folder.
    pub(super) fn new(env: &Env, store: &Path, args: &ControllerArgs) -> anyhow::Result<Plan> {
        let dir = store.parent().unwrap_or(Path::new(".")).join("controller");
        let known = Known::read(env, store)?;
        let (topics, groups) = (topics(&known, &args.topics)?, groups(&known, &args.groups)?);
        check_names(&topics, &groups)?;
        let last_topic = known.topics.keys().last().copied().unwrap_or_default();
        let last_group = known.groups.keys().last().copied().unwrap_or_default();
        let metadata = RebuiltMetadata {
            cluster: known.cluster,
            store_group: known.store_group.clone(),
            folder: known.folder,
            last_epoch: known.last_epoch,
            topics: topics.iter().map(|(topic, _)| topic.clone()).collect(),
            groups: groups.iter().map(|(group, _)| group.clone()).collect(),
            last_topic: last_topic.max(args.topics.iter().map(|given| given.id).max().unwrap_or_default()),
            last_group: last_group.max(args.groups.iter().map(|given| given.id).max().unwrap_or_default()),
            topics_removed: known.topics.iter().filter(|(_, topic)| topic.removed).map(|(id, _)| *id).collect(),
            groups_removed: known.groups.iter().filter(|(_, group)| group.removed).map(|(id, _)| *id).collect(),
        };
        let rebuild = Rebuild::new(env, &dir, metadata)?;
        let made: BTreeSet<TopicId> = (topics.iter().map(|(topic, _)| topic.id))
            .chain(groups.iter().filter_map(|(group, _)| group.dead_letter_topic))
            .collect();
        let is_left = |(id, topic): &(&TopicId, &KnownTopic)| !topic.removed && !made.contains(id);
        let left: Vec<TopicId> = known.topics.iter().filter(is_left).map(|(id, _)| *id).collect();
        Ok(Plan {
            steps: steps(&dir, &known, &topics, &groups),
            lost: lost(&known, &topics, &groups, &left),
            made: Made {
                cluster: known.cluster.to_string(),
                store_group: known.store_group.1.to_string(),
                topics: (topics.iter())
                    .map(|(topic, named_by)| MadeTopic {
                        id: topic.id.0,
                        name: topic.name.to_string(),
                        named_by,
                        queues: topic.placement.queue_count(StoreGroupId(0)),
                        messages: known.topics.get(&topic.id).map_or(0, |topic| topic.messages),
                    })
                    .collect(),
                groups: (groups.iter())
                    .map(|(group, named_by)| MadeGroup {
                        id: group.id.0,
                        name: group.name.to_string(),
                        named_by,
                        fifo: group.fifo,
                    })
                    .collect(),
                topics_not_made: left.iter().map(|id| id.0).collect(),
            },
            rebuild,
            _known: known,
        })
    }

    /// Does it, if it is to be done. What is made, and where what was there is now; `None`: nothing was.
    pub(super) fn finish(self, yes: bool) -> anyhow::Result<(Made, Option<PathBuf>)> {
        let moved = if yes { self.rebuild.carry_out()? } else { None };
        Ok((self.made, moved))
    }
}

const BY_OPERATOR: &str = "operator";
const BY_STORE: &str = "store";
const BY_LETTERS: &str = "dead letters";
const BY_NOBODY: &str = "nobody";

/// Topics that the store's copy of the metadata names, that hold messages, or that groups read, or that the operator names; not
/// those of dead letters.
fn topics(known: &Known, given: &[GivenTopic]) -> anyhow::Result<Vec<(RebuiltTopic, &'static str)>> {
    let mut named: BTreeMap<TopicId, &GivenTopic> = BTreeMap::new();
    for given in given {
        let topic = known.topics.get(&given.id);
        anyhow::ensure!(
            topic.is_none_or(|topic| !topic.removed),
            "topic {} was deleted: its number cannot be used again. Nothing was changed",
            given.id
        );
        anyhow::ensure!(
            topic.is_none_or(|topic| topic.dead_letters_of.is_none()),
            "topic {} holds the dead letters of a group: name the group instead. Nothing was changed",
            given.id
        );
        let fits = topic.is_none_or(|topic| given.queues.is_none_or(|queues| queues >= topic.queues));
        let known = topic.map_or(0, |topic| topic.queues);
        anyhow::ensure!(fits, "topic {} has at least {known} queues. Nothing was changed", given.id);
        anyhow::ensure!(
            named.insert(given.id, given).is_none(),
            "topic {} is named twice. Nothing was changed",
            given.id
        );
    }
    let is_read = |topic: &KnownTopic| topic.read_by.iter().any(|id| known.groups.get(id).is_some_and(|g| !g.removed));
    let is_there = |topic: &KnownTopic| topic.messages > 0 || topic.described.is_some() || is_read(topic);
    let of_itself =
        |(_, topic): &(&TopicId, &KnownTopic)| !topic.removed && topic.dead_letters_of.is_none() && is_there(topic);
    let ids: BTreeSet<TopicId> =
        (known.topics.iter().filter(of_itself).map(|(id, _)| *id)).chain(named.keys().copied()).collect();
    let mut topics = Vec::new();
    for id in ids {
        let topic = known.topics.get(&id).cloned().unwrap_or_default();
        let by_letters = topic.name.as_deref().and_then(|name| TopicName::parse(name).ok());
        let described = topic.described.as_deref();
        let (name, named_by) = match (named.get(&id), described, by_letters) {
            (Some(given), _, _) => (given.name.clone(), BY_OPERATOR),
            (None, Some(described), _) => (described.name.clone(), BY_STORE),
            (None, None, Some(name)) => (name, BY_LETTERS),
            (None, None, None) => (TopicName::parse(&format!("recovered-topic-{id}"))?, BY_NOBODY),
        };
        let queues = named.get(&id).and_then(|given| given.queues).unwrap_or(topic.queues).max(1);
        let topic_type = described.map_or(TopicType::Mixed, |described| described.topic_type);
        let placement = placement(described, queues, known.store_group.0);
        topics.push((RebuiltTopic { id, name, topic_type, placement }, named_by));
    }
    Ok(topics)
}

/// Where the queues are: as they were, and those that are not known there on the one store group that is.
fn placement(described: Option<&Topic>, queues: u32, store_group: StoreGroupId) -> Placement {
    match described.map(|described| &described.placement) {
        Some(Placement::Spread { store_groups, message_group_queues }) => {
            let more = std::iter::repeat_n(store_group, (queues as usize).saturating_sub(store_groups.len()));
            Placement::Spread {
                store_groups: store_groups.iter().copied().chain(more).collect(),
                message_group_queues: message_group_queues.clone(),
            }
        }
        _ => Placement::spread(queues, &[store_group], 0),
    }
}

fn groups(known: &Known, given: &[GivenGroup]) -> anyhow::Result<Vec<(RebuiltGroup, &'static str)>> {
    let mut named: BTreeMap<GroupId, &GivenGroup> = BTreeMap::new();
    for given in given {
        let removed = known.groups.get(&given.id).is_some_and(|group| group.removed);
        anyhow::ensure!(
            !removed,
            "group {} was deleted: its number cannot be used again. Nothing was changed",
            given.id
        );
        anyhow::ensure!(
            named.insert(given.id, given).is_none(),
            "group {} is named twice. Nothing was changed",
            given.id
        );
    }
    let of_itself = known.groups.iter().filter(|(_, group)| !group.removed).map(|(id, _)| *id);
    let ids: BTreeSet<GroupId> = of_itself.chain(named.keys().copied()).collect();
    let mut groups = Vec::new();
    for id in ids {
        let is_kept = |topic: &TopicId| known.topics.get(topic).is_some_and(|topic| !topic.removed);
        let dead_letter_topic = known.groups.get(&id).and_then(|group| group.dead_letter_topic).filter(is_kept);
        let described = known.groups.get(&id).and_then(|group| group.described.as_deref());
        let (name, fifo, named_by) = match (named.get(&id), described) {
            (Some(given), _) => (given.name.clone(), given.fifo, BY_OPERATOR),
            (None, Some(described)) => (described.name.clone(), described.fifo, BY_STORE),
            (None, None) => (GroupName::parse(&format!("recovered-group-{id}"))?, false, BY_NOBODY),
        };
        let max_attempts = described.map_or(MAX_ATTEMPTS_DEFAULT, |described| described.max_attempts);
        let backoff = described.map_or_else(BackoffPolicy::default, |described| described.backoff.clone());
        groups.push((RebuiltGroup { id, name, fifo, max_attempts, backoff, dead_letter_topic }, named_by));
    }
    Ok(groups)
}

fn check_names(topics: &[(RebuiltTopic, &'static str)], groups: &[(RebuiltGroup, &'static str)]) -> anyhow::Result<()> {
    let mut names: BTreeMap<&TopicName, TopicId> = BTreeMap::new();
    for (topic, _) in topics {
        if let Some(other) = names.insert(&topic.name, topic.id) {
            let RebuiltTopic { id, name, .. } = topic;
            anyhow::bail!(
                "topics {other} and {id} would both be called {name}: name one of them with --topic. Nothing was changed"
            );
        }
    }
    let mut names: BTreeMap<&GroupName, GroupId> = BTreeMap::new();
    for (group, _) in groups {
        if let Some(other) = names.insert(&group.name, group.id) {
            let RebuiltGroup { id, name, .. } = group;
            anyhow::bail!(
                "groups {other} and {id} would both be called {name}: name one of them with --group. Nothing was changed"
            );
        }
    }
    Ok(())
}

fn steps(
    dir: &Path,
    known: &Known,
    topics: &[(RebuiltTopic, &'static str)],
    groups: &[(RebuiltGroup, &'static str)],
) -> Vec<String> {
    let (number, store_group) = &known.store_group;
    let mut steps = vec![format!(
        "Make {} again: cluster {}, store group {store_group} (number {number}) in epoch {}, topics up to number {}, groups up \
         to number {}",
        dir.display(),
        known.cluster,
        known.last_epoch,
        known.topics.keys().last().copied().unwrap_or_default(),
        known.groups.keys().last().copied().unwrap_or_default(),
    )];
    for (topic, named_by) in topics {
        let held = known.topics.get(&topic.id).cloned().unwrap_or_default();
        let who = match *named_by {
            BY_OPERATOR => "as you say".to_owned(),
            BY_STORE => "as the store's copy of the metadata says".to_owned(),
            BY_LETTERS => "as its dead letters say".to_owned(),
            _ => format!("nobody knows its name: say it with --topic {}=NAME, it cannot be changed later", topic.id),
        };
        let last = held.last_message.map_or_else(String::new, |at| format!(", the last from {}", instant(at)));
        let samples: Vec<&str> = held.samples.iter().map(String::as_str).collect();
        let samples =
            if samples.is_empty() { String::new() } else { format!("; some tags and keys: {}", samples.join(", ")) };
        let readers: Vec<String> = held.read_by.iter().map(ToString::to_string).collect();
        let readers =
            if readers.is_empty() { String::new() } else { format!("; read by the groups {}", readers.join(", ")) };
        steps.push(format!(
            "Topic {}: {} ({who}); {} queues, {} messages{last}{samples}{readers}",
            topic.id,
            topic.name,
            topic.placement.queue_count(StoreGroupId(0)),
            held.messages
        ));
    }
    for (group, named_by) in groups {
        let who = match *named_by {
            BY_OPERATOR => "as you say".to_owned(),
            BY_STORE => "as the store's copy of the metadata says".to_owned(),
            _ => format!(
                "nobody knows its name: say it with --group {}=NAME, or consumers that use its old name get a new group, which \
                 begins at the oldest message",
                group.id
            ),
        };
        steps.push(format!("Group {}: {} ({who}); its progress is in the store and goes on", group.id, group.name));
    }
    steps
}

fn lost(
    known: &Known,
    topics: &[(RebuiltTopic, &'static str)],
    groups: &[(RebuiltGroup, &'static str)],
    left: &[TopicId],
) -> Vec<String> {
    let mut lost = known.unreadable.clone();
    let is_described = |topic: &TopicId| known.topics.get(topic).is_some_and(|topic| topic.described.is_some());
    let untyped: Vec<String> =
        topics.iter().filter(|(topic, _)| !is_described(&topic.id)).map(|(topic, _)| topic.id.to_string()).collect();
    if !untyped.is_empty() {
        lost.push(format!(
            "The types of the topics {} are lost: they take every kind of message. gantry admin topic alter sets them",
            untyped.join(", ")
        ));
    }
    let is_described = |group: &GroupId| known.groups.get(group).is_some_and(|group| group.described.is_some());
    let unruled: Vec<String> =
        groups.iter().filter(|(group, _)| !is_described(&group.id)).map(|(group, _)| group.id.to_string()).collect();
    if !unruled.is_empty() {
        lost.push(format!(
            "The retry policies of the groups {} are lost: they have {MAX_ATTEMPTS_DEFAULT} attempts and the default backoff, and \
             no order unless you say ID=NAME:fifo. gantry admin group alter sets them",
            unruled.join(", ")
        ));
    }
    for (topic, named_by) in topics {
        let ordered = known.topics.get(&topic.id).is_some_and(|topic| topic.ordered);
        if ordered && !matches!(*named_by, BY_OPERATOR | BY_STORE) {
            lost.push(format!(
                "Topic {} has message groups, which are spread over its queues by their number: if it had more than {}, say \
                 how many with --topic {}=NAME:QUEUES, or a message group goes on in another queue",
                topic.id,
                topic.placement.queue_count(StoreGroupId(0)),
                topic.id
            ));
        }
    }
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        lost.push(format!(
            "Topics {} hold no message and no group reads them: whether they were deleted is not known. They are not made \
             again unless you name them with --topic; their numbers are not given again",
            left.join(", ")
        ));
    }
    lost.push(
        if known.has_copy {
            "What was created or changed in the last seconds before the store ended may not be known here: do it again"
        } else {
            "Topics to which nothing was ever sent, and groups that never received anything, are not known here: create them again"
        }
        .to_owned(),
    );
    lost.push(
        "What was received and not acknowledged can no longer be acknowledged: it is delivered again when its time is over"
            .to_owned(),
    );
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_names_is_read() {
        let topic = parse_topic("3=orders:8").unwrap();
        assert_eq!((topic.id, topic.name.as_str(), topic.queues), (TopicId(3), "orders", Some(8)));
        assert_eq!(parse_topic("3=orders").unwrap().queues, None);
        let group = parse_group("2=readers:fifo").unwrap();
        assert_eq!((group.id, group.name.as_str(), group.fifo), (GroupId(2), "readers", true));
        assert!(!parse_group("2=readers").unwrap().fifo);
        for wrong in ["orders", "x=orders", "3=", "3=a/b", "3=orders:0", "3=orders:x", "3=%DLQ%readers"] {
            assert!(parse_topic(wrong).is_err(), "{wrong}");
        }
        assert!(parse_group("2=readers:ordered").is_err());
    }
}
