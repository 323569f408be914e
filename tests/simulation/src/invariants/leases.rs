//! Never two live leases: a message that was handed to one consumer is not handed to another one of its group before the
//! first lease has ended.
//!
//! A client knows when it asked for a delivery, so the lease ends no earlier than that and the invisible duration; and a
//! second delivery was handed out no later than it arrived. Leases of calls that broke off may have been taken back, and a
//! wall clock that is set ahead on the machine of the message's store while the lease lasts shortens it, as does a clock that
//! runs fast there: by that much, and no other clock does. A power failure takes back deliveries that nothing has flushed yet:
//! of the last moment before it, on that machine. A lease that is renewed with its owner's life lasts, once the store was told
//! that the message had arrived, as long as it answered renewals in time, and until its owner says goodbye.

use super::{Invariant, Report};
use crate::history::{Arrival, Delivery, Hide, History, Outcome, Pop, Position, Renewal};
use gantry_proto::model::{ClientHash, StoreGroupId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) const INVARIANT: Invariant = Invariant { name: "one live lease", check };

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut deliveries: BTreeMap<(&str, &Position), Vec<&Delivery>> = BTreeMap::new();
    for delivery in &history.deliveries {
        deliveries.entry((&*delivery.group, &delivery.position)).or_default().push(delivery);
    }
    for ((group, position), mut of_one) in deliveries {
        // In the order in which they were handed out. A proxy that is paused may pass a delivery on after a later one, and
        // after its lease.
        of_one.sort_by_key(|delivery| delivery.attempt);
        for (index, later) in of_one.iter().enumerate() {
            for earlier in of_one[..index].iter().filter(|earlier| earlier.kept) {
                let machine = history.machine_of(position);
                if history.delivery_lost(machine, earlier.began.at, earlier.received.at, later.received.at) {
                    continue;
                }
                let lasts = lasts_until(history, machine, group, position, earlier);
                let ahead = history.set_ahead(machine, earlier.began.at, later.received.at);
                if later.received.at + ahead < lasts {
                    let (id, lasts) = (&later.id, lasts.as_secs_f64());
                    let what = format!(
                        "{id} was delivered to {} of {group} while {} held it until {lasts:.3} s at least",
                        later.client, earlier.client
                    );
                    report.add(Some(later.received.at), what);
                }
            }
        }
    }
}

/// The earliest instant at which the lease of a delivery can have ended.
pub(super) fn lasts_until(
    history: &History,
    machine: Option<&Arc<str>>,
    group: &str,
    position: &Position,
    delivery: &Delivery,
) -> Duration {
    let promised = |span: Duration| span.saturating_sub(history.drifted(machine, span));
    let mut lasts = delivery.began.at + promised(delivery.invisible);
    if let Some(owner) = delivery.owner {
        lasts = renewed_until(history, machine, owner, delivery);
    }
    let of_it = |hide: &Hide| (hide.attempt, hide.received) == (delivery.attempt, delivery.received);
    for hide in &history.hides {
        if *hide.group == *group && hide.position == *position && of_it(hide) {
            let changed = hide.began.at + promised(hide.invisible);
            lasts = match hide.outcome {
                Outcome::Done => changed,
                // Refused: the delivery is over; perhaps because an earlier try was carried out and not answered.
                Outcome::Refused | Outcome::Unknown => lasts.min(changed),
            };
        }
    }
    lasts
}

/// The same for a lease that is extended while its owner lives, from when the store knew that the message had arrived.
fn renewed_until(history: &History, machine: Option<&Arc<str>>, owner: ClientHash, delivery: &Delivery) -> Duration {
    let promised = |span: Duration| span.saturating_sub(history.drifted(machine, span));
    let granted = delivery.began.at + promised(delivery.invisible);
    let told = |arrival: &&Arrival| {
        let of_it = |pop: &Pop| {
            let at = &delivery.position;
            (&pop.group, &pop.id, pop.attempt) == (&delivery.group, &delivery.id, delivery.attempt)
                && (pop.store_group, pop.position, pop.attempt)
                    == (arrival.store_group, arrival.position, arrival.attempt)
                && (i64::from(pop.position.2), i64::try_from(pop.position.3)) == (i64::from(at.queue), Ok(at.offset))
        };
        // One that came too late, or may have, changed nothing.
        let ahead = history.set_ahead(machine, delivery.began.at, arrival.ended.at);
        arrival.done && arrival.owner == owner && arrival.ended.at + ahead < granted && history.pops.iter().any(of_it)
    };
    let arrival = history.arrivals.iter().find(told);
    let extended = |store_group: StoreGroupId| {
        let of_it = |renewal: &&Renewal| {
            renewal.done
                && renewal.store_group == store_group
                && arrival.is_some_and(|arrival| renewal.began > arrival.ended)
                && renewal.owners.contains(&owner)
        };
        let mut lasts = granted;
        for renewal in history.renewals.iter().filter(of_it) {
            // One that came too late, or may have.
            if renewal.ended.at + history.set_ahead(machine, delivery.began.at, renewal.ended.at) >= lasts {
                break;
            }
            lasts = lasts.max(renewal.began.at + promised(renewal.invisible));
        }
        lasts
    };
    let lasts = arrival.map_or(granted, |arrival| extended(arrival.store_group));
    let goodbye = history.goodbyes.iter().find(|(gone, _)| *gone == owner);
    goodbye.map_or(lasts, |(_, began)| lasts.min(began.at))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::ClockMove;

    #[test]
    fn two_deliveries_within_one_lease_are_reported() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 15);
        holds(&INVARIANT, &history);
        history.delivered("t", "a", 0, 3, 24);
        is_broken(&INVARIANT, &history, "a was delivered to c of g while c held it until 25.000 s");
    }

    #[test]
    fn a_delivery_may_arrive_after_a_later_one() {
        let mut history = history();
        history.delivered("t", "a", 0, 2, 16);
        history.delivered("t", "a", 0, 1, 5);
        history.deliveries[1].received = history.second(17);
        holds(&INVARIANT, &history);
        history.deliveries[0].received = history.second(14);
        is_broken(&INVARIANT, &history, "until 15.000 s");
    }

    #[test]
    fn a_delivery_that_broke_off_may_have_been_taken_back() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 6);
        history.deliveries[0].kept = false;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_lease_that_was_given_up_or_extended_counts_as_changed() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        let hide = |history: &mut History, invisible, outcome| {
            let (group, position, began) = ("g".into(), position("t", 0), history.second(6));
            let received = history.deliveries[0].received;
            history.hides.push(Hide {
                group,
                position,
                attempt: 1,
                invisible: seconds(invisible),
                suspends: false,
                received,
                began,
                outcome,
            });
        };
        hide(&mut history, 0, Outcome::Unknown);
        history.delivered("t", "a", 0, 2, 7);
        holds(&INVARIANT, &history);
        hide(&mut history, 60, Outcome::Done);
        is_broken(&INVARIANT, &history, "until 66.000 s");
    }

    #[test]
    fn a_renewed_lease_lasts_while_renewals_come_in_time_and_until_a_goodbye() {
        let mut history = history();
        let owner = ClientHash(7);
        history.delivered("t", "a", 0, 1, 5);
        history.deliveries[0].owner = Some(owner);
        history.popped("a", 0, 1, 5);
        for at in [10, 19, 40] {
            let (began, ended) = (history.second(at), history.second(at));
            let (store_group, owners, invisible) = (StoreGroupId(1), vec![owner], seconds(10));
            history.renewals.push(Renewal { store_group, owners, invisible, began, ended, done: true });
        }
        history.delivered("t", "a", 0, 2, 29);
        holds(&INVARIANT, &history);
        history.deliveries[1].received = history.second(28);
        holds(&INVARIANT, &history);
        history.arrived(owner, 0, 1, 7);
        history.arrivals[0].ended = history.deliveries[0].received;
        is_broken(&INVARIANT, &history, "until 29.000 s");
        history.arrivals[0].ended = history.second(16);
        holds(&INVARIANT, &history);
        history.arrivals[0].ended = history.deliveries[0].received;
        let began = history.second(27);
        history.goodbyes.push((owner, began));
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_clock_that_was_set_ahead_excuses_what_it_explains_if_it_is_the_stores_and_was_set_in_between() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 8);
        let moved = |history: &mut History, machine: &str, millis, at| {
            let at = history.second(at);
            history.clock_moves.push(ClockMove { machine: machine.into(), millis, at });
        };
        history.popped("a", 0, 1, 5);
        is_broken(&INVARIANT, &history, "until 15.000 s");
        moved(&mut history, "store-a", 6999, 6);
        moved(&mut history, "store-a", 9000, 4);
        moved(&mut history, "store-a", 9000, 9);
        moved(&mut history, "store-a", -9000, 6);
        moved(&mut history, "store-b", 9000, 6);
        is_broken(&INVARIANT, &history, "until 15.000 s");
        moved(&mut history, "store-a", 1, 7);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_power_failure_takes_back_what_was_delivered_in_the_last_moment_before_it() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 9);
        history.popped("a", 0, 1, 5);
        let fails = |history: &mut History, machine: &str, at: u64| {
            let at = history.moment(Duration::from_millis(at));
            history.power_failures.push((machine.into(), at));
        };
        fails(&mut history, "store-a", 4_900);
        fails(&mut history, "store-a", 6_100);
        fails(&mut history, "store-b", 5_500);
        fails(&mut history, "store-a", 9_100);
        is_broken(&INVARIANT, &history, "until 15.000 s");
        fails(&mut history, "store-a", 5_900);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn a_clock_that_runs_fast_shortens_leases_by_its_rate() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 14);
        history.popped("a", 0, 1, 5);
        is_broken(&INVARIANT, &history, "until 15.000 s");
        history.drift_ppm.insert("store-a".into(), 50_000);
        is_broken(&INVARIANT, &history, "until 14.500 s");
        history.drift_ppm.insert("store-a".into(), 100_000);
        holds(&INVARIANT, &history);
    }
}
