//! Makes the folder of an only member again that is lost: from what others know of the metadata.
//!
//! Called by an operator's command, without a server. What is known is for the caller to find out; here it becomes a state
//! that obeys the rules of one, and a folder as a member leaves it that has purged its log.
//!
//! What must always hold:
//! - Nothing that was given is given again: the counters begin behind all that anybody knows.
//! - What was given, is not there and was not deleted for all that is known, never counts as removed (see
//!   [`LostIds`](gantry_proto::model::LostIds)).
//! - The file gets its name last: until then the folder is as lost as before, and the repair can be made again.

use crate::config::STANDALONE;
use crate::inspect::{Acknowledged, StoredContent, Unreadable, inspect};
use crate::open_error::OpenError;
use crate::raft::{ACKNOWLEDGED, FILE, LOCK, TEMPORARY, is_there, make_with_snapshot, read_acknowledged};
use crate::state::{Counters, Keeping, KeptGroup, MetadataState, NamedLeader, Rules, StateParts};
use gantry_proto::env::{DirectoryLock, Env, Files};
use gantry_proto::model::{
    BackoffPolicy, ClusterId, ConsumerGroup, Epoch, FolderId, GroupId, GroupName, GroupSecret, LostIds,
    MetadataVersion, Placement, ProcessId, Replica, StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState, Topic,
    TopicId, TopicName, TopicType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is known of the metadata of a server with one store.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuiltMetadata {
    pub cluster: ClusterId,
    pub store_group: (StoreGroupId, StoreGroupName),
    pub folder: FolderId,
    /// The last epoch that may have begun.
    pub last_epoch: Epoch,
    /// Topics that are made again. Dead-letter topics are not among them.
    pub topics: Vec<RebuiltTopic>,
    /// Groups that are made again.
    pub groups: Vec<RebuiltGroup>,
    /// The largest number of a topic that is known.
    pub last_topic: TopicId,
    /// The largest number of a group that is known.
    pub last_group: GroupId,
    /// Topics of which it is known that they were deleted.
    pub topics_removed: BTreeSet<TopicId>,
    /// Groups of which it is known that they were deleted.
    pub groups_removed: BTreeSet<GroupId>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuiltTopic {
    pub id: TopicId,
    pub name: TopicName,
    pub topic_type: TopicType,
    /// Its queues, at least 1.
    pub placement: Placement,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuiltGroup {
    pub id: GroupId,
    pub name: GroupName,
    /// Whether it delivers in order.
    pub fifo: bool,
    pub max_attempts: u32,
    pub backoff: BackoffPolicy,
    /// Its dead-letter topic. `None`: it gets a new one.
    pub dead_letter_topic: Option<TopicId>,
}

/// A folder that can be made again, and is not made yet. It stays locked until this is dropped.
pub struct Rebuild {
    env: Env,
    dir: PathBuf,
    lock: Option<DirectoryLock>,
    state: MetadataState,
    cluster: ClusterId,
    /// What is there and is moved away first.
    touched: Vec<String>,
}

/// Why it cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// It is not lost, or what is known does not fit together.
    #[error("{0}. Nothing was changed")]
    Refused(String),
    /// It cannot be looked at, or not be written.
    #[error(transparent)]
    Folder(#[from] OpenError),
}

/// Whether there is no controller's folder at `dir`, or nothing in it.
pub fn is_lost(files: &dyn Files, dir: &Path) -> io::Result<bool> {
    match is_there(files, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        there => there.map(|there| !there),
    }
}

impl Rebuild {
    /// Thinks it through: is the folder lost or damaged, and is what is known enough. Changes nothing.
    pub fn new(env: &Env, dir: &Path, known: RebuiltMetadata) -> Result<Rebuild, RebuildError> {
        let files = &*env.files;
        let names: Vec<String> = match files.list(dir) {
            Ok(entries) => entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(OpenError::io(dir, "list the data folder")(error).into()),
        };
        let holds = |name: &&str| names.iter().any(|held| held == name);
        let lock = if holds(&LOCK) { Some(lock(files, dir)?) } else { None };
        if holds(&FILE) {
            check_damaged(files, dir)?;
        }
        let touched = [ACKNOWLEDGED, FILE].iter().filter(|name| holds(name)).map(|name| (*name).to_owned()).collect();
        let cluster = known.cluster;
        let state = state(env, known).map_err(RebuildError::Refused)?;
        Ok(Rebuild { env: env.clone(), dir: dir.to_owned(), lock, state, cluster, touched })
    }

    /// Makes it. What was there is moved to the folder whose path it returns; `None`: nothing was.
    pub fn carry_out(mut self) -> Result<Option<PathBuf>, RebuildError> {
        let (files, dir) = (&*self.env.files, &*self.dir);
        files.create_dir_all(dir).map_err(OpenError::io(dir, "make the data folder"))?;
        if self.lock.is_none() {
            self.lock = Some(lock(files, dir)?);
        }
        let moved = self.move_away()?;
        if files.identity_at(&dir.join(TEMPORARY)).map_err(OpenError::io(dir, "look for what a crash left"))?.is_some()
        {
            files.remove(&dir.join(TEMPORARY)).map_err(OpenError::io(dir, "remove what a crash left"))?;
        }
        let member = (1, STANDALONE);
        make_with_snapshot(files, dir, member, self.cluster, self.state.sealed())?;
        Ok(moved)
    }

    /// `acknowledged` first: alone it would say that the new file is older than what was acknowledged.
    fn move_away(&self) -> Result<Option<PathBuf>, OpenError> {
        if self.touched.is_empty() {
            return Ok(None);
        }
        let (files, dir) = (&*self.env.files, &*self.dir);
        let aside = dir.join(format!("repair-{}", self.env.clock.now().as_millis()));
        files.create_dir_all(&aside).map_err(OpenError::io(&aside, "make it"))?;
        for name in &self.touched {
            files.rename(&dir.join(name), &aside.join(name)).map_err(OpenError::io(&dir.join(name), "move it away"))?;
            // It is in the one or the other.
            files.sync_dir(&aside).map_err(OpenError::io(&aside, "make durable the names in it"))?;
            files.sync_dir(dir).map_err(OpenError::io(dir, "make durable the names in it"))?;
        }
        Ok(Some(aside))
    }
}

fn lock(files: &dyn Files, dir: &Path) -> Result<DirectoryLock, OpenError> {
    let path = dir.join(LOCK);
    files.try_lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: path.clone() },
        _ => OpenError::io(&path, "lock the data folder")(error),
    })
}

/// A file that is there may be given up only if a checksum says that it is damaged, or if it is behind what it acknowledged.
fn check_damaged(files: &dyn Files, dir: &Path) -> Result<(), RebuildError> {
    let values = match inspect(files, dir) {
        Ok(values) => values,
        Err(OpenError::Damaged { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut unreadable = values.iter().filter_map(|value| value.content.as_ref().err()).peekable();
    let damaged = unreadable.peek().is_some();
    if let Some(Unreadable::Newer(what)) = unreadable.find(|why| matches!(why, Unreadable::Newer(_))) {
        return Err(OpenError::Newer { path: dir.join(FILE), what: what.clone() }.into());
    }
    let commit = values.iter().find_map(|value| match &value.content {
        Ok(StoredContent::Commit(commit)) => Some(commit.number),
        _ => None,
    });
    let is_behind =
        matches!(read_acknowledged(files, dir)?, Some(Acknowledged::Newest(last)) if last > commit.unwrap_or(0));
    if damaged || is_behind {
        return Ok(());
    }
    Err(RebuildError::Refused(format!(
        "{} is whole. If it is not the one that belongs to this store, move the folder {} away first",
        dir.join(FILE).display(),
        dir.display()
    )))
}

/// The state that is known. The text says what does not fit together.
fn state(env: &Env, known: RebuiltMetadata) -> Result<MetadataState, String> {
    let now = env.clock.now();
    let (store_group, name) = known.store_group;
    let store = StoreGroup {
        id: store_group,
        name,
        state: StoreGroupState::Active,
        replicas: vec![Replica { folder: known.folder, address: "in-process:1".into() }],
        in_sync: vec![known.folder],
        leader: None,
        epoch: known.last_epoch,
        created_at: now,
    };
    let mut last_topic = known.last_topic;
    let mut topics: Vec<Topic> = (known.topics.into_iter())
        .map(|RebuiltTopic { id, name, topic_type, placement }| Topic {
            id,
            name,
            topic_type,
            placement,
            dead_letter_of: None,
            created_at: now,
        })
        .collect();
    let mut groups = Vec::new();
    for RebuiltGroup { id, name, fifo, max_attempts, backoff, dead_letter_topic } in known.groups {
        let dead_letter_topic = match dead_letter_topic {
            Some(topic) => topic,
            None => {
                let next = last_topic.0.checked_add(1).ok_or("there is no number left for a dead-letter topic")?;
                last_topic = TopicId(next);
                last_topic
            }
        };
        topics.push(Topic {
            id: dead_letter_topic,
            name: TopicName::dead_letter_of(&name),
            topic_type: TopicType::Normal,
            placement: Placement::EveryGroup,
            dead_letter_of: Some(name.clone()),
            created_at: now,
        });
        groups.push(ConsumerGroup { id, name, fifo, max_attempts, backoff, dead_letter_topic, created_at: now });
    }
    // Queues may be left of store groups that were removed.
    let placed = topics.iter().filter_map(|topic| match &topic.placement {
        Placement::Spread { store_groups, .. } => store_groups.iter().max().copied(),
        Placement::EveryGroup => None,
    });
    let last_store_group = placed.max().max(Some(store_group)).unwrap_or_default();
    topics.sort_by_key(|topic| topic.id);
    groups.sort_by_key(|group| group.id);
    let there = topics.iter().map(|topic| topic.id.0).chain(known.topics_removed.iter().map(|id| id.0)).collect();
    let topics_lost = others(last_topic.0, &there);
    let there = groups.iter().map(|group| group.id.0).chain(known.groups_removed.iter().map(|id| id.0)).collect();
    let lost = LostIds { topics: topics_lost, groups: others(known.last_group.0, &there) };
    let mut drawn = [0; 48];
    env.random.fill(&mut drawn);
    let (mut secret, mut process) = ([0; 32], [0; 16]);
    secret.copy_from_slice(&drawn[..32]);
    process.copy_from_slice(&drawn[32..]);
    let last = NamedLeader { folder: known.folder, epoch: known.last_epoch, process: ProcessId(process), place: None };
    let led = BTreeMap::from([(known.folder, known.last_epoch)]);
    let keeping = Keeping { secret: GroupSecret(secret), last, led, durable: None };
    let parts = StateParts {
        version: MetadataVersion(1),
        counters: Counters { last_topic, last_group: known.last_group, last_store_group, rules: Rules::NEWEST },
        cluster: Some(known.cluster),
        store_groups: vec![Arc::new(store)],
        topics: topics.into_iter().map(Arc::new).collect(),
        groups: groups.into_iter().map(Arc::new).collect(),
        proxies: Vec::new(),
        kept_groups: vec![Arc::new(KeptGroup(store_group, keeping))],
        lost: Some(lost).filter(|lost| *lost != LostIds::default()).map(Arc::new),
    };
    MetadataState::from_parts(parts).map_err(|why| format!("what is known does not fit together: {why}"))
}

/// The numbers from 1 to `last` that are not among these.
fn others(last: u32, there: &BTreeSet<u32>) -> Vec<RangeInclusive<u32>> {
    let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
    let mut from = 1;
    for id in there.iter().copied().chain([last.saturating_add(1)]) {
        if from < id {
            ranges.push(from..=id - 1);
        }
        from = id.saturating_add(1);
    }
    ranges
}

#[cfg(test)]
mod tests;
