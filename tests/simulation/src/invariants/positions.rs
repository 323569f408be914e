//! (topic, queue, offset) means one message for ever, for everybody who receives and for everybody who sent; and so does a
//! place in a store group's log, in every store that ever answered an append.

use super::{Invariant, Report};
use crate::history::{History, Outcome, Position};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "positions are for ever", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut meanings: BTreeMap<&Position, &str> = BTreeMap::new();
    let mut offsets: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for delivery in &history.deliveries {
        let Position { topic, queue, offset } = &delivery.position;
        let first = *meanings.entry(&delivery.position).or_insert(&delivery.id);
        if *first != *delivery.id {
            let what = format!("offset {offset} of queue {queue} of {topic} was {first} and is {}", delivery.id);
            report.add(Some(delivery.received.at), what);
        }
        offsets.entry((topic, &delivery.id)).or_default().push(*offset);
    }
    for send in history.sends.iter().filter(|send| send.outcome == Outcome::Done) {
        let (Some(told), Some(found)) = (send.offset, offsets.get(&(&*send.topic, &*send.id))) else { continue };
        if !found.contains(&(told as i64)) {
            let what = format!("{} was acknowledged at offset {told} and delivered from {found:?}", send.id);
            report.add(send.ended.map(|ended| ended.at), what);
        }
    }
    let mut appended = BTreeMap::new();
    for append in &history.appends {
        let (group, place) = (append.store_group, append.place);
        let first = *appended.entry((group, place)).or_insert(&append.id);
        if *first != append.id {
            let (process, id) = (&append.process, &append.id);
            let what =
                format!("{process} appended {id} at {place} of the log of store group {group}, where {first} is");
            report.add(Some(append.answered.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn an_offset_that_means_two_messages_is_reported() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 20);
        history.delivered("t", "b", 1, 1, 5);
        holds(&INVARIANT, &history);
        history.delivered("t", "c", 1, 1, 30);
        is_broken(&INVARIANT, &history, "was b and is c");
    }

    #[test]
    fn an_answer_that_names_another_offset_is_reported() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(3));
        history.delivered("t", "a", 3, 1, 5);
        holds(&INVARIANT, &history);
        history.sends[0].offset = Some(4);
        is_broken(&INVARIANT, &history, "acknowledged at offset 4");
    }

    #[test]
    fn a_place_in_the_log_that_is_given_twice_is_reported() {
        let mut history = history();
        history.appended("a", 0, 1);
        history.appended("a", 0, 1);
        holds(&INVARIANT, &history);
        history.appended("b", 0, 1);
        is_broken(&INVARIANT, &history, "appended b");
    }
}
