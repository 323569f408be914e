//! An outcome is what it says: a send that was answered with "nothing happened" is never delivered, and one of unknown
//! outcome counts neither as failed nor as succeeded.

use super::{Invariant, Report};
use crate::history::{History, Outcome};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "outcomes are true", check };

fn check(history: &History, report: &mut Report) {
    let mut refused = BTreeMap::new();
    for send in &history.sends {
        match (send.outcome, send.ended) {
            (Outcome::Done | Outcome::Refused, None) => {
                report.add(Some(send.began.at), format!("{} has an outcome and never ended", send.id));
            }
            (Outcome::Refused, Some(ended)) => {
                refused.insert(&*send.id, ended);
            }
            (Outcome::Done | Outcome::Unknown, _) => {}
        }
    }
    for delivery in &history.deliveries {
        if let Some(ended) = refused.get(&*delivery.id) {
            let (id, group, at) = (&delivery.id, &delivery.group, ended.at.as_secs_f64());
            let what = format!("{id} was refused at {at:.3} s, as if nothing had happened, and delivered to {group}");
            report.add(Some(delivery.received.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_refused_send_that_is_delivered_is_reported() {
        let mut history = history();
        history.sent("u", 1, Outcome::Unknown, None);
        history.delivered("t", "u", 0, 1, 5);
        holds(&INVARIANT, &history);
        history.sent("r", 1, Outcome::Refused, None);
        history.delivered("t", "r", 1, 1, 5);
        is_broken(&INVARIANT, &history, "r was refused");
    }

    #[test]
    fn a_send_that_never_ended_cannot_have_an_outcome() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        holds(&INVARIANT, &history);
        history.sends[0].ended = None;
        is_broken(&INVARIANT, &history, "never ended");
    }
}
