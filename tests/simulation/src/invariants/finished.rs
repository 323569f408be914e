//! No delivery after a durable acknowledgement: what a group was told is finished is not handed out to it again.

use super::{Invariant, Report};
use crate::history::{History, Moment, Outcome, Position};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "finished is finished", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut finished: BTreeMap<(&str, &Position), Moment> = BTreeMap::new();
    for ack in history.acks.iter().filter(|ack| ack.outcome == Outcome::Done) {
        if let Some(ended) = ack.ended {
            let first = finished.entry((&*ack.group, &ack.position)).or_insert(ended);
            *first = ended.min(*first);
        }
    }
    for delivery in &history.deliveries {
        // A receive that was asked before the acknowledgement was answered may have been served before it.
        if let Some(ended) = finished.get(&(&*delivery.group, &delivery.position))
            && delivery.began > *ended
        {
            let (id, group, attempt) = (&delivery.id, &delivery.group, delivery.attempt);
            let acked = ended.at.as_secs_f64();
            let what =
                format!("{id} was delivered to {group} (attempt {attempt}) after its acknowledgement at {acked:.3} s");
            report.add(Some(delivery.received.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_delivery_after_the_acknowledgement_is_reported() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.delivered("t", "a", 0, 1, 5);
        history.acked("a", 0, 1, 6, Outcome::Done);
        holds(&INVARIANT, &history);
        history.delivered("t", "a", 0, 2, 30);
        is_broken(&INVARIANT, &history, "a was delivered to g (attempt 2) after its acknowledgement");
    }

    #[test]
    fn an_acknowledgement_of_unknown_outcome_allows_both() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.acked("a", 0, 1, 6, Outcome::Unknown);
        history.acked("a", 0, 1, 7, Outcome::Refused);
        history.delivered("t", "a", 0, 2, 30);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_receive_that_was_under_way_may_still_bring_it() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        let began = history.second(6);
        history.acked("a", 0, 1, 7, Outcome::Done);
        history.delivered("t", "a", 0, 2, 16);
        history.deliveries[1].began = began;
        holds(&INVARIANT, &history);
    }
}
