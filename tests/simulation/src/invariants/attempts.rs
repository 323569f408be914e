//! Attempts grow by one with each delivery, never beyond the group's maximum; past it a message becomes a dead letter, once,
//! and only if it was not acknowledged.
//!
//! Clients may miss deliveries, so for them attempts grow; stores hand out one after the other, unless an answer was lost.

use super::{Invariant, Report, leases};
use crate::history::{Ack, Delivery, History, Outcome, Pop, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const INVARIANT: Invariant = Invariant { name: "attempts are counted", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    as_clients_see(history, report);
    as_stores_see(history, report);
    dead_letters(history, report);
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
            if attempt <= earlier.attempt {
                report.add(at, format!("{id} was delivered to {group} as attempt {attempt} after {}", earlier.attempt));
            }
        }
        before.push(delivery);
    }
}

fn as_stores_see(history: &History, report: &mut Report) {
    let mut last: BTreeMap<_, &Pop> = BTreeMap::new();
    for pop in &history.pops {
        let before = last.insert(pop.position, pop);
        let expected = before.map_or(1, |before| before.attempt + 1);
        if pop.attempt == expected {
            continue;
        }
        let ((group, topic, queue, offset), attempt) = (pop.position, pop.attempt);
        let since = before.map_or(0, |before| before.answered.number);
        let open = history.uncounted.iter().any(|uncounted| {
            (uncounted.group, uncounted.topic) == (group, topic)
                && (since..pop.answered.number).contains(&uncounted.at.number)
        });
        // One that was taken back is not counted, and one that was lost may be counted or not.
        if !open || attempt + 1 < expected {
            let process = &pop.process;
            let what = format!(
                "{process} handed out offset {offset} of queue {queue} of topic {topic} to group {group} as attempt {attempt}, \
                 expected {expected}"
            );
            report.add(Some(pop.answered.at), what);
        }
    }
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

/// Whether an acknowledgement was answered before the delivery's lease can have ended. Later ones are answered with success
/// if the message is finished, be it as a dead letter.
fn while_leased(history: &History, ack: &Ack) -> bool {
    let of_it = |delivery: &&Delivery| {
        delivery.group == ack.group && delivery.position == ack.position && delivery.attempt == ack.attempt
    };
    let lasts = |delivery: &Delivery| leases::lasts_until(history, &ack.group, &ack.position, delivery);
    let mut deliveries = history.deliveries.iter().filter(of_it).filter(|delivery| delivery.kept);
    ack.ended.is_some_and(|ended| deliveries.any(|delivery| ended.at + history.clocks_moved < lasts(delivery)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Uncounted;

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
            let answered = history.second(u64::from(attempt));
            history.pops.push(Pop { process: "store-a#1".into(), position: (1, 1, 0, 0), attempt, answered });
        }
        is_broken(&INVARIANT, &history, "as attempt 4, expected 3");
        let at = history.pops[1].answered;
        history.uncounted.push(Uncounted { group: 1, topic: 1, at });
        holds(&INVARIANT, &history);
        history.pops[2].attempt = 2;
        holds(&INVARIANT, &history);
        history.pops[2].attempt = 1;
        is_broken(&INVARIANT, &history, "as attempt 1, expected 3");
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
