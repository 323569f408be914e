//! The messages of one request are stored all or none, whatever was answered. Of a topic that was deleted perhaps only some
//! were delivered before.

use super::{Invariant, Report};
use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const INVARIANT: Invariant = Invariant { name: "requests are whole", check };

fn check(history: &History, report: &mut Report) {
    if history.drained.is_none() || history.disk_was_copied {
        return;
    }
    let seen: BTreeSet<&str> = history.deliveries.iter().map(|delivery| &*delivery.id).collect();
    let mut requests: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let deleted = |topic: &Arc<str>| history.deletions.iter().any(|(deleted, _)| deleted == topic);
    for send in history.sends.iter().filter(|send| !deleted(&send.topic)) {
        requests.entry((&send.client, &send.request)).or_default().push(&send.id);
    }
    for ids in requests.into_values().filter(|ids| ids.len() > 1) {
        let (there, missing): (Vec<&str>, Vec<&str>) = ids.into_iter().partition(|id| seen.contains(id));
        let missing: Vec<&str> = missing.into_iter().filter(|id| !history.is_gone(None, None, id)).collect();
        if !there.is_empty() && !missing.is_empty() {
            report.add(None, format!("of one request {there:?} are there and {missing:?} are not"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn a_part_of_a_request_is_reported_at_the_end() {
        let mut history = history();
        history.sent("a", 1, Outcome::Unknown, None);
        history.sent("b", 1, Outcome::Unknown, None);
        history.sends[1].request = "a".into();
        history.drained_at(60);
        holds(&INVARIANT, &history);
        history.delivered("t", "a", 0, 1, 5);
        is_broken(&INVARIANT, &history, "of one request [\"a\"] are there and [\"b\"] are not");
        let deleted = history.second(9);
        history.deletions.push(("another".into(), deleted));
        is_broken(&INVARIANT, &history, "are not");
        history.deletions[0].0 = "t".into();
        holds(&INVARIANT, &history);
        history.deletions.clear();
        history.delivered("t", "b", 1, 1, 5);
        holds(&INVARIANT, &history);
    }
}
