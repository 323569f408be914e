//! What a push consumer held when it died, or when it said goodbye, comes to another one of its group: at the end each message
//! that was delivered with automatic renewal has been acknowledged. All clients that are left do so with whatever they get.
//!
//! An acknowledgement that was refused may have been carried out: proxies repeat one that was not answered, and it is refused
//! if the lease would have ended meanwhile. So only a message whose last delivery nobody tried to acknowledge is reported.

use super::{Invariant, Report};
use crate::history::{Delivery, History, Outcome, Position};
use std::collections::BTreeSet;

pub(super) const INVARIANT: Invariant = Invariant { name: "abandoned comes back", check };

fn check(history: &History, report: &mut Report) {
    if history.drained.is_none() || history.disk_was_copied {
        return;
    }
    let acked = history.acks.iter().filter(|ack| ack.outcome != Outcome::Refused);
    let mut settled: BTreeSet<(&str, &Position)> = acked.map(|ack| (&*ack.group, &ack.position)).collect();
    let tried: BTreeSet<(&str, &Position, u32)> =
        history.acks.iter().map(|ack| (&*ack.group, &ack.position, ack.attempt)).collect();
    let mut deliveries: Vec<&Delivery> =
        history.deliveries.iter().filter(|delivery| delivery.owner.is_some()).collect();
    deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.attempt));
    for delivery in deliveries {
        // The last one of each message.
        let is_last = settled.insert((&delivery.group, &delivery.position));
        if is_last && !tried.contains(&(&*delivery.group, &delivery.position, delivery.attempt)) {
            let (id, group, client) = (&delivery.id, &delivery.group, &delivery.client);
            let what =
                format!("{id} was delivered to {client} of {group}, which did not acknowledge it, and to nobody after");
            report.add(Some(delivery.received.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use gantry_proto::model::ClientHash;

    #[test]
    fn a_message_that_nobody_acknowledged_is_reported_once_the_end_was_waited_for() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "b", 1, 1, 5);
        history.deliveries[0].owner = Some(ClientHash(1));
        holds(&INVARIANT, &history);
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "a was delivered to c of g");
        history.acked("a", 0, 1, 6, Outcome::Refused);
        holds(&INVARIANT, &history);
        history.delivered("t", "a", 0, 2, 30);
        history.deliveries[2].owner = Some(ClientHash(2));
        is_broken(&INVARIANT, &history, "and to nobody after");
        history.acked("a", 0, 2, 31, Outcome::Done);
        holds(&INVARIANT, &history);
    }
}
