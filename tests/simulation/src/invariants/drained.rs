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
    use crate::history::Append;
    use gantry_proto::model::{Epoch, LogOffset, StoreGroupId};

    #[test]
    fn an_append_to_a_drained_store_group_is_reported() {
        let mut history = history();
        let answered = history.second(5);
        let (store_group, epoch, process) = (StoreGroupId(1), Epoch(1), "store-a#1".into());
        let (place, id, while_drained) = (LogOffset(0), "a".into(), false);
        history.appends.push(Append {
            process,
            store_group,
            epoch,
            written_in: epoch,
            topic: 1,
            place,
            id,
            while_drained,
            answered,
        });
        holds(&INVARIANT, &history);
        history.appends[0].while_drained = true;
        is_broken(&INVARIANT, &history, "store-a#1 appended a while its store group was being drained");
    }
}
