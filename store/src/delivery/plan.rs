//! What may happen next: which messages a receive gets, which are exhausted, whose leases go on.

use super::record::{DeliveryRecord, Place};
use super::state::{DeliveryState, Visibility};
use crate::queue_index::IndexEntry;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{ClientHash, FilterExpression, QueueId, QueueOffset, Timestamp};

/// What the topic's queues hold.
pub(crate) trait QueueReader {
    /// Queues `0..queue_count`.
    fn queue_count(&self) -> u32;

    /// First retained offset and first offset that consumers must not see yet.
    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset);

    /// Appends entries from `from` on, at most `max`; fewer when they stop lying together, none when `from` is not held.
    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError>;

    /// What `matches` says of the tag of the message itself. Reads it from the log.
    fn tag_matches(&self, entry: &IndexEntry, matches: &dyn Fn(Option<&str>) -> bool) -> Result<bool, StoreError>;
}

/// What a receive asks for.
pub(crate) struct PopParams<'a> {
    /// At most this many messages.
    pub batch_max: usize,
    /// Until when they stay hidden.
    pub visible_at: Timestamp,
    /// The client whose life extends the leases.
    pub owner: Option<ClientHash>,
    /// Which messages.
    pub filter: &'a FilterExpression,
    /// Deliveries of a message, the first included.
    pub max_attempts: u32,
    /// New messages are only delivered while fewer are outstanding.
    pub inflight_max: usize,
}

/// What a receive gets.
#[derive(Debug, Default)]
pub(crate) struct PopPlan {
    /// To be logged and applied before anything goes out. `None`: nothing changes.
    pub record: Option<DeliveryRecord>,
    /// The messages, each with its queue and its attempt.
    pub messages: Vec<(IndexEntry, QueueId, u32)>,
    /// Something is left that another receive could get.
    pub more: bool,
    /// New messages are there but the group holds too many already.
    pub inflight_full: bool,
}

/// Index entries that one plan looks at, so that a filter that matches nothing does not hold the lock for long.
const SCAN_MAX: usize = 10_000;
/// Index entries read at a time.
const SCAN_STEP: usize = 64;
/// Outstanding messages that one plan looks at.
const DUE_MAX: usize = 1024;

impl DeliveryState {
    /// Plans a receive. Changes nothing that counts: the truth changes when the plan's record is applied.
    ///
    /// Messages whose lease ended may take half of the batch while new ones are waiting, and whatever new ones leave.
    /// New messages come from the queue that was not served for longest.
    pub(crate) fn plan_pop(
        &mut self,
        now: Timestamp,
        params: &PopParams<'_>,
        reader: &dyn QueueReader,
    ) -> Result<PopPlan, StoreError> {
        let mut draft = Draft::default();
        let due = self.due(now, params, reader, &mut draft)?;
        let new_waiting = (0..reader.queue_count()).any(|queue| {
            let (min, end) = reader.range(QueueId(queue));
            self.next(QueueId(queue)).max(min) < end
        });
        let due_share = if new_waiting {
            params.batch_max.div_ceil(2)
        } else {
            params.batch_max
        };
        let (first, later) = due.split_at(due.len().min(due_share));
        draft.deliver(first);

        let full = self.outstanding >= params.inflight_max;
        if new_waiting && !full {
            let room = params
                .batch_max
                .min(params.inflight_max - self.outstanding + draft.messages.len());
            self.plan_new(room, params, reader, &mut draft)?;
        }
        let rest = later.len().min(params.batch_max.saturating_sub(draft.messages.len()));
        draft.deliver(&later[..rest]);

        let more = draft.more || rest < later.len();
        let inflight_full = new_waiting && full && draft.messages.is_empty();
        let (messages, record) = draft.finish(now, params);
        Ok(PopPlan {
            record,
            messages,
            more,
            inflight_full,
        })
    }

    /// Messages whose last delivery has ended, at most `limit`: they are to be buried. Those that have expired are left
    /// for a receive to drop.
    pub(crate) fn exhausted(
        &mut self,
        now: Timestamp,
        max_attempts: u32,
        limit: usize,
        reader: &dyn QueueReader,
    ) -> Vec<Place> {
        let mut exhausted = Vec::new();
        for place in self.visible(now) {
            let spent = self
                .get(place)
                .is_some_and(|held| held.counted && held.attempt >= max_attempts);
            if spent && place.1 >= reader.range(place.0).0 {
                exhausted.push(place);
                if exhausted.len() == limit {
                    break;
                }
            }
        }
        exhausted
    }

    /// Extends the leases of those of `owners` that hold something here.
    pub(crate) fn plan_renewal(&self, owners: &[ClientHash], until: Timestamp) -> Option<DeliveryRecord> {
        let owners: Vec<_> = owners
            .iter()
            .copied()
            .filter(|owner| self.owners.contains_key(owner))
            .collect();
        (!owners.is_empty()).then_some(DeliveryRecord::OwnersRenewed { until, owners })
    }

    /// Gives back everything that a client holds here.
    pub(crate) fn plan_release(&self, owner: ClientHash, visible_at: Timestamp) -> Option<DeliveryRecord> {
        self.owners.get(&owner)?;
        let mut entries = Vec::new();
        for (queue, progress) in (0..).map(QueueId).zip(&self.queues) {
            let owned = progress.outstanding.iter().filter(
                |(_, held)| matches!(held.visibility, Visibility::Owned { owner: holder, .. } if holder == owner),
            );
            entries.extend(owned.map(|(offset, _)| (queue, *offset)));
        }
        Some(DeliveryRecord::VisibilityChanged {
            visible_at,
            counted: true,
            entries,
        })
    }

    /// Messages that were never delivered to the group, whether they match its filter or not.
    pub(crate) fn ready(&self, reader: &dyn QueueReader) -> u64 {
        let ready = |queue| {
            let (min, end) = reader.range(queue);
            end.0.saturating_sub(self.next(queue).max(min).0)
        };
        (0..reader.queue_count()).map(QueueId).map(ready).sum()
    }

    /// Messages whose lease ended and that may be delivered again, in the order in which they became visible. Those that
    /// expired or do not match are noted as dropped.
    fn due(
        &mut self,
        now: Timestamp,
        params: &PopParams<'_>,
        reader: &dyn QueueReader,
        draft: &mut Draft,
    ) -> Result<Vec<(IndexEntry, QueueId, u32)>, StoreError> {
        let mut due = Vec::new();
        for place in self.visible(now) {
            let Some(held) = self.get(place).copied() else { continue };
            let mut found = Vec::with_capacity(1);
            reader.scan(place.0, place.1, 1, &mut found)?;
            let Some(entry) = found.first() else {
                draft.dropped.push(place);
                continue;
            };
            if held.counted && held.attempt >= params.max_attempts {
                continue;
            }
            if !matches(params.filter, entry, reader)? {
                draft.dropped.push(place);
                continue;
            }
            due.push((*entry, place.0, held.attempt + u32::from(held.counted)));
            // One more than fits, to know whether something is left.
            if due.len() > params.batch_max {
                break;
            }
        }
        Ok(due)
    }

    /// Outstanding messages that are visible at `now`; the schedule's early entries are put right.
    fn visible(&mut self, now: Timestamp) -> Vec<Place> {
        let candidates: Vec<Place> = self.schedule.due(now).take(DUE_MAX).map(|(_, place)| place).collect();
        let mut visible = Vec::with_capacity(candidates.len());
        for place in candidates {
            let Some(at) = self.get(place).map(|held| self.visible_at(held)) else {
                continue;
            };
            if at <= now {
                visible.push(place);
            } else {
                self.reschedule(place, at);
            }
        }
        visible
    }

    fn plan_new(
        &mut self,
        room: usize,
        params: &PopParams<'_>,
        reader: &dyn QueueReader,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let queue_count = reader.queue_count();
        let mut entries = Vec::new();
        let mut looked_at = 0;
        for step in 0..queue_count {
            let queue = QueueId((self.turn + step) % queue_count);
            let (min, end) = reader.range(queue);
            let start = self.next(queue);
            let mut next = start.max(min);
            while next < end && draft.messages.len() < room && looked_at < SCAN_MAX {
                entries.clear();
                reader.scan(
                    queue,
                    next,
                    (end.0 - next.0).min(SCAN_STEP as u64) as usize,
                    &mut entries,
                )?;
                if entries.is_empty() {
                    let why = format!("queue {queue} has no entry for offset {next}");
                    return Err(StoreError::Unreadable(why));
                }
                for entry in &entries {
                    if draft.messages.len() == room {
                        break;
                    }
                    next = entry.queue_offset.next();
                    looked_at += 1;
                    if matches(params.filter, entry, reader)? {
                        draft.deliver(&[(*entry, queue, 1)]);
                    }
                }
            }
            if next != start {
                draft.cursors.push((queue, next));
            }
            draft.more |= next < end;
            if next < end && draft.messages.len() == room {
                // It was served and has more: the others come first next time.
                self.turn = (queue.0 + 1) % queue_count;
                draft.more = true;
                break;
            }
        }
        Ok(())
    }
}

/// A plan being made.
#[derive(Default)]
struct Draft {
    messages: Vec<(IndexEntry, QueueId, u32)>,
    dropped: Vec<Place>,
    cursors: Vec<(QueueId, QueueOffset)>,
    more: bool,
}

impl Draft {
    fn deliver(&mut self, messages: &[(IndexEntry, QueueId, u32)]) {
        self.messages.extend_from_slice(messages);
    }

    fn finish(
        self,
        now: Timestamp,
        params: &PopParams<'_>,
    ) -> (Vec<(IndexEntry, QueueId, u32)>, Option<DeliveryRecord>) {
        if self.messages.is_empty() && self.dropped.is_empty() && self.cursors.is_empty() {
            return (self.messages, None);
        }
        let place = |(entry, queue, attempt): &(IndexEntry, QueueId, u32)| (*queue, entry.queue_offset, *attempt);
        let record = DeliveryRecord::Delivered {
            at: now,
            visible_at: params.visible_at,
            owner: params.owner,
            deliveries: self.messages.iter().map(place).collect(),
            dropped: self.dropped,
            cursors: self.cursors,
        };
        (self.messages, Some(record))
    }
}

/// The tag's hash first, which is at hand, then the tag itself.
fn matches(filter: &FilterExpression, entry: &IndexEntry, reader: &dyn QueueReader) -> Result<bool, StoreError> {
    if !filter.may_match(entry.tag_hash) {
        return Ok(false);
    }
    if *filter == FilterExpression::ALL {
        return Ok(true);
    }
    reader.tag_matches(entry, &|tag| filter.matches(tag))
}
