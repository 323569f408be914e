//! Attempts grow by one with each delivery, never beyond the group's maximum; past it a message becomes a dead letter, once,
//! and only if it was not acknowledged.
//!
//! Clients may miss deliveries, so for them attempts grow. Stores hand out one after the other, unless the answer was lost on
//! its way out of the store, or a power failure took back a delivery that nothing had flushed yet; who asks that a delivery be
//! none gets the same attempt again; and a message is a dead letter after as many as the group wants.

use super::{Invariant, Report, leases};
use crate::history::{Ack, Delivery, History, LostReceive, Moment, Outcome, Place, Pop, Position, Touch, Wish};
use gantry_proto::model::StoreGroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(super) const INVARIANT: Invariant = Invariant { name: "attempts are counted", check };

/// A lease lasts as long at least, on any clock: no consumer asks for one that is shorter than 1.5 s.
const LEASE_MIN: Duration = Duration::from_millis(1300);

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    as_clients_see(history, report);
    as_stores_see(history, report);
    what_is_lost_is_given_back(history, report);
    dead_letters(history, report);
    dead_letters_had_their_attempts(history, report);
}

fn as_clients_see(history: &History, report: &mut Report) {
    let mut last: BTreeMap<(&str, &Position), Vec<&Delivery>> = BTreeMap::new();
    for delivery in &history.deliveries {
        let (id, group, attempt) = (&delivery.id, &delivery.group, delivery.attempt);
        let at = Some(delivery.received.at);
        if let Some(max) = history.groups.get(group).map(|group| group.max_attempts)
            && attempt > max
        {
            report
                .add(at, format!("{id} was delivered to {group} for the {attempt}th time, at most {max} are allowed"));
        }
        let before = last.entry((group, &delivery.position)).or_default();
        // A delivery that was taken back does not count.
        for earlier in before.iter().filter(|earlier| earlier.kept && earlier.received < delivery.began) {
            let machine = history.machine_of(&delivery.position);
            let lost = history.delivery_lost(machine, earlier.began.at, earlier.received.at, delivery.received.at);
            let again = attempt == earlier.attempt && (lost || suspended(history, earlier));
            if attempt <= earlier.attempt && !again {
                report.add(at, format!("{id} was delivered to {group} as attempt {attempt} after {}", earlier.attempt));
            }
        }
        before.push(delivery);
    }
}

fn as_stores_see(history: &History, report: &mut Report) {
    let mut hides: BTreeMap<(Place, u32), Vec<&Touch>> = BTreeMap::new();
    for touch in history.touches.iter().filter(|touch| matches!(touch.wish, Wish::Hide { .. })) {
        hides.entry((touch.position, touch.attempt)).or_default().push(touch);
    }
    let mut last: BTreeMap<Place, &Pop> = BTreeMap::new();
    for pop in &history.pops {
        let before = last.insert(pop.position, pop);
        let (mut least, mut most) = (1, 1);
        if let Some(before) = before {
            let hides = hides.get(&(pop.position, before.attempt)).map_or(&[][..], |hides| hides);
            let hides = hides.iter().filter(|hide| {
                hide.began > before.answered && hide.began < pop.answered && hide.outcome != Outcome::Refused
            });
            let hides: Vec<&&Touch> = hides.collect();
            let uncounted = |hide: &&&Touch| matches!(hide.wish, Wish::Hide { counted: false, .. });
            let (all, some) = (hides.iter().all(uncounted), hides.iter().any(uncounted));
            let known = matches!(&hides[..], [only] if only.outcome == Outcome::Done);
            // One of several decides, nobody knows which.
            least = before.attempt + u32::from(!some);
            most = before.attempt + u32::from(!(some && all && known));
            let machine = history.machines.get(&pop.store_group);
            if history.delivery_lost(machine, before.began.at, before.answered.at, pop.answered.at) {
                least = least.min(before.attempt);
            }
        }
        // Receives that were lost had one each, perhaps, and gave it back, perhaps.
        let since = before.map_or(0, |before| before.answered.number);
        let (group, topic, queue, offset) = pop.position;
        let lost = history.lost_receives.iter().filter(|lost| {
            (lost.store_group, lost.group, lost.topic) == (pop.store_group, group, topic)
                && lost.at.number > since
                && lost.began < pop.answered
        });
        most += lost.count() as u32;
        let (attempt, process) = (pop.attempt, &pop.process);
        if !(least..=most).contains(&attempt) {
            let what = format!(
                "{process} handed out offset {offset} of queue {queue} of topic {topic} to group {group} as attempt {attempt}, \
                 expected {least} to {most}"
            );
            report.add(Some(pop.answered.at), what);
        }
    }
}

/// A receive that nobody waits for any more gives back what it took, if its store can still write.
fn what_is_lost_is_given_back(history: &History, report: &mut Report) {
    for lost in history.lost_receives.iter().filter(|lost| lost.able && lost.took > 0 && !lost.gave_back) {
        // There may have been no room for it.
        let machine = history.machines.get(&lost.store_group);
        let spoiled = |(spoiled, at): &(Arc<str>, Moment)| machine == Some(spoiled) && at.at <= lost.at.at;
        // Or the lease had ended.
        let stalled = machine.is_none_or(|machine| history.stalled(machine, lost.began.at, lost.at.at));
        if !history.spoiled.iter().any(spoiled) && !stalled {
            let LostReceive { process, group, topic, took, .. } = lost;
            let what = format!("{process} kept {took} messages of topic {topic} that group {group} did not wait for");
            report.add(Some(lost.at.at), what);
        }
    }
}

/// A dead letter was delivered as often as its group wants.
fn dead_letters_had_their_attempts(history: &History, report: &mut Report) {
    let mut last: BTreeMap<(StoreGroupId, &str, &str), &Pop> = BTreeMap::new();
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    for pop in &history.pops {
        numbers.insert(&pop.group, pop.position.0);
        let used = last.entry((pop.store_group, &*pop.group, &*pop.id)).or_insert(pop);
        if pop.attempt > used.attempt {
            *used = pop;
        }
    }
    for pop in history.pops.iter().filter(|pop| pop.attempt == 1) {
        let Some(group) = pop.topic.strip_prefix("%DLQ%") else { continue };
        let Some(max) = history.groups.get(group).map(|group| group.max_attempts) else { continue };
        let last = last.get(&(pop.store_group, group, &*pop.id));
        let used = last.map_or(0, |last| last.attempt);
        let asked = last.is_some_and(|last| {
            let buries = |touch: &&Touch| touch.wish == Wish::Bury && touch.position == last.position;
            history.touches.iter().any(|touch| buries(&touch) && touch.store_group == pop.store_group)
        });
        // A receive that was lost may have had it, and each of them once.
        let lost = history.lost_receives.iter().filter(|lost| {
            lost.store_group == pop.store_group
                && numbers.get(group).is_none_or(|number| *number == lost.group)
                && last.is_none_or(|last| lost.topic == last.position.1 && lost.at > last.answered)
                && lost.at < pop.answered
                && was_an_attempt(history, lost)
        });
        if used.saturating_add(lost.count() as u32) < max && !asked {
            let (id, at) = (&pop.id, Some(pop.answered.at));
            report.add(at, format!("{id} is a dead letter of {group} after {used} deliveries, it wants {max}"));
        }
    }
}

/// Whether what a lost receive had taken may have been delivered to nobody and count all the same. What was given back does
/// not: unless its lease had ended by then, or the store died before it had written that down.
pub(super) fn was_an_attempt(history: &History, lost: &LostReceive) -> bool {
    let died = || history.leases.iter().any(|lease| lease.begins && lease.heard > lost.at);
    !lost.gave_back || lost.at.at > lost.began.at + LEASE_MIN || died()
}

fn dead_letters(history: &History, report: &mut Report) {
    for group in history.groups.keys() {
        let graves = History::dead_letters_of(group);
        let mut copies: BTreeMap<&Arc<str>, BTreeSet<&Position>> = BTreeMap::new();
        for delivery in history.deliveries.iter().filter(|delivery| *delivery.position.topic == graves) {
            copies.entry(&delivery.id).or_default().insert(&delivery.position);
        }
        for (id, copies) in copies {
            // A message whose send was repeated at another store group has two positions, each with its own fate.
            let of_it = |delivery: &&Delivery| delivery.id == *id && delivery.group == *group;
            let originals: BTreeSet<&Position> =
                history.deliveries.iter().filter(of_it).map(|delivery| &delivery.position).collect();
            let acked = history.acks.iter().any(|ack| {
                ack.id == *id && ack.group == *group && ack.outcome == Outcome::Done && while_leased(history, ack)
            });
            let allowed = originals.len().max(1);
            if copies.len() > allowed {
                report.add(None, format!("{id} is {} dead letters of {group}", copies.len()));
            } else if originals.len() == 1 && acked {
                report.add(None, format!("{id} was acknowledged by {group} and is among its dead letters"));
            }
        }
    }
}

/// Whether somebody asked that the delivery be no attempt.
fn suspended(history: &History, delivery: &Delivery) -> bool {
    history.hides.iter().any(|hide| {
        hide.suspends
            && hide.outcome != Outcome::Refused
            && (&hide.group, &hide.position, hide.received) == (&delivery.group, &delivery.position, delivery.received)
    })
}

/// Whether an acknowledgement was answered before the delivery's lease can have ended. Later ones are answered with success
/// if the message is finished, be it as a dead letter.
fn while_leased(history: &History, ack: &Ack) -> bool {
    let of_it = |delivery: &&Delivery| {
        delivery.group == ack.group && delivery.position == ack.position && delivery.attempt == ack.attempt
    };
    let machine = history.machine_of(&ack.position);
    let lasts = |delivery: &Delivery| leases::lasts_until(history, machine, &ack.group, &ack.position, delivery);
    let ahead = |delivery: &Delivery, to| history.set_ahead(machine, delivery.began.at, to);
    let mut deliveries = history.deliveries.iter().filter(of_it).filter(|delivery| delivery.kept);
    ack.ended.is_some_and(|ended| deliveries.any(|delivery| ended.at + ahead(delivery, ended.at) < lasts(delivery)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_attempt_that_does_not_grow_is_reported() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 3, 25);
        holds(&INVARIANT, &history);
        history.delivered("t", "a", 0, 3, 45);
        is_broken(&INVARIANT, &history, "as attempt 3 after 3");
    }

    #[test]
    fn more_attempts_than_allowed_are_reported() {
        let mut history = history();
        history.delivered("t", "a", 0, 4, 5);
        is_broken(&INVARIANT, &history, "for the 4th time, at most 3");
    }

    #[test]
    fn a_store_that_skips_an_attempt_is_reported_unless_an_answer_was_lost() {
        let mut history = history();
        for attempt in [1, 2, 4] {
            history.popped("a", 0, attempt, u64::from(attempt));
        }
        is_broken(&INVARIANT, &history, "as attempt 4, expected 3");
        let began = history.pops[1].answered;
        history.lost(began, 3);
        holds(&INVARIANT, &history);
        history.pops[2].attempt = 5;
        is_broken(&INVARIANT, &history, "as attempt 5, expected 3 to 4");
        history.pops[2].attempt = 2;
        is_broken(&INVARIANT, &history, "as attempt 2, expected 3");
    }

    #[test]
    fn a_power_failure_takes_back_the_attempt_that_was_made_just_before_it() {
        let mut history = history();
        history.popped("a", 0, 1, 1);
        history.popped("a", 0, 1, 4);
        history.delivered("t", "a", 0, 1, 1);
        history.delivered("t", "a", 0, 1, 4);
        is_broken(&INVARIANT, &history, "as attempt 1, expected 2");
        let at = history.moment(Duration::from_millis(1_800));
        history.power_failures.push(("store-a".into(), at));
        holds(&INVARIANT, &history);
        history.power_failures[0].0 = "store-b".into();
        is_broken(&INVARIANT, &history, "as attempt 1 after 1");
    }

    #[test]
    fn a_delivery_that_was_none_counts_no_attempt_and_any_other_counts() {
        let mut history = history();
        let invisible = seconds(1);
        history.popped("a", 0, 1, 1);
        history.touched(0, 1, Wish::Hide { invisible, counted: false }, 2, Outcome::Done);
        history.popped("a", 0, 1, 4);
        holds(&INVARIANT, &history);
        history.pops[1].attempt = 2;
        is_broken(&INVARIANT, &history, "as attempt 2, expected 1 to 1");
        history.touches[0].outcome = Outcome::Unknown;
        holds(&INVARIANT, &history);
        history.touches[0].outcome = Outcome::Refused;
        holds(&INVARIANT, &history);
        history.pops[1].attempt = 1;
        is_broken(&INVARIANT, &history, "as attempt 1, expected 2 to 2");
        (history.touches[0].wish, history.touches[0].outcome) =
            (Wish::Hide { invisible, counted: true }, Outcome::Done);
        is_broken(&INVARIANT, &history, "as attempt 1, expected 2 to 2");
    }

    #[test]
    fn a_receive_that_keeps_what_nobody_waits_for_is_reported_if_the_store_could_have_written() {
        let mut history = history();
        let began = history.second(1);
        history.lost(began, 3);
        holds(&INVARIANT, &history);
        history.lost_receives[0].gave_back = false;
        is_broken(&INVARIANT, &history, "store-a#1 kept 1 messages");
        history.lost_receives[0].able = false;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_dead_letter_that_was_delivered_too_seldom_is_reported() {
        let mut history = history();
        (1..=3).for_each(|attempt| history.popped("a", 0, attempt, u64::from(attempt)));
        history.popped("a", 0, 1, 9);
        (history.pops[3].topic, history.pops[3].position.1) = ("%DLQ%g".into(), 2);
        holds(&INVARIANT, &history);
        let third = history.pops.remove(2);
        is_broken(&INVARIANT, &history, "a is a dead letter of g after 2 deliveries, it wants 3");
        // One that was lost had it, perhaps, if that was of the group and after the second one, and if it was not given back.
        history.lost(third.began, 3);
        (history.lost_receives[0].able, history.lost_receives[0].at) = (false, third.answered);
        is_broken(&INVARIANT, &history, "after 2 deliveries");
        history.lost_receives[0].gave_back = false;
        holds(&INVARIANT, &history);
        history.lost_receives[0].group = 2;
        is_broken(&INVARIANT, &history, "after 2 deliveries");
        (history.lost_receives[0].group, history.lost_receives[0].at) = (1, history.pops[0].answered);
        is_broken(&INVARIANT, &history, "after 2 deliveries");
    }

    #[test]
    fn a_message_is_a_dead_letter_once_and_never_if_it_was_acknowledged() {
        let mut history = history();
        history.delivered("t", "a", 0, 3, 5);
        history.delivered("%DLQ%g", "a", 0, 1, 60);
        holds(&INVARIANT, &history);
        history.delivered("%DLQ%g", "a", 1, 1, 61);
        is_broken(&INVARIANT, &history, "a is 2 dead letters of g");
        history.deliveries.pop();
        history.acked("a", 0, 3, 6, Outcome::Done);
        is_broken(&INVARIANT, &history, "acknowledged by g and is among its dead letters");
        history.acks[0].ended = Some(history.second(16));
        holds(&INVARIANT, &history);
    }
}
