//! Leases after the delivery: whether they hold, what extends or ends them, and which messages have no attempt left.

use super::reader::QueueReader;
use super::record::DeliveryRecord;
use super::state::{DeliveryState, Outstanding, Visibility};
use gantry_proto::model::{ClientHash, LogOffset, QueueId, QueueOffset, Timestamp};

/// Why a delivery is not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// The message is finished. By whom, nobody knows.
    Finished,
    /// The lease ended. The message is visible, or somebody else holds it.
    Expired,
}

impl DeliveryState {
    /// Whether the delivery holds whose record is at `lease`.
    pub(crate) fn check(
        &self,
        queue: QueueId,
        offset: QueueOffset,
        lease: LogOffset,
        now: Timestamp,
    ) -> Result<(), NotHeld> {
        match self.outstanding(queue, offset) {
            Some(outstanding) if outstanding.lease == lease && !self.has_ended(outstanding, now) => Ok(()),
            Some(_) => Err(NotHeld::Expired),
            // Its delivery had ended before it was delivered again and found damaged.
            None if self.is_damaged(queue, offset) => Err(NotHeld::Expired),
            None if offset < self.next(queue) => Err(NotHeld::Finished),
            // A delivery that the log lost in a crash before it was confirmed.
            None => Err(NotHeld::Expired),
        }
    }

    /// Those of `deliveries` that `owner` holds in their first lease: whatever renews others of its deliveries, these end when
    /// that was promised at the delivery. Each with its lease and its promised end.
    pub(crate) fn in_first_lease(
        &self,
        owner: ClientHash,
        deliveries: impl IntoIterator<Item = (QueueId, QueueOffset, LogOffset, Timestamp)>,
        now: Timestamp,
    ) -> Vec<(QueueId, QueueOffset)> {
        let held = |(queue, offset, lease, promised): (QueueId, QueueOffset, LogOffset, Timestamp)| {
            self.check(queue, offset, lease, now).ok()?;
            let first = Visibility::Owned { owner, latest: promised };
            (self.outstanding(queue, offset)?.visibility == first).then_some((queue, offset))
        };
        deliveries.into_iter().filter_map(held).collect()
    }

    /// Whether a delivery has ended that a renewal of its owner would bring back.
    pub(crate) fn may_come_back(&self, queue: QueueId, offset: QueueOffset, lease: LogOffset) -> bool {
        let of_it = |outstanding: &&Outstanding| outstanding.lease == lease;
        let outstanding = self.outstanding(queue, offset).filter(of_it);
        outstanding.is_some_and(|outstanding| matches!(outstanding.visibility, Visibility::Owned { .. }))
    }

    /// What extends the leases of those of `owners` that hold something, if there are any.
    pub(crate) fn plan_renewal(&self, owners: &[ClientHash], until: Timestamp) -> Option<DeliveryRecord> {
        let behind = |owner: &&ClientHash| self.schedule.owner_until(**owner).is_some_and(|lease| lease < until);
        let owners: Vec<ClientHash> = owners.iter().filter(behind).copied().collect();
        (!owners.is_empty()).then_some(DeliveryRecord::OwnersRenewed { until, owners })
    }

    /// What makes visible at `visible_at` all that an owner holds, if it holds something.
    pub(crate) fn plan_release(&self, owner: ClientHash, visible_at: Timestamp) -> Option<DeliveryRecord> {
        self.schedule.owner_until(owner)?;
        Some(DeliveryRecord::OwnerReleased { owner, visible_at })
    }

    /// At most `limit` messages whose last delivery ended, by queue and offset. The caller moves them to the dead letters
    /// and calls [`DeliveryState::finish`].
    pub(crate) fn exhausted(
        &mut self,
        now: Timestamp,
        max_attempts: u32,
        limit: usize,
        reader: &dyn QueueReader,
    ) -> Vec<(QueueId, QueueOffset)> {
        self.schedule.surface(now, max_attempts);
        let mut exhausted = Vec::new();
        let mut after = None;
        while exhausted.len() < limit
            && let Some(due) = self.schedule.next_spent(after, now)
        {
            let (min, _) = reader.range(due.queue);
            if due.offset < min {
                // There is nothing left to move; the next receive drops it, and all up to there.
                after = Some((due.queue, QueueOffset(min.0 - 1)));
            } else {
                after = Some(due.place());
                exhausted.push(due.place());
            }
        }
        exhausted
    }

    /// Whether the message's last delivery has ended.
    pub(crate) fn is_exhausted(&self, queue: QueueId, offset: QueueOffset, now: Timestamp, max_attempts: u32) -> bool {
        self.outstanding(queue, offset)
            .is_some_and(|outstanding| outstanding.used() >= max_attempts && self.has_ended(outstanding, now))
    }

    /// When the next delivery ends. May be early, never late. Without those that [`DeliveryState::exhausted`] or a receive
    /// has found already; if the number of attempts changed since, the next of these two finds out what that means.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.schedule.next_end()
    }

    /// Whether messages were found whose last delivery ended, and nobody has dealt with them.
    pub(crate) fn has_spent(&self) -> bool {
        self.schedule.has_spent()
    }

    /// Whether something has ended that nobody has dealt with.
    #[cfg(test)]
    pub(crate) fn any_due(&self, now: Timestamp) -> bool {
        self.has_spent() || self.schedule.first_redelivery().is_some_and(|due| due <= now)
    }

    /// Owners that began to hold something or hold nothing any more since this was last asked, in that order.
    pub(crate) fn take_owner_changes(&mut self) -> Vec<(ClientHash, bool)> {
        self.schedule.take_owner_changes()
    }

    /// Who holds something.
    pub(crate) fn owners(&self) -> impl Iterator<Item = ClientHash> {
        self.schedule.owner_leases().map(|(owner, _)| owner)
    }

    /// Finds out what has ended by `now`, so that [`DeliveryState::next_end`] is later. True: something may be delivered
    /// again.
    pub(crate) fn look_for_ends(&mut self, now: Timestamp, max_attempts: u32) -> bool {
        self.schedule.surface(now, max_attempts);
        self.schedule.next_ready(None, now).is_some()
    }

    /// When a receive that found nothing at `now` may find something to deliver again. May be early, never late. What only
    /// waits for being moved to the dead letters does not count.
    #[cfg(test)]
    pub(crate) fn next_due_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.schedule.first_redelivery().map(|due| due.max(now))
    }

    fn has_ended(&self, outstanding: &Outstanding, now: Timestamp) -> bool {
        self.schedule.visible_at(outstanding.visibility) <= now
    }
}
