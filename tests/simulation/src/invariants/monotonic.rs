//! Nothing goes back: epochs of a store group grow with every leadership, what a store called confirmed stays confirmed
//! through every restart, and the metadata's version never decreases, for those who ask and within each process.

use super::{Invariant, Report};
use crate::history::{History, Lease, StatusSeen};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "nothing goes back", check };

fn check(history: &History, report: &mut Report) {
    let grants: Vec<&Lease> = history.leases.iter().filter(|lease| lease.begins).collect();
    for (index, later) in grants.iter().enumerate() {
        for earlier in grants[..index].iter().filter(|earlier| earlier.store_group == later.store_group) {
            // An answer may be late: only what was asked for after another answer must be greater than that.
            let ordered = earlier.heard < later.called;
            if later.epoch == earlier.epoch || (ordered && later.epoch < earlier.epoch) {
                let Lease { process, store_group, epoch, .. } = later;
                let (before, other) = (earlier.epoch, &earlier.process);
                let what = format!(
                    "{process} was granted epoch {epoch} of store group {store_group}, and {other} {before} before"
                );
                report.add(Some(later.heard.at), what);
            }
        }
    }
    let mut confirmed = BTreeMap::new();
    for said in history.confirmed.iter().filter(|_| !history.disk_was_copied) {
        if let Some(before) = confirmed.insert(said.store_group, said.to)
            && said.to < before
        {
            let what =
                format!("store group {} was confirmed up to {before} and is up to {}", said.store_group, said.to);
            report.add(Some(said.at.at), what);
        }
    }
    let mut versions = BTreeMap::new();
    for view in &history.views {
        if let Some(before) = versions.insert(&view.process, view.version)
            && view.version < before
        {
            let what = format!("{} saw version {before} of the metadata and then {}", view.process, view.version);
            report.add(Some(view.at.at), what);
        }
    }
    statuses(history, report);
}

/// What the controller tells is what it had told before that was asked, or later.
fn statuses(history: &History, report: &mut Report) {
    let mut asked: Vec<&StatusSeen> = history.statuses.iter().collect();
    asked.sort_by_key(|seen| seen.began);
    let mut answered = asked.clone();
    answered.sort_by_key(|seen| seen.ended);
    let (mut version, mut epochs) = (0, BTreeMap::new());
    let mut answered = answered.into_iter().peekable();
    for later in asked {
        while let Some(earlier) = answered.next_if(|earlier| earlier.ended < later.began) {
            version = version.max(earlier.version);
            for (group, epoch) in &earlier.epochs {
                let before = epochs.entry(*group).or_insert(*epoch);
                *before = (*before).max(*epoch);
            }
        }
        if later.version < version {
            let now = later.version;
            report.add(Some(later.ended.at), format!("the controller told version {now} after {version}"));
        }
        for (group, epoch) in &later.epochs {
            if let Some(before) = epochs.get(group).filter(|before| epoch < before) {
                let what = format!("the controller told epoch {epoch} of store group {group} after {before}");
                report.add(Some(later.ended.at), what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::{Confirmed, ViewSeen};
    use gantry_proto::model::{Epoch, LogOffset, StoreGroupId};

    #[test]
    fn an_epoch_that_is_granted_twice_is_reported() {
        let mut history = history();
        for (process, epoch) in [("a", 1), ("b", 2)] {
            let (called, heard) = (history.second(1), history.second(1));
            let (store_group, epoch) = (StoreGroupId(1), Epoch(epoch));
            let process = process.into();
            history.leases.push(Lease { process, store_group, epoch, called, heard, until: None, begins: true });
        }
        holds(&INVARIANT, &history);
        history.leases[1].epoch = Epoch(1);
        is_broken(&INVARIANT, &history, "b was granted epoch 1");
    }

    #[test]
    fn a_confirmed_position_that_shrinks_is_reported() {
        let mut history = history();
        for to in [10, 10, 20] {
            let at = history.second(to);
            history.confirmed.push(Confirmed { store_group: StoreGroupId(1), to: LogOffset(to), at });
        }
        holds(&INVARIANT, &history);
        history.confirmed[2].to = LogOffset(9);
        is_broken(&INVARIANT, &history, "was confirmed up to 10 and is up to 9");
    }

    #[test]
    fn a_version_that_goes_back_is_reported() {
        let mut history = history();
        for (process, version) in [("a", 3), ("b", 1), ("a", 4)] {
            let at = history.second(1);
            history.views.push(ViewSeen { process: process.into(), version, digest: version, at });
        }
        holds(&INVARIANT, &history);
        history.views[2].version = 2;
        is_broken(&INVARIANT, &history, "a saw version 3");
    }

    #[test]
    fn what_the_controller_tells_does_not_go_back_unless_the_calls_overlap() {
        let mut history = history();
        let told = |history: &mut History, version: u64, from: u64, to: u64| {
            let (began, ended) = (history.second(from), history.second(to));
            let epochs = BTreeMap::from([(1, version as u32)]);
            let (leader, members) = (None, BTreeMap::new());
            history.statuses.push(StatusSeen { began, ended, version, epochs, leader, members });
        };
        told(&mut history, 5, 1, 2);
        told(&mut history, 6, 3, 4);
        holds(&INVARIANT, &history);
        told(&mut history, 4, 5, 6);
        is_broken(&INVARIANT, &history, "told version 4 after 6");
        is_broken(&INVARIANT, &history, "told epoch 4 of store group 1 after 6");
        history.statuses[2].began = history.statuses[0].began;
        history.statuses.remove(1);
        holds(&INVARIANT, &history);
    }
}
