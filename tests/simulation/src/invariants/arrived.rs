//! Only what arrived is renewed: a store is told of no delivery that its client did not get. What nobody got comes back when its
//! first lease has ended, however long the client lives that it was meant for: `served` looks for that.

use super::{Invariant, Report};
use crate::history::{Arrival, Delivery, History, Pop};

pub(super) const INVARIANT: Invariant = Invariant { name: "what is renewed has arrived", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    for arrival in &history.arrivals {
        let Arrival { store_group, owner, position, attempt, .. } = arrival;
        let of_it = |pop: &&Pop| (pop.store_group, pop.position, pop.attempt) == (*store_group, *position, *attempt);
        let got = |delivery: &Delivery| {
            let at = &delivery.position;
            let same = |pop: &Pop| {
                (&pop.group, &pop.id) == (&delivery.group, &delivery.id)
                    && (i64::from(pop.position.2), i64::try_from(pop.position.3))
                        == (i64::from(at.queue), Ok(at.offset))
            };
            (delivery.owner, delivery.attempt) == (Some(*owner), *attempt)
                && delivery.received < arrival.began
                && history.pops.iter().filter(of_it).any(same)
        };
        if !history.deliveries.iter().any(got) {
            let what = format!(
                "store group {store_group} was told that {position:?} had arrived as attempt {attempt}, and its client never \
                 got it"
            );
            report.add(Some(arrival.began.at), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use gantry_proto::model::ClientHash;

    #[test]
    fn what_a_client_never_got_must_not_be_said_to_have_arrived() {
        let mut history = history();
        let owner = ClientHash(1);
        history.popped("a", 0, 1, 5);
        history.arrived(owner, 0, 1, 7);
        is_broken(&INVARIANT, &history, "had arrived as attempt 1, and its client never got it");
        history.delivered("t", "a", 0, 1, 5);
        history.arrivals[0].began = history.second(7);
        is_broken(&INVARIANT, &history, "never got it");
        history.deliveries[0].owner = Some(owner);
        holds(&INVARIANT, &history);
        history.deliveries[0].attempt = 2;
        is_broken(&INVARIANT, &history, "never got it");
        history.deliveries[0].attempt = 1;
        history.deliveries[0].received = history.second(8);
        is_broken(&INVARIANT, &history, "never got it");
    }
}
