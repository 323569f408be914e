//! Nothing is invented: whatever is delivered was sent before, to that topic (or to the one where it became a dead letter),
//! with that body.

use super::{Invariant, Report};
use crate::history::{History, Send};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "nothing invented", check };

fn check(history: &History, report: &mut Report) {
    let sent: BTreeMap<&str, &Send> = history.sends.iter().map(|send| (&*send.id, send)).collect();
    for delivery in &history.deliveries {
        let (id, topic) = (&delivery.id, &delivery.position.topic);
        let what = match sent.get(&**id) {
            None => format!("{id} was delivered on {topic} and never sent"),
            Some(send) if send.began > delivery.received => format!("{id} was delivered before it was sent"),
            Some(send) if send.digest != delivery.digest => format!("{id} was delivered with another body"),
            Some(send) if send.topic != *topic && !topic.starts_with("%DLQ%") => {
                format!("{id} was sent to {} and delivered on {topic}", send.topic)
            }
            Some(_) => continue,
        };
        report.add(Some(delivery.received.at), what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn what_was_never_sent_is_reported() {
        let mut history = history();
        history.sent("a", 1, Outcome::Unknown, None);
        history.delivered("t", "a", 0, 1, 5);
        holds(&INVARIANT, &history);
        history.delivered("t", "phantom", 1, 1, 6);
        is_broken(&INVARIANT, &history, "phantom was delivered on t and never sent");
    }

    #[test]
    fn a_damaged_body_and_a_wrong_topic_are_reported() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("%DLQ%g", "a", 0, 1, 6);
        holds(&INVARIANT, &history);
        history.deliveries[0].digest ^= 1;
        is_broken(&INVARIANT, &history, "another body");
        history.deliveries[0].digest ^= 1;
        history.delivered("other", "a", 0, 1, 7);
        is_broken(&INVARIANT, &history, "delivered on other");
    }
}
