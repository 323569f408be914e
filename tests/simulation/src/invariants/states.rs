//! States agree: a store that was asked to end and has ended is opened again as it was; and whoever sees a version of the
//! metadata sees the same as everybody else who ever saw it.

use super::{Invariant, Report};
use crate::history::History;
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "states agree", check };

fn check(history: &History, report: &mut Report) {
    for reopened in &history.reopened {
        let (process, before, after) = (&reopened.process, &reopened.before, &reopened.after);
        for (place, was) in &before.queues {
            let is = after.queues.get(place);
            if is != Some(was) {
                let what = format!("{process} opened (topic, queue) {place:?} as {is:?}, it was left as {was:?}");
                report.add(Some(reopened.at.at), what);
            }
        }
        let all: std::collections::BTreeSet<_> = before.progress.keys().chain(after.progress.keys()).collect();
        for place in all {
            let (was, is) = (before.progress.get(place), after.progress.get(place));
            if was != is {
                let what = format!("{process} opened (group, topic) {place:?} as {is:?}, it was left as {was:?}");
                report.add(Some(reopened.at.at), what);
            }
        }
    }
    let mut digests = BTreeMap::new();
    for view in &history.views {
        let (process, digest) = *digests.entry(view.version).or_insert((&view.process, view.digest));
        if digest != view.digest {
            let (version, other) = (view.version, &view.process);
            let what = format!("{process} and {other} saw different metadata of version {version}");
            report.add(Some(view.at.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::{Reopened, StoreState, ViewSeen};

    #[test]
    fn a_store_that_is_opened_with_another_state_than_it_ended_with_is_reported() {
        let mut history = history();
        let mut state = StoreState { queues: BTreeMap::new(), progress: BTreeMap::new() };
        state.queues.insert((1, 0), (0, 7));
        state.progress.insert((1, 1), (2, 1));
        let at = history.second(9);
        let (before, after) = (state.clone(), state);
        history.reopened.push(Reopened { process: "store-a#2".into(), before, after, at });
        holds(&INVARIANT, &history);
        history.reopened[0].after.progress.insert((1, 1), (3, 1));
        is_broken(&INVARIANT, &history, "(group, topic) (1, 1) as Some((3, 1)), it was left as Some((2, 1))");
        history.reopened[0].after.queues.clear();
        is_broken(&INVARIANT, &history, "(topic, queue) (1, 0) as None, it was left as (0, 7)");
    }

    #[test]
    fn two_that_see_one_version_differently_are_reported() {
        let mut history = history();
        for (process, version, digest) in [("a#1", 1, 7), ("b#1", 1, 7), ("a#1", 2, 8)] {
            let at = history.second(1);
            history.views.push(ViewSeen { process: process.into(), version, digest, at });
        }
        holds(&INVARIANT, &history);
        history.views[1].digest = 9;
        is_broken(&INVARIANT, &history, "a#1 and b#1 saw different metadata of version 1");
    }
}
