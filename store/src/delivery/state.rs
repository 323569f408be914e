//! The truth about one group on one topic, and how records change it.

use super::offsets::Offsets;
use super::reader::QueueReader;
use super::ready::ReadyQueues;
use super::record::{DeliveryRecord, Renewal};
use super::schedule::{Due, Schedule};
use gantry_proto::model::{ClientHash, LogOffset, QueueId, QueueOffset, Timestamp};
use std::collections::BTreeMap;

/// What one group has received of one topic. The default: nothing yet, every retained message is to be delivered.
#[derive(Debug, Default)]
pub(crate) struct DeliveryState {
    /// Queues of which something was delivered or skipped.
    pub(super) queues: BTreeMap<QueueId, QueueProgress>,
    /// The queue whose turn it is to give new messages.
    pub(super) turn: QueueId,
    /// Owners' leases, and what is derived from the outstanding messages.
    pub(super) schedule: Schedule,
    /// Derived.
    pub(super) ready_queues: ReadyQueues,
    /// Number of outstanding messages. Derived.
    inflight: usize,
    /// Number of damaged messages. Derived.
    damaged: u64,
}

/// How far the group is in one queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QueueProgress {
    /// Nothing from here on was ever delivered.
    pub next: QueueOffset,
    /// Delivered and not finished. Everything else before `next` is finished or damaged.
    pub outstanding: BTreeMap<QueueOffset, Outstanding>,
    /// Set aside.
    pub damaged: Offsets,
}

/// A message that was delivered and is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// Log offset of the record that delivered it: which delivery this is.
    pub lease: LogOffset,
    /// Number of this delivery, from 1.
    pub attempt: u32,
    /// False: the next delivery has the same number.
    pub counted: bool,
    pub visibility: Visibility,
}

/// Where a group stands on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageStanding {
    /// It was not delivered yet.
    ToCome,
    /// It was delivered and is not finished.
    Outstanding,
    /// It could not be read back.
    SetAside,
    /// It is consumed, skipped, a dead letter, or given up.
    Finished,
}

/// When a delivery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    At(Timestamp),
    /// When the owner's lease ends, but at the latest then.
    Owned {
        owner: ClientHash,
        latest: Timestamp,
    },
}

impl DeliveryState {
    /// Changes the state as a record says that lies at `at` in the log. Every record is applied once, in the order of the
    /// log; what it says about messages that are finished has no effect.
    pub(crate) fn apply(&mut self, record: &DeliveryRecord, at: LogOffset) {
        match record {
            DeliveryRecord::Delivered { visible_at, renewal, deliveries, dropped, cursors } => {
                let until = renewal.and_then(|renewal| self.schedule.owner_until(renewal.owner));
                let until = until.map_or(*visible_at, |until| until.max(*visible_at));
                for (queue, offset, attempt) in deliveries {
                    self.deliver(*queue, *offset, *attempt, at, *renewal, until);
                }
                for (queue, offset) in dropped {
                    self.finish(*queue, *offset);
                }
                for (queue, cursor) in cursors {
                    self.raise_next(*queue, *cursor);
                    self.turn = QueueId(queue.0.wrapping_add(1));
                }
            }
            DeliveryRecord::Acked { entries } => {
                for (queue, offset) in entries {
                    self.finish(*queue, *offset);
                }
            }
            DeliveryRecord::Dropped { entries } => {
                for (queue, offset) in entries {
                    self.finish(*queue, *offset);
                    self.pass_damaged(*queue, *offset);
                }
            }
            DeliveryRecord::SetAside { entries } => {
                for (queue, offset) in entries {
                    self.set_aside(*queue, *offset);
                }
            }
            DeliveryRecord::VisibilityChanged { visible_at, counted, entries } => {
                for (queue, offset) in entries {
                    self.fix(*queue, *offset, |outstanding, _| {
                        outstanding.counted = *counted;
                        *visible_at
                    });
                }
            }
            DeliveryRecord::OwnersRenewed { until, owners } => {
                for owner in owners {
                    self.schedule.renew(*owner, *until);
                }
            }
            DeliveryRecord::OwnerReleased { owner, visible_at } => {
                for (queue, offset) in self.schedule.held_by(*owner) {
                    self.fix(queue, offset, |_, before| before.min(*visible_at));
                }
            }
            DeliveryRecord::Arrived { owner, latest, entries } => {
                for (queue, offset) in entries {
                    self.prolong(*queue, *offset, *owner, *latest);
                }
            }
            DeliveryRecord::Trimmed { floors } => {
                for (queue, floor) in floors {
                    self.trim(*queue, *floor);
                }
            }
        }
    }

    /// The message is finished: acknowledged, or moved to the dead letters by the record that is being applied.
    pub(crate) fn finish(&mut self, queue: QueueId, offset: QueueOffset) {
        self.take_outstanding(queue, offset);
    }

    /// Messages delivered and not finished.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight
    }

    /// Messages that could not be read back and are neither delivered any more nor finished.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// At most `max` of those behind `last`, by queue and offset.
    pub(crate) fn set_aside_messages(
        &self,
        last: Option<(QueueId, QueueOffset)>,
        max: usize,
    ) -> Vec<(QueueId, QueueOffset)> {
        let of = |(queue, progress): (&QueueId, &QueueProgress)| {
            let queue = *queue;
            let places = progress.damaged.iter().map(move |offset| (queue, offset));
            places.filter(|place| last.is_none_or(|last| *place > last)).take(max).collect::<Vec<_>>()
        };
        let first = last.map_or(QueueId(0), |(queue, _)| queue);
        self.queues.range(first..).flat_map(of).take(max).collect()
    }

    /// Where the group stands on one message.
    pub(crate) fn standing(&self, queue: QueueId, offset: QueueOffset) -> MessageStanding {
        if self.outstanding(queue, offset).is_some() {
            MessageStanding::Outstanding
        } else if self.is_damaged(queue, offset) {
            MessageStanding::SetAside
        } else if offset < self.next(queue) {
            MessageStanding::Finished
        } else {
            MessageStanding::ToCome
        }
    }

    /// Each queue: where what was never delivered begins, how many deliveries are not finished, how many messages are
    /// damaged. By queue.
    pub(crate) fn by_queue(&self) -> Vec<(QueueId, QueueOffset, u64, u64)> {
        let of = |(queue, progress): (&QueueId, &QueueProgress)| {
            (*queue, progress.next, progress.outstanding.len() as u64, progress.damaged.len())
        };
        let mut queues: Vec<_> = self.queues.iter().map(of).collect();
        queues.sort_unstable_by_key(|(queue, ..)| *queue);
        queues
    }

    /// The offset behind the last one of each queue that the group ever had to do with: so many were given there.
    pub(crate) fn reached(&self) -> Vec<(QueueId, QueueOffset)> {
        let reached = |(queue, progress): (&QueueId, &QueueProgress)| {
            let last = progress.outstanding.last_key_value().map(|(offset, _)| offset.next());
            (*queue, progress.next.max(last.unwrap_or_default()))
        };
        self.queues.iter().map(reached).collect()
    }

    /// Queues have more messages than before. To be told of each that grows.
    pub(crate) fn grew(&mut self, queues: impl IntoIterator<Item = QueueId>) {
        queues.into_iter().for_each(|queue| self.ready_queues.insert(queue));
    }

    /// Messages never delivered to the group, whether they match its subscription or not.
    pub(crate) fn ready(&self, reader: &dyn QueueReader) -> u64 {
        match self.ready_queues.held() {
            Some(held) => held.iter().map(|queue| self.ready_in(*queue, reader)).sum(),
            None => (0..reader.queue_count()).map(|queue| self.ready_in(QueueId(queue), reader)).sum(),
        }
    }

    fn ready_in(&self, queue: QueueId, reader: &dyn QueueReader) -> u64 {
        let (min, end) = reader.range(queue);
        end.0.saturating_sub(self.next(queue).max(min).0)
    }

    /// Finds out which queues have something that was never delivered, if that is not known.
    pub(super) fn find_ready_queues(&mut self, reader: &dyn QueueReader) {
        let mut ready = std::mem::take(&mut self.ready_queues);
        ready.find(reader.queue_count(), |queue| self.ready_in(queue, reader) > 0);
        self.ready_queues = ready;
    }

    /// What forgets outstanding messages that retention has removed, if there are any. Receives forget them as well, but
    /// a group may have stopped to receive.
    pub(crate) fn plan_trim(&self, reader: &dyn QueueReader) -> Option<DeliveryRecord> {
        let floor = |(queue, progress): (&QueueId, &QueueProgress)| {
            let oldest = progress.outstanding.first_key_value().map(|(offset, _)| *offset);
            let oldest = oldest.into_iter().chain(progress.damaged.first()).min()?;
            let (min, _) = reader.range(*queue);
            (oldest < min).then_some((*queue, min))
        };
        let floors: Vec<_> = self.queues.iter().filter_map(floor).collect();
        (!floors.is_empty()).then_some(DeliveryRecord::Trimmed { floors })
    }

    /// Queues in which something is outstanding or damaged.
    pub(crate) fn queues_held(&self) -> Vec<QueueId> {
        let holds = |progress: &QueueProgress| !progress.outstanding.is_empty() || progress.damaged.first().is_some();
        self.queues.iter().filter(|(_, progress)| holds(progress)).map(|(queue, _)| *queue).collect()
    }

    /// Where never delivered messages of a queue begin.
    pub(super) fn next(&self, queue: QueueId) -> QueueOffset {
        self.queues.get(&queue).map_or(QueueOffset(0), |progress| progress.next)
    }

    /// The message, if it is outstanding.
    pub(super) fn outstanding(&self, queue: QueueId, offset: QueueOffset) -> Option<&Outstanding> {
        self.queues.get(&queue)?.outstanding.get(&offset)
    }

    /// Adds an outstanding message. With an owner, its lease is raised to `until`.
    pub(super) fn insert(&mut self, queue: QueueId, offset: QueueOffset, outstanding: Outstanding, until: Timestamp) {
        let due = |at| Due { at, queue, offset, used: outstanding.used() };
        match outstanding.visibility {
            Visibility::At(at) => self.schedule.insert_timed(due(at)),
            Visibility::Owned { owner, latest } => self.schedule.insert_owned(due(latest), owner, until),
        }
        let progress = self.queues.entry(queue).or_default();
        if progress.outstanding.insert(offset, outstanding).is_none() {
            self.inflight += 1;
        }
    }

    /// Adds a damaged message, which is not outstanding.
    pub(super) fn insert_damaged(&mut self, queue: QueueId, offset: QueueOffset) {
        let damaged = &mut self.queues.entry(queue).or_default().damaged;
        self.damaged -= damaged.len();
        damaged.insert(offset);
        self.damaged += damaged.len();
    }

    /// Whether the message was set aside.
    pub(super) fn is_damaged(&self, queue: QueueId, offset: QueueOffset) -> bool {
        self.queues.get(&queue).is_some_and(|progress| progress.damaged.contains(offset))
    }

    fn set_aside(&mut self, queue: QueueId, offset: QueueOffset) {
        // Finished meanwhile: it does not matter any more.
        if self.take_outstanding(queue, offset).is_some() {
            self.insert_damaged(queue, offset);
        }
    }

    /// Nobody waits for it any more.
    fn pass_damaged(&mut self, queue: QueueId, offset: QueueOffset) {
        if let Some(progress) = self.queues.get_mut(&queue) {
            self.damaged -= progress.damaged.len();
            progress.damaged.remove(offset);
            self.damaged += progress.damaged.len();
        }
    }

    fn take_outstanding(&mut self, queue: QueueId, offset: QueueOffset) -> Option<Outstanding> {
        let outstanding = self.queues.get_mut(&queue)?.outstanding.remove(&offset)?;
        self.schedule.remove(queue, offset, &outstanding);
        self.inflight -= 1;
        Some(outstanding)
    }

    fn deliver(
        &mut self,
        queue: QueueId,
        offset: QueueOffset,
        attempt: u32,
        lease: LogOffset,
        renewal: Option<Renewal>,
        until: Timestamp,
    ) {
        let progress = self.queues.entry(queue).or_default();
        match progress.outstanding.get(&offset) {
            // Applied before.
            Some(before) if before.lease >= lease => return,
            Some(before) => self.schedule.remove(queue, offset, before),
            // It was set aside and is whole again.
            None if progress.damaged.contains(offset) => self.pass_damaged(queue, offset),
            // Finished: it must not come back to life.
            None if offset < progress.next => return,
            None => {}
        }
        let visibility = match renewal {
            None => Visibility::At(until),
            Some(Renewal { owner, latest }) => Visibility::Owned { owner, latest },
        };
        let outstanding = Outstanding { lease, attempt, counted: true, visibility };
        self.insert(queue, offset, outstanding, until);
    }

    /// Gives a delivery a fixed end. `change` is told when it would have ended.
    fn fix(
        &mut self,
        queue: QueueId,
        offset: QueueOffset,
        change: impl FnOnce(&mut Outstanding, Timestamp) -> Timestamp,
    ) {
        let progress = self.queues.get_mut(&queue);
        let Some(outstanding) = progress.and_then(|progress| progress.outstanding.get_mut(&offset)) else {
            return;
        };
        let before = self.schedule.visible_at(outstanding.visibility);
        self.schedule.remove(queue, offset, outstanding);
        let at = change(outstanding, before);
        outstanding.visibility = Visibility::At(at);
        self.schedule.insert_timed(Due { at, queue, offset, used: outstanding.used() });
    }

    /// Raises the end that renewal cannot move of a delivery that its owner still holds.
    fn prolong(&mut self, queue: QueueId, offset: QueueOffset, owner: ClientHash, latest: Timestamp) {
        // Read before: the lease goes with the owner's last delivery.
        let Some(until) = self.schedule.owner_until(owner) else { return };
        let progress = self.queues.get_mut(&queue);
        let Some(outstanding) = progress.and_then(|progress| progress.outstanding.get_mut(&offset)) else {
            return;
        };
        match outstanding.visibility {
            Visibility::Owned { owner: holder, latest: before } if holder == owner && before < latest => {}
            Visibility::Owned { .. } | Visibility::At(_) => return,
        }
        self.schedule.remove(queue, offset, outstanding);
        outstanding.visibility = Visibility::Owned { owner, latest };
        let due = Due { at: latest, queue, offset, used: outstanding.used() };
        self.schedule.insert_owned(due, owner, until);
    }

    fn raise_next(&mut self, queue: QueueId, next: QueueOffset) {
        let progress = self.queues.entry(queue).or_default();
        progress.next = progress.next.max(next);
    }

    fn trim(&mut self, queue: QueueId, floor: QueueOffset) {
        self.raise_next(queue, floor);
        let Some(progress) = self.queues.get_mut(&queue) else {
            return;
        };
        self.damaged -= progress.damaged.len();
        progress.damaged.remove_below(floor);
        self.damaged += progress.damaged.len();
        let kept = progress.outstanding.split_off(&floor);
        let removed = std::mem::replace(&mut progress.outstanding, kept);
        self.inflight -= removed.len();
        for (offset, outstanding) in &removed {
            self.schedule.remove(queue, *offset, outstanding);
        }
    }
}

impl Outstanding {
    /// Attempts that are used up when this delivery ends.
    pub(super) fn used(&self) -> u32 {
        if self.counted { self.attempt } else { self.attempt.saturating_sub(1) }
    }
}

/// The truth only: derived data may differ for a while.
impl PartialEq for DeliveryState {
    fn eq(&self, other: &DeliveryState) -> bool {
        self.turn == other.turn
            && self.queues == other.queues
            && self.schedule.owner_leases().eq(other.schedule.owner_leases())
    }
}
