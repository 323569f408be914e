//! When a member calls, and what it makes of the answers. Pure: takes the time and the chance.

use gantry_proto::contract::{MembershipError, StoreLease};
use gantry_proto::model::Epoch;
use std::time::Duration;
use tokio::time::Instant;

/// A member's side of the protocol.
#[derive(Debug)]
pub(super) struct Protocol {
    state: State,
    /// When the next call is due.
    next_at: Instant,
    /// Joins in a row that failed, or brought a leadership that was not renewed once.
    failed: u32,
    noted: Option<Topic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Leading { epoch: Epoch, lease: StoreLease },
}

/// What to do next, at [`Protocol::next_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Join,
    Renew(Epoch),
}

/// Something that an operator should hear of, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// It does not lead, for this reason.
    Waiting(String),
    /// It leads, but nobody answers.
    Alone(String),
    /// It is answered again.
    Heard,
}

/// What was said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Held,
    Unavailable,
    Alone,
}

/// How often a lease without end is renewed: it says that the store is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest wait for the answer to a renewal.
const RENEWAL_CALL_MAX: Duration = Duration::from_secs(5);
/// Waits between joins: the first, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// It is asked again as soon as somebody else's lease has ended.
const WAIT_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

impl Protocol {
    /// Of a store that does not lead yet.
    pub(super) fn joining(now: Instant) -> Protocol {
        Protocol { state: State::Joining, next_at: now, failed: 0, noted: None }
    }

    /// Of a store that leads by a call made at `called_at`.
    pub(super) fn leading(epoch: Epoch, lease: StoreLease, called_at: Instant) -> Protocol {
        let mut protocol = Protocol::joining(called_at);
        protocol.joined(epoch, lease, called_at);
        protocol
    }

    pub(super) fn step(&self) -> Step {
        match self.state {
            State::Joining => Step::Join,
            State::Leading { epoch, .. } => Step::Renew(epoch),
        }
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// How long a renewal may take: until the next one is due.
    pub(super) fn call_limit(&self) -> Duration {
        self.interval().min(RENEWAL_CALL_MAX)
    }

    pub(super) fn joined(&mut self, epoch: Epoch, lease: StoreLease, called_at: Instant) {
        self.state = State::Leading { epoch, lease };
        // At once: what the controller hears first is that the epoch has begun. From then on it knows an older copy of the
        // folder, which cannot name that epoch.
        self.next_at = called_at;
        // Until it is renewed for the first time: leaderships that end at once must not be asked for without a pause.
        self.failed = self.failed.saturating_add(1);
        self.noted = None;
    }

    /// `chance`: 0 to 1.
    pub(super) fn join_failed(&mut self, error: &MembershipError, now: Instant, chance: f64) -> Option<Note> {
        self.failed = self.failed.saturating_add(1);
        let mut wait = self.backoff(chance);
        let topic = match error {
            MembershipError::Held { remaining, .. } => {
                // Not longer than it can take; sooner than that if it is long, for it may be given up.
                wait = wait.min((*remaining).max(WAIT_MIN));
                Topic::Held
            }
            _ => Topic::Unavailable,
        };
        self.next_at = now + wait;
        self.note(topic).then(|| Note::Waiting(error.to_string()))
    }

    pub(super) fn renewed(&mut self, lease: StoreLease, called_at: Instant) -> Option<Note> {
        if let State::Leading { lease: held, .. } = &mut self.state {
            *held = lease;
        }
        self.next_at = called_at + self.interval();
        self.failed = 0;
        self.noted.take().map(|_| Note::Heard)
    }

    /// A call made at `called_at` was not answered. Tried again after half an interval to a whole one.
    pub(super) fn renewal_failed(
        &mut self,
        called_at: Instant,
        now: Instant,
        chance: f64,
        reason: &str,
    ) -> Option<Note> {
        self.next_at = now.max(called_at + self.interval().mul_f64(0.5 + chance / 2.0));
        self.note(Topic::Alone).then(|| Note::Alone(reason.to_owned()))
    }

    /// The leadership is over, whoever said so.
    pub(super) fn tenure_over(&mut self, now: Instant, chance: f64) {
        self.state = State::Joining;
        self.next_at = if self.failed == 0 { now } else { now + self.backoff(chance) };
        self.noted = None;
    }

    fn interval(&self) -> Duration {
        match self.state {
            State::Leading { lease: StoreLease::For(lease), .. } => lease / 3,
            State::Leading { lease: StoreLease::UntilSuperseded, .. } | State::Joining => HEARTBEAT,
        }
    }

    /// Twice as long each time, up to a bound; of that, half to the whole.
    fn backoff(&self, chance: f64) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(16);
        (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX).mul_f64(0.5 + chance / 2.0)
    }

    fn note(&mut self, topic: Topic) -> bool {
        self.noted.replace(topic) != Some(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::model::StoreGroupName;

    fn unavailable() -> MembershipError {
        MembershipError::Unavailable("away".into())
    }

    fn held(remaining: Duration) -> MembershipError {
        let group = StoreGroupName::parse("a").unwrap();
        MembershipError::Held { store_group: group, epoch: Epoch(1), remaining }
    }

    #[test]
    fn joins_are_tried_at_growing_bounded_intervals_and_each_reason_is_said_once() {
        let now = Instant::now();
        let mut protocol = Protocol::joining(now);
        assert_eq!((protocol.step(), protocol.next_at()), (Step::Join, now));
        let mut notes = 0;
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            notes += usize::from(protocol.join_failed(&unavailable(), now, 1.0).is_some());
            let wait = protocol.next_at() - now;
            assert!(wait >= last && wait <= BACKOFF_MAX, "{wait:?} after {last:?}");
            last = wait;
        }
        assert_eq!((notes, last), (1, BACKOFF_MAX));
        assert!(protocol.join_failed(&held(Duration::from_secs(60)), now, 0.0).is_some());
        assert_eq!(protocol.next_at() - now, BACKOFF_MAX / 2);
        assert!(protocol.join_failed(&held(Duration::from_millis(300)), now, 0.0).is_none());
        assert_eq!(protocol.next_at() - now, Duration::from_millis(300));
        protocol.join_failed(&held(Duration::from_millis(20)), now, 0.0);
        assert_eq!(protocol.next_at() - now, Duration::from_millis(20), "not a moment later than it may");
    }

    #[test]
    fn a_timed_lease_is_renewed_three_times_before_it_ends() {
        let now = Instant::now();
        let lease = Duration::from_secs(3);
        let mut protocol = Protocol::leading(Epoch(4), StoreLease::For(lease), now);
        assert_eq!((protocol.step(), protocol.next_at()), (Step::Renew(Epoch(4)), now), "it tells that it leads");
        assert_eq!(protocol.renewed(StoreLease::For(lease), now), None);
        assert_eq!((protocol.step(), protocol.next_at()), (Step::Renew(Epoch(4)), now + lease / 3));
        let second = now + lease / 3;
        assert!(protocol.renewal_failed(second, second, 1.0, "away").is_some());
        assert_eq!(protocol.next_at(), now + lease / 3 * 2);
        assert!(protocol.renewal_failed(protocol.next_at(), now + lease, 1.0, "away").is_none(), "said already");
        assert_eq!(protocol.next_at(), now + lease, "never in the past");
        assert_eq!(protocol.renewed(StoreLease::UntilSuperseded, now + lease), Some(Note::Heard));
        assert_eq!(protocol.next_at(), now + lease + HEARTBEAT);
        assert_eq!(protocol.renewed(StoreLease::UntilSuperseded, now + lease), None);
    }

    #[test]
    fn a_leadership_that_was_renewed_is_asked_for_again_at_once_and_others_after_a_pause() {
        let now = Instant::now();
        let mut protocol = Protocol::leading(Epoch(1), StoreLease::UntilSuperseded, now);
        protocol.renewed(StoreLease::UntilSuperseded, now);
        protocol.tenure_over(now, 1.0);
        assert_eq!((protocol.step(), protocol.next_at()), (Step::Join, now));
        for epoch in 2..40 {
            protocol.joined(Epoch(epoch), StoreLease::UntilSuperseded, now);
            protocol.tenure_over(now, 1.0);
        }
        assert_eq!(protocol.next_at(), now + BACKOFF_MAX);
    }
}
