use crate::env::Random;
use parking_lot::Mutex;

/// Random bytes that the seed and the order of calls determine.
pub struct SeededRandom {
    state: Mutex<SplitMix>,
}

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, and good enough to draw faults.
pub(super) struct SplitMix(u64);

impl SeededRandom {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom { state: Mutex::new(SplitMix::new(seed)) }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.state.lock().next()
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.state.lock().below(bound)
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.state.lock();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&state.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

impl SplitMix {
    pub(super) fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder does not matter for drawing faults.
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_every_byte() {
        let draw = |seed| {
            let random = SeededRandom::new(seed);
            let mut bytes = [0; 29];
            random.fill(&mut bytes);
            (bytes, random.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
