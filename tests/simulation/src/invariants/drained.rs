//! A store group that is being drained takes nothing new while others take it: a store that knows that does not append.

use super::{Invariant, Report};
use crate::history::History;
use std::collections::BTreeSet;

pub(super) const INVARIANT: Invariant = Invariant { name: "drained takes nothing", check };

fn check(history: &History, report: &mut Report) {
    let mut known = BTreeSet::new();
    for append in &history.appends {
        let is_new = known.insert((append.store_group, append.topic, &append.id));
        if append.while_drained && is_new {
            let (process, id) = (&append.process, &append.id);
            report.add(
                Some(append.answered.at),
                format!("{process} appended {id} while its store group was being drained"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn an_append_to_a_drained_store_group_is_reported() {
        let mut history = history();
        history.appended("a", 0, 5);
        holds(&INVARIANT, &history);
        history.appends[0].while_drained = true;
        is_broken(&INVARIANT, &history, "store-a#1 appended a while its store group was being drained");
    }
}
