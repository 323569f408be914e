//! A consumer group that subscribes to one tag gets messages with that tag only. That it gets all of them is held by
//! `acknowledged is delivered`.

use super::{Invariant, Report};
use crate::history::{History, Send};
use std::collections::BTreeMap;

pub(super) const INVARIANT: Invariant = Invariant { name: "filters are kept", check };

fn check(history: &History, report: &mut Report) {
    let sent: BTreeMap<&str, &Send> = history.sends.iter().map(|send| (&*send.id, send)).collect();
    for delivery in &history.deliveries {
        let wanted = history.groups.get(&delivery.group).and_then(|group| group.tag.as_ref());
        let (Some(wanted), Some(send)) = (wanted, sent.get(&*delivery.id)) else { continue };
        if send.tag.as_ref() != Some(wanted) {
            let (id, group, tag) = (&delivery.id, &delivery.group, &send.tag);
            let what = format!("{id} with tag {tag:?} was delivered to {group}, which wants {wanted}");
            report.add(Some(delivery.received.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn a_message_that_its_receiver_did_not_subscribe_to_is_reported() {
        let mut history = history();
        history.sent("a", 1, Outcome::Done, Some(0));
        history.delivered("t", "a", 0, 1, 5);
        holds(&INVARIANT, &history);
        history.groups.get_mut("g").unwrap().tag = Some("blue".into());
        is_broken(&INVARIANT, &history, "a with tag None was delivered to g, which wants blue");
        history.sends[0].tag = Some("blue".into());
        holds(&INVARIANT, &history);
    }
}
