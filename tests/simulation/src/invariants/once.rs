//! A message is stored once: whatever is repeated, however often, a store group has one place for an id of a topic, and one
//! for its dead letter of a consumer group. So it answers every repetition with that place, and hands out no second one.
//!
//! A repetition that came to another store group is another matter: no group knows what another one has. And so is one that
//! came when the first copy was gone: with a disk, removed as old, or damaged.

use super::{Invariant, Report};
use crate::history::{Append, History, Pop};
use gantry_proto::model::StoreGroupId;
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "stored once", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut places: BTreeMap<(StoreGroupId, u32, &str), &Append> = BTreeMap::new();
    for append in &history.appends {
        let first = places.entry((append.store_group, append.topic, &append.id)).or_insert(append);
        if first.place == append.place {
            continue;
        }
        if !was_gone(history, first, append) {
            let (id, place, process, first) = (&append.id, append.place, &append.process, first.place);
            report.add(Some(append.answered.at), format!("{process} appended {id} at {place}, and it was at {first}"));
        }
        *first = append;
    }
    let mut pops: BTreeMap<(StoreGroupId, u32, &str), &Pop> = BTreeMap::new();
    for pop in &history.pops {
        let (_, topic, queue, offset) = pop.position;
        let first = pops.entry((pop.store_group, topic, &pop.id)).or_insert(pop);
        let (_, _, first_queue, first_offset) = first.position;
        if (first_queue, first_offset) == (queue, offset) {
            continue;
        }
        if !was_pop_gone(history, first, pop) {
            let (id, topic, process) = (&pop.id, &pop.topic, &pop.process);
            let (first, second) = ((first_queue, first_offset), (queue, offset));
            let what = format!("{process} has {id} twice on {topic}: {first:?} and {second:?} (queue, offset)");
            report.add(Some(pop.answered.at), what);
        }
        *first = pop;
    }
}

/// Whether the first copy was gone when the store decided on the second one: removed, damaged, or lost with its disk.
fn was_gone(history: &History, first: &Append, second: &Append) -> bool {
    first.place < second.retained_from
        || history.was_flipped(first.store_group, first.place, second.answered)
        || history.was_lost(first.store_group, second.answered)
}

/// The same of copies that were handed out, as far as it can be said: gone when the second one was.
fn was_pop_gone(history: &History, first: &Pop, second: &Pop) -> bool {
    let (_, topic, queue, offset) = first.position;
    let removed = || second.minima.get(&queue).is_some_and(|min| offset < *min);
    let flipped = || {
        let of_it = |append: &&Append| {
            (append.store_group, append.topic, append.offset) == (first.store_group, topic, offset)
                && append.id == first.id
        };
        let mut places = history.appends.iter().filter(of_it);
        places.any(|append| history.was_flipped(append.store_group, append.place, second.answered))
    };
    removed() || flipped() || history.was_lost(first.store_group, second.answered)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Flip;
    use gantry_proto::model::LogOffset;

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

    #[test]
    fn a_second_copy_is_as_it_should_be_if_the_first_one_was_gone_by_then_and_not_if_it_went_later() {
        let mut history = history();
        history.appended("a", 0, 1);
        history.appended("a", 300, 2);
        history.appends[1].retained_from = LogOffset(100);
        holds(&INVARIANT, &history);
        history.appended("a", 600, 3);
        history.appends[2].retained_from = LogOffset(100);
        is_broken(&INVARIANT, &history, "appended a at 600, and it was at 300");
        let at = history.second(4);
        let (store_group, place, end) = (StoreGroupId(1), LogOffset(300), LogOffset(310));
        history.flips.push(Flip { store_group, place, end, at });
        is_broken(&INVARIANT, &history, "appended a at 600, and it was at 300");
        history.flips[0].at = history.appends[0].answered;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn of_two_copies_that_are_handed_out_the_first_one_has_to_be_gone() {
        let mut history = history();
        history.popped("a", 3, 1, 5);
        history.popped("a", 1, 1, 6);
        // The second copy went, not the first one.
        history.pops[1].minima.insert(0, 2);
        is_broken(&INVARIANT, &history, "has a twice on t: (0, 3) and (0, 1)");
        history.pops[1].minima.insert(0, 4);
        holds(&INVARIANT, &history);
        history.popped("a", 3, 1, 7);
        is_broken(&INVARIANT, &history, "has a twice on t: (0, 1) and (0, 3)");
    }
}
