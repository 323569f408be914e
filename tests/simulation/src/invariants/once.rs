//! A message is stored once: whatever is repeated, however often, a store group has one place for an id of a topic, and one
//! for its dead letter of a consumer group. So it answers every repetition with that place, and hands out no second one.
//!
//! A repetition that came to another store group is another matter: no group knows what another one has.

use super::{Invariant, Report};
use crate::history::History;
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "stored once", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut places = BTreeMap::new();
    for append in &history.appends {
        let first = *places.entry((append.store_group, append.topic, &append.id)).or_insert(append.place);
        // What is damaged or was removed is not known any more.
        if first != append.place && history.gone_since(append.store_group, first).is_none() {
            let (id, place, process) = (&append.id, append.place, &append.process);
            report.add(Some(append.answered.at), format!("{process} appended {id} at {place}, and it was at {first}"));
        }
    }
    let mut offsets = BTreeMap::new();
    for pop in &history.pops {
        let (_, topic, queue, offset) = pop.position;
        let first = *offsets.entry((pop.store_group, topic, &pop.id)).or_insert((queue, offset));
        if first != (queue, offset) && !history.is_pop_gone(pop) {
            let (id, topic, process) = (&pop.id, &pop.topic, &pop.process);
            let what =
                format!("{process} has {id} twice on {topic}: {first:?} and {:?} (queue, offset)", (queue, offset));
            report.add(Some(pop.answered.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use gantry_proto::model::StoreGroupId;

    #[test]
    fn a_second_copy_that_a_consumer_gets_is_reported_unless_another_store_group_has_it() {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.popped("a", 0, 2, 15);
        history.popped("b", 1, 1, 15);
        holds(&INVARIANT, &history);
        history.popped("a", 2, 1, 16);
        is_broken(&INVARIANT, &history, "has a twice on t: (0, 0) and (0, 2)");
        history.pops[3].store_group = StoreGroupId(2);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_repetition_that_is_answered_with_another_place_is_reported() {
        let mut history = history();
        for place in [0, 0, 300] {
            history.appended("a", place, place);
        }
        is_broken(&INVARIANT, &history, "appended a at 300, and it was at 0");
        history.appends.pop();
        holds(&INVARIANT, &history);
    }
}
