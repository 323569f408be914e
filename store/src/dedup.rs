//! Producer retries do not duplicate: a message whose id was seen on the topic a short while ago is not stored again.
//!
//! Owned by the store, asked by every append under its lock (keys: [`crate::commit_log::record::key_hash`]), rebuilt from the
//! log. An id is remembered for the window, and for a quarter longer at most. What bounds it is memory that the operator
//! states: an id takes 10 to 12.5 bytes (8 in tables that are filled to between 64 and 80 percent), so ten minutes of
//! 50,000 messages a second take some 400 MB. If that is more than was stated, the oldest ids are forgotten before their
//! time, and that is said.
//!
//! Ids live in generations of a quarter of the window, each a table per part of the key's hash, which grow one by one: no
//! single insertion copies more than one of them. A place holds 26 bits of the hash and where the message lies; with the part
//! that is 34 bits, so of 30 million remembered ids one in 600 looks like a new one at first. Whoever asks reads the
//! message and finds out.

use gantry_proto::model::{LogOffset, Timestamp};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Duration;

/// The ids of a short while.
pub(crate) struct DedupWindow {
    window: Duration,
    bytes_max: usize,
    /// Oldest first. New ids go into the last one.
    generations: VecDeque<Generation>,
    /// Bytes of all tables.
    bytes: usize,
    /// How long ids were last remembered that were forgotten before their time. Told once for each generation.
    cut_short: Option<Duration>,
}

/// Ids that came one after the other.
pub(crate) struct Generation {
    since: Timestamp,
    until: Timestamp,
    /// Places in the log count from here.
    base: LogOffset,
    parts: Vec<Part>,
    bytes: usize,
}

/// A hash table with linear probing: by [`Entry`], 0 where nothing is.
#[derive(Default)]
struct Part {
    places: Vec<u64>,
    held: usize,
}

/// Where messages with a key may lie.
pub(crate) type Places = SmallVec<[LogOffset; 2]>;

/// Generations in a window.
const PARTS_OF_WINDOW: u32 = 4;
const TABLES: usize = 256;
const HASH_BITS: u32 = 26;
const OFFSET_BITS: u32 = 64 - HASH_BITS;
/// The largest distance from a generation's base, 256 GiB. One more stands for nothing.
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 2;

impl DedupWindow {
    /// Remembers ids for `window`, if they fit into `bytes_max`.
    pub(crate) fn new(window: Duration, bytes_max: usize) -> DedupWindow {
        DedupWindow { window, bytes_max, generations: VecDeque::new(), bytes: 0, cut_short: None }
    }

    /// Where messages with this key may lie, the latest first. Other ones may look the same: look before believing it.
    pub(crate) fn get(&self, key: u64) -> Places {
        let key = Key::of(key);
        let mut places = Places::new();
        for generation in self.generations.iter().rev() {
            generation.find(key, &mut places);
        }
        places
    }

    /// Remembers a message that was stored at `now`.
    pub(crate) fn insert(&mut self, key: u64, at: LogOffset, now: Timestamp) {
        let fits = |last: &Generation| {
            let share = self.bytes_max / PARTS_OF_WINDOW as usize;
            now.since(last.since) <= self.window / PARTS_OF_WINDOW && last.can_hold(at) && last.bytes < share
        };
        if !self.generations.back().is_some_and(fits) {
            let fresh = Generation::new(at, now);
            self.bytes += fresh.bytes;
            self.generations.push_back(fresh);
        }
        self.forget_old(now);
        if let Some(last) = self.generations.back_mut() {
            let before = last.bytes;
            last.insert(Key::of(key), at, now);
            self.bytes += last.bytes - before;
        }
        self.keep_to_bound(now);
    }

    /// Adds what was found later of messages that came before all that are remembered. False: there is no room.
    pub(crate) fn add_older(&mut self, older: Generation) -> bool {
        let fits = self.bytes + older.bytes <= self.bytes_max;
        if fits {
            self.bytes += older.bytes;
            self.generations.push_front(older);
        }
        fits
    }

    /// Bytes that the tables take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// For how long the ids were remembered that were last forgotten before their time, since this was last asked.
    pub(crate) fn take_cut_short(&mut self) -> Option<Duration> {
        self.cut_short.take()
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.generations.len() > 1
            && self.generations.front().is_some_and(|oldest| now.since(oldest.until) > self.window)
        {
            self.forget_oldest();
        }
    }

    fn keep_to_bound(&mut self, now: Timestamp) {
        while self.bytes > self.bytes_max && self.generations.len() > 1 {
            if let Some(gone) = self.forget_oldest() {
                self.cut_short = Some(now.since(gone.until));
            }
        }
    }

    fn forget_oldest(&mut self) -> Option<Generation> {
        let gone = self.generations.pop_front()?;
        self.bytes -= gone.bytes;
        Some(gone)
    }
}

impl Generation {
    /// One whose first message lies at `first` and came at `since`.
    pub(crate) fn new(first: LogOffset, since: Timestamp) -> Generation {
        let parts = (0..TABLES).map(|_| Part::default()).collect();
        // Rounded, so that what is found in another order fits as well.
        let base = LogOffset(first.0 & !(OFFSET_MAX >> 1));
        Generation { since, until: since, base, parts, bytes: TABLES * size_of::<Part>() }
    }

    /// Remembers a message that lies at or behind the first one. One that lies too far is passed over.
    pub(crate) fn add(&mut self, key: u64, at: LogOffset, now: Timestamp) {
        if self.can_hold(at) {
            self.insert(Key::of(key), at, now);
        }
    }

    fn can_hold(&self, at: LogOffset) -> bool {
        at.0.checked_sub(self.base.0).is_some_and(|distance| distance <= OFFSET_MAX)
    }

    fn insert(&mut self, key: Key, at: LogOffset, now: Timestamp) {
        self.until = self.until.max(now);
        let part = &mut self.parts[key.table];
        let before = part.places.capacity();
        part.insert(key.hash, at.0 - self.base.0);
        self.bytes += (part.places.capacity() - before) * size_of::<u64>();
    }

    fn find(&self, key: Key, places: &mut Places) {
        let first = places.len();
        self.parts[key.table].find(key.hash, |distance| places.push(self.base.plus(distance)));
        places[first..].sort_unstable_by(|one, other| other.cmp(one));
    }
}

impl Part {
    fn insert(&mut self, hash: u64, distance: u64) {
        // Filled to four fifths at most.
        if (self.held + 1) * 5 > self.places.len() * 4 {
            self.grow();
        }
        self.held += 1;
        let entry = (hash << OFFSET_BITS) | (distance + 1);
        let mut place = self.first_place(hash);
        while self.places[place] != 0 {
            place = if place + 1 == self.places.len() { 0 } else { place + 1 };
        }
        self.places[place] = entry;
    }

    fn find(&self, hash: u64, mut found: impl FnMut(u64)) {
        if self.held == 0 {
            return;
        }
        let mut place = self.first_place(hash);
        while self.places[place] != 0 {
            let entry = self.places[place];
            if entry >> OFFSET_BITS == hash {
                found((entry & (OFFSET_MAX + 1)) - 1);
            }
            place = if place + 1 == self.places.len() { 0 } else { place + 1 };
        }
    }

    /// By a quarter, so that little room is empty.
    fn grow(&mut self) {
        let len = (self.places.len() * 5 / 4).max(16);
        let mut before = vec![0; len];
        std::mem::swap(&mut self.places, &mut before);
        self.held = 0;
        for entry in before.into_iter().filter(|entry| *entry != 0) {
            self.held += 1;
            let mut place = self.first_place(entry >> OFFSET_BITS);
            while self.places[place] != 0 {
                place = if place + 1 == len { 0 } else { place + 1 };
            }
            self.places[place] = entry;
        }
    }

    fn first_place(&self, hash: u64) -> usize {
        ((hash * self.places.len() as u64) >> HASH_BITS) as usize
    }
}

/// A key's hash, divided.
#[derive(Clone, Copy)]
struct Key {
    table: usize,
    hash: u64,
}

impl Key {
    fn of(key: u64) -> Key {
        // FNV's upper bits are its weaker ones.
        let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Key { table: (mixed >> 56) as usize, hash: (mixed >> (56 - HASH_BITS)) & ((1 << HASH_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::record::key_hash;
    use gantry_proto::model::TopicId;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(600);
    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn key(number: u64) -> u64 {
        key_hash(TopicId(1), &format!("id-{number}"))
    }

    fn knows(window: &DedupWindow, number: u64) -> bool {
        window.get(key(number)).contains(&LogOffset(number))
    }

    #[test]
    fn an_id_is_remembered_for_the_window_and_not_much_longer() {
        let mut window = DedupWindow::new(WINDOW, 1 << 30);
        for second in 0..2_000 {
            window.insert(key(second), LogOffset(second), START.after(Duration::from_secs(second)));
            assert!((second.saturating_sub(600)..=second).all(|number| knows(&window, number)), "at {second}");
            assert!(second < 760 || !knows(&window, second - 760), "at {second}");
            let bytes: usize = window.generations.iter().map(|generation| generation.bytes).sum();
            assert_eq!(window.bytes(), bytes);
        }
    }

    #[test]
    fn a_rare_message_does_not_end_the_window_of_the_one_before() {
        let mut window = DedupWindow::new(WINDOW, 1 << 30);
        window.insert(key(1), LogOffset(1), START);
        window.insert(key(2), LogOffset(2), START.after(WINDOW));
        assert!(knows(&window, 1));
        window.insert(key(3), LogOffset(3), START.after(WINDOW * 3));
        assert!(!knows(&window, 1));
    }

    #[test]
    fn an_id_takes_12_5_bytes_at_most() {
        let mut window = DedupWindow::new(WINDOW, 1 << 30);
        for number in 0..2_000_000 {
            window.insert(key(number), LogOffset(number), START);
            if number == 1_000_000 || number == 1_600_000 || number == 1_999_999 {
                let each = window.bytes() as f64 / number as f64;
                assert!((9.9..12.6).contains(&each), "{each} bytes for each of {number}");
            }
        }
        assert!((0..2_000_000).step_by(997).all(|number| knows(&window, number)));
        let wrong = (2_000_000..2_100_000).filter(|number| !window.get(key(*number)).is_empty()).count();
        assert!(wrong < 100, "{wrong} of 100,000 new ones looked known");
    }

    #[test]
    fn memory_is_bounded_and_what_that_costs_is_said() {
        let mut window = DedupWindow::new(WINDOW, 1 << 20);
        for number in 0..200_000 {
            window.insert(key(number), LogOffset(number), START.after(Duration::from_millis(number)));
            assert!(window.bytes() <= (1 << 20) + (1 << 18));
        }
        assert!((140_000..200_000).all(|number| knows(&window, number)));
        assert!(!knows(&window, 0));
        let kept = window.take_cut_short().unwrap();
        assert!((Duration::from_secs(40)..Duration::from_secs(100)).contains(&kept), "{kept:?}");
        assert_eq!(window.take_cut_short(), None);
    }

    #[test]
    fn what_is_found_later_is_remembered_too() {
        let mut window = DedupWindow::new(WINDOW, 1 << 30);
        window.insert(key(9), LogOffset(9), START.after(WINDOW / 2));
        let mut older = Generation::new(LogOffset(3), START);
        (3..9).for_each(|number| older.add(key(number), LogOffset(number), START));
        older.add(key(10), LogOffset(4 + (1 << 38)), START);
        assert!(window.add_older(older));
        assert!((3..=9).all(|number| knows(&window, number)));
        window.insert(key(11), LogOffset(11), START.after(WINDOW + Duration::from_secs(1)));
        assert!(!knows(&window, 3) && knows(&window, 9));
    }

    #[test]
    fn a_log_that_goes_far_needs_more_generations() {
        let mut window = DedupWindow::new(WINDOW, 1 << 30);
        let far = |number: u64| LogOffset(number << 37);
        for number in 0..10 {
            window.insert(key(number), far(number), START);
        }
        assert!((0..10).all(|number| window.get(key(number)).as_slice() == [far(number)]));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_latest_comes_first(keys in proptest::collection::vec(0..50u64, 0..300)) {
            let mut window = DedupWindow::new(WINDOW, 1 << 30);
            for (place, number) in keys.iter().enumerate() {
                window.insert(key(*number), LogOffset(place as u64), START);
            }
            for number in 0..50 {
                let expected: Vec<_> = keys.iter().enumerate().rev().filter(|(_, key)| **key == number).map(|(place, _)| LogOffset(place as u64)).collect();
                prop_assert_eq!(window.get(key(number)).to_vec(), expected);
            }
        }
    }
}
