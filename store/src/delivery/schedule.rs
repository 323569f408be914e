//! What becomes visible when: finds what is due without looking at everything that is outstanding.
//!
//! Derived from the outstanding messages, except for the owners' leases, which are truth that lives here. Times are exact:
//! whoever changes a delivery takes it out with what it was and puts it in with what it is.
//!
//! A delivery with a fixed end is in `timed`. One that is renewed is with its owner, so that a renewal moves all of an owner's
//! deliveries at once, however many. What has ended moves (from `timed`) or is copied (from its owner) to `ready`, or to
//! `spent` if it may not be delivered again.

use super::state::{Outstanding, Visibility};
use gantry_proto::model::{ClientHash, QueueId, QueueOffset, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// An outstanding message by the end of its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub at: Timestamp,
    pub queue: QueueId,
    pub offset: QueueOffset,
    /// Attempts that are used up when the delivery ends.
    pub used: u32,
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    timed: BTreeSet<Due>,
    owners: BTreeMap<ClientHash, Owner>,
    /// Owners by [`Owner::turn`], without those that have none.
    turns: BTreeSet<(Timestamp, ClientHash)>,
    /// Ended when last looked at; to be delivered again.
    ready: BTreeSet<Due>,
    /// Ended when last looked at; no attempt is left. By queue, so that what retention takes is found at its front.
    spent: BTreeMap<(QueueId, QueueOffset), Due>,
    /// What `ready` and `spent` were told apart by.
    max_attempts: u32,
    /// The latest time that was looked at.
    surfaced_to: Timestamp,
    /// Owners that began or ceased to hold something since this was last asked.
    owner_changes: Vec<(ClientHash, bool)>,
}

/// A client that holds renewed deliveries. There is none without any.
#[derive(Debug)]
struct Owner {
    /// Its lease. Truth.
    until: Timestamp,
    /// All its deliveries, by the end that renewal cannot move.
    held: BTreeSet<Due>,
    /// When some of them end that are not in `ready` or `spent` yet. May be early, never late.
    turn: Timestamp,
}

/// The turn of an owner whose deliveries have all ended.
const NO_TURN: Timestamp = Timestamp::MAX;

impl Schedule {
    /// When a delivery ends.
    pub(super) fn visible_at(&self, visibility: Visibility) -> Timestamp {
        match visibility {
            Visibility::At(at) => at,
            Visibility::Owned { owner, latest } => self.owner_until(owner).unwrap_or(Timestamp::ZERO).min(latest),
        }
    }

    /// The lease of an owner that holds something.
    pub(super) fn owner_until(&self, owner: ClientHash) -> Option<Timestamp> {
        self.owners.get(&owner).map(|owner| owner.until)
    }

    /// The leases of all owners, sorted by owner.
    pub(super) fn owner_leases(&self) -> impl ExactSizeIterator<Item = (ClientHash, Timestamp)> {
        self.owners.iter().map(|(hash, owner)| (*hash, owner.until))
    }

    /// All that an owner holds, ended or not.
    pub(super) fn held_by(&self, owner: ClientHash) -> Vec<(QueueId, QueueOffset)> {
        let held = self.owners.get(&owner).map(|owner| &owner.held);
        held.into_iter().flatten().map(|due| (due.queue, due.offset)).collect()
    }

    /// When the next delivery ends of those that have not been found to have ended. May be early, never late.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        let turn = self.turns.first().map(|(turn, _)| *turn);
        self.timed.first().map(|due| due.at).into_iter().chain(turn).min()
    }

    pub(super) fn has_spent(&self) -> bool {
        !self.spent.is_empty()
    }

    pub(super) fn take_owner_changes(&mut self) -> Vec<(ClientHash, bool)> {
        std::mem::take(&mut self.owner_changes)
    }

    /// When the first delivery ends, or ended, without those that are known to have no attempt left. May be early, never
    /// late.
    #[cfg(test)]
    pub(super) fn first_redelivery(&self) -> Option<Timestamp> {
        let firsts = [self.timed.first(), self.ready.first()];
        let turn = self.turns.first().map(|(turn, _)| *turn);
        firsts.into_iter().flatten().map(|due| due.at).chain(turn).min()
    }

    /// The first that can be delivered again, after `after`. Complete only after [`Schedule::surface`].
    pub(super) fn next_ready(&self, after: Option<Due>, now: Timestamp) -> Option<Due> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        // A clock that went back must not end a delivery early.
        self.ready.range((from, Bound::Unbounded)).next().filter(|due| due.at <= now).copied()
    }

    /// The first by queue and offset that has no attempt left, after `after`. Complete only after [`Schedule::surface`].
    pub(super) fn next_spent(&self, after: Option<(QueueId, QueueOffset)>, now: Timestamp) -> Option<Due> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.spent.range((from, Bound::Unbounded)).map(|(_, due)| *due).find(|due| due.at <= now)
    }

    /// Finds what has ended by `now`.
    pub(super) fn surface(&mut self, now: Timestamp, max_attempts: u32) {
        self.surfaced_to = self.surfaced_to.max(now);
        let (ready, spent) = (&mut self.ready, &mut self.spent);
        if self.max_attempts != max_attempts {
            self.max_attempts = max_attempts;
            ready.extend(std::mem::take(spent).into_values());
            spent.extend(ready.extract_if(.., |due| due.used >= max_attempts).map(|due| (due.place(), due)));
        }
        let mut add_ended = |due: Due| {
            if due.used < max_attempts {
                ready.insert(due);
            } else {
                spent.insert(due.place(), due);
            }
        };
        while let Some(due) = self.timed.first().filter(|due| due.at <= now).copied() {
            self.timed.remove(&due);
            add_ended(due);
        }
        while let Some((turn, hash)) = self.turns.first().filter(|(turn, _)| *turn <= now).copied() {
            self.turns.remove(&(turn, hash));
            let Some(owner) = self.owners.get_mut(&hash) else {
                continue;
            };
            owner.turn = NO_TURN;
            for due in &owner.held {
                let at = due.at.min(owner.until);
                if at > now {
                    owner.turn = at;
                    self.turns.insert((at, hash));
                    break;
                }
                add_ended(Due { at, ..*due });
            }
        }
    }

    /// Adds a delivery with a fixed end.
    pub(super) fn insert_timed(&mut self, due: Due) {
        self.timed.insert(due);
    }

    /// Adds a delivery that ends at `due.at`, or earlier when its owner's lease ends. That is raised to `until`.
    pub(super) fn insert_owned(&mut self, due: Due, owner: ClientHash, until: Timestamp) {
        let changes = &mut self.owner_changes;
        let fresh = || {
            changes.push((owner, true));
            Owner { until: Timestamp::ZERO, held: BTreeSet::new(), turn: NO_TURN }
        };
        self.owners.entry(owner).or_insert_with(fresh).held.insert(due);
        self.renew(owner, until);
        if let Some(held) = self.owners.get_mut(&owner) {
            let at = due.at.min(held.until);
            if at < held.turn {
                move_turn(&mut self.turns, owner, held, at);
            }
        }
    }

    /// Takes a delivery out. An owner's lease ends with its last delivery.
    pub(super) fn remove(&mut self, queue: QueueId, offset: QueueOffset, outstanding: &Outstanding) {
        let used = outstanding.used();
        let at = self.visible_at(outstanding.visibility);
        let due = |at| Due { at, queue, offset, used };
        match outstanding.visibility {
            Visibility::At(at) => {
                if self.timed.remove(&due(at)) {
                    return;
                }
            }
            Visibility::Owned { owner: hash, latest } => {
                let Some(owner) = self.owners.get_mut(&hash) else {
                    return;
                };
                owner.held.remove(&due(latest));
                if owner.held.is_empty() {
                    move_turn(&mut self.turns, hash, owner, NO_TURN);
                    self.owners.remove(&hash);
                    self.owner_changes.push((hash, false));
                }
            }
        }
        self.ready.remove(&due(at));
        self.spent.remove(&(queue, offset));
    }

    /// Extends the lease of an owner, if it holds something. What had ended and was not delivered again comes back under
    /// it: the client is alive and has the message.
    pub(super) fn renew(&mut self, hash: ClientHash, until: Timestamp) {
        let Some(owner) = self.owners.get_mut(&hash).filter(|owner| owner.until < until) else {
            return;
        };
        for due in &owner.held {
            let at = due.at.min(owner.until);
            if at > self.surfaced_to {
                break;
            }
            self.ready.remove(&Due { at, ..*due });
            self.spent.remove(&due.place());
        }
        owner.until = until;
        if let Some(first) = owner.held.first() {
            let turn = first.at.min(until);
            move_turn(&mut self.turns, hash, owner, turn);
        }
    }
}

impl Due {
    pub(super) fn place(&self) -> (QueueId, QueueOffset) {
        (self.queue, self.offset)
    }
}

fn move_turn(turns: &mut BTreeSet<(Timestamp, ClientHash)>, hash: ClientHash, owner: &mut Owner, turn: Timestamp) {
    turns.remove(&(owner.turn, hash));
    owner.turn = turn;
    if turn != NO_TURN {
        turns.insert((turn, hash));
    }
}
