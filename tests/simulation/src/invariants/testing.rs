//! Histories made by hand.

use super::{Invariant, check_one};
use crate::history::{
    Ack, Append, Arrival, Delivery, EmptyReceive, Group, History, Lease, LostReceive, Moment, Outcome, Pop, Position,
    Renewal, Send, Touch, Wish,
};
use gantry_proto::model::{ClientHash, Epoch, LogOffset, StoreGroupId};
use std::collections::BTreeMap;
use std::time::Duration;

/// A history of a group `g` that consumes the topic `t`, with at most three attempts.
pub(super) fn history() -> History {
    let mut history = History::default();
    history.machines.insert(StoreGroupId(1), "store-a".into());
    history.groups.insert("g".into(), Group { topics: vec!["t".into()], tag: None, max_attempts: 3 });
    history
}

pub(super) fn seconds(at: u64) -> Duration {
    Duration::from_secs(at)
}

impl History {
    pub(super) fn second(&mut self, at: u64) -> Moment {
        self.moment(seconds(at))
    }

    /// A send that began at second `at` and took one.
    pub(super) fn sent(&mut self, id: &str, at: u64, outcome: Outcome, offset: Option<u64>) {
        let (began, ended) = (self.second(at), self.second(at + 1));
        let (client, topic, digest) = ("c".into(), "t".into(), digest_of(id));
        let ended = (outcome != Outcome::Unknown).then_some(ended);
        let (id, tag, request) = (id.into(), None, id.into());
        let send = Send { client, topic, id, digest, tag, request, began, ended, outcome, offset };
        self.sends.push(send);
    }

    /// Store group 1 answers at second `at` that it has a message of topic `t` (1), at that place of its log.
    pub(super) fn appended(&mut self, id: &str, place: u64, at: u64) {
        let answered = self.second(at);
        self.appends.push(Append {
            process: "store-a#1".into(),
            store_group: StoreGroupId(1),
            epoch: Epoch(1),
            written_in: Epoch(1),
            topic: 1,
            offset: place,
            place: LogOffset(place),
            end: Some(LogOffset(place + 10)),
            retained_from: LogOffset(0),
            id: id.into(),
            while_drained: false,
            answered,
        });
    }

    /// Store group 1 extends the leases of a client at second `at`.
    pub(super) fn renewed(&mut self, owner: ClientHash, at: u64) {
        let (began, ended) = (self.second(at), self.second(at));
        let (store_group, owners, invisible) = (StoreGroupId(1), vec![owner], seconds(5));
        self.renewals.push(Renewal { store_group, owners, invisible, began, ended, done: true });
    }

    /// Store group 1 is told at second `at` that such a delivery has reached its client.
    pub(super) fn arrived(&mut self, owner: ClientHash, offset: u64, attempt: u32, at: u64) {
        let (began, ended) = (self.second(at), self.second(at));
        let (store_group, position) = (StoreGroupId(1), (1, 1, 0, offset));
        self.arrivals.push(Arrival { store_group, owner, position, attempt, began, ended, done: true });
    }

    /// A process leads store group 1 from second `at` on, without an end.
    pub(super) fn led(&mut self, process: &str, epoch: u32, at: u64) {
        let (called, heard) = (self.second(at), self.second(at));
        let (process, store_group, epoch) = (process.into(), StoreGroupId(1), Epoch(epoch));
        self.leases.push(Lease { process, store_group, epoch, called, heard, until: None, begins: true });
    }

    /// Store group 1 hands a message of queue 0 of topic `t` (1) out to group `g` (1) at second `at`, for ten.
    pub(super) fn popped(&mut self, id: &str, offset: u64, attempt: u32, at: u64) {
        let (began, answered) = (self.second(at), self.second(at));
        self.pops.push(Pop {
            process: "store-a#1".into(),
            store_group: StoreGroupId(1),
            group: "g".into(),
            topic: "t".into(),
            position: (1, 1, 0, offset),
            id: id.into(),
            attempt,
            invisible: seconds(10),
            owner: None,
            minima: BTreeMap::new(),
            began,
            answered,
        });
    }

    /// Somebody asks something about such a delivery at second `at`.
    pub(super) fn touched(&mut self, offset: u64, attempt: u32, wish: Wish, at: u64, outcome: Outcome) {
        let (began, ended) = (self.second(at), Some(self.second(at)));
        let (store_group, position) = (StoreGroupId(1), (1, 1, 0, offset));
        self.touches.push(Touch { store_group, position, attempt, wish, began, ended, outcome });
    }

    /// A receive of that topic that had taken one message is lost at second `at`, and gives it back.
    pub(super) fn lost(&mut self, began: Moment, at: u64) {
        let at = self.second(at);
        self.lost_receives.push(LostReceive {
            process: "store-a#1".into(),
            store_group: StoreGroupId(1),
            group: 1,
            topic: 1,
            began,
            at,
            hidden: seconds(10),
            took: 1,
            able: true,
            gave_back: true,
        });
    }

    /// A receive of that topic finds nothing from second `from` to second `to`.
    pub(super) fn found_nothing(&mut self, from: u64, to: u64) {
        let (began, ended) = (self.second(from), self.second(to));
        let (process, store_group) = ("store-a#1".into(), StoreGroupId(1));
        let empty = EmptyReceive { process, store_group, group: 1, topic: 1, unfiltered: true, began, ended };
        self.empty_receives.push(empty);
    }

    /// A delivery that was asked for and came at second `at`, hidden for ten.
    pub(super) fn delivered(&mut self, topic: &str, id: &str, offset: i64, attempt: u32, at: u64) {
        let (began, received) = (self.second(at), self.second(at));
        self.deliveries.push(Delivery {
            client: "c".into(),
            group: if topic == "t" { "g".into() } else { "graves".into() },
            position: position(topic, offset),
            id: id.into(),
            digest: digest_of(id),
            attempt,
            began,
            received,
            invisible: seconds(10),
            owner: None,
            kept: true,
        });
    }

    /// An acknowledgement at second `at`.
    pub(super) fn acked(&mut self, id: &str, offset: i64, attempt: u32, at: u64, outcome: Outcome) {
        let (began, ended) = (self.second(at), Some(self.second(at)));
        let position = position("t", offset);
        let (client, group) = ("c".into(), "g".into());
        self.acks.push(Ack { client, group, position, id: id.into(), attempt, began, ended, outcome });
    }

    pub(super) fn drained_at(&mut self, at: u64) {
        self.drained = Some(self.second(at));
    }
}

pub(super) fn position(topic: &str, offset: i64) -> Position {
    Position { topic: topic.into(), queue: 0, offset }
}

pub(super) fn digest_of(id: &str) -> u64 {
    crate::history::digest(id.as_bytes())
}

#[track_caller]
pub(super) fn holds(invariant: &Invariant, history: &History) {
    assert_eq!(check_one(invariant, history), []);
}

#[track_caller]
pub(super) fn is_broken(invariant: &Invariant, history: &History, by: &str) {
    let violations = check_one(invariant, history);
    assert!(violations.iter().any(|violation| violation.what.contains(by)), "{by:?} not in {violations:?}");
}
