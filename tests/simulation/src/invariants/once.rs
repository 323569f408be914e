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
        if first != append.place {
            let (id, place, process) = (&append.id, append.place, &append.process);
            report.add(Some(append.answered.at), format!("{process} appended {id} at {place}, and it was at {first}"));
        }
    }
    let mut offsets = BTreeMap::new();
    for pop in &history.pops {
        let (_, topic, queue, offset) = pop.position;
        let first = *offsets.entry((pop.store_group, topic, &pop.id)).or_insert((queue, offset));
        if first != (queue, offset) {
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
    use crate::history::Append;
    use gantry_proto::model::{Epoch, LogOffset, StoreGroupId};

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
            let answered = history.second(place);
            history.appends.push(Append {
                process: "store-a#1".into(),
                store_group: StoreGroupId(1),
                epoch: Epoch(1),
                written_in: Epoch(1),
                topic: 1,
                place: LogOffset(place),
                id: "a".into(),
                while_drained: false,
                answered,
            });
        }
        is_broken(&INVARIANT, &history, "appended a at 300, and it was at 0");
        history.appends.pop();
        holds(&INVARIANT, &history);
    }
}
