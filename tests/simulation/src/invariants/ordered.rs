//! Queues are dense and in order: a consumer group that takes everything gets each offset of a queue, and none for the first
//! time by a receive that was asked for after a later one had been handed out.
//!
//! A first delivery may come after a later one if a receive had taken it whose answer was lost.

use super::on_its_way::{self, OnItsWay};
use super::{Invariant, Report};
use crate::history::{Append, History, LostReceive, Moment, Pop};
use gantry_proto::model::StoreGroupId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const INVARIANT: Invariant = Invariant { name: "queues are in order", check };

/// Deliveries of one queue to one consumer group.
type Deliveries<'a> = BTreeMap<(StoreGroupId, u32, u32, u32), Vec<&'a Pop>>;

fn check(history: &History, report: &mut Report) {
    if history.disk_was_copied {
        return;
    }
    let mut deliveries: Deliveries<'_> = BTreeMap::new();
    for pop in &history.pops {
        let (group, topic, queue, _) = pop.position;
        deliveries.entry((pop.store_group, group, topic, queue)).or_default().push(pop);
    }
    let mut on_its_way = OnItsWay::of(history);
    for ((store_group, group, topic, queue), pops) in deliveries {
        let of_it = |lost: &&LostReceive| (lost.store_group, lost.group, lost.topic) == (store_group, group, topic);
        let lost: Vec<&LostReceive> = history.lost_receives.iter().filter(of_it).collect();
        let place = format!("queue {queue} of {}, for {}", pops[0].topic, pops[0].group);
        let offsets = in_order(&pops, &lost, &place, report);
        let takes_all = history.groups.get(&pops[0].group).is_some_and(|group| group.tag.is_none());
        if takes_all && history.drained.is_some() {
            let end = offsets.last().map_or(0, |last| last + 1);
            // Damaged or removed, or lost with the disk.
            let gone = |offset: &u64| {
                let of_it = |append: &&Append| {
                    (append.store_group, append.topic, append.offset) == (store_group, topic, *offset)
                };
                *offset < history.minimum(store_group, topic, queue)
                    || history.lost_disks.iter().any(|lost| lost.store_group == store_group)
                    || history
                        .appends
                        .iter()
                        .filter(of_it)
                        .any(|append| history.gone_since(store_group, append.place).is_some())
            };
            let missing = (0..end).filter(|offset| !offsets.contains(offset)).filter(|offset| !gone(offset));
            // The latest first, as is asked for below.
            for missing in missing.rev() {
                let count = offsets.len();
                let what = format!("{place}: {count} of {end} offsets were ever handed out, {missing} was not");
                if on_its_way.had(store_group, group, topic, asked_for(history, store_group, topic, missing)) {
                    report.add_known(None, what, on_its_way::LOST);
                } else {
                    report.add(None, what);
                }
            }
        }
    }
}

/// Before this nobody can have had what is at that offset of any queue of a topic: it was not sent.
fn asked_for(history: &History, store_group: StoreGroupId, topic: u32, offset: u64) -> Moment {
    let there = |append: &&Append| (append.store_group, append.topic, append.offset) == (store_group, topic, offset);
    let ids: BTreeSet<&str> = history.appends.iter().filter(there).map(|append| &*append.id).collect();
    let began = history.sends.iter().filter(|send| ids.contains(&*send.id)).map(|send| send.began);
    began.min().unwrap_or_default()
}

/// All offsets that were handed out.
fn in_order(pops: &[&Pop], lost: &[&LostReceive], place: &str, report: &mut Report) -> BTreeSet<u64> {
    let mut offsets = BTreeSet::new();
    for (index, pop) in pops.iter().enumerate() {
        let offset = pop.position.3;
        if !offsets.insert(offset) || pop.attempt > 1 {
            continue;
        }
        let behind = pops[..index].iter().filter(|other| other.position.3 > offset && other.answered < pop.began);
        let Some(behind) = behind.min_by_key(|other| other.answered) else { continue };
        // Lost by somebody who asked before anything behind it was handed out.
        if !lost.iter().any(|lost| lost.began < behind.answered) {
            let last = behind.position.3;
            let what = format!("{place}: offset {offset} was handed out for the first time after offset {last}");
            report.add(Some(pop.answered.at), what);
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use gantry_proto::model::ClientHash;

    #[test]
    fn a_first_delivery_after_a_later_one_is_reported_unless_it_had_been_lost() {
        let mut history = history();
        let began = history.second(0);
        for offset in [0, 1, 3] {
            history.popped(&format!("m{offset}"), offset, 1, 5);
        }
        history.popped("m1", 1, 2, 16);
        holds(&INVARIANT, &history);
        history.popped("m2", 2, 1, 17);
        is_broken(&INVARIANT, &history, "offset 2 was handed out for the first time after offset 3");
        let late = history.second(18);
        history.lost(late, 18);
        is_broken(&INVARIANT, &history, "offset 2 was handed out for the first time after offset 3");
        history.lost_receives[0].began = began;
        holds(&INVARIANT, &history);
    }

    #[test]
    fn an_offset_that_nobody_ever_got_is_reported_at_the_end() {
        let mut history = history();
        history.popped("a", 0, 1, 5);
        history.popped("c", 2, 1, 5);
        holds(&INVARIANT, &history);
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "2 of 3 offsets were ever handed out, 1 was not");
        history.groups.get_mut("g").unwrap().tag = Some("blue".into());
        holds(&INVARIANT, &history);
    }

    #[test]
    fn what_was_lost_on_its_way_to_a_client_that_is_renewed_to_the_end_is_known_and_no_more_than_that() {
        let mut history = history();
        let began = history.second(4);
        history.popped("b", 1, 1, 5);
        history.lost(began, 6);
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "1 of 2 offsets were ever handed out, 0 was not");
        let known = |history: &History| -> Vec<bool> {
            super::super::check_one(&INVARIANT, history).iter().map(|violation| violation.known.is_some()).collect()
        };
        assert_eq!(known(&history), [false]);
        (history.lost_receives[0].owner, history.lost_receives[0].gave_back) = (Some(ClientHash(1)), false);
        history.renewed(ClientHash(1), 59);
        assert_eq!(known(&history), [true]);
        history.popped("d", 3, 1, 7);
        assert_eq!(known(&history), [true, false]);
    }
}
