//! What this member's state was like after recent entries of the log, to be compared with what others say of theirs.

use parking_lot::Mutex;
use std::collections::VecDeque;

/// Entries that are remembered: a member that is behind by more is compared when it has caught up.
const REMEMBERED: usize = 4096;

/// Digests by index, ascending.
#[derive(Default)]
pub(crate) struct Digests {
    recent: Mutex<VecDeque<(u64, u64)>>,
}

impl Digests {
    /// After the entry of that index.
    pub(super) fn record(&self, index: u64, digest: u64) {
        let mut recent = self.recent.lock();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back((index, digest));
    }

    /// A state came as a whole: what was before it is of no interest.
    pub(super) fn restart(&self, index: u64, digest: u64) {
        let mut recent = self.recent.lock();
        recent.clear();
        recent.push_back((index, digest));
    }

    /// After that entry, if that is remembered.
    pub(crate) fn at(&self, index: u64) -> Option<u64> {
        let recent = self.recent.lock();
        let place = recent.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(recent[place].1)
    }

    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.recent.lock().back().copied()
    }
}
