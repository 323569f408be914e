//! What was acknowledged (and therefore synced) is delivered at least once to every group that consumes its topic, or is
//! among the group's dead letters at the end, unless it is gone: with a lost disk, removed as old, or shown as damaged.

use super::{Invariant, Report};
use crate::history::{History, Outcome, Send};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const INVARIANT: Invariant = Invariant { name: "acknowledged is delivered", check };

fn check(history: &History, report: &mut Report) {
    if history.drained.is_none() || history.disk_was_copied {
        return;
    }
    let seen: BTreeSet<(&str, &str, &str)> =
        history.deliveries.iter().map(|d| (&*d.group, &*d.position.topic, &*d.id)).collect();
    let dead: BTreeSet<(&str, &str)> = history.deliveries.iter().map(|d| (&*d.position.topic, &*d.id)).collect();
    for (group, of) in &history.groups {
        let graves = History::dead_letters_of(group);
        let topics: BTreeSet<&Arc<str>> = of.topics.iter().collect();
        let wanted = |send: &&Send| topics.contains(&send.topic) && (of.tag.is_none() || send.tag == of.tag);
        let lost = history.sends.iter().filter(|send| send.outcome == Outcome::Done).filter(wanted).filter(|send| {
            // Whoever deletes a topic means its messages.
            let deleted = history.deletions.iter().any(|(topic, _)| *topic == send.topic);
            let there = seen.contains(&(&**group, &*send.topic, &*send.id)) || dead.contains(&(&*graves, &*send.id));
            !deleted && !there && !history.is_gone(None, None, &send.id)
        });
        for send in lost {
            let (id, topic, client) = (&send.id, &send.topic, &send.client);
            let what = format!("{id} was acknowledged to {client} on {topic} and never delivered to {group}");
            report.add(send.ended.map(|ended| ended.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_lost_message_is_reported_once_the_end_was_waited_for() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.sent("b", 1, Outcome::Done, Some(1));
        history.delivered("t", "a", 0, 1, 5);
        holds(&INVARIANT, &history);
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "b was acknowledged");
        history.delivered("t", "b", 1, 1, 61);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn only_what_a_group_subscribes_to_can_be_lost_to_it_and_nothing_of_a_deleted_topic() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.drained_at(60);
        history.groups.get_mut("g").unwrap().tag = Some("blue".into());
        holds(&INVARIANT, &history);
        history.sends[0].tag = Some("blue".into());
        is_broken(&INVARIANT, &history, "a was acknowledged");
        let at = history.second(50);
        history.deletions.push(("t".into(), at));
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_dead_letter_is_not_lost_and_an_unknown_send_may_be() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.sent("u", 1, Outcome::Unknown, None);
        history.sent("r", 1, Outcome::Refused, None);
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "a was acknowledged");
        history.delivered("%DLQ%g", "a", 0, 1, 61);
        holds(&INVARIANT, &history);
    }
}
