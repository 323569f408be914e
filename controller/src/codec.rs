//! Messages on disk. Each is sealed by itself:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32C of the rest |
//! | 1 | format: 1 |
//! | n | the message, of `raft.proto` |
//!
//! What must always hold:
//! - The checksum is looked at first. What it does not fit is damaged; all else was written so, and what of it is not
//!   understood was written by a newer program.
//! - Equal messages give equal bytes. A message's fields may grow without a new format: a reader skips those that it does
//!   not know, so what a known command does may only change together with the rules that it is under.
//! - Opening accepts any bytes: an error, never a panic, and never more memory than a multiple of the bytes given.

use gantry_proto::convert::Malformed;
use prost::Message;

/// The layout around a message.
const FORMAT: u8 = 1;

/// Why bytes could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Whole, but not understood: written by a newer program. Nothing may be cut off or overwritten because of it.
    #[error("{0}")]
    Newer(String),
    /// Not what was written.
    #[error("{0}")]
    Damaged(&'static str),
}

impl CodecError {
    pub(crate) fn newer(what: impl ToString) -> CodecError {
        CodecError::Newer(what.to_string())
    }
}

impl From<Malformed> for CodecError {
    fn from(malformed: Malformed) -> CodecError {
        CodecError::newer(malformed)
    }
}

/// A message as bytes that can be told from damaged ones.
pub(crate) fn seal(message: &impl Message) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(5 + message.encoded_len());
    sealed.extend([0, 0, 0, 0, FORMAT]);
    sealed.extend(message.encode_to_vec());
    let sum = crc32c::crc32c(&sealed[4..]);
    sealed[..4].copy_from_slice(&sum.to_le_bytes());
    sealed
}

/// The message that was sealed.
pub(crate) fn unseal<M: Message + Default>(sealed: &[u8]) -> Result<M, CodecError> {
    match sealed.split_first_chunk::<4>() {
        Some((sum, rest)) if *sum == crc32c::crc32c(rest).to_le_bytes() => match rest.split_first() {
            Some((&FORMAT, message)) => decode(message),
            Some((found, _)) => Err(CodecError::Newer(format!("format {found}, this one understands {FORMAT}"))),
            None => Err(CodecError::Damaged("it is empty")),
        },
        _ => Err(CodecError::Damaged("a checksum does not fit")),
    }
}

/// A message that fills `bytes`.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|error| CodecError::Newer(format!("a record of another kind: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::wire::controller::v1::{LogId, MetadataCommand};
    use proptest::prelude::*;

    fn id() -> LogId {
        LogId { term: 1, member: 2, index: 300 }
    }

    fn sealed_by_hand(format: u8, message: &[u8]) -> Vec<u8> {
        let rest = [&[format], message].concat();
        [&crc32c::crc32c(&rest).to_le_bytes()[..], &rest].concat()
    }

    #[test]
    fn a_message_is_sealed_as_the_layout_says() {
        assert_eq!(seal(&id()), sealed_by_hand(1, b"\x08\x01\x10\x02\x18\xac\x02"));
        assert_eq!(unseal(&seal(&id())), Ok(id()));
    }

    #[test]
    fn what_is_newer_is_told_from_damage() {
        let newer = |sealed: Vec<u8>| matches!(unseal::<LogId>(&sealed), Err(CodecError::Newer(_)));
        assert!(newer(sealed_by_hand(2, b"\x08\x01")));
        assert!(newer(sealed_by_hand(1, b"\xff")));
        assert!(newer(sealed_by_hand(0, b"")));
        for damaged in [&b""[..], b"\0\0\0", b"\0\0\0\0", b"\0\0\0\0\x01"] {
            assert!(matches!(unseal::<LogId>(damaged), Err(CodecError::Damaged(_))), "{damaged:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_skipped() {
        assert_eq!(unseal(&sealed_by_hand(1, b"\x08\x01\x10\x02\x18\xac\x02\xfa\x01\x03new")), Ok(id()));
    }

    proptest! {
        #[test]
        fn any_bytes_open_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(matches!(unseal::<MetadataCommand>(&bytes), Err(CodecError::Damaged(_))));
            let _ = unseal::<MetadataCommand>(&sealed_by_hand(1, &bytes));
        }

        #[test]
        fn each_changed_bit_is_damage(index: u64, at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = seal(&LogId { index, ..id() });
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(matches!(unseal::<LogId>(&bytes), Err(CodecError::Damaged(_))));
            prop_assert!(matches!(unseal::<LogId>(&bytes[..at]), Err(CodecError::Damaged(_))));
        }
    }
}
