//! In the end everything is settled: each message that was ever handed out to a consumer group, by whatever store, to whatever
//! kind of client, and whether it arrived or not, has been acknowledged or is among the group's dead letters. All clients that are
//! left acknowledge whatever they get, but for what becomes a dead letter.
//!
//! So what a client held when it died, or let its lease end, comes to another one; what was lost on its way comes again; and
//! what nobody acknowledges is buried.

use super::{Invariant, Report};
use crate::history::{History, Outcome, Place, Pop, Renewal, Wish};
use gantry_proto::model::StoreGroupId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const INVARIANT: Invariant = Invariant { name: "everything is settled", check };

/// What the product is known not to hold.
pub(super) const LOST_ON_ITS_WAY: &str = "a delivery that was lost on its way to a push client is renewed for it all the same, and hidden \
                               while it lives: what is renewed is not yet what arrived (issue 11)";

const REVIVED: &str = "an acknowledgement that comes when the lease has ended is refused, and the next renewal of the client's \
                       leases brings that lease back all the same: the message is hidden while the client lives, which \
                       has dropped it (issue 11)";

fn check(history: &History, report: &mut Report) {
    if history.drained.is_none() || history.disk_was_copied {
        return;
    }
    let mut settled: BTreeSet<(StoreGroupId, Place)> = BTreeSet::new();
    for touch in history.touches.iter().filter(|touch| touch.outcome != Outcome::Refused) {
        if !matches!(touch.wish, Wish::Hide { .. }) {
            settled.insert((touch.store_group, touch.position));
        }
    }
    let letters: BTreeSet<(StoreGroupId, &str, &str)> = (history.pops.iter())
        .filter_map(|pop| Some((pop.store_group, pop.topic.strip_prefix("%DLQ%")?, &*pop.id)))
        .collect();
    let mut last: BTreeMap<(StoreGroupId, Place), &Pop> = BTreeMap::new();
    for pop in &history.pops {
        last.insert((pop.store_group, pop.position), pop);
    }
    for (place, pop) in last {
        let buried = letters.contains(&(pop.store_group, &*pop.group, &*pop.id));
        let deleted = history.deletions.iter().any(|(topic, _)| *topic == pop.topic);
        if settled.contains(&place) || buried || deleted {
            continue;
        }
        let Pop { id, group, topic, attempt, .. } = pop;
        let max = history.groups.get(group).map_or(u32::MAX, |group| group.max_attempts);
        let became = if *attempt >= max { "no dead letter" } else { "handed out to nobody after" };
        let what =
            format!("{id} of {topic} was handed out to {group} (attempt {attempt}), not acknowledged, and {became}");
        let at = Some(pop.answered.at);
        let (group_number, topic_number, ..) = pop.position;
        let lost = history.lost_for_an_owner(group_number, topic_number, pop.answered);
        if lost || (pop.owner.is_some() && !arrived(history, pop)) {
            report.add_known(at, what, LOST_ON_ITS_WAY);
        } else if came_too_late(history, pop) {
            report.add_known(at, what, REVIVED);
        } else {
            report.add(at, what);
        }
    }
}

/// Whether its last delivery was acknowledged when it had ended, and its client's leases were renewed after that.
fn came_too_late(history: &History, pop: &Pop) -> bool {
    let Some(owner) = pop.owner else { return false };
    let refused = history.touches.iter().filter(|touch| {
        (touch.store_group, touch.position, touch.attempt) == (pop.store_group, pop.position, pop.attempt)
            && touch.wish == Wish::Acknowledge
            && touch.outcome == Outcome::Refused
            && touch.began > pop.answered
    });
    let Some(first) = refused.map(|touch| touch.began).min() else { return false };
    let renews = |renewal: &Renewal| renewal.began > first && renewal.owners.contains(&owner);
    history.renewals.iter().any(|renewal| renewal.store_group == pop.store_group && renewal.done && renews(renewal))
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use gantry_proto::model::ClientHash;

    #[test]
    fn a_message_that_nobody_finished_is_reported_at_the_end() {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.popped("b", 1, 1, 5);
        history.touched(0, 1, Wish::Acknowledge, 6, Outcome::Done);
        holds(&INVARIANT, &history);
        history.drained_at(60);
        is_broken(
            &INVARIANT,
            &history,
            "b of t was handed out to g (attempt 1), not acknowledged, and handed out to nobody after",
        );
        history.touched(1, 1, Wish::Acknowledge, 6, Outcome::Refused);
        is_broken(&INVARIANT, &history, "b of t");
        history.touched(1, 1, Wish::Acknowledge, 7, Outcome::Unknown);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_message_without_attempts_must_become_a_dead_letter() {
        let mut history = history();
        (1..=3).for_each(|attempt| history.popped("a", 0, attempt, u64::from(attempt)));
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "(attempt 3), not acknowledged, and no dead letter");
        history.popped("a", 0, 1, 30);
        (history.pops[3].topic, history.pops[3].position.1) = ("%DLQ%g".into(), 2);
        history.touches.clear();
        history.pops[3].group = "graves".into();
        is_broken(&INVARIANT, &history, "a of %DLQ%g was handed out to graves");
        history.touched(0, 1, Wish::Acknowledge, 31, Outcome::Done);
        history.touches[0].position = history.pops[3].position;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_lease_that_is_brought_back_after_its_acknowledgement_was_refused_is_a_known_failure() {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.pops[0].owner = Some(ClientHash(1));
        history.delivered("t", "a", 0, 1, 5);
        history.touched(0, 1, Wish::Acknowledge, 20, Outcome::Refused);
        history.drained_at(60);
        let known = |history: &History| super::super::check_one(&INVARIANT, history)[0].known;
        assert_eq!(known(&history), None);
        let (began, ended) = (history.second(21), history.second(21));
        let (store_group, owners, invisible) = (StoreGroupId(1), vec![ClientHash(1)], seconds(5));
        history.renewals.push(Renewal { store_group, owners, invisible, began, ended, done: true });
        assert_eq!(known(&history), Some(REVIVED));
    }

    #[test]
    fn what_a_push_client_never_got_is_a_known_failure_and_what_it_got_is_none() {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.pops[0].owner = Some(ClientHash(1));
        history.drained_at(60);
        let known = |history: &History| super::super::check_one(&INVARIANT, history)[0].known;
        assert_eq!(known(&history), Some(LOST_ON_ITS_WAY));
        history.delivered("t", "a", 0, 1, 5);
        assert_eq!(known(&history), None);
        let began = history.second(6);
        history.lost(began, 7);
        assert_eq!(known(&history), None);
        history.lost_receives[0].owner = Some(ClientHash(2));
        assert_eq!(known(&history), Some(LOST_ON_ITS_WAY));
    }
}
