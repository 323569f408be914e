//! The state and how records change it.

use super::record::{DeliveryRecord, Place};
use super::schedule::Schedule;
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{ClientHash, LogOffset, QueueId, QueueOffset, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// One group's progress on one topic.
#[derive(Debug, Default)]
pub(crate) struct DeliveryState {
    /// By queue id.
    pub(super) queues: Vec<QueueProgress>,
    /// Clients whose life extends leases here.
    pub(super) owners: HashMap<ClientHash, OwnerLease>,
    /// Messages outstanding in all queues.
    pub(super) outstanding: usize,
    pub(super) schedule: Schedule,
    /// The queue that is served first next time: the one that was not served for longest.
    pub(super) turn: u32,
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct QueueProgress {
    /// From here on nothing was ever delivered.
    pub next: QueueOffset,
    /// Delivered and not finished.
    pub outstanding: BTreeMap<QueueOffset, Outstanding>,
}

/// A message that was delivered and is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// Log offset of the record that delivered it last: nobody else's handle names it.
    pub lease: LogOffset,
    /// Number of that delivery, counted from 1.
    pub attempt: u32,
    /// Whether the next delivery is another attempt.
    pub counted: bool,
    pub visibility: Visibility,
    /// Where it stands in the schedule.
    scheduled_at: Timestamp,
}

/// When a message becomes visible again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Then.
    At(Timestamp),
    /// When its owner's lease ends, but not after `latest`: a client that hangs must not hide it for ever.
    Owned { owner: ClientHash, latest: Timestamp },
}

/// A client that holds messages here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnerLease {
    pub until: Timestamp,
    /// How many messages it holds; the entry goes with the last one.
    pub holds: usize,
}

/// Why a delivery cannot be finished or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The message is finished.
    Finished,
    /// The lease ended, or the message was delivered again.
    Expired,
}

impl DeliveryState {
    /// Applies a record that lies at `at` in the log. Places that are finished already are passed over.
    pub(crate) fn apply(&mut self, record: &DeliveryRecord, at: LogOffset) {
        match record {
            DeliveryRecord::Delivered {
                at: delivered_at,
                visible_at,
                owner,
                deliveries,
                dropped,
                cursors,
            } => {
                for (queue, offset) in dropped {
                    self.finish(*queue, *offset);
                }
                let visibility = match owner {
                    Some(owner) => Visibility::Owned {
                        owner: *owner,
                        latest: delivered_at.after(AUTO_RENEW_MAX),
                    },
                    None => Visibility::At(*visible_at),
                };
                if let Some(owner) = owner
                    && !deliveries.is_empty()
                {
                    let lease = self.owners.entry(*owner).or_default();
                    lease.until = lease.until.max(*visible_at);
                }
                for (queue, offset, attempt) in deliveries {
                    self.put((*queue, *offset), at, *attempt, true, visibility);
                }
                for (queue, next) in cursors {
                    let progress = self.queue_mut(*queue);
                    progress.next = progress.next.max(*next);
                }
            }
            DeliveryRecord::Acked { entries } => {
                for (queue, offset) in entries {
                    self.finish(*queue, *offset);
                }
            }
            DeliveryRecord::VisibilityChanged {
                visible_at,
                counted,
                entries,
            } => {
                for place in entries {
                    if let Some(held) = self.get(*place).copied() {
                        self.put(*place, held.lease, held.attempt, *counted, Visibility::At(*visible_at));
                    }
                }
            }
            DeliveryRecord::OwnersRenewed { until, owners } => {
                for owner in owners {
                    if let Some(lease) = self.owners.get_mut(owner) {
                        lease.until = lease.until.max(*until);
                    }
                }
            }
        }
    }

    /// The message is done with: acknowledged, expired or buried.
    pub(crate) fn finish(&mut self, queue: QueueId, offset: QueueOffset) {
        let found = self
            .queues
            .get_mut(queue.0 as usize)
            .and_then(|progress| progress.outstanding.remove(&offset));
        if let Some(held) = found {
            self.outstanding -= 1;
            self.schedule.remove(held.scheduled_at, (queue, offset));
            self.disown(held.visibility);
        }
    }

    /// Whether the delivery that `lease` names still stands at `now`.
    pub(crate) fn check(
        &self,
        queue: QueueId,
        offset: QueueOffset,
        lease: LogOffset,
        now: Timestamp,
    ) -> Result<(), Over> {
        match self.get((queue, offset)) {
            None => Err(Over::Finished),
            Some(held) if held.lease == lease && now < self.visible_at(held) => Ok(()),
            Some(_) => Err(Over::Expired),
        }
    }

    /// Messages delivered and not finished.
    pub(crate) fn inflight(&self) -> usize {
        self.outstanding
    }

    /// Whether something may have become visible by `now`. May be wrong towards yes.
    pub(crate) fn any_due(&self, now: Timestamp) -> bool {
        self.schedule.due(now).next().is_some()
    }

    /// When something becomes visible after `now`. May be early.
    pub(crate) fn next_due_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(now)
    }

    /// When a message becomes visible again.
    pub(super) fn visible_at(&self, held: &Outstanding) -> Timestamp {
        match held.visibility {
            Visibility::At(time) => time,
            Visibility::Owned { owner, latest } => self
                .owners
                .get(&owner)
                .map_or(Timestamp::ZERO, |lease| lease.until)
                .min(latest),
        }
    }

    pub(super) fn get(&self, (queue, offset): Place) -> Option<&Outstanding> {
        self.queues.get(queue.0 as usize)?.outstanding.get(&offset)
    }

    pub(super) fn next(&self, queue: QueueId) -> QueueOffset {
        self.queues
            .get(queue.0 as usize)
            .map_or_else(Default::default, |progress| progress.next)
    }

    pub(super) fn queue_mut(&mut self, queue: QueueId) -> &mut QueueProgress {
        let index = queue.0 as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, Default::default);
        }
        &mut self.queues[index]
    }

    /// Makes a message outstanding, or outstanding in another way.
    pub(super) fn put(&mut self, place: Place, lease: LogOffset, attempt: u32, counted: bool, visibility: Visibility) {
        if let Visibility::Owned { owner, .. } = visibility {
            self.owners.entry(owner).or_default().holds += 1;
        }
        let mut held = Outstanding {
            lease,
            attempt,
            counted,
            visibility,
            scheduled_at: Timestamp::ZERO,
        };
        held.scheduled_at = self.visible_at(&held);
        let before = self.queue_mut(place.0).outstanding.insert(place.1, held);
        match before {
            Some(before) => {
                self.schedule.remove(before.scheduled_at, place);
                self.disown(before.visibility);
            }
            None => self.outstanding += 1,
        }
        self.schedule.insert(held.scheduled_at, place);
    }

    /// Puts an early entry of the schedule where it belongs.
    pub(super) fn reschedule(&mut self, place: Place, at: Timestamp) {
        let queue = self.queues.get_mut(place.0.0 as usize);
        if let Some(held) = queue.and_then(|progress| progress.outstanding.get_mut(&place.1)) {
            self.schedule.remove(held.scheduled_at, place);
            held.scheduled_at = at;
            self.schedule.insert(at, place);
        }
    }

    fn disown(&mut self, visibility: Visibility) {
        let Visibility::Owned { owner, .. } = visibility else {
            return;
        };
        if let Some(lease) = self.owners.get_mut(&owner) {
            lease.holds -= 1;
            if lease.holds == 0 {
                self.owners.remove(&owner);
            }
        }
    }
}
