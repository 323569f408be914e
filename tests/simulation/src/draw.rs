//! Draws that a seed determines.

use gantry_proto::env::Random;
use gantry_proto::model::fnv1a;
use parking_lot::Mutex;
use std::ops::Range;
use std::time::Duration;

/// The increment of SplitMix64.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of draws. Everybody who draws has a stream of its own, so that one more draw here changes nothing there.
#[derive(Debug)]
pub struct Draw(Mutex<u64>);

impl Draw {
    /// The stream of a seed and a purpose.
    pub fn new(seed: u64, purpose: &str) -> Draw {
        Draw(Mutex::new(mix(seed.wrapping_add(GOLDEN)) ^ mix(fnv1a(purpose.bytes()))))
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(GOLDEN);
        mix(*state)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A span in `range`, in whole milliseconds.
    pub fn span(&self, range: Range<Duration>) -> Duration {
        let (from, to) = (range.start.as_millis() as u64, range.end.as_millis() as u64);
        Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }

    /// One of `items`. Panics if there are none.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

impl Random for Draw {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_seed_and_purpose() {
        let first = |seed, purpose| Draw::new(seed, purpose).bits();
        assert_eq!(first(1, "disk"), first(1, "disk"));
        assert_ne!(first(1, "disk"), first(2, "disk"));
        assert_ne!(first(1, "disk"), first(1, "network"));
    }

    #[test]
    fn draws_stay_in_their_range() {
        let draw = Draw::new(7, "range");
        let range = Duration::from_millis(3)..Duration::from_millis(9);
        for _ in 0..1000 {
            assert!(range.contains(&draw.span(range.clone())));
            assert!(draw.below(5) < 5);
        }
        assert_eq!(draw.below(0), 0);
    }
}
