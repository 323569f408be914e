//! What a benchmark message carries: who sent it, which one it is, when it was meant to be sent, and a checksum over all
//! of it.
//!
//! Layout, little endian: magic 4 | CRC-32C of everything after it 4 | run 8 | sequence 8 | intended 8 | producer 4 | filler.
//! The filler is pseudo-random and different in every message, so no layer gains by compressing it.

use super::clock::Moment;
use bytes::{Buf as _, BufMut as _, Bytes};
use std::fmt;

/// The smallest body.
pub(crate) const BODY_BYTES_MIN: usize = 36;

const MAGIC: [u8; 4] = *b"GBN1";
const CHECKED_FROM: usize = 8;

/// One run of the benchmark, whoever reads its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId(pub(crate) u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a body says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyHeader {
    pub(crate) run: RunId,
    pub(crate) producer: u32,
    /// Which message of the producer, counted from 0.
    pub(crate) sequence: u64,
    pub(crate) intended: Moment,
}

/// Why a body cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    Foreign,
    /// One of ours, but not as it was sent.
    Corrupt,
}

/// A body of `size` bytes, which must be at least [`BODY_BYTES_MIN`].
pub(crate) fn encode(header: BodyHeader, size: usize) -> Bytes {
    assert!(size >= BODY_BYTES_MIN, "flags are checked before");
    let mut body = Vec::with_capacity(size);
    body.put_slice(&MAGIC);
    body.put_u32_le(0);
    body.put_u64_le(header.run.0);
    body.put_u64_le(header.sequence);
    body.put_u64_le(header.intended.as_unix_nanos());
    body.put_u32_le(header.producer);
    fill(&mut body, size, header.run.0 ^ (u64::from(header.producer) << 40) ^ header.sequence);
    let checksum = crc32c::crc32c(&body[CHECKED_FROM..]);
    body[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    body.into()
}

/// Reads a body back. A message that was cut, extended or changed anywhere is [`BodyError::Corrupt`].
pub(crate) fn decode(body: &[u8]) -> Result<BodyHeader, BodyError> {
    let mut rest = body.strip_prefix(&MAGIC).ok_or(BodyError::Foreign)?;
    if body.len() < BODY_BYTES_MIN || rest.get_u32_le() != crc32c::crc32c(&body[CHECKED_FROM..]) {
        return Err(BodyError::Corrupt);
    }
    let (run, sequence) = (RunId(rest.get_u64_le()), rest.get_u64_le());
    let intended = Moment::from_unix_nanos(rest.get_u64_le());
    Ok(BodyHeader { run, producer: rest.get_u32_le(), sequence, intended })
}

/// Extends `body` to `size` bytes with the SplitMix64 sequence (Steele, Lea, Flood 2014) of `seed`.
fn fill(body: &mut Vec<u8>, size: usize, seed: u64) {
    let mut state = seed;
    while body.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let wanted = (size - body.len()).min(8);
        body.extend_from_slice(&word.to_le_bytes()[..wanted]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn headers()(run: u64, producer: u32, sequence: u64, intended: u64) -> BodyHeader {
            BodyHeader { run: RunId(run), producer, sequence, intended: Moment::from_unix_nanos(intended) }
        }
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was_sent(header in headers(), size in BODY_BYTES_MIN..3000) {
            let body = encode(header, size);
            prop_assert_eq!(body.len(), size);
            prop_assert_eq!(decode(&body), Ok(header));
        }

        #[test]
        fn any_changed_bit_is_noticed(header in headers(), size in BODY_BYTES_MIN..300, bit: prop::sample::Index) {
            let mut body = encode(header, size).to_vec();
            let bit = bit.index(size * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&body).is_err());
        }

        #[test]
        fn any_cut_is_noticed(header in headers(), size in BODY_BYTES_MIN..300, cut: prop::sample::Index) {
            let body = encode(header, size);
            prop_assert!(decode(&body[..cut.index(size)]).is_err());
        }

        #[test]
        fn no_input_panics(body: Vec<u8>) {
            let _ = decode(&body);
        }
    }

    #[test]
    fn foreign_and_damaged_are_told_apart() {
        let header = BodyHeader { run: RunId(1), producer: 0, sequence: 7, intended: Moment::from_unix_nanos(9) };
        let mut body = encode(header, 64).to_vec();
        assert_eq!(decode(b"hello"), Err(BodyError::Foreign));
        assert_eq!(decode(b""), Err(BodyError::Foreign));
        body.push(0);
        assert_eq!(decode(&body), Err(BodyError::Corrupt));
    }

    #[test]
    fn neighbouring_messages_share_no_filler() {
        let body = |sequence| {
            encode(BodyHeader { run: RunId(5), producer: 1, sequence, intended: Moment::from_unix_nanos(0) }, 4096)
        };
        let (first, second) = (body(0), body(1));
        let equal = first[BODY_BYTES_MIN..].iter().zip(&second[BODY_BYTES_MIN..]).filter(|(a, b)| a == b).count();
        assert!(equal < 100, "{equal} of 4060 bytes are equal, chance makes about 16");
    }
}
