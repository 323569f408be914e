//! Logs keep what they are to keep: nothing is removed unless the policy says so, and then the oldest and no more than it
//! says; nothing is called damaged but what was damaged, and that stays so; and a store whose disk was lost says that its
//! folder is not the one, instead of serving an empty one.
//!
//! What the other invariants leave out because it is gone is what is held here.

use super::{Invariant, Report};
use crate::history::{Append, Flip, History, LogSeen};
use crate::hosts::SEGMENT_BYTES_BOUNDED;
use crate::site::Retention;
use gantry_proto::model::StoreGroupId;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const INVARIANT: Invariant = Invariant { name: "logs are kept", check };

/// What of the log a look may have missed: it goes on between two looks.
const SEGMENTS_SLACK: u64 = 3;

fn check(history: &History, report: &mut Report) {
    let mut last: BTreeMap<StoreGroupId, &LogSeen> = BTreeMap::new();
    for seen in &history.logs {
        let before = last.insert(seen.store_group, seen);
        removed(history, before, seen, report);
        damaged(history, seen, report);
    }
    for lost in &history.lost_disks {
        let led = history
            .leases
            .iter()
            .any(|lease| lease.store_group == lost.store_group && lease.begins && lease.called > lost.at);
        if led {
            let what = format!("{} leads store group {} again with an empty folder", lost.machine, lost.store_group);
            report.add(Some(lost.at.at), what);
        } else if !history.is_named(lost) && history.drained.is_some() {
            let what =
                format!("{} lost the folder of store group {} and never said so", lost.machine, lost.store_group);
            report.add(Some(lost.at.at), what);
        }
    }
}

fn removed(history: &History, before: Option<&LogSeen>, seen: &LogSeen, report: &mut Report) {
    let LogSeen { store_group, state, at } = seen;
    let from = before.map_or(0, |before| before.state.retained_from.0);
    let (to, end) = (state.retained_from.0, state.appended_to.0);
    if to < from {
        report.add(Some(at.at), format!("the log of store group {store_group} began at {from} and begins at {to}"));
    }
    if to <= from {
        return;
    }
    match history.retention {
        None => {
            let what = format!("the log of store group {store_group} was removed up to {to}, and nothing was to be");
            report.add(Some(at.at), what);
        }
        Some(Retention::Bytes(max)) => {
            let kept = end - to;
            if kept + SEGMENTS_SLACK * SEGMENT_BYTES_BOUNDED < max {
                let what = format!("store group {store_group} keeps {kept} bytes of its log, and was to keep {max}");
                report.add(Some(at.at), what);
            }
        }
        Some(Retention::Age(age)) => {
            let of_it = |append: &&Append| append.store_group == *store_group && (from..to).contains(&append.place.0);
            for append in history.appends.iter().filter(of_it) {
                let was = at.at.saturating_sub(append.answered.at);
                // A clock that jumps ahead is believed at twice the pace; and clocks run fast.
                if was < age * 9 / 20 && !asked_before(history, append, at.at.saturating_sub(age * 9 / 20)) {
                    let id = &append.id;
                    report.add(Some(at.at), format!("{id} was removed after {was:?}, and was to be kept for {age:?}"));
                }
            }
        }
    }
}

/// Whether the message may have been in the log long before it was answered.
fn asked_before(history: &History, append: &Append, at: Duration) -> bool {
    history.sends.iter().any(|send| send.id == append.id && send.began.at < at)
}

/// All that is called damaged was: every byte of it lies in a record of which a byte was changed.
fn damaged(history: &History, seen: &LogSeen, report: &mut Report) {
    for range in &seen.state.damaged {
        let mut whole_from = range.start;
        while whole_from < range.end {
            let holds = |flip: &&Flip| {
                flip.store_group == seen.store_group
                    && flip.at <= seen.at
                    && (flip.place..flip.end).contains(&whole_from)
            };
            let Some(flip) = history.flips.iter().find(holds) else {
                let (group, from) = (seen.store_group, whole_from);
                let what = format!("store group {group} calls {range:?} damaged, and nobody damaged what is at {from}");
                report.add(Some(seen.at.at), what);
                break;
            };
            whole_from = flip.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::{Ended, LogState, LostDisk, Outcome};
    use gantry_proto::model::LogOffset;
    use std::ops::Range;

    const SEGMENT: u64 = SEGMENT_BYTES_BOUNDED;

    fn seen(history: &mut History, from: u64, to: u64, damaged: Option<Range<u64>>, at: u64) {
        let damaged = damaged.into_iter().map(|range| LogOffset(range.start)..LogOffset(range.end)).collect();
        let (retained_from, appended_to, at) = (LogOffset(from), LogOffset(to), history.second(at));
        let state = LogState { retained_from, appended_to, damaged, minima: BTreeMap::new() };
        history.logs.push(LogSeen { store_group: StoreGroupId(1), state, at });
    }

    #[test]
    fn what_is_removed_against_the_policy_is_reported() {
        let mut history = history();
        seen(&mut history, 0, 8 * SEGMENT, None, 1);
        holds(&INVARIANT, &history);
        seen(&mut history, SEGMENT, 8 * SEGMENT, None, 2);
        is_broken(&INVARIANT, &history, "was removed up to");
        history.retention = Some(Retention::Bytes(8 * SEGMENT));
        holds(&INVARIANT, &history);
        seen(&mut history, 4 * SEGMENT, 8 * SEGMENT, None, 3);
        is_broken(&INVARIANT, &history, "was to keep");
        seen(&mut history, 0, 16 * SEGMENT, None, 4);
        is_broken(&INVARIANT, &history, "begins at 0");
    }

    #[test]
    fn what_is_removed_before_its_time_is_reported() {
        let mut history = history();
        history.retention = Some(Retention::Age(seconds(20)));
        history.sent("a", 4, Outcome::Done, Some(0));
        history.appended("a", 7, 5);
        seen(&mut history, SEGMENT, 8 * SEGMENT, None, 14);
        holds(&INVARIANT, &history);
        history.logs.clear();
        seen(&mut history, SEGMENT, 8 * SEGMENT, None, 12);
        is_broken(&INVARIANT, &history, "a was removed after 7s, and was to be kept for 20s");
        history.logs[0].state.retained_from = LogOffset(7);
        holds(&INVARIANT, &history);
    }

    #[test]
    fn damage_that_nobody_did_is_reported() {
        let mut history = history();
        seen(&mut history, 0, 100, Some(10..20), 5);
        is_broken(&INVARIANT, &history, "and nobody damaged what is at 10");
        let flip = |history: &mut History, place, end, at| {
            let at = history.second(at);
            history.flips.push(Flip { store_group: StoreGroupId(1), place: LogOffset(place), end: LogOffset(end), at });
        };
        flip(&mut history, 10, 15, 5);
        is_broken(&INVARIANT, &history, "and nobody damaged what is at 10");
        history.logs[0].at = history.second(6);
        is_broken(&INVARIANT, &history, "and nobody damaged what is at 15");
        flip(&mut history, 15, 25, 6);
        history.logs[0].at = history.second(7);
        holds(&INVARIANT, &history);
        history.flips[0].place = LogOffset(11);
        is_broken(&INVARIANT, &history, "and nobody damaged what is at 10");
    }

    #[test]
    fn a_lost_folder_that_is_not_named_or_that_is_served_again_is_reported() {
        let mut history = history();
        let at = history.second(4);
        history.lost_disks.push(LostDisk { store_group: StoreGroupId(1), machine: "store-a".into(), at });
        history.drained_at(60);
        is_broken(&INVARIANT, &history, "and never said so");
        let (process, error, at) = (
            "store-a#2".into(),
            "store group store-a has its data in the folder 1, not in 2".to_owned(),
            history.second(5),
        );
        history.ended.push(Ended { process, error, at });
        holds(&INVARIANT, &history);
        history.led("store-a#3", 7, 9);
        is_broken(&INVARIANT, &history, "store-a leads store group 1 again with an empty folder");
    }

    #[test]
    fn what_is_gone_is_where_it_was_shown_to_be_and_nowhere_else() {
        let mut history = history();
        history.appended("a", 10, 5);
        history.appended("b", 30, 5);
        let gone = |history: &History, id: &str| history.is_gone(None, None, id);
        assert!(!gone(&history, "a") && !gone(&history, "never"));
        seen(&mut history, 0, 100, Some(30..40), 6);
        assert!(!gone(&history, "a") && gone(&history, "b"));
        seen(&mut history, 30, 100, None, 7);
        assert!(gone(&history, "a"));
        history.appended("a", 50, 8);
        assert!(!gone(&history, "a"), "it is there once more");
    }
}
