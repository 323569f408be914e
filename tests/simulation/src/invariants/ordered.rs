//! Queues are dense and in order: a consumer group that takes everything gets each offset of a queue, and none for the first
//! time by a receive that was asked for after a later one had been handed out.
//!
//! A first delivery may come after a later one if a receive had taken it whose answer was lost.

use super::{Invariant, Report};
use crate::history::{Append, History, LostReceive, Pop};
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
            for missing in missing {
                let count = offsets.len();
                let what = format!("{place}: {count} of {end} offsets were ever handed out, {missing} was not");
                report.add(None, what);
            }
        }
    }
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
}
