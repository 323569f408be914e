//! The durable position that recovery starts from: what cannot be had from the retained log alone. Derived data, but for
//! what has expired.
//!
//! Written by [`crate::saving`] ([`generations`]), read by recovery; the encoding is in [`parts`].
//!
//! A **save** says what changed since the one before: its cost follows the queues and groups that were busy. Saves are
//! appended to a file, a **generation**, that began with all there was (its base). When the saves have grown as large as the
//! base, or the log has gone on for a while, a new generation is begun and the one before is kept.
//!
//! # What must always hold
//! - A save is written only when everything it knows of is on disk in the log: a checkpoint is never ahead of the log. One that
//!   is would speak of what was never answered, or of what has since been written over: it is neither written nor believed
//!   (`a_save_that_is_ahead_of_the_log_is_neither_written_nor_believed`,
//!   `what_a_checkpoint_says_is_durable_in_the_log_at_any_power_failure`).
//! - A save counts when its last part is whole. It is good for the log up to [`Position::at`]: what it does not name did not
//!   change before that since it was last named, and each shard carries how far beyond that its state is
//!   (`a_damaged_byte_anywhere_costs_at_most_saves_and_never_makes_one_up`).
//! - The log is kept from where the older generation ends, so that a damaged newer one costs nothing but time
//!   (`a_damaged_checkpoint_costs_time_and_no_progress`).
//! - What is whole and not understood is newer: it is refused, never passed over or replaced
//!   (`what_is_whole_and_not_understood_is_newer_unless_it_may_be_passed_over`).
//!
//! # What stays of deleted topics
//! A row of 24 bytes for each of their queues, in each base, for ever. A controller that was put back to an earlier state has
//! the topic again, and its records may lie in retained segments: its offsets must go on exactly where they were.
//! One floor for all ids up to the highest that was deleted would be smaller, and is not sound. Topics with smaller ids live on,
//! and of a queue that nothing was ever written to no row says so. Where it begins would depend on which of the two generations
//! is read, or on whether it is all read back from the log; and a queue that begins elsewhere than when its first record was
//! written hides that record, or the log does not open
//! (`a_queue_must_begin_where_it_did_when_its_records_were_written`). Less per topic than the rows (an id and the largest end
//! of its queues) needs the same jump of offsets, to be accepted at recovery for topics that are known to be deleted,
//! whatever is read: not built.

mod generations;
mod parts;
#[cfg(test)]
mod tests;

use crate::queue_index::QueueRow;
use bytes::Bytes;
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};
pub(crate) use generations::{Checkpoints, Loaded, look, replace_all};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// What a save says, in this order: what is gone, then what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Shards of groups or topics that were deleted. The queues of a deleted topic stay: their offsets never start again.
    pub shards_gone: Vec<(GroupId, TopicId)>,
    /// Where queues begin that no save names. 0, as it nearly always is, says nothing. It never gets smaller.
    pub queues_begin: QueueOffset,
    pub queues: Vec<QueueRow>,
    pub shards: Vec<ShardState>,
}

/// One group's progress on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardState {
    pub group: GroupId,
    pub topic: TopicId,
    /// Records before this are in `state`.
    pub good_for: LogOffset,
    /// Encoded delivery state.
    pub state: Bytes,
}

/// What a save knows of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Recovery reads the log from here on.
    pub at: LogOffset,
    /// Where the retained log began.
    pub retained_from: LogOffset,
    /// How far the log was on disk, at least.
    pub log_to: LogOffset,
}

/// All that the saves of a generation come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub position: Position,
    pub queues_begin: QueueOffset,
    pub queues: BTreeMap<(TopicId, QueueId), (QueueOffset, QueueOffset)>,
    pub shards: BTreeMap<(GroupId, TopicId), (LogOffset, Bytes)>,
}

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "every checkpoint in {dir} is damaged ({why}), and the log begins at {begins}: what the consumers had done before \
         that is not known. Restore a checkpoint from a backup, or go on with what the log says: gantry repair checkpoint \
         --accept-lost-progress; nothing was changed"
    )]
    Damaged { dir: PathBuf, why: String, begins: LogOffset },
    #[error(
        "no checkpoint is in {dir}, and the log begins at {begins}: what the consumers had done before that is not known. \
         Restore the checkpoint from a backup, or go on with what the log says: gantry repair checkpoint \
         --accept-lost-progress; nothing was changed"
    )]
    Missing { dir: PathBuf, begins: LogOffset },
    #[error("{path} was written by a newer gantry ({what}). Start that version or a later one; nothing was changed")]
    Newer { path: PathBuf, what: String },
}

impl Position {
    /// Whether the log was not on disk up to some of what `shards` and it say.
    fn is_ahead(&self, shards: &[ShardState]) -> bool {
        shards.iter().map(|shard| shard.good_for).chain([self.at]).any(|known| known > self.log_to)
    }
}

impl Snapshot {
    fn apply(&mut self, changes: Changes, position: Position) {
        for gone in &changes.shards_gone {
            self.shards.remove(gone);
        }
        self.queues_begin = self.queues_begin.max(changes.queues_begin);
        for row in changes.queues {
            self.queues.insert((row.topic, row.queue), (row.min, row.next));
        }
        for shard in changes.shards {
            self.shards.insert((shard.group, shard.topic), (shard.good_for, shard.state));
        }
        self.position = position;
    }
}
