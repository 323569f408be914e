//! Whoever asks for messages gets those that are there: a receive that wants everything does not end empty-handed when for a
//! while before its end there was a message that nobody had, be it new or one whose lease had ended. So receives that wait are
//! woken, and what was let go of is handed out again no later than somebody asks.
//!
//! What could have hidden the message is not reported: another receive that was under way, one that was lost with what it
//! had taken, a process that stood still. Ends of leases are not looked at where the wall clock was ever moved.
//!
//! A client that holds the message may have held it for longer because it lives: its leases were renewed, or it received
//! something else there. But only if the store was told that the message had reached it, and if the client was not told that it
//! has it no more. So what no living client has is hidden for no longer than its first lease.

use super::attempts::was_an_attempt;
use super::{Invariant, Report};
use crate::history::{EmptyReceive, History, Outcome, Place, Pop, Renewal, Touch, Wish};
use gantry_proto::model::{ClientHash, LogOffset, StoreGroupId};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const INVARIANT: Invariant = Invariant { name: "who asks is served", check };

/// How long a message may be there before it is found.
const LATE: Duration = Duration::from_millis(700);

/// When each message of a topic was there, and where in the log.
type Stored<'a> = BTreeMap<&'a str, (Duration, LogOffset)>;

/// A message at a store group, for a consumer group.
#[derive(Default)]
struct Message<'a> {
    pops: Vec<&'a Pop>,
    touches: Vec<&'a Touch>,
}

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    // When each message was there for the first time, at the latest.
    let mut stored: BTreeMap<(StoreGroupId, u32), Stored<'_>> = BTreeMap::new();
    for append in &history.appends {
        let of_topic = stored.entry((append.store_group, append.topic)).or_default();
        of_topic.entry(&append.id).or_insert((append.answered.at, append.place));
    }
    let mut messages: BTreeMap<(StoreGroupId, u32, u32, &str), Message<'_>> = BTreeMap::new();
    let mut ids: BTreeMap<(StoreGroupId, Place), &str> = BTreeMap::new();
    for pop in &history.pops {
        let (group, topic, ..) = pop.position;
        ids.insert((pop.store_group, pop.position), &pop.id);
        messages.entry((pop.store_group, group, topic, &pop.id)).or_default().pops.push(pop);
    }
    for touch in &history.touches {
        let (group, topic, ..) = touch.position;
        if let Some(id) = ids.get(&(touch.store_group, touch.position)) {
            messages.entry((touch.store_group, group, topic, id)).or_default().touches.push(touch);
        }
    }
    for empty in history.empty_receives.iter().filter(|empty| empty.unfiltered) {
        let EmptyReceive { process, store_group, group, topic, began, ended, .. } = empty;
        let machine = history.machines.get(store_group);
        if machine.is_none_or(|machine| history.stalled(machine, began.at, ended.at)) {
            continue;
        }
        let Some(of_topic) = stored.get(&(*store_group, *topic)) else { continue };
        for (id, (since, place)) in of_topic {
            let message = messages.get(&(*store_group, *group, *topic, id));
            let Some(since) = there_since(history, empty, message, *since) else { continue };
            if since + LATE >= ended.at || may_be_spent(history, empty, message) {
                continue;
            }
            let gone = history.gone_since(*store_group, *place).is_some_and(|gone| gone.at < ended.at + LATE);
            let holder = message.and_then(|message| message.pops.iter().rfind(|pop| pop.answered < empty.ended));
            let held = holder.map_or(Duration::ZERO, |holder| held_until(history, empty, holder));
            let let_go = since.max(held);
            if gone || may_have_been_lost(history, empty, let_go) {
                continue;
            }
            let said = |since: Duration| {
                let since = since.as_secs_f64();
                format!("{process} had {id} for group {group} since {since:.3} s at least, and answered with nothing")
            };
            if let_go + LATE < ended.at {
                report.add(Some(ended.at), said(let_go));
            }
        }
    }
}

/// Since when nobody had the message at the end of the receive. `None`: somebody may have had it.
fn there_since(
    history: &History,
    empty: &EmptyReceive,
    message: Option<&Message<'_>>,
    stored: Duration,
) -> Option<Duration> {
    let Some(message) = message else { return Some(stored) };
    if message.pops.iter().any(|pop| pop.began < empty.ended && pop.answered > empty.began) {
        return None;
    }
    let Some(last) = message.pops.iter().rfind(|pop| pop.answered < empty.ended) else { return Some(stored) };
    let machine = history.machines.get(&empty.store_group)?;
    let max = history.groups.get(&last.group)?.max_attempts;
    if last.attempt >= max || history.clock_moved(machine, empty.ended.at) {
        return None;
    }
    let mut end = last.answered.at + slow(last.invisible);
    for touch in message.touches.iter().filter(|touch| touch.began < empty.ended && touch.outcome != Outcome::Refused) {
        match (touch.wish, touch.ended) {
            (Wish::Hide { invisible, .. }, Some(ended)) if ended < empty.ended => {
                end = end.max(ended.at + slow(invisible));
            }
            _ => return None,
        }
    }
    Some(end)
}

/// Whether the message may have had all its attempts: those that are known, and those of receives that were lost.
fn may_be_spent(history: &History, empty: &EmptyReceive, message: Option<&Message<'_>>) -> bool {
    let group = history.pops.iter().find(|pop| pop.position.0 == empty.group).map(|pop| &pop.group);
    let max = group.and_then(|group| history.groups.get(group)).map_or(u32::MAX, |group| group.max_attempts);
    let last = message.and_then(|message| message.pops.iter().rfind(|pop| pop.answered < empty.ended));
    let lost = history.lost_receives.iter().filter(|lost| {
        (lost.store_group, lost.group, lost.topic) == (empty.store_group, empty.group, empty.topic)
            && lost.began < empty.ended
            && last.is_none_or(|last| lost.at > last.answered)
            && was_an_attempt(history, lost)
    });
    last.map_or(0, |last| last.attempt).saturating_add(lost.count() as u32) >= max
}

/// How long a lease may last in true time at most.
fn slow(span: Duration) -> Duration {
    span + span / 8
}

/// Until when its last client may have held it because that lives: it was renewed, or it received something else there, which
/// gives it all that it holds of the topic for as long again, even what had ended and nobody else had got.
fn held_until(history: &History, empty: &EmptyReceive, last: &Pop) -> Duration {
    let Some(owner) = last.owner.filter(|owner| may_be_renewed(history, last, *owner, empty)) else {
        return Duration::ZERO;
    };
    let of_it = |pop: &&Pop| {
        let ((group, topic, ..), (last_group, last_topic, ..)) = (pop.position, last.position);
        pop.owner == Some(owner)
            && (pop.store_group, group, topic) == (last.store_group, last_group, last_topic)
            && pop.began < empty.ended
    };
    let received = history.pops.iter().filter(of_it).map(|pop| pop.answered.at + slow(pop.invisible));
    let renews = |renewal: &&Renewal| {
        renewal.store_group == last.store_group && renewal.began < empty.ended && renewal.owners.contains(&owner)
    };
    let renewed = history.renewals.iter().filter(renews).map(|renewal| renewal.ended.at + slow(renewal.invisible));
    received.chain(renewed).max().unwrap_or_default()
}

/// Whether the store may have been told that the client has it, and did not tell the client before the receive began that it
/// has it no more.
fn may_be_renewed(history: &History, pop: &Pop, owner: ClientHash, empty: &EmptyReceive) -> bool {
    let told = history.arrivals.iter().any(|arrival| {
        (arrival.store_group, arrival.owner) == (pop.store_group, owner)
            && (arrival.position, arrival.attempt) == (pop.position, pop.attempt)
            && arrival.began < empty.ended
    });
    let refused = history.touches.iter().any(|touch| {
        (touch.store_group, touch.position, touch.attempt) == (pop.store_group, pop.position, pop.attempt)
            && (touch.wish, touch.outcome) == (Wish::Acknowledge, Outcome::Refused)
            && touch.began > pop.answered
            && touch.ended.is_some_and(|ended| ended < empty.began)
    });
    told && !refused
}

/// Whether a receive may have taken it that was lost, or still has it.
fn may_have_been_lost(history: &History, empty: &EmptyReceive, since: Duration) -> bool {
    history.lost_receives.iter().any(|lost| {
        let back = lost.gave_back && lost.process == empty.process;
        let until = if back { lost.at.at } else { lost.at.at + lost.hidden };
        (lost.store_group, lost.group, lost.topic) == (empty.store_group, empty.group, empty.topic)
            && lost.began < empty.ended
            && until + LATE >= since
            && until + LATE >= empty.began.at
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Stall;

    #[test]
    fn a_receive_that_waits_and_is_not_woken_is_reported() {
        let mut history = history();
        history.appended("a", 0, 5);
        history.found_nothing(2, 5);
        holds(&INVARIANT, &history);
        history.empty_receives.clear();
        history.found_nothing(2, 7);
        is_broken(
            &INVARIANT,
            &history,
            "store-a#1 had a for group 1 since 5.000 s at least, and answered with nothing",
        );
        history.empty_receives[0].unfiltered = false;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_message_that_somebody_has_is_not_missed_until_its_lease_has_ended() {
        let mut history = history();
        history.appended("a", 0, 5);
        history.popped("a", 0, 1, 5);
        history.found_nothing(7, 16);
        holds(&INVARIANT, &history);
        history.found_nothing(16, 19);
        is_broken(&INVARIANT, &history, "since 16.250 s");
        let at = history.second(3);
        history.clock_moves.push(crate::history::ClockMove { machine: "store-a".into(), millis: 1, at });
        holds(&INVARIANT, &history);
        history.clock_moves.clear();
        history.touched(0, 1, Wish::Acknowledge, 15, Outcome::Unknown);
        is_broken(&INVARIANT, &history, "since 16.250 s");
        history.touches[0].began = history.pops[0].answered;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_message_whose_last_attempt_a_lost_receive_may_have_had_is_not_missed() {
        let mut history = history();
        history.appended("a", 0, 5);
        history.popped("a", 0, 2, 5);
        let began = history.second(6);
        history.lost(began, 7);
        history.found_nothing(18, 30);
        is_broken(&INVARIANT, &history, "since 16.250 s");
        history.lost_receives[0].gave_back = false;
        holds(&INVARIANT, &history);
        history.pops[0].attempt = 1;
        is_broken(&INVARIANT, &history, "and answered with nothing");
    }

    #[test]
    fn a_client_that_receives_holds_what_it_had_for_as_long_again() {
        let mut history = history();
        for (id, offset, at) in [("a", 0, 5), ("b", 1, 17)] {
            history.appended(id, offset, 5);
            history.popped(id, offset, 1, at);
        }
        history.found_nothing(18, 20);
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
        history.pops[0].owner = Some(ClientHash(1));
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
        history.pops[1].owner = Some(ClientHash(1));
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
        history.arrived(ClientHash(1), 0, 1, 7);
        history.arrivals[0].began = history.pops[0].answered;
        holds(&INVARIANT, &history);
        history.found_nothing(29, 31);
        is_broken(&INVARIANT, &history, "had a for group 1 since 28.250 s");
    }

    #[test]
    fn what_a_living_client_never_got_or_has_dropped_is_not_hidden_by_its_life() {
        let mut history = history();
        history.appended("a", 0, 5);
        history.popped("a", 0, 1, 5);
        history.pops[0].owner = Some(ClientHash(1));
        history.renewed(ClientHash(1), 15);
        history.found_nothing(18, 20);
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
        history.arrived(ClientHash(2), 0, 1, 7);
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
        history.arrived(ClientHash(1), 0, 1, 7);
        history.arrivals[1].began = history.pops[0].answered;
        holds(&INVARIANT, &history);
        history.touched(0, 1, Wish::Acknowledge, 16, Outcome::Refused);
        history.found_nothing(18, 20);
        is_broken(&INVARIANT, &history, "had a for group 1 since 16.250 s");
    }

    #[test]
    fn a_receive_that_was_lost_or_a_process_that_stood_still_may_explain_it() {
        let mut history = history();
        history.appended("a", 0, 5);
        let began = history.second(5);
        history.lost(began, 7);
        history.found_nothing(6, 8);
        holds(&INVARIANT, &history);
        history.found_nothing(8, 9);
        is_broken(&INVARIANT, &history, "since 5.000 s");
        let (from, to) = (history.second(8), Some(history.second(9)));
        history.stalls.push(Stall { machine: "store-a".into(), from, to });
        holds(&INVARIANT, &history);
    }
}
