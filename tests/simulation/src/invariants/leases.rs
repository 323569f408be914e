//! Never two live leases: a message that was handed to one consumer is not handed to another one of its group before the
//! first lease has ended.
//!
//! A client knows when it asked for a delivery, so the lease ends no earlier than that and the invisible duration; and a
//! second delivery was handed out no later than it arrived. Leases of calls that broke off may have been taken back, and
//! wall clocks that jump shorten leases: what that could explain is not reported.

use super::{Invariant, Report};
use crate::history::{Delivery, History, Outcome, Position};
use std::collections::BTreeMap;
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
                let lasts = lasts_until(history, group, position, earlier);
                if later.received.at + history.clocks_moved < lasts {
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
pub(super) fn lasts_until(history: &History, group: &str, position: &Position, delivery: &Delivery) -> Duration {
    let mut lasts = delivery.began.at + delivery.invisible;
    let of_it = |attempt: u32| attempt == delivery.attempt;
    for hide in &history.hides {
        if *hide.group == *group && hide.position == *position && of_it(hide.attempt) {
            let changed = hide.began.at + hide.invisible;
            lasts = match hide.outcome {
                Outcome::Done => changed,
                // Refused: the delivery is over; perhaps because an earlier try was carried out and not answered.
                Outcome::Refused | Outcome::Unknown => lasts.min(changed),
            };
        }
    }
    lasts
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Hide;

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
            history.hides.push(Hide { group, position, attempt: 1, invisible: seconds(invisible), began, outcome });
        };
        hide(&mut history, 0, Outcome::Unknown);
        history.delivered("t", "a", 0, 2, 7);
        holds(&INVARIANT, &history);
        hide(&mut history, 60, Outcome::Done);
        is_broken(&INVARIANT, &history, "until 66.000 s");
    }

    #[test]
    fn clocks_that_jumped_excuse_what_they_could_explain() {
        let mut history = history();
        history.delivered("t", "a", 0, 1, 5);
        history.delivered("t", "a", 0, 2, 8);
        history.clocks_moved = seconds(7);
        holds(&INVARIANT, &history);
        history.clocks_moved = seconds(6);
        is_broken(&INVARIANT, &history, "a was delivered");
    }
}
