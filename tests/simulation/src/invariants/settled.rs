//! In the end everything is settled: each message that was ever handed out to a consumer group, by whatever store, to whatever
//! kind of client, and whether it arrived or not, has been acknowledged or is among the group's dead letters. All clients that are
//! left acknowledge whatever they get, but for what becomes a dead letter.
//!
//! So what a client held when it died, or let its lease end, comes to another one; what was lost on its way comes again; and
//! what nobody acknowledges is buried. What is gone (with a lost disk, removed as old, or shown as damaged) is out of it.

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
        report.add(Some(pop.answered.at), what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

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
}
