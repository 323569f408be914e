//! Pop: which messages one receive gets.
//!
//! Messages that come back may take half of a batch while there are new ones, so that neither keeps the other waiting; new
//! ones come from one queue after the other, each pop beginning where the last one stopped. It looks only at queues that
//! have grown since they were found to have nothing. What the subscription does not
//! want is skipped for the whole group. The bytes of a batch are bounded, too, as the index knows them: no message is read.

use super::reader::QueueReader;
use super::record::{DeliveryRecord, Renewal};
use super::schedule::Due;
use super::state::DeliveryState;
use crate::queue_index::IndexEntry;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{FilterExpression, QueueId, QueueOffset, TagFilter, Timestamp};

/// What a receive asks for.
#[derive(Clone, Debug)]
pub(crate) struct PopParams<'a> {
    /// At most this many messages.
    pub batch_max: usize,
    /// Bytes of messages after which no more are added. One that is larger goes as the only new one.
    pub bytes_max: u64,
    /// When they become visible again; with an owner, if nothing renews them.
    pub visible_at: Timestamp,
    /// Whose life extends the lease, and until when at most.
    pub renewal: Option<Renewal>,
    /// Which messages it wants.
    pub filter: &'a FilterExpression,
    /// A message that was delivered this often is not delivered again.
    pub max_attempts: u32,
    /// Messages that the group may hold.
    pub inflight_max: usize,
}

/// What a receive gets, once `record` is in the log and applied, and the messages have been read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PopPlan {
    /// Without messages if some were only skipped. `None`: nothing changes.
    pub record: Option<DeliveryRecord>,
    /// The messages with their queues and attempts, in the order of the record.
    pub messages: Vec<(IndexEntry, QueueId, u32)>,
    /// Something is left that another receive may get, or the plan was cut short.
    pub more: bool,
    /// There are new messages, but the group holds as many as it may.
    pub inflight_full: bool,
}

/// Index entries that one plan looks at, so that the lock is not held for long.
pub(super) const SCAN_MAX: usize = 10_000;
/// Entries read at a time when most of them may not match.
const SCAN_CHUNK: usize = 256;
/// Bounds of a record's lists. With the largest batch it stays below 4 KiB.
pub(super) const DROPPED_MAX: usize = 64;
pub(super) const CURSORS_MAX: usize = 64;

impl DeliveryState {
    /// Chooses messages. The truth changes only when the plan's record is applied, which must happen before the lock is
    /// given up; a plan that is not carried out costs nothing.
    pub(crate) fn plan_pop(
        &mut self,
        now: Timestamp,
        params: &PopParams<'_>,
        reader: &dyn QueueReader,
    ) -> Result<PopPlan, StoreError> {
        self.schedule.surface(now, params.max_attempts);
        self.find_ready_queues(reader);
        let mut batch = Batch::new(self, now, params, reader);
        batch.drop_spent();
        batch.redeliver(params.batch_max.div_ceil(2), params.bytes_max / 2);
        batch.deliver_new();
        batch.redeliver(params.batch_max, params.bytes_max);
        let idle = std::mem::take(&mut batch.idle);
        let plan = batch.into_plan();
        idle.into_iter().for_each(|queue| self.ready_queues.remove(queue));
        plan
    }
}

/// A plan under construction.
struct Batch<'a> {
    state: &'a DeliveryState,
    now: Timestamp,
    params: &'a PopParams<'a>,
    reader: &'a dyn QueueReader,
    messages: Vec<(IndexEntry, QueueId, u32)>,
    /// Of the messages.
    bytes: u64,
    dropped: Vec<(QueueId, QueueOffset)>,
    cursors: Vec<(QueueId, QueueOffset)>,
    /// Queues that have nothing new.
    idle: Vec<QueueId>,
    more: bool,
    inflight_full: bool,
    /// Why a part of the index could not be read.
    error: Option<StoreError>,
    /// The last redelivery that was looked at.
    seen: Option<Due>,
    /// Entries looked at.
    scanned: usize,
    /// Entries just read.
    found: Vec<IndexEntry>,
}

impl<'a> Batch<'a> {
    fn new(
        state: &'a DeliveryState,
        now: Timestamp,
        params: &'a PopParams<'a>,
        reader: &'a dyn QueueReader,
    ) -> Batch<'a> {
        Batch {
            state,
            now,
            params,
            reader,
            messages: Vec::new(),
            bytes: 0,
            error: None,
            dropped: Vec::new(),
            cursors: Vec::new(),
            idle: Vec::new(),
            more: false,
            inflight_full: false,
            seen: None,
            scanned: 0,
            found: Vec::new(),
        }
    }

    /// Drops messages that retention took before they could be moved to the dead letters.
    fn drop_spent(&mut self) {
        let mut after = None;
        while let Some(due) = self.state.schedule.next_spent(after, self.now) {
            let (min, _) = self.reader.range(due.queue);
            if due.offset >= min {
                // Nor are those behind it: on to the next queue.
                after = Some((due.queue, QueueOffset(u64::MAX)));
                continue;
            }
            if self.dropped.len() == DROPPED_MAX {
                self.more = true;
                break;
            }
            self.dropped.push(due.place());
            after = Some(due.place());
        }
    }

    /// Adds messages whose delivery ended, until the batch has `count` or more would be more than `bytes_max`.
    fn redeliver(&mut self, count: usize, bytes_max: u64) {
        while let Some(due) = self.state.schedule.next_ready(self.seen, self.now) {
            if self.dropped.len() == DROPPED_MAX || self.scanned >= SCAN_MAX {
                self.more = true;
                break;
            }
            if self.messages.len() >= count {
                // Half of a batch is not the end: the rest may follow after the new messages.
                self.more |= count == self.params.batch_max;
                break;
            }
            self.scanned += 1;
            match self.read(due.queue, due.offset) {
                Ok(Some(entry)) if self.wants(&entry) => {
                    if !self.messages.is_empty() && self.bytes + u64::from(entry.len) > bytes_max {
                        self.more = true;
                        break;
                    }
                    self.add(entry, due.queue, due.used.saturating_add(1));
                }
                Ok(_) => self.dropped.push((due.queue, due.offset)),
                // Left where it is; the others are not to suffer.
                Err(error) => self.error = Some(error),
            }
            self.seen = Some(due);
        }
    }

    /// Fills the batch with messages that were never delivered.
    fn deliver_new(&mut self) {
        let count = self.reader.queue_count();
        let turn = if self.state.turn.0 < count { self.state.turn.0 } else { 0 };
        let held = self.state.inflight() - self.dropped.len();
        let redelivered = self.messages.len();
        let len_max = redelivered.saturating_add(self.params.inflight_max.saturating_sub(held));
        for queue in self.state.ready_queues.in_turn(QueueId(turn)) {
            if queue.0 >= count {
                // The reader is older than the queue.
                continue;
            }
            let (min, end) = self.reader.range(queue);
            let from = self.state.next(queue).max(min);
            let mut next = from;
            if next >= end {
                self.idle.push(queue);
                continue;
            }
            let bounded = self.cursors.len() == CURSORS_MAX || self.scanned >= SCAN_MAX;
            if !bounded && self.messages.len() < len_max.min(self.params.batch_max) {
                match self.deliver_from(queue, next, end, len_max, redelivered) {
                    Ok(stopped) => next = stopped,
                    // Its index cannot be read: the other queues are not to suffer.
                    Err(error) => {
                        self.error = Some(error);
                        continue;
                    }
                }
                // A queue that gave nothing because its message is too large for the rest of the batch keeps its turn.
                if next > from {
                    self.cursors.push((queue, next));
                }
            }
            if next < end {
                // Whether the group may hold more matters before whether this batch may.
                self.inflight_full = self.messages.len() >= len_max;
                self.more |= !self.inflight_full;
                break;
            }
        }
    }

    /// Takes messages of one queue, while the batch has fewer than `len_max` and they fit. Returns where it stopped. The
    /// first new message, behind `redelivered` ones, always fits.
    fn deliver_from(
        &mut self,
        queue: QueueId,
        from: QueueOffset,
        end: QueueOffset,
        len_max: usize,
        redelivered: usize,
    ) -> Result<QueueOffset, StoreError> {
        let len_max = len_max.min(self.params.batch_max);
        let mut next = from;
        while next < end && self.messages.len() < len_max && self.scanned < SCAN_MAX {
            let wanted = if self.wants_all() { len_max - self.messages.len() } else { SCAN_CHUNK };
            let left = usize::try_from(end.0 - next.0).unwrap_or(usize::MAX);
            let max = wanted.min(left).min(SCAN_MAX - self.scanned);
            let mut found = std::mem::take(&mut self.found);
            found.clear();
            let scanned = self.reader.scan(queue, next, max, &mut found);
            if let Err(error) = scanned {
                return if next > from { Ok(next) } else { Err(error) };
            }
            if found.is_empty() {
                // Retention was faster, or the index has a hole.
                let (min, _) = self.reader.range(queue);
                if min <= next {
                    return if next > from { Ok(next) } else { Err(missing(queue, next)) };
                }
                next = min;
            }
            self.messages.reserve(found.len().min(len_max - self.messages.len()));
            let mut full = false;
            for entry in &found {
                if self.messages.len() == len_max {
                    break;
                }
                if self.wants(entry) {
                    let bytes = self.bytes + u64::from(entry.len);
                    full = bytes > self.params.bytes_max && self.messages.len() > redelivered;
                    if full {
                        break;
                    }
                    self.add(*entry, queue, 1);
                }
                self.scanned += 1;
                next = entry.queue_offset.next();
            }
            self.found = found;
            if full {
                break;
            }
        }
        Ok(next)
    }

    fn add(&mut self, entry: IndexEntry, queue: QueueId, attempt: u32) {
        self.bytes += u64::from(entry.len);
        self.messages.push((entry, queue, attempt));
    }

    /// An error only if there is nothing else to be said.
    fn into_plan(self) -> Result<PopPlan, StoreError> {
        let changes = !(self.messages.is_empty() && self.dropped.is_empty() && self.cursors.is_empty());
        if let Some(error) = self.error.filter(|_| !changes) {
            return Err(error);
        }
        let delivery = |(entry, queue, attempt): &(IndexEntry, QueueId, u32)| (*queue, entry.queue_offset, *attempt);
        let record = changes.then(|| DeliveryRecord::Delivered {
            visible_at: self.params.visible_at,
            renewal: self.params.renewal,
            deliveries: self.messages.iter().map(delivery).collect(),
            dropped: self.dropped,
            cursors: self.cursors,
        });
        Ok(PopPlan { record, messages: self.messages, more: self.more, inflight_full: self.inflight_full })
    }

    /// The entry of an outstanding message, unless retention removed it.
    fn read(&mut self, queue: QueueId, offset: QueueOffset) -> Result<Option<IndexEntry>, StoreError> {
        self.found.clear();
        let (min, _) = self.reader.range(queue);
        if offset < min {
            return Ok(None);
        }
        self.reader.scan(queue, offset, 1, &mut self.found)?;
        match self.found.first() {
            Some(entry) => Ok(Some(*entry)),
            None if offset < self.reader.range(queue).0 => Ok(None),
            None => Err(missing(queue, offset)),
        }
    }

    /// As far as the index tells: another tag may have the same hash, and what the tag of a damaged message was nobody knows.
    /// Whoever reads it finds out.
    fn wants(&self, entry: &IndexEntry) -> bool {
        self.wants_all() || entry.is_damaged() || self.params.filter.may_match(entry.tag_hash)
    }

    fn wants_all(&self) -> bool {
        matches!(self.params.filter, FilterExpression::Tag(TagFilter::All))
    }
}

fn missing(queue: QueueId, offset: QueueOffset) -> StoreError {
    StoreError::Unreadable(format!("queue {queue} has no entry for offset {offset}, which it should hold"))
}
