//! A member of the controller whose disk failed goes on by itself: its process does not end for it. Nothing in the simulation
//! damages its file, so there is never a reason to give up. That it serves again in the end is looked at by the run, which
//! waits for that.

use super::{Invariant, Report};
use crate::history::{GaveUp, History};

pub(super) const INVARIANT: Invariant = Invariant { name: "members go on by themselves", check };

fn check(history: &History, report: &mut Report) {
    for GaveUp { process, why, at } in &history.gave_up {
        report.add(Some(at.at), format!("{process} gave up: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_member_that_gives_up_is_reported() {
        let mut history = history();
        holds(&INVARIANT, &history);
        let at = history.second(5);
        history.gave_up.push(GaveUp { process: "controller-1#1".into(), why: "it is damaged".into(), at });
        is_broken(&INVARIANT, &history, "controller-1#1 gave up: it is damaged");
    }
}
