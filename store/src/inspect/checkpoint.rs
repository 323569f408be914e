//! The checkpoints by themselves: each generation that a folder holds.

use super::InspectError;
use crate::checkpoint::{self, CheckpointError};
use crate::delivery::DeliveryState;
use gantry_proto::env::Files;
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationFacts {
    pub path: PathBuf,
    /// All that its saves come to, or why it cannot be read.
    pub read: Result<CheckpointFacts, String>,
    /// A later version wrote it.
    pub newer: bool,
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Recovery reads the log from here on.
    pub at: LogOffset,
    /// Where the retained log began then.
    pub retained_from: LogOffset,
    /// How far the log was on disk, at least.
    pub log_to: LogOffset,
    /// Saves behind the last whole one are cut off or damaged.
    pub cut_off: bool,
    /// Where queues begin that are not named, if not at 0.
    pub queues_begin: QueueOffset,
    /// Where queues begin and go on.
    pub queues: Vec<QueueFacts>,
    /// How far groups are on topics.
    pub progress: Vec<ProgressFacts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    pub topic: TopicId,
    pub queue: QueueId,
    /// First retained offset.
    pub min: QueueOffset,
    /// Next offset to be given.
    pub next: QueueOffset,
}

/// How far a group is on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressFacts {
    pub group: GroupId,
    pub topic: TopicId,
    /// Records before this are in it.
    pub good_for: LogOffset,
    /// Bytes that it takes.
    pub bytes: usize,
    /// Each queue: what was never delivered begins at that offset, so many deliveries are not finished, so many messages are
    /// set aside as damaged. The text says why it cannot be read.
    pub queues: Result<Vec<(QueueId, QueueOffset, u64, u64)>, String>,
}

/// The generations in a store's folder, as recovery would look at them.
pub fn read_checkpoints(files: &dyn Files, dir: &Path) -> Result<Vec<GenerationFacts>, InspectError> {
    let generations = checkpoint::look(files, dir).map_err(|error| match error {
        CheckpointError::Io { action, path, source } => InspectError::Io { action, path, source },
        CheckpointError::Newer { path, what } => InspectError::Newer { path, cause: what },
        error => InspectError::Damaged(error.to_string()),
    })?;
    let facts = generations.into_iter().map(|generation| GenerationFacts {
        path: generation.path,
        newer: generation.newer,
        read: generation.read.map(|(snapshot, cut_off)| CheckpointFacts {
            at: snapshot.position.at,
            retained_from: snapshot.position.retained_from,
            log_to: snapshot.position.log_to,
            cut_off,
            queues_begin: snapshot.queues_begin,
            queues: (snapshot.queues.iter())
                .map(|((topic, queue), (min, next))| QueueFacts {
                    topic: *topic,
                    queue: *queue,
                    min: *min,
                    next: *next,
                })
                .collect(),
            progress: (snapshot.shards.iter())
                .map(|((group, topic), (good_for, state))| ProgressFacts {
                    group: *group,
                    topic: *topic,
                    good_for: *good_for,
                    bytes: state.len(),
                    queues: DeliveryState::decode(state).map(|state| state.by_queue()).map_err(|e| e.to_string()),
                })
                .collect(),
        }),
    });
    Ok(facts.collect())
}
