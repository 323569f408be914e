//! Whom a damaged part of the log concerns, as far as what is left tells: its index, the neighbours in each queue, the
//! checkpoint, and the header of the damaged record itself, which nothing checks.
//!
//! One walk over the whole log, in the order in which recovery applies it. Changes nothing.

use super::{RepairError, refused};
use crate::checkpoint::{self, Snapshot};
use crate::commit_log::damage::DamagedRange;
use crate::commit_log::record::RecordHeader;
use crate::delivery::{DeliveryRecord, DeliveryState, MessageStanding};
use crate::inspect::{IndexFile, RecordContent, RecordInfo, Seen, SegmentFile, segment_paths};
use gantry_proto::env::Files;
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// What a damaged part of the log held, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Messages, by queue.
    pub messages: Vec<LostMessages>,
    /// Where groups stand on them.
    pub groups: Vec<LostOf>,
    /// What the damaged record says of itself, in words. Nothing checks it.
    pub claims: Option<String>,
}

/// Messages of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostMessages {
    pub topic: TopicId,
    pub queue: QueueId,
    pub first: QueueOffset,
    /// The offset behind the last.
    pub end: QueueOffset,
    pub told_by: ToldBy,
}

/// What tells that a message lay in a damaged part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// The index of its segment names the place.
    Index,
    /// The offsets of its neighbours: the queue has nothing else there.
    Neighbours,
    /// The offsets of its neighbours; but other parts between them are damaged, too: it lay in one of them.
    NeighboursOfSeveral,
    /// The checkpoint: the queue went on to there.
    Checkpoint,
}

/// Where a group stands on lost messages of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostOf {
    pub group: GroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    /// Messages that it had finished.
    pub finished: u64,
    /// Messages that it had received and not finished.
    pub outstanding: u64,
    /// Messages that were set aside as damaged.
    pub set_aside: u64,
    /// Messages that it has not come to.
    pub to_come: u64,
}

/// What the walk found.
pub(super) struct LostParts {
    /// All that is not whole.
    pub damaged: Vec<(Range<LogOffset>, String)>,
    pub concerned: Concerned,
}

struct Walk<'a> {
    range: &'a Range<LogOffset>,
    /// All damage that is known or was found so far, sorted.
    damaged: Vec<(Range<LogOffset>, String)>,
    known: Vec<DamagedRange>,
    snapshot: Snapshot,
    states: BTreeMap<(GroupId, TopicId), DeliveryState>,
    /// Where each queue goes on, and behind which place in the log.
    queues: BTreeMap<(TopicId, QueueId), (QueueOffset, LogOffset)>,
    messages: Vec<LostMessages>,
}

/// Reads the whole log, and finds out what lay in `range`.
pub(super) fn find(
    files: &dyn Files,
    dir: &Path,
    range: &Range<LogOffset>,
    known: Vec<DamagedRange>,
) -> Result<LostParts, RepairError> {
    let generations = match checkpoint::look(files, dir) {
        Ok(generations) => generations,
        Err(error) => return refused(error.to_string()),
    };
    let snapshot = generations.into_iter().rev().find_map(|generation| generation.read.ok()).map(|(found, _)| found);
    let snapshot = snapshot.unwrap_or_default();
    let mut states = BTreeMap::new();
    for (shard, (_, state)) in &snapshot.shards {
        match DeliveryState::decode(state) {
            Ok(state) => states.insert(*shard, state),
            Err(error) => return refused(format!("the progress of group {} in the checkpoint: {error}", shard.0)),
        };
    }
    let mut walk =
        Walk { range, damaged: Vec::new(), known, snapshot, states, queues: BTreeMap::new(), messages: Vec::new() };
    let mut claims = None;
    let mut begun = false;
    for path in segment_paths(files, dir)? {
        let file = SegmentFile::open(files, &path)?;
        let facts = file.facts();
        if facts.base < range.end && facts.next.is_none_or(|next| range.start < next) {
            walk.ask_index(files, &path);
            claims = claims.or(file.claimed(range.start)?.map(|claimed| describe(&claimed)));
        }
        if !std::mem::replace(&mut begun, true) && facts.base == LogOffset(0) {
            // Every queue began in what is retained.
            walk.begins_at_zero();
        }
        file.walk(|seen| {
            match seen {
                Seen::Record(record) => walk.record(&record),
                Seen::Damaged { at, to, cause } => walk.damaged.push((at..to, cause)),
                Seen::NotUnderstood { .. } => {}
            }
            ControlFlow::Continue(())
        })?;
    }
    walk.at_the_end();
    let groups = walk.groups();
    let Walk { damaged, mut messages, .. } = walk;
    messages.sort_by_key(|lost| (lost.topic, lost.queue, lost.first));
    Ok(LostParts { damaged, concerned: Concerned { messages, groups, claims } })
}

impl Walk<'_> {
    fn begins_at_zero(&mut self) {
        let keys: BTreeSet<_> = self.snapshot.queues.keys().copied().collect();
        for key in keys {
            self.queues.insert(key, (QueueOffset(0), LogOffset(0)));
        }
    }

    /// An index that was made while the segment was whole names what lay there.
    fn ask_index(&mut self, files: &dyn Files, segment: &Path) {
        let Ok(index) = IndexFile::open(files, &segment.with_extension("index")) else { return };
        for run in index.runs().unwrap_or_default() {
            for entry in index.entries(&run).unwrap_or_default() {
                let end = entry.log_offset.plus(u64::from(entry.len));
                if entry.len > 0 && entry.log_offset < self.range.end && self.range.start < end {
                    self.lost(run.topic, run.queue, entry.queue_offset..entry.queue_offset.next(), ToldBy::Index);
                }
            }
        }
    }

    fn lost(&mut self, topic: TopicId, queue: QueueId, offsets: Range<QueueOffset>, told_by: ToldBy) {
        if let Some(last) = self
            .messages
            .iter_mut()
            .find(|last| (last.topic, last.queue, last.end, last.told_by) == (topic, queue, offsets.start, told_by))
        {
            last.end = offsets.end;
            return;
        }
        self.messages.push(LostMessages { topic, queue, first: offsets.start, end: offsets.end, told_by });
    }

    fn record(&mut self, record: &RecordInfo<'_>) {
        if record.message().is_some() {
            let key = (record.topic, record.queue);
            if let Some((next, behind)) = self.queues.get(&key).copied()
                && next < record.queue_offset
            {
                self.missing(key, next..record.queue_offset, behind..record.at, ToldBy::Neighbours);
            }
            let end = record.at.plus(u64::from(record.len));
            self.queues.insert(key, (record.queue_offset.next(), end));
        }
        match &record.content {
            RecordContent::Delivery(_) => {
                if let Ok((group, topic, change)) = DeliveryRecord::decode(record.body)
                    && let Some(state) = self.state(group, topic, record.at)
                {
                    state.apply(&change, record.at);
                }
            }
            RecordContent::DeadLetter { origin, .. } => {
                if let Some(state) = self.state(origin.group, origin.topic, record.at) {
                    state.finish(origin.queue, origin.queue_offset);
                }
            }
            _ => {}
        }
    }

    /// The state that a record at `at` changes, unless it has the change already.
    fn state(&mut self, group: GroupId, topic: TopicId, at: LogOffset) -> Option<&mut DeliveryState> {
        let good_for = self.snapshot.shards.get(&(group, topic)).map_or(LogOffset(0), |(good_for, _)| *good_for);
        (at >= good_for.max(self.snapshot.position.at)).then(|| self.states.entry((group, topic)).or_default())
    }

    /// A queue has nothing at these offsets, and its neighbours lie in front of and behind `places`.
    fn missing(
        &mut self,
        (topic, queue): (TopicId, QueueId),
        offsets: Range<QueueOffset>,
        places: Range<LogOffset>,
        told_by: ToldBy,
    ) {
        let overlaps = |range: &Range<LogOffset>| range.start < places.end && places.start < range.end;
        if !overlaps(self.range) {
            return;
        }
        let is_other = |range: &Range<LogOffset>| {
            overlaps(range) && (range.end <= self.range.start || self.range.end <= range.start)
        };
        let others = self.damaged.iter().map(|(range, _)| range.clone());
        let mut others = others.chain(self.known.iter().map(|known| known.from..known.to));
        let told_by = if others.any(|range| is_other(&range)) { ToldBy::NeighboursOfSeveral } else { told_by };
        // What the index names is known better.
        let named: Vec<_> = (self.messages.iter())
            .filter(|lost| (lost.topic, lost.queue, lost.told_by) == (topic, queue, ToldBy::Index))
            .map(|lost| lost.first..lost.end)
            .collect();
        let mut from = offsets.start;
        while from < offsets.end {
            if let Some(named) = named.iter().find(|named| named.contains(&from)) {
                from = named.end;
                continue;
            }
            let next = named.iter().map(|named| named.start).filter(|start| *start > from).min();
            let to = next.unwrap_or(offsets.end).min(offsets.end);
            self.lost(topic, queue, from..to, told_by);
            from = to;
        }
    }

    /// Behind the last message of a queue only the checkpoint knows of more.
    fn at_the_end(&mut self) {
        let rows: Vec<_> = self.snapshot.queues.iter().map(|(key, (min, next))| (*key, *min, *next)).collect();
        for (key, min, next) in rows {
            let (held, behind) = self.queues.get(&key).copied().unwrap_or((min, LogOffset(0)));
            if held < next {
                self.missing(key, held..next, behind..LogOffset(u64::MAX), ToldBy::Checkpoint);
            }
        }
    }

    fn groups(&self) -> Vec<LostOf> {
        let mut groups = Vec::new();
        for ((group, topic), state) in &self.states {
            for lost in self.messages.iter().filter(|lost| lost.topic == *topic) {
                let mut of = LostOf {
                    group: *group,
                    topic: *topic,
                    queue: lost.queue,
                    finished: 0,
                    outstanding: 0,
                    set_aside: 0,
                    to_come: 0,
                };
                for offset in (lost.first.0..lost.end.0).map(QueueOffset) {
                    *match state.standing(lost.queue, offset) {
                        MessageStanding::Finished => &mut of.finished,
                        MessageStanding::Outstanding => &mut of.outstanding,
                        MessageStanding::SetAside => &mut of.set_aside,
                        MessageStanding::ToCome => &mut of.to_come,
                    } += 1;
                }
                groups.push(of);
            }
        }
        groups
    }
}

fn describe(claimed: &RecordHeader) -> String {
    let RecordHeader { kind, len, topic, queue, queue_offset, store_time, .. } = claimed;
    if kind.is_message() {
        format!(
            "{kind:?} of {len} bytes, topic {topic}, queue {queue}, queue offset {queue_offset}, stored at {store_time}"
        )
    } else {
        format!("{kind:?} of {len} bytes, stored at {store_time}")
    }
}
