//! The controller has the members that it was told to have: one whose addition was answered with success votes from then on
//! until somebody begins to remove it, and one whose removal was is no member ever again.

use super::{Invariant, Report};
use crate::history::{History, MemberChange, StatusSeen};

pub(super) const INVARIANT: Invariant = Invariant { name: "members are as told", check };

fn check(history: &History, report: &mut Report) {
    for seen in &history.statuses {
        for change in &history.member_changes {
            let Some(ended) = change.ended.filter(|ended| *ended < seen.began) else { continue };
            let number = change.number;
            let is = seen.members.get(&number).copied();
            if change.added && is != Some(true) && !removal_began(history, number, seen) {
                let told = if is.is_some() { "only learns" } else { "is no member" };
                let what = format!("member {number} was added at {:.3} s and {told}", ended.at.as_secs_f64());
                report.add(Some(seen.ended.at), what);
            } else if !change.added && is.is_some() {
                let what = format!("member {number} was removed at {:.3} s and is one again", ended.at.as_secs_f64());
                report.add(Some(seen.ended.at), what);
            }
        }
    }
}

/// Whether a status may show that somebody began to remove the member.
fn removal_began(history: &History, number: u64, seen: &StatusSeen) -> bool {
    let removes = |change: &&MemberChange| change.number == number && !change.added;
    history.member_changes.iter().filter(removes).any(|change| change.began < seen.ended)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::collections::BTreeMap;

    fn changed(history: &mut History, number: u64, added: bool, at: u64) {
        let (began, ended) = (history.second(at), history.second(at + 1));
        history.member_changes.push(MemberChange { number, added, began, ended: Some(ended) });
    }

    fn seen(history: &mut History, at: u64, members: &[(u64, bool)]) {
        let (began, ended) = (history.second(at), history.second(at));
        let members = members.iter().copied().collect();
        let (version, epochs, leader) = (1, BTreeMap::new(), None);
        history.statuses.push(StatusSeen { began, ended, version, epochs, leader, members });
    }

    #[test]
    fn a_member_that_was_added_votes_until_it_is_removed() {
        let mut history = history();
        seen(&mut history, 1, &[(1, true)]);
        changed(&mut history, 4, true, 2);
        seen(&mut history, 4, &[(1, true), (4, true)]);
        changed(&mut history, 4, false, 5);
        seen(&mut history, 7, &[(1, true)]);
        holds(&INVARIANT, &history);
        seen(&mut history, 8, &[(1, true), (4, false)]);
        is_broken(&INVARIANT, &history, "member 4 was removed at 6.000 s and is one again");
    }

    #[test]
    fn a_member_that_was_added_and_is_not_there_or_does_not_vote_is_reported() {
        let mut history = history();
        changed(&mut history, 4, true, 2);
        seen(&mut history, 4, &[(1, true)]);
        is_broken(&INVARIANT, &history, "was added at 3.000 s and is no member");
        history.statuses.clear();
        seen(&mut history, 5, &[(1, true), (4, false)]);
        is_broken(&INVARIANT, &history, "and only learns");
    }

    #[test]
    fn a_change_under_way_allows_both() {
        let mut history = history();
        changed(&mut history, 4, true, 2);
        history.member_changes[0].ended = None;
        seen(&mut history, 4, &[(1, true)]);
        holds(&INVARIANT, &history);
    }
}
