//! Which messages arrived: loss, duplicates, damage.
//!
//! One tracker per run, shared by its consumers, which enter whole batches at a time. What arrived is known exactly,
//! message by message, in little memory: 512 bytes while 4096 consecutive messages are incomplete, a few bytes after.

use super::body::{self, BodyError, RunId};
use super::clock::Moment;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A set of sequence numbers that is mostly consecutive.
#[derive(Clone, Debug, Default)]
pub(super) struct SequenceSet {
    pages: BTreeMap<u64, Page>,
    partial: usize,
    len: u64,
    highest: Option<u64>,
}

/// What inserting a sequence number did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It was not in the set.
    New,
    /// It was.
    Again,
    /// The set holds as many incomplete pages as it may.
    Full,
}

/// 4096 consecutive numbers.
#[derive(Clone, Debug)]
enum Page {
    Complete,
    Partial { words: Box<[u64; WORDS_PER_PAGE]>, len: u16 },
}

const WORDS_PER_PAGE: usize = 64;
const NUMBERS_PER_PAGE: u64 = WORDS_PER_PAGE as u64 * 64;
/// 128 MiB: only numbers far apart from one another get there.
const PARTIAL_PAGES_MAX: usize = 1 << 18;

impl SequenceSet {
    /// Adds a number.
    pub(super) fn insert(&mut self, number: u64) -> Inserted {
        let (word, bit) = position(number);
        let page = match self.pages.entry(number / NUMBERS_PER_PAGE) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(_) if self.partial >= PARTIAL_PAGES_MAX => return Inserted::Full,
            Entry::Vacant(place) => {
                self.partial += 1;
                place.insert(Page::Partial { words: Box::new([0; WORDS_PER_PAGE]), len: 0 })
            }
        };
        let Page::Partial { words, len } = page else {
            return Inserted::Again;
        };
        if words[word] & bit != 0 {
            return Inserted::Again;
        }
        words[word] |= bit;
        *len += 1;
        if u64::from(*len) == NUMBERS_PER_PAGE {
            *page = Page::Complete;
            self.partial -= 1;
        }
        self.len += 1;
        self.highest = self.highest.max(Some(number));
        Inserted::New
    }

    /// How many numbers it holds.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many numbers between its lowest and its highest it does not hold.
    pub(super) fn gaps(&self) -> u64 {
        let (Some(lowest), Some(highest)) = (self.lowest(), self.highest) else {
            return 0;
        };
        (highest - lowest).saturating_add(1).saturating_sub(self.len)
    }

    /// How many of its numbers `other` does not hold.
    pub(super) fn missing_from(&self, other: &SequenceSet) -> u64 {
        self.pages.iter().map(|(index, page)| page.missing_from(other.pages.get(index))).sum()
    }

    fn lowest(&self) -> Option<u64> {
        let (index, page) = self.pages.first_key_value()?;
        Some(index * NUMBERS_PER_PAGE + page.first())
    }
}

impl Page {
    fn words(&self) -> [u64; WORDS_PER_PAGE] {
        match self {
            Page::Complete => [u64::MAX; WORDS_PER_PAGE],
            Page::Partial { words, .. } => **words,
        }
    }

    fn missing_from(&self, other: Option<&Page>) -> u64 {
        let theirs = match other {
            Some(Page::Complete) => return 0,
            Some(page) => page.words(),
            None => [0; WORDS_PER_PAGE],
        };
        self.words().iter().zip(theirs).map(|(ours, theirs)| u64::from((ours & !theirs).count_ones())).sum()
    }

    fn first(&self) -> u64 {
        let words = self.words();
        let word = words.iter().position(|word| *word != 0).unwrap_or(0);
        word as u64 * 64 + u64::from(words[word].trailing_zeros() % 64)
    }
}

fn position(number: u64) -> (usize, u64) {
    let within = number % NUMBERS_PER_PAGE;
    ((within / 64) as usize, 1 << (within % 64))
}

/// What one message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// The first delivery, with the moment it was meant to be sent.
    First(Moment),
    /// Delivered before.
    Duplicate,
    /// Not from this run, or from no run at all.
    Foreign,
    /// Damaged.
    Corrupt,
    /// Sound, but there is no room left to remember it.
    Untracked,
}

/// How many messages were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    /// First deliveries.
    pub(super) unique: u64,
    /// Further deliveries of the same messages.
    pub(super) duplicates: u64,
    /// Messages of others.
    pub(super) foreign: u64,
    /// Damaged messages.
    pub(super) corrupt: u64,
    /// Messages that there was no room to remember.
    pub(super) untracked: u64,
}

impl Counts {
    /// Everything that came.
    pub(super) fn received(&self) -> u64 {
        self.unique + self.duplicates + self.foreign + self.corrupt + self.untracked
    }
}

/// What arrived, from whom.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Only messages of this run count; `None`: of any run.
    only: Option<RunId>,
    seen: BTreeMap<(RunId, u32), SequenceSet>,
    counts: Counts,
    first_at: Option<Moment>,
    last_at: Option<Moment>,
}

/// Producers that are told apart.
const PRODUCERS_MAX: usize = 1 << 16;

impl Tracker {
    /// A tracker for messages of every run.
    pub(super) fn of_any_run() -> Tracker {
        Tracker::default()
    }

    /// A tracker for the messages of one run.
    pub(super) fn of_run(run: RunId) -> Tracker {
        Tracker { only: Some(run), ..Tracker::default() }
    }

    /// Enters a message that was received at `now`.
    pub(super) fn observe(&mut self, body: &[u8], now: Moment) -> Sighting {
        self.first_at.get_or_insert(now);
        self.last_at = self.last_at.max(Some(now));
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

    /// What came so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the first and the latest message came.
    pub(super) fn span(&self) -> Option<(Moment, Moment)> {
        self.first_at.zip(self.last_at)
    }

    /// Messages that a producer sent between others that came, and that did not come.
    pub(super) fn gaps(&self) -> u64 {
        self.seen.values().map(SequenceSet::gaps).sum()
    }

    /// How many of the acknowledged messages of a run's producers did not arrive.
    pub(super) fn lost(&self, run: RunId, acknowledged: &[SequenceSet]) -> u64 {
        let nothing = SequenceSet::default();
        let by_producer = (0u32..).zip(acknowledged);
        by_producer.map(|(producer, sent)| sent.missing_from(self.seen.get(&(run, producer)).unwrap_or(&nothing))).sum()
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
        match set.insert(header.sequence) {
            Inserted::New => Sighting::First(header.intended),
            Inserted::Again => Sighting::Duplicate,
            Inserted::Full => Sighting::Untracked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::BodyHeader;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RUN: RunId = RunId(42);
    const NOW: Moment = Moment::from_unix_nanos(5);

    fn message(run: RunId, producer: u32, sequence: u64) -> bytes::Bytes {
        body::encode(BodyHeader { run, producer, sequence, intended: Moment::from_unix_nanos(sequence) }, 64)
    }

    fn set(numbers: impl IntoIterator<Item = u64>) -> SequenceSet {
        let mut set = SequenceSet::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            ours in prop::collection::vec(0..20_000u64, 0..400),
            theirs in prop::collection::vec(0..20_000u64, 0..400),
            run in 0..10_000u64,
        ) {
            let (mut model, mut actual) = (BTreeSet::new(), SequenceSet::default());
            for number in ours.iter().copied().chain(run..run + 5000) {
                let expected = if model.insert(number) { Inserted::New } else { Inserted::Again };
                prop_assert_eq!(actual.insert(number), expected);
            }
            prop_assert_eq!(actual.len(), model.len() as u64);
            let span = model.last().unwrap() - model.first().unwrap() + 1;
            prop_assert_eq!(actual.gaps(), span - model.len() as u64);
            let other: BTreeSet<u64> = theirs.iter().copied().collect();
            let missing = model.difference(&other).count() as u64;
            prop_assert_eq!(actual.missing_from(&set(theirs)), missing);
        }
    }

    #[test]
    fn a_complete_page_costs_no_bitmap() {
        let set = set(0..10 * NUMBERS_PER_PAGE);
        assert_eq!((set.partial, set.pages.len()), (0, 10));
        assert_eq!(set.gaps(), 0);
        assert_eq!(set.missing_from(&set), 0);
        assert_eq!(set.missing_from(&SequenceSet::default()), 10 * NUMBERS_PER_PAGE);
    }

    #[test]
    fn numbers_far_apart_do_not_take_the_memory_between_them() {
        let set = set([u64::MAX - 1, 0, 1 << 60]);
        assert_eq!(set.len(), 3);
        assert_eq!(set.gaps(), u64::MAX - 3);
        assert_eq!(set.partial, 3);
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
