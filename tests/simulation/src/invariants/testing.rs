//! Histories made by hand.

use super::{Invariant, check_one};
use crate::history::{Ack, Delivery, Group, History, Moment, Outcome, Position, Send};
use std::time::Duration;

/// A history of a group `g` that consumes the topic `t`, with at most three attempts.
pub(super) fn history() -> History {
    let mut history = History::default();
    history.groups.insert("g".into(), Group { topics: vec!["t".into()], max_attempts: 3 });
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
        self.sends.push(Send { client, topic, id: id.into(), digest, began, ended, outcome, offset });
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
