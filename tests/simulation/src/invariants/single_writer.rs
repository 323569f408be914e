//! At most one store acknowledges appends of a store group at any true instant: the answers of a group are given in the
//! order of its epochs, each epoch belongs to one process, every answer is given while its process holds a lease, and no
//! lease begins before the earlier ones have ended.
//!
//! What a lease promises depends on its kind:
//! - A timed one has an end that its holder knows. Whatever runs, pauses or is cut off, and even if a copy of the data
//!   folder serves elsewhere: after the end the holder answers nothing, and nobody else leads before it, unless he holds
//!   the very lock of the folder that the holder held.
//! - One until superseded goes on while the controller is away. That nobody else leads rests on the data folder: a process
//!   that serves it holds its lock, on its machine. Once a process has heard of a later epoch, from the controller or from
//!   anybody who asks it something, it answers nothing in the earlier one. A copy of the folder breaks the first half (a
//!   store that nobody told writes on beside its copy), never the second.

use super::{Invariant, Report};
use crate::history::{Append, History, Lease, Moment};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const INVARIANT: Invariant = Invariant { name: "one writer", check };

/// The holder of a lease without an end is not replaced before it was silent for this long: three heartbeats, on the fastest
/// clock of a member of the controller that is not disturbed.
const SILENCE_MIN: Duration = Duration::from_millis(2700);
/// For how long a fault of the controller's members may make them elect another one.
const DISTURBED: Duration = Duration::from_secs(15);

fn check(history: &History, report: &mut Report) {
    answers(history, report);
    overlaps(history, report);
    takeovers(history, report);
}

fn answers(history: &History, report: &mut Report) {
    let mut newest = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for append in &history.appends {
        let Append { process, store_group, epoch, id, .. } = append;
        let at = Some(append.answered.at);
        let seen = newest.entry(*store_group).or_insert(*epoch);
        if epoch < seen {
            // What nobody can promise when there is a copy: see above.
            let untold = history.disk_was_copied && covering(history, append).any(|lease| lease.until.is_none());
            if !untold {
                let what = format!(
                    "{process} answered {id} in epoch {epoch} of store group {store_group}, after epoch {seen}"
                );
                report.add(at, what);
            }
        }
        *seen = (*seen).max(*epoch);
        let owner = owners.entry((*store_group, *epoch)).or_insert(process);
        if *owner != process {
            report
                .add(at, format!("{process} and {owner} both answered in epoch {epoch} of store group {store_group}"));
        }
        if append.written_in != *epoch {
            let written = append.written_in;
            let what =
                format!("{process} answered {id} in epoch {epoch} of store group {store_group}, written in {written}");
            report.add(at, what);
        }
        if covering(history, append).next().is_none() {
            report.add(
                at,
                format!("{process} answered {id} in epoch {epoch} of store group {store_group} without a lease"),
            );
        }
    }
}

/// Leases that ran while a later epoch had begun. Each runs from before its call was made, so it ends for its holder before
/// it ends for whoever granted it.
fn overlaps(history: &History, report: &mut Report) {
    for next in history.leases.iter().filter(|lease| lease.begins) {
        let before =
            history.leases.iter().filter(|lease| lease.store_group == next.store_group && lease.epoch < next.epoch);
        let goes_on = |lease: &&Lease| {
            !history.given_up.contains(&(lease.store_group, lease.epoch)) && !on_one_machine(lease, next)
        };
        for lease in before.filter(goes_on) {
            if let Some(until) = lease.until.filter(|until| next.heard.at < *until) {
                let what = format!(
                    "{} was let in with epoch {} of store group {} while {} held epoch {} until {:.3} s",
                    next.process,
                    next.epoch,
                    next.store_group,
                    lease.process,
                    lease.epoch,
                    until.as_secs_f64()
                );
                report.add(Some(next.heard.at), what);
            }
        }
    }
}

/// Whether both processes serve the same folder, one after the other: the later one holds its lock, so the earlier one is
/// dead, or is the same.
fn on_one_machine(earlier: &Lease, later: &Lease) -> bool {
    let machine = |lease: &Lease| lease.process.split('#').next().map(str::to_owned);
    machine(earlier) == machine(later)
}

/// Leases without an end that somebody else got while their holder was heard of. The member of the controller that leads
/// waits until it has heard nothing for some time; one that has just begun to lead has never heard anything.
fn takeovers(history: &History, report: &mut Report) {
    for next in history.leases.iter().filter(|lease| lease.begins) {
        let of_it = |lease: &&Lease| lease.store_group == next.store_group && lease.until.is_none();
        let before = history.leases.iter().filter(of_it);
        let before = before.filter(|lease| lease.epoch < next.epoch && !on_one_machine(lease, next));
        let Some(last) = before.filter(|lease| lease.heard < next.called).max_by_key(|lease| lease.called) else {
            continue;
        };
        let given_up = history.given_up.contains(&(last.store_group, last.epoch));
        let disturbed = |at: &Moment| at.at + DISTURBED > last.called.at && at.at <= next.heard.at;
        if next.heard.at < last.called.at + SILENCE_MIN && !given_up && !history.disturbed.iter().any(disturbed) {
            let what = format!(
                "{} was let in with epoch {} of store group {}, while {} was heard of at {:.3} s, with a lease without an end",
                next.process,
                next.epoch,
                next.store_group,
                last.process,
                last.called.at.as_secs_f64()
            );
            report.add(Some(next.heard.at), what);
        }
    }
}

/// The leases by which an answer may have been given.
fn covering<'a>(history: &'a History, append: &'a Append) -> impl Iterator<Item = &'a Lease> {
    let told = history.superseded.iter().any(|news| {
        news.process == append.process
            && news.store_group == append.store_group
            && news.by > append.epoch
            && news.at <= append.answered
    });
    history.leases.iter().filter(move |lease| {
        !told
            && lease.process == append.process
            && lease.store_group == append.store_group
            && lease.epoch == append.epoch
            && lease.heard <= append.answered
            && lease.until.is_none_or(|until| append.answered.at <= until)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Superseded;
    use gantry_proto::model::{Epoch, StoreGroupId};

    fn leased(history: &mut History, process: &str, epoch: u32, at: u64) {
        let (called, heard) = (history.second(at), history.second(at));
        history.leases.push(Lease {
            process: process.into(),
            store_group: StoreGroupId(1),
            epoch: Epoch(epoch),
            called,
            heard,
            until: Some(seconds(at + 5)),
            begins: true,
        });
    }

    fn answered(history: &mut History, process: &str, epoch: u32, at: u64) {
        let place = history.appends.len();
        history.appended(&format!("m{place}"), place as u64, at);
        let append = &mut history.appends[place];
        (append.process, append.epoch, append.written_in) = (process.into(), Epoch(epoch), Epoch(epoch));
    }

    #[test]
    fn answers_within_leases_in_the_order_of_epochs_are_fine() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        answered(&mut history, "a", 1, 3);
        leased(&mut history, "b", 2, 6);
        answered(&mut history, "b", 2, 7);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn an_answer_after_the_lease_is_reported() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        answered(&mut history, "a", 1, 6);
        is_broken(&INVARIANT, &history, "without a lease");
    }

    #[test]
    fn a_lease_that_begins_within_another_one_is_reported_unless_that_was_given_up() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        leased(&mut history, "b", 2, 5);
        holds(&INVARIANT, &history);
        leased(&mut history, "a", 3, 9);
        is_broken(
            &INVARIANT,
            &history,
            "a was let in with epoch 3 of store group 1 while b held epoch 2 until 10.000 s",
        );
        history.given_up.push((StoreGroupId(1), Epoch(2)));
        holds(&INVARIANT, &history);
    }

    #[test]
    fn an_answer_of_an_older_epoch_is_reported() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        leased(&mut history, "b", 2, 5);
        answered(&mut history, "b", 2, 6);
        answered(&mut history, "a", 1, 6);
        is_broken(&INVARIANT, &history, "after epoch 2");
    }

    #[test]
    fn a_lease_without_an_end_ends_when_its_holder_hears_of_a_later_epoch() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        history.leases[0].until = None;
        answered(&mut history, "a", 1, 60);
        holds(&INVARIANT, &history);
        let at = history.second(61);
        history.superseded.push(Superseded { process: "a".into(), store_group: StoreGroupId(1), by: Epoch(2), at });
        answered(&mut history, "a", 1, 62);
        is_broken(&INVARIANT, &history, "without a lease");
    }

    #[test]
    fn only_a_copied_disk_excuses_a_holder_that_nobody_told() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        history.leases[0].until = None;
        leased(&mut history, "b", 2, 5);
        answered(&mut history, "b", 2, 6);
        answered(&mut history, "a", 1, 6);
        is_broken(&INVARIANT, &history, "after epoch 2");
        history.disk_was_copied = true;
        holds(&INVARIANT, &history);
        history.leases[0].until = Some(seconds(5));
        is_broken(&INVARIANT, &history, "after epoch 2");
    }

    #[test]
    fn whoever_holds_the_lock_of_the_one_before_need_not_wait_for_its_lease() {
        let mut history = history();
        leased(&mut history, "a#1", 1, 0);
        leased(&mut history, "a#2", 2, 1);
        holds(&INVARIANT, &history);
        leased(&mut history, "twin#1", 3, 2);
        is_broken(&INVARIANT, &history, "twin#1 was let in with epoch 3 of store group 1 while a#1 held epoch 1");
    }

    #[test]
    fn an_answer_for_what_was_written_in_an_earlier_epoch_is_reported() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        leased(&mut history, "a", 2, 6);
        answered(&mut history, "a", 2, 7);
        holds(&INVARIANT, &history);
        history.appends[0].written_in = Epoch(1);
        is_broken(&INVARIANT, &history, "a answered m0 in epoch 2 of store group 1, written in 1");
    }

    #[test]
    fn a_lease_without_an_end_that_is_taken_over_while_its_holder_is_heard_of_is_reported() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        leased(&mut history, "b", 2, 3);
        (history.leases[0].until, history.leases[1].until) = (None, None);
        holds(&INVARIANT, &history);
        let next = history.second(2);
        (history.leases[1].called, history.leases[1].heard) = (next, next);
        is_broken(&INVARIANT, &history, "b was let in with epoch 2 of store group 1, while a was heard of at 0.000 s");
        history.disturbed.push(next);
        holds(&INVARIANT, &history);
        history.disturbed.clear();
        history.given_up.push((StoreGroupId(1), Epoch(1)));
        holds(&INVARIANT, &history);
    }

    #[test]
    fn two_writers_in_one_epoch_are_reported() {
        let mut history = history();
        leased(&mut history, "a", 1, 0);
        leased(&mut history, "b", 1, 0);
        answered(&mut history, "a", 1, 1);
        answered(&mut history, "b", 1, 2);
        is_broken(&INVARIANT, &history, "b and a both answered");
    }
}
