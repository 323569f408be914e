//! What the product is known not to hold (issue 11), as exactly as a history can say it: what a push client was sent and never
//! got, or what it dropped, is renewed for it all the same, and hidden from everybody while it lives.
//!
//! Only what that explains is called known: the client's leases were renewed at that very store group until the end; and
//! a receive that was lost within its store, where nobody sees what it had taken, explains as many messages as it
//! had asked for, of its store group, consumer group and topic, and none if the store took them back.

use crate::history::{History, LostReceive, Moment, Outcome, Pop, Renewal, Wish};
use gantry_proto::model::{ClientHash, StoreGroupId};
use std::time::Duration;

/// Why it is known.
pub(super) const LOST: &str = "a delivery that was lost on its way to a push client is renewed for it all the same, and hidden \
                               while it lives: what is renewed is not yet what arrived (issue 11)";

/// The same, if the client had got it.
pub(super) const REVIVED: &str = "an acknowledgement that comes when the lease has ended is refused, and the next renewal of the \
                       client's leases brings that lease back all the same: the message is hidden while the client lives, \
                       which has dropped it (issue 11)";

/// Who was renewed so shortly before the end holds what it holds: a lease of push clients is nearly as long, and a message
/// that is let go of so late may have come to nobody yet.
const SHORTLY: Duration = Duration::from_secs(6);
/// A store that dies within this time may not have written down what it had just taken back.
const UNWRITTEN: Duration = Duration::from_secs(10);

/// What is known of one history.
pub(super) struct OnItsWay<'a> {
    history: &'a History,
    /// Receives that were lost in a store for clients that live, and how many messages each may still explain.
    lost: Vec<(&'a LostReceive, u64)>,
}

impl<'a> OnItsWay<'a> {
    pub(super) fn of(history: &'a History) -> OnItsWay<'a> {
        let hides = |lost: &&LostReceive| {
            lost.owner.is_some_and(|owner| lives(history, owner, lost.store_group)) && !was_taken_back(history, lost)
        };
        let lost = history.lost_receives.iter().filter(hides).map(|lost| (lost, lost.most)).collect();
        OnItsWay { history, lost }
    }

    /// Why the last delivery of a message is hidden at the end, if that is known.
    pub(super) fn hides(&self, pop: &Pop) -> Option<&'static str> {
        let owner = pop.owner.filter(|owner| lives(self.history, *owner, pop.store_group))?;
        if !arrived(self.history, pop) {
            Some(LOST)
        } else if came_too_late(self.history, pop, owner) {
            Some(REVIVED)
        } else {
            None
        }
    }

    /// Whether a receive had taken the message, perhaps, that was lost after `since`, when nobody had it. To be asked about
    /// the latest first; what explains one message does not explain another one.
    pub(super) fn had(&mut self, store_group: StoreGroupId, group: u32, topic: u32, since: Moment) -> bool {
        let may = |lost: &LostReceive| {
            (lost.store_group, lost.group, lost.topic) == (store_group, group, topic) && lost.at > since
        };
        match self.lost.iter_mut().find(|(lost, left)| *left > 0 && may(lost)) {
            Some((_, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }
}

/// Why a client that lives should not hold what it was handed out, if that is known: it never got it, or it was told before
/// `until` that its lease had ended.
pub(super) fn should_not_hold(history: &History, pop: &Pop, until: Moment) -> Option<&'static str> {
    if !arrived(history, pop) {
        Some(LOST)
    } else {
        first_refusal(history, pop).is_some_and(|refused| refused < until).then_some(REVIVED)
    }
}

/// Whether a client's leases were extended to the end.
fn lives(history: &History, owner: ClientHash, store_group: StoreGroupId) -> bool {
    let Some(end) = history.drained else { return false };
    let extends =
        |renewal: &Renewal| renewal.done && renewal.store_group == store_group && renewal.owners.contains(&owner);
    history.renewals.iter().any(|renewal| extends(renewal) && renewal.ended.at + SHORTLY > end.at)
}

/// Whether the store has what a lost receive had taken, and did not die before it can have written that down.
fn was_taken_back(history: &History, lost: &LostReceive) -> bool {
    let by_another = history.leases.iter().filter(|lease| lease.begins && lease.store_group == lost.store_group);
    let mut next = by_another.filter(|lease| lease.process != lost.process && lease.heard > lost.at);
    lost.gave_back && next.all(|lease| lease.heard.at > lost.at.at + UNWRITTEN)
}

/// Whether a client got it.
fn arrived(history: &History, pop: &Pop) -> bool {
    let (_, _, queue, offset) = pop.position;
    history.deliveries.iter().any(|delivery| {
        let at = &delivery.position;
        (&delivery.group, &delivery.id, delivery.attempt) == (&pop.group, &pop.id, pop.attempt)
            && (i64::from(at.queue), at.offset) == (i64::from(queue), offset as i64)
    })
}

/// When it was acknowledged for the first time after it had ended.
fn first_refusal(history: &History, pop: &Pop) -> Option<Moment> {
    let refused = history.touches.iter().filter(|touch| {
        (touch.store_group, touch.position, touch.attempt) == (pop.store_group, pop.position, pop.attempt)
            && touch.wish == Wish::Acknowledge
            && touch.outcome == Outcome::Refused
            && touch.began > pop.answered
    });
    refused.map(|touch| touch.began).min()
}

/// Whether it was acknowledged when it had ended, and its client's leases were renewed after that.
fn came_too_late(history: &History, pop: &Pop, owner: ClientHash) -> bool {
    let Some(first) = first_refusal(history, pop) else { return false };
    let renews = |renewal: &Renewal| renewal.began > first && renewal.owners.contains(&owner);
    history.renewals.iter().any(|renewal| renewal.store_group == pop.store_group && renewal.done && renews(renewal))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const OWNER: ClientHash = ClientHash(1);

    /// Handed out to a push client, whose leases are renewed until the end.
    fn handed_out() -> History {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.pops[0].owner = Some(OWNER);
        history.renewed(OWNER, 59);
        history.drained_at(60);
        history
    }

    #[test]
    fn what_a_push_client_never_got_is_known_if_its_leases_are_renewed_there_until_the_end() {
        let mut history = handed_out();
        let why = |history: &History| OnItsWay::of(history).hides(&history.pops[0]);
        assert_eq!(why(&history), Some(LOST));
        history.renewals[0].ended = history.second(50);
        assert_eq!(why(&history), None);
        history.renewed(OWNER, 59);
        history.renewals[1].store_group = StoreGroupId(2);
        assert_eq!(why(&history), None);
        history.renewals[1].store_group = StoreGroupId(1);
        assert_eq!(why(&history), Some(LOST));
        history.delivered("t", "a", 0, 1, 5);
        assert_eq!(why(&history), None);
    }

    #[test]
    fn a_lease_that_is_brought_back_after_its_acknowledgement_was_refused_is_known() {
        let mut history = handed_out();
        history.delivered("t", "a", 0, 1, 5);
        history.touched(0, 1, Wish::Acknowledge, 20, Outcome::Refused);
        assert_eq!(OnItsWay::of(&history).hides(&history.pops[0]), None);
        history.renewed(OWNER, 59);
        assert_eq!(OnItsWay::of(&history).hides(&history.pops[0]), Some(REVIVED));
        history.pops[0].owner = None;
        assert_eq!(OnItsWay::of(&history).hides(&history.pops[0]), None);
    }

    #[test]
    fn a_lost_receive_explains_as_many_messages_as_it_wanted_of_its_store_group_group_and_topic() {
        let mut history = handed_out();
        let (before, after) = (history.second(5), history.second(8));
        history.lost(before, 7);
        let lost = &mut history.lost_receives[0];
        (lost.owner, lost.most, lost.gave_back, lost.at.number) = (Some(OWNER), 2, false, before.number + 1);
        let one = StoreGroupId(1);
        let mut known = OnItsWay::of(&history);
        assert!(!known.had(StoreGroupId(2), 1, 1, before) && !known.had(one, 2, 1, before));
        assert!(!known.had(one, 1, 2, before) && !known.had(one, 1, 1, after));
        assert!(known.had(one, 1, 1, before) && known.had(one, 1, 1, before) && !known.had(one, 1, 1, before));
        history.lost_receives[0].owner = Some(ClientHash(2));
        assert!(!OnItsWay::of(&history).had(one, 1, 1, before));
    }

    #[test]
    fn a_lost_receive_that_was_taken_back_explains_nothing_unless_the_store_died_at_once() {
        let mut history = handed_out();
        let before = history.second(5);
        history.lost(before, 7);
        history.lost_receives[0].owner = Some(OWNER);
        let had = |history: &History| OnItsWay::of(history).had(StoreGroupId(1), 1, 1, before);
        assert!(!had(&history));
        history.led("store-a#2", 2, 18);
        assert!(!had(&history));
        history.led("store-a#3", 3, 9);
        assert!(had(&history));
    }
}
