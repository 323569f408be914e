//! What a store's folder knows of the cluster's metadata: for who makes those of a controller again whose folder is lost.
//!
//! The log names topics and groups by their numbers. What they are called, and of what kind they are, is in the store's copy of
//! the metadata ([`crate::names`]); where that is gone, dead letters carry the name of the topic that they come from.
//!
//! What must always hold: each number of a topic or a group that is anywhere in the folder is known here, what was deleted
//! included, or nothing is: whoever goes on from here gives none of them again.

use super::{RepairError, lock, refused};
use crate::checkpoint::{self, Snapshot};
use crate::identity::Identity;
use crate::inspect::{IndexFile, InspectError, RecordContent, RecordInfo, Seen, SegmentFile, segment_paths};
use crate::names::{Names, NamesError};
use gantry_proto::env::{DirectoryLock, Env, Files};
use gantry_proto::model::{
    ClusterId, ConsumerGroup, Epoch, FolderId, GroupId, GroupName, LogOffset, Placement, QueueId, Removed,
    StoreGroupId, StoreGroupName, Timestamp, Topic, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Tags and keys that are shown of a topic's messages.
const SAMPLES_MAX: usize = 5;

/// What a folder knows. It stays locked until this is dropped.
pub struct Known {
    _lock: DirectoryLock,
    pub folder: FolderId,
    /// The last epoch that may have written to it.
    pub last_epoch: Epoch,
    /// Where it belongs.
    pub cluster: ClusterId,
    /// The store group that it belongs to.
    pub store_group: (StoreGroupId, StoreGroupName),
    /// Every topic that is named anywhere.
    pub topics: BTreeMap<TopicId, KnownTopic>,
    /// Every group that is named anywhere.
    pub groups: BTreeMap<GroupId, KnownGroup>,
    /// Whether the store's copy of the metadata is there.
    pub has_copy: bool,
    /// Parts of the log that could not be read, a sentence each.
    pub unreadable: Vec<String>,
}

/// What is known of a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownTopic {
    /// What it was, as the store's copy of the metadata says.
    pub described: Option<Arc<Topic>>,
    /// Its name, as its dead letters say.
    pub name: Option<String>,
    /// The group whose dead letters it holds.
    pub dead_letters_of: Option<GroupId>,
    /// Queues up to the last one that is known.
    pub queues: u32,
    /// Messages in the log.
    pub messages: u64,
    /// When the last one of them came.
    pub last_message: Option<Timestamp>,
    /// Some of their tags and keys.
    pub samples: BTreeSet<String>,
    /// Whether some of them belong to message groups.
    pub ordered: bool,
    /// The groups that read it.
    pub read_by: BTreeSet<GroupId>,
    /// The log says that it was deleted.
    pub removed: bool,
}

/// What is known of a consumer group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownGroup {
    /// What it was, as the store's copy of the metadata says.
    pub described: Option<Arc<ConsumerGroup>>,
    /// Where its dead letters are.
    pub dead_letter_topic: Option<TopicId>,
    /// The log says that it was deleted.
    pub removed: bool,
}

impl Known {
    /// Reads the whole folder. Changes nothing.
    pub fn read(env: &Env, dir: &Path) -> Result<Known, RepairError> {
        let lock = lock(env, dir)?;
        let files = &*env.files;
        let identity = match Identity::load(files, dir) {
            Ok(Some((identity, _))) => identity,
            Ok(None) => return refused(lost_identity(dir, "both files with it are gone")),
            Err(error) => return refused(lost_identity(dir, &error.to_string())),
        };
        let Some(home) = identity.home else {
            return refused(format!("{} never belonged to a cluster: start the server, it founds one", dir.display()));
        };
        let mut known = Known {
            _lock: lock,
            folder: identity.folder,
            last_epoch: identity.last_epoch,
            cluster: home.cluster,
            store_group: (home.group, home.name),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            has_copy: false,
            unreadable: Vec::new(),
        };
        let begins = known.read_log(files, dir)?;
        known.read_checkpoint(files, dir, begins)?;
        known.read_names(files, dir)?;
        Ok(known)
    }

    fn read_log(&mut self, files: &dyn Files, dir: &Path) -> Result<LogOffset, RepairError> {
        let mut begins = None;
        for path in segment_paths(files, dir)? {
            let file = SegmentFile::open(files, &path)?;
            begins.get_or_insert(file.facts().base);
            let (mut newer, mut damaged) = (None, false);
            let ending = file.walk(|seen| {
                match seen {
                    Seen::Record(record) => self.note(&record),
                    Seen::NotUnderstood { at, cause, newer: true, .. } => {
                        newer = Some(format!("at log offset {at}: {cause}"));
                        return ControlFlow::Break(());
                    }
                    Seen::NotUnderstood { at, to, cause, .. } | Seen::Damaged { at, to, cause } => {
                        damaged = true;
                        self.unreadable.push(format!("The log from {at} to {to} cannot be read ({cause})"));
                    }
                }
                ControlFlow::Continue(())
            })?;
            if let Some(cause) = newer {
                return Err(InspectError::Newer { path, cause }.into());
            }
            if !ending.is_whole() {
                damaged = true;
                self.unreadable.push(format!("The end of {} is missing", path.display()));
            }
            if damaged && file.facts().next.is_some() {
                self.read_index(files, &path.with_extension("index"));
            }
        }
        Ok(begins.unwrap_or_default())
    }

    fn note(&mut self, record: &RecordInfo<'_>) {
        match &record.content {
            RecordContent::Message(_) => {}
            RecordContent::DeadLetter { origin, message } => {
                self.queue(origin.topic, origin.queue);
                self.topic(origin.topic).read_by.insert(origin.group);
                if let Some(named) = message.head.dead_letter_origin {
                    self.topic(origin.topic).name = Some(named.topic.to_owned());
                }
                self.topic(record.topic).dead_letters_of = Some(origin.group);
                self.groups.entry(origin.group).or_default().dead_letter_topic = Some(record.topic);
            }
            RecordContent::Delivery(delivery) => {
                self.groups.entry(delivery.group).or_default();
                self.topic(delivery.topic).read_by.insert(delivery.group);
            }
            RecordContent::Batch(_) | RecordContent::Other(_) => {}
        }
        match record.removed {
            Some(Removed::Topic(id)) => *self.topic(id) = KnownTopic { removed: true, ..KnownTopic::default() },
            Some(Removed::Group(id)) => self.groups.entry(id).or_default().removed = true,
            None => {}
        }
        if let Some(message) = record.message() {
            self.queue(record.topic, record.queue);
            let topic = self.topic(record.topic);
            topic.messages += 1;
            topic.last_message = topic.last_message.max(Some(record.store_time));
            topic.ordered |= message.head.message_group.is_some();
            for sample in message.head.tag.iter().chain(&message.head.keys) {
                if topic.samples.len() < SAMPLES_MAX {
                    topic.samples.insert((*sample).to_owned());
                }
            }
        }
    }

    /// Of a segment that is damaged: which queues had messages in it. The server makes such an index again, so one that
    /// cannot be read says nothing.
    fn read_index(&mut self, files: &dyn Files, path: &Path) {
        match IndexFile::open(files, path).and_then(|index| index.runs()) {
            Ok(runs) => runs.iter().for_each(|run| self.queue(run.topic, run.queue)),
            Err(error) => self.unreadable.push(format!("Its index cannot be read either ({error})")),
        }
    }

    /// What lies before the retained log is there only.
    fn read_checkpoint(&mut self, files: &dyn Files, dir: &Path, begins: LogOffset) -> Result<(), RepairError> {
        let generations = match checkpoint::look(files, dir) {
            Ok(generations) => generations,
            Err(error) => return refused(error.to_string()),
        };
        let mut newest: Option<Snapshot> = None;
        let mut damaged = Vec::new();
        for generation in generations {
            match generation.read {
                Ok((snapshot, _)) => {
                    snapshot.queues.keys().for_each(|(topic, queue)| self.queue(*topic, *queue));
                    // Shards of what was deleted are in the older one still.
                    if newest.as_ref().is_none_or(|newest| newest.position.at <= snapshot.position.at) {
                        newest = Some(snapshot);
                    }
                }
                Err(why) if generation.newer => return refused(format!("{}: {why}", generation.path.display())),
                Err(why) => damaged.push(format!("{}: {why}", generation.path.display())),
            }
        }
        let Some(snapshot) = newest else {
            if begins == LogOffset(0) {
                return Ok(());
            }
            let why = if damaged.is_empty() { "it is gone".to_owned() } else { damaged.join("; ") };
            return refused(format!(
                "the checkpoint in {0} cannot be read ({why}), and the log reaches back to {begins} only: numbers that were \
                 given before that would be given again. Restore the checkpoint, or do `gantry repair checkpoint {0}` first",
                dir.display()
            ));
        };
        for (group, topic) in snapshot.shards.keys() {
            self.groups.entry(*group).or_default();
            self.topic(*topic).read_by.insert(*group);
        }
        Ok(())
    }

    /// A copy that lags behind: what it lacks is known by numbers only.
    fn read_names(&mut self, files: &dyn Files, dir: &Path) -> Result<(), RepairError> {
        let names = match Names::read(files, dir) {
            Ok(Some(names)) if names.cluster == Some(self.cluster) => names,
            Ok(_) => return Ok(()),
            Err(error @ NamesError::Newer(_)) => return refused(format!("{}: {error}", dir.display())),
            Err(error) => {
                self.unreadable.push(format!("The store's copy of the metadata cannot be read ({error})"));
                return Ok(());
            }
        };
        self.has_copy = true;
        let ids: BTreeMap<GroupName, GroupId> =
            names.groups.values().map(|group| (group.name.clone(), group.id)).collect();
        for (id, described) in names.topics {
            let letters_of = described.dead_letter_of.as_ref().and_then(|name| ids.get(name)).copied();
            let topic = self.topic(id);
            if topic.removed {
                continue;
            }
            if let Placement::Spread { store_groups, .. } = &described.placement {
                topic.queues = topic.queues.max(u32::try_from(store_groups.len()).unwrap_or(u32::MAX));
            }
            topic.dead_letters_of = topic.dead_letters_of.or(letters_of);
            topic.described = Some(described);
        }
        for (id, described) in names.groups {
            let group = self.groups.entry(id).or_default();
            if !group.removed {
                group.dead_letter_topic = Some(described.dead_letter_topic);
                group.described = Some(described);
            }
        }
        Ok(())
    }

    fn topic(&mut self, id: TopicId) -> &mut KnownTopic {
        self.topics.entry(id).or_default()
    }

    fn queue(&mut self, topic: TopicId, queue: QueueId) {
        let topic = self.topic(topic);
        topic.queues = topic.queues.max(queue.0.saturating_add(1));
    }
}

fn lost_identity(dir: &Path, why: &str) -> String {
    let dir = dir.display();
    format!("the store's folder {dir} has lost its identity ({why}): do `gantry repair identity {dir}` first")
}
