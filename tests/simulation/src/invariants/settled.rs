//! In the end everything is settled: each message that was ever handed out to a consumer group, by whatever store, to whatever
//! kind of client, and whether it arrived or not, has been acknowledged or is among the group's dead letters. All clients that are
//! left acknowledge whatever they get, but for what becomes a dead letter.
//!
//! So what a client held when it died, or let its lease end, comes to another one; what was lost on its way comes again; and
//! what nobody acknowledges is buried. What is gone (with a lost disk, removed as old, or shown as damaged) is out of it.

use super::on_its_way::{self, OnItsWay};
use super::{Invariant, Report};
use crate::history::{History, Outcome, Place, Pop, Wish};
use gantry_proto::model::StoreGroupId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const INVARIANT: Invariant = Invariant { name: "everything is settled", check };

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
    // The latest first, as is asked for below.
    let mut last: Vec<((StoreGroupId, Place), &Pop)> = last.into_iter().collect();
    last.sort_by_key(|(_, pop)| std::cmp::Reverse(pop.answered));
    let mut on_its_way = OnItsWay::of(history);
    for (place, pop) in last {
        let buried = letters.contains(&(pop.store_group, &*pop.group, &*pop.id));
        let deleted = history.deletions.iter().any(|(topic, _)| *topic == pop.topic);
        if settled.contains(&place) || buried || deleted || history.is_pop_gone(pop) {
            continue;
        }
        let Pop { id, group, topic, attempt, .. } = pop;
        let max = history.groups.get(group).map_or(u32::MAX, |group| group.max_attempts);
        let became = if *attempt >= max { "no dead letter" } else { "handed out to nobody after" };
        let what =
            format!("{id} of {topic} was handed out to {group} (attempt {attempt}), not acknowledged, and {became}");
        let at = Some(pop.answered.at);
        let (group_number, topic_number, ..) = pop.position;
        match on_its_way.hides(pop) {
            Some(why) => report.add_known(at, what, why),
            None if on_its_way.had(pop.store_group, group_number, topic_number, pop.answered) => {
                report.add_known(at, what, on_its_way::LOST);
            }
            None => report.add(at, what),
        }
    }
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
    fn what_is_known_is_said_to_be() {
        let mut history = history();
        let owner = ClientHash(1);
        history.popped("a", 0, 1, 5);
        history.pops[0].owner = Some(owner);
        history.drained_at(60);
        let known = |history: &History| super::super::check_one(&INVARIANT, history)[0].known;
        assert_eq!(known(&history), None);
        history.renewed(owner, 59);
        assert_eq!(known(&history), Some(on_its_way::LOST));
        history.delivered("t", "a", 0, 1, 5);
        assert_eq!(known(&history), None);
        let began = history.second(6);
        history.lost(began, 7);
        history.lost_receives[0].gave_back = false;
        assert_eq!(known(&history), None);
        history.lost_receives[0].owner = Some(owner);
        assert_eq!(known(&history), Some(on_its_way::LOST));
    }
}
