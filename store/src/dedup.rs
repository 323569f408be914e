//! Producer retries do not duplicate: a message whose id was seen on the topic a short while ago is not stored again.
//!
//! Owned by the store, asked by every append under its lock (keys: [`crate::commit_log::record::key_hash`]), rebuilt from the log. Two generations bound the memory: the
//! young one takes new ids; when it is old or full it replaces the elder one. So an id is remembered for at least the
//! window or the last [`GENERATION_MAX`] messages, whichever is shorter, and at most twice that.

use gantry_proto::model::{LogOffset, Timestamp};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

/// Ids in one generation: fills a hash table of 2^20 places, 17 MiB.
pub(crate) const GENERATION_MAX: usize = (1 << 20) / 8 * 7;

/// The ids of a short while.
pub(crate) struct DedupWindow {
    window: Duration,
    young: Generation,
    elder: Generation,
    young_since: Timestamp,
}

/// Where each message lies.
type Generation = HashMap<u64, LogOffset, BuildHasherDefault<AlreadyHashed>>;

impl DedupWindow {
    /// Remembers ids for `window`.
    pub(crate) fn new(window: Duration) -> DedupWindow {
        let (young, elder) = Default::default();
        DedupWindow { window, young, elder, young_since: Timestamp::ZERO }
    }

    /// Where the message with this key lies. Another message may have the same key: look before believing it.
    pub(crate) fn get(&self, key: u64) -> Option<LogOffset> {
        self.young.get(&key).or_else(|| self.elder.get(&key)).copied()
    }

    /// Remembers a message that was stored at `now`.
    pub(crate) fn insert(&mut self, key: u64, at: LogOffset, now: Timestamp) {
        if self.young.len() >= GENERATION_MAX || now.since(self.young_since) > self.window {
            self.elder = std::mem::take(&mut self.young);
            self.young_since = now;
        }
        self.young.insert(key, at);
    }
}

/// Keys are hashes: hashing them again gains nothing.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        // FNV's upper bits, which choose the place's tag, are its weaker ones.
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::record::key_hash;
    use gantry_proto::model::TopicId;

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn an_id_is_remembered_for_the_window_and_forgotten_after_twice_that() {
        let mut window = DedupWindow::new(WINDOW);
        let start = Timestamp::from_millis(1_000_000);
        let key = key_hash(TopicId(1), "id");
        window.insert(key, LogOffset(7), start);
        window.insert(1, LogOffset(8), start.after(WINDOW));
        assert_eq!(window.get(key), Some(LogOffset(7)));
        window.insert(2, LogOffset(9), start.after(WINDOW * 2));
        assert_eq!(window.get(key), Some(LogOffset(7)), "in the elder generation");
        window.insert(3, LogOffset(10), start.after(WINDOW * 4));
        assert_eq!(window.get(key), None);
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_ids() {
        let mut window = DedupWindow::new(WINDOW);
        for key in 0..3 * GENERATION_MAX as u64 {
            window.insert(key, LogOffset(key), Timestamp::from_millis(1));
        }
        assert!(window.young.len() + window.elder.len() <= 2 * GENERATION_MAX);
        assert_eq!(window.get(3 * GENERATION_MAX as u64 - 1), Some(LogOffset(3 * GENERATION_MAX as u64 - 1)));
        assert_eq!(window.get(0), None);
    }
}
