//! Which messages arrived: loss, duplicates, damage.
//!
//! One tracker per run, shared by its consumers, which enter whole batches at a time. What arrived is known exactly,
//! message by message.

use super::body::{self, BodyError, RunId};
use super::clock::Moment;
use roaring::RoaringTreemap;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Sequence numbers. Mostly consecutive ones take a bit each; one far from all others takes about a hundred bytes.
pub(crate) type SequenceSet = RoaringTreemap;

/// How many numbers between its lowest and its highest a set does not hold.
fn gaps(set: &SequenceSet) -> u64 {
    match (set.min(), set.max()) {
        (Some(lowest), Some(highest)) => (highest - lowest) - (set.len() - 1),
        _ => 0,
    }
}

/// What one message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// The first delivery, with the moment it was meant to be sent.
    First(Moment),
    Duplicate,
    /// Not from this run, or from no run at all.
    Foreign,
    Corrupt,
    /// Sound, but there is no room left to remember it.
    Untracked,
}

/// How many messages were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) unique: u64,
    /// Further deliveries of the same messages.
    pub(crate) duplicates: u64,
    pub(crate) foreign: u64,
    pub(crate) corrupt: u64,
    /// Messages that there was no room to remember.
    pub(crate) untracked: u64,
}

impl Counts {
    pub(crate) fn received(&self) -> u64 {
        self.unique + self.duplicates + self.foreign + self.corrupt + self.untracked
    }
}

/// What arrived, from whom.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// Only messages of this run count; `None`: of any run.
    only: Option<RunId>,
    seen: BTreeMap<(RunId, u32), SequenceSet>,
    counts: Counts,
    /// When the first and the latest message came.
    span: Option<(Moment, Moment)>,
}

/// Producers that are told apart.
const PRODUCERS_MAX: usize = 1 << 16;

impl Tracker {
    pub(crate) fn of_any_run() -> Tracker {
        Tracker::default()
    }

    pub(crate) fn of_run(run: RunId) -> Tracker {
        Tracker { only: Some(run), ..Tracker::default() }
    }

    /// Enters a message that was received at `now`.
    pub(crate) fn observe(&mut self, body: &[u8], now: Moment) -> Sighting {
        let (first, latest) = self.span.unwrap_or((now, now));
        self.span = Some((first, latest.max(now)));
        let sighting = self.classify(body);
        *match sighting {
            Sighting::First(_) => &mut self.counts.unique,
            Sighting::Duplicate => &mut self.counts.duplicates,
            Sighting::Foreign => &mut self.counts.foreign,
            Sighting::Corrupt => &mut self.counts.corrupt,
            Sighting::Untracked => &mut self.counts.untracked,
        } += 1;
        sighting
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the first and the latest message came.
    pub(crate) fn span(&self) -> Option<(Moment, Moment)> {
        self.span
    }

    /// Messages that a producer sent between others that came, and that did not come.
    pub(crate) fn gaps(&self) -> u64 {
        self.seen.values().map(gaps).sum()
    }

    /// How many of the acknowledged messages of a run's producers did not arrive.
    pub(crate) fn lost(&self, run: RunId, acknowledged: &[SequenceSet]) -> u64 {
        let nothing = SequenceSet::default();
        let arrived = |producer| self.seen.get(&(run, producer)).unwrap_or(&nothing);
        (0..).zip(acknowledged).map(|(producer, sent)| sent.difference_len(arrived(producer))).sum()
    }

    fn classify(&mut self, body: &[u8]) -> Sighting {
        let header = match body::decode(body) {
            Ok(header) => header,
            Err(BodyError::Foreign) => return Sighting::Foreign,
            Err(BodyError::Corrupt) => return Sighting::Corrupt,
        };
        if self.only.is_some_and(|run| run != header.run) {
            return Sighting::Foreign;
        }
        let producers = self.seen.len();
        let set = match self.seen.entry((header.run, header.producer)) {
            Entry::Occupied(set) => set.into_mut(),
            Entry::Vacant(_) if producers >= PRODUCERS_MAX => return Sighting::Untracked,
            Entry::Vacant(place) => place.insert(SequenceSet::default()),
        };
        if set.insert(header.sequence) { Sighting::First(header.intended) } else { Sighting::Duplicate }
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::BodyHeader;
    use super::*;
    use proptest::prelude::*;

    const RUN: RunId = RunId(42);
    const NOW: Moment = Moment::from_unix_nanos(5);

    fn message(run: RunId, producer: u32, sequence: u64) -> bytes::Bytes {
        body::encode(BodyHeader { run, producer, sequence, intended: Moment::from_unix_nanos(sequence) }, 64)
    }

    fn set(numbers: impl IntoIterator<Item = u64>) -> SequenceSet {
        numbers.into_iter().collect()
    }

    #[test]
    fn gaps_lie_between_what_came() {
        assert_eq!(gaps(&set([])), 0);
        assert_eq!(gaps(&set(10..1_000_000)), 0);
        assert_eq!(gaps(&set([u64::MAX - 1, 0, 1 << 60])), u64::MAX - 3);
        assert_eq!(gaps(&set([u64::MAX, 0])), u64::MAX - 1);
    }

    proptest! {
        #[test]
        fn what_is_lost_and_what_is_between_are_counted_exactly(
            ours in prop::collection::btree_set(0..200_000u64, 1..400),
            theirs in prop::collection::btree_set(0..200_000u64, 0..400),
        ) {
            let mut tracker = Tracker::of_run(RUN);
            for sequence in &theirs {
                tracker.observe(&message(RUN, 0, *sequence), NOW);
            }
            let lost = ours.difference(&theirs).count() as u64;
            prop_assert_eq!(tracker.lost(RUN, &[set(ours)]), lost);
            let span = theirs.first().zip(theirs.last()).map_or(0, |(first, last)| last - first + 1);
            prop_assert_eq!(tracker.gaps(), span - theirs.len() as u64);
        }
    }

    #[test]
    fn messages_are_sorted_into_what_they_are() {
        let mut tracker = Tracker::of_run(RUN);
        let mut damaged = message(RUN, 0, 9).to_vec();
        damaged[40] ^= 1;
        assert_eq!(tracker.observe(&message(RUN, 0, 3), NOW), Sighting::First(Moment::from_unix_nanos(3)));
        assert_eq!(tracker.observe(&message(RUN, 1, 3), NOW), Sighting::First(Moment::from_unix_nanos(3)));
        assert_eq!(tracker.observe(&message(RUN, 0, 3), NOW), Sighting::Duplicate);
        assert_eq!(tracker.observe(&message(RunId(7), 0, 3), NOW), Sighting::Foreign);
        assert_eq!(tracker.observe(b"an order", NOW), Sighting::Foreign);
        assert_eq!(tracker.observe(&damaged, NOW), Sighting::Corrupt);
        let expected = Counts { unique: 2, duplicates: 1, foreign: 2, corrupt: 1, untracked: 0 };
        assert_eq!(tracker.counts(), expected);
        assert_eq!(expected.received(), 6);
    }

    #[test]
    fn lost_is_what_was_acknowledged_and_did_not_come() {
        let mut tracker = Tracker::of_run(RUN);
        for sequence in [0, 2, 3, 9] {
            tracker.observe(&message(RUN, 1, sequence), NOW);
        }
        // 9 was never acknowledged: stored though the call failed. That is no loss and hides none.
        let acknowledged = [set([0, 1]), set([0, 1, 2, 3, 4])];
        assert_eq!(tracker.lost(RUN, &acknowledged), 2 + 2);
        assert_eq!(tracker.gaps(), 6);
    }

    #[test]
    fn every_run_counts_when_none_is_asked_for() {
        let mut tracker = Tracker::of_any_run();
        tracker.observe(&message(RunId(1), 0, 100), NOW);
        tracker.observe(&message(RunId(2), 0, 100), NOW);
        tracker.observe(&message(RunId(2), 0, 102), NOW);
        assert_eq!(tracker.counts().unique, 3);
        assert_eq!(tracker.gaps(), 1, "only between messages that came");
        assert_eq!(tracker.span(), Some((NOW, NOW)));
    }
}
