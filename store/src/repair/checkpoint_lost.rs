//! Going on without checkpoints of which none can be read.
//!
//! A log that reaches back to its beginning says it all: the next start reads it. Behind retention some facts were in the
//! checkpoint and nowhere else; then a new one is written that says what the retained log does, and only if the operator
//! said that the rest may be lost.

use super::{Change, Repair, RepairError, lock, present, refused};
use crate::checkpoint::{self, Changes, Position};
use crate::commit_log::positions::Positions;
use crate::commit_log::record::HEADER_LEN;
use crate::delivery::DeliveryRecord;
use crate::inspect::{RecordContent, Seen, SegmentFile, segment_paths};
use crate::queue_index::QueueRow;
use gantry_proto::env::{Env, Files};
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

impl Repair {
    /// Goes on without checkpoints of which none can be read. `accept_loss`: the operator knows that what only they said is
    /// lost.
    pub fn checkpoint(env: &Env, dir: &Path, accept_loss: bool) -> Result<Repair, RepairError> {
        let lock = lock(env, dir)?;
        let files = &*env.files;
        let generations = match checkpoint::look(files, dir) {
            Ok(generations) => generations,
            Err(error) => return refused(error.to_string()),
        };
        let retained = Retained::read(files, dir)?;
        let begins = retained.begins;
        if generations.is_empty() && begins == LogOffset(0) {
            return refused(format!("there is no checkpoint in {}, and none is needed", dir.display()));
        }
        for generation in generations {
            match generation.read {
                Ok(_) => return refused(format!("a checkpoint in {} is whole", dir.display())),
                Err(why) if generation.newer => return refused(format!("{}: {why}", generation.path.display())),
                Err(_) => {}
            }
        }
        let touched = present(files, dir, |name| name.starts_with("checkpoint-"))?;
        let (steps, lost, change) = if begins == LogOffset(0) {
            let step = format!("Move away {}: the next start reads the whole log", touched.join(", "));
            (vec![step], Vec::new(), Change::RemoveTouched)
        } else {
            let flushed_to = match Positions::read(files, dir) {
                Ok(Some(positions)) => positions.flushed_to,
                Ok(None) => return refused("positions is missing: put it back first"),
                Err(error) => return refused(error.to_string()),
            };
            let queues_begin = retained.unused_offset(flushed_to);
            let lost = retained.lost(queues_begin);
            if !accept_loss {
                return refused(format!(
                    "the log reaches back to {begins} only: restore a checkpoint from a backup; or accept, with \
                     --accept-lost-progress, what only the checkpoint said: {}",
                    lost.join(". ")
                ));
            }
            let step = format!(
                "Write a checkpoint of what the log says from {begins} on: {} queues, {} groups on topics",
                retained.queues.len(),
                retained.shards.len()
            );
            let row = |((topic, queue), first): (&(TopicId, QueueId), &QueueOffset)| QueueRow {
                topic: *topic,
                queue: *queue,
                min: *first,
                next: *first,
            };
            let queues = retained.queues.iter().map(row).collect();
            // The start reads all progress from the log, from its beginning on.
            let changes = Changes { queues_begin, queues, ..Changes::default() };
            let position = Position { at: begins, retained_from: begins, log_to: flushed_to };
            (vec![step], lost, Change::Checkpoint(changes, position))
        };
        let (env, dir) = (env.clone(), dir.to_owned());
        Ok(Repair { _lock: lock, env, dir, steps, lost, touched, change, concerned: None })
    }
}

/// What the retained log says.
struct Retained {
    begins: LogOffset,
    /// Where its last whole record ends.
    end: LogOffset,
    /// The first retained offset of each queue.
    queues: BTreeMap<(TopicId, QueueId), QueueOffset>,
    /// Whose progress is in it; true: how far they are in a queue, too, and not only what they acknowledged.
    shards: BTreeMap<(GroupId, TopicId), bool>,
}

impl Retained {
    fn read(files: &dyn Files, dir: &Path) -> Result<Retained, RepairError> {
        let (mut begins, mut end) = (None, LogOffset(0));
        let (mut queues, mut shards) = (BTreeMap::new(), BTreeMap::new());
        for path in segment_paths(files, dir)? {
            let file = SegmentFile::open(files, &path)?;
            begins.get_or_insert(file.facts().base);
            file.walk(|seen| {
                let Seen::Record(record) = seen else { return ControlFlow::Continue(()) };
                end = record.at.plus(u64::from(record.len));
                if record.message().is_some() {
                    queues.entry((record.topic, record.queue)).or_insert(record.queue_offset);
                }
                if let RecordContent::Delivery(_) = record.content
                    && let Ok((group, topic, change)) = DeliveryRecord::decode(record.body)
                {
                    let how_far = match change {
                        DeliveryRecord::Delivered { cursors, .. } => !cursors.is_empty(),
                        DeliveryRecord::Trimmed { .. } => true,
                        _ => false,
                    };
                    *shards.entry((group, topic)).or_default() |= how_far;
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(Retained { begins: begins.unwrap_or_default(), end, queues, shards })
    }

    /// An offset that no queue can have given: the log, which was on disk up to `flushed_to`, had no room for so many
    /// messages. What recovery passes over behind damage stays below it, too.
    fn unused_offset(&self, flushed_to: LogOffset) -> QueueOffset {
        QueueOffset(self.end.max(flushed_to).0 / HEADER_LEN as u64 + 1)
    }

    /// What cannot be had from it, a sentence each. `queues_begin`: where queues go on that it does not tell of.
    fn lost(&self, queues_begin: QueueOffset) -> Vec<String> {
        let begins = self.begins;
        let mut lost: Vec<String> = Vec::new();
        for ((group, topic), how_far) in &self.shards {
            lost.push(if *how_far {
                format!(
                    "Group {group} on topic {topic} goes on where the log says; what it had received before {begins} and not \
                     acknowledged by then counts as consumed, unless a later record names it"
                )
            } else {
                format!(
                    "Group {group} on topic {topic}: the log does not say how far it is. It begins again at the oldest retained \
                     message"
                )
            });
        }
        lost.push(format!(
            "Any other group, with no change of its progress from {begins} on, begins again at the oldest retained message of its topics"
        ));
        lost.push(format!(
            "How far the offsets were in queues that hold no retained message is not known: such a queue, and every new one, \
             gives offsets from {queues_begin} on. The log had no room for so many messages, so none is given twice"
        ));
        lost
    }
}
