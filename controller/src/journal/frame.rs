//! A frame: the entries of one batch, which one sync makes durable.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `GMJF` |
//! | 4 | length of the payload |
//! | 4 | CRC-32C of the length and the payload |
//! | | payload: |
//! | 1 | version: 1 |
//! | 4 | number of entries |
//! | 8 | entry: version that it made |
//! | 8 | entry: time, milliseconds since the epoch |
//! | 4 | entry: length of the command |
//! | n | entry: command |

use super::JournalEntry;
use crate::codec::{CodecError, Reader, decode_command, encode_command};
use gantry_proto::model::{MetadataVersion, Timestamp};

const MAGIC: [u8; 4] = *b"GMJF";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 12;
/// Far above any batch: a longer length is not one.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What a journal's bytes hold.
#[derive(Debug, PartialEq)]
pub(super) struct Scanned {
    pub(super) entries: Vec<JournalEntry>,
    /// Where the last whole frame begins; equal to `end` when there is none.
    pub(super) last_frame: usize,
    /// Where the last whole frame ends. What follows was torn by a crash.
    pub(super) end: usize,
}

/// Bytes that a crash cannot explain.
#[derive(Debug, PartialEq)]
pub(super) struct BadFrame {
    pub(super) offset: usize,
    pub(super) error: BadFrameError,
}

#[derive(Debug, PartialEq)]
pub(super) enum BadFrameError {
    /// Not a whole frame, although one follows.
    FollowedBy { what: &'static str, next: usize },
    /// Whole, but not understood.
    Undecodable(CodecError),
}

enum FrameError {
    /// Not what was written, or not all of it.
    Broken(&'static str),
    /// The checksum is right.
    Undecodable(CodecError),
}

/// The bytes of one frame.
pub(super) fn encode(entries: &[JournalEntry]) -> Vec<u8> {
    let mut out = vec![0; HEAD_LEN];
    out.push(VERSION);
    out.extend((entries.len() as u32).to_le_bytes());
    for entry in entries {
        out.extend(entry.version.0.to_le_bytes());
        out.extend(entry.at.as_millis().to_le_bytes());
        let len_at = out.len();
        out.extend([0; 4]);
        encode_command(&mut out, &entry.command);
        let len = (out.len() - len_at - 4) as u32;
        out[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
    }
    assert!(out.len() <= HEAD_LEN + PAYLOAD_BYTES_MAX, "a batch of {} entries makes too long a frame", entries.len());
    let len = ((out.len() - HEAD_LEN) as u32).to_le_bytes();
    let crc = checksum(len, &out[HEAD_LEN..]);
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&len);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads frames from `from` on, up to the first that is not whole.
pub(super) fn scan(bytes: &[u8], from: usize) -> Result<Scanned, BadFrame> {
    let mut scanned = Scanned { entries: Vec::new(), last_frame: from, end: from };
    while scanned.end < bytes.len() {
        let offset = scanned.end;
        match decode(&bytes[offset..]) {
            Ok((entries, len)) => {
                scanned.entries.extend(entries);
                (scanned.last_frame, scanned.end) = (offset, offset + len);
            }
            Err(FrameError::Undecodable(error)) => {
                return Err(BadFrame { offset, error: BadFrameError::Undecodable(error) });
            }
            Err(FrameError::Broken(what)) => match find_whole_frame(bytes, offset + 1) {
                Some(next) => {
                    return Err(BadFrame { offset, error: BadFrameError::FollowedBy { what, next } });
                }
                None => break,
            },
        }
    }
    Ok(scanned)
}

/// The first whole frame at or after `from`.
fn find_whole_frame(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let starts = rest.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).map(|(at, _)| from + at);
    let mut whole = starts.filter(|at| !matches!(decode(&bytes[*at..]), Err(FrameError::Broken(_))));
    whole.next()
}

/// The frame at the front of `bytes`, and its length.
fn decode(bytes: &[u8]) -> Result<(Vec<JournalEntry>, usize), FrameError> {
    let mut reader = Reader::new(bytes);
    let too_short = |_| FrameError::Broken("a frame ends too early");
    if reader.array::<4>().map_err(too_short)? != MAGIC {
        return Err(FrameError::Broken("there is no frame"));
    }
    let len: [u8; 4] = reader.array().map_err(too_short)?;
    let crc = reader.u32().map_err(too_short)?;
    let payload_len = u32::from_le_bytes(len) as usize;
    if payload_len > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Broken("a frame has an impossible length"));
    }
    let payload = reader.take(payload_len).map_err(too_short)?;
    if checksum(len, payload) != crc {
        return Err(FrameError::Broken("a frame has a wrong checksum"));
    }
    let entries = decode_payload(payload).map_err(FrameError::Undecodable)?;
    Ok((entries, HEAD_LEN + payload_len))
}

fn decode_payload(payload: &[u8]) -> Result<Vec<JournalEntry>, CodecError> {
    let mut reader = Reader::new(payload);
    reader.version(VERSION)?;
    let count = reader.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let version = MetadataVersion(reader.u64()?);
        let at = Timestamp::from_millis(reader.u64()?);
        let len = reader.u32()? as usize;
        entries.push(JournalEntry { version, at, command: decode_command(reader.take(len)?)? });
    }
    reader.end()?;
    Ok(entries)
}

fn checksum(len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_command, topic_name};
    use gantry_proto::model::MetadataCommand;
    use proptest::prelude::*;

    fn entry(version: u64) -> JournalEntry {
        // Ends in text: zeros in place of a torn end must not complete it.
        let command = MetadataCommand::DeleteTopic { name: topic_name(&format!("topic-{version}")) };
        JournalEntry { version: MetadataVersion(version), at: Timestamp::from_millis(version * 10), command }
    }

    /// Three frames of two entries, and where they begin.
    fn three_frames() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (vec![0; 7], Vec::new());
        for first in [1, 3, 5] {
            starts.push(bytes.len());
            bytes.extend(encode(&[entry(first), entry(first + 1)]));
        }
        (bytes, starts)
    }

    #[test]
    fn a_torn_tail_ends_the_scan_at_the_last_whole_frame() {
        let (bytes, starts) = three_frames();
        for cut in starts[2]..bytes.len() {
            for tail in [&bytes[..cut], &[&bytes[..cut], &[0; 600]].concat()] {
                let scanned = scan(tail, 7).unwrap();
                assert_eq!((scanned.entries.len(), scanned.last_frame, scanned.end), (4, starts[1], starts[2]));
            }
        }
        assert_eq!(scan(&bytes, 7).unwrap().entries, (1..=6).map(entry).collect::<Vec<_>>());
        assert_eq!(scan(&bytes[..7], 7).unwrap().end, 7);
    }

    #[test]
    fn a_flipped_bit_before_the_last_frame_is_damage_with_its_offset() {
        let (bytes, starts) = three_frames();
        for bit in starts[0] * 8..starts[2] * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bad = scan(&bytes, 7).unwrap_err();
            let frame = usize::from(bit / 8 >= starts[1]);
            assert_eq!(bad.offset, starts[frame], "bit {bit}");
            assert!(
                matches!(bad.error, BadFrameError::FollowedBy { next, .. } if next == starts[frame + 1]),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_newer_frame_is_neither_cut_nor_called_damaged() {
        let mut bytes = encode(&[entry(1)]);
        bytes[HEAD_LEN] = 2;
        let crc = checksum([bytes[4], bytes[5], bytes[6], bytes[7]], &bytes[HEAD_LEN..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        let bad = scan(&bytes, 0).unwrap_err();
        assert_eq!(bad.error, BadFrameError::Undecodable(CodecError::Newer { found: 2, known: 1 }));
    }

    proptest! {
        #[test]
        fn frames_read_back_as_they_were_written(
            commands in proptest::collection::vec((any_command("[a-z]{1,30}"), any::<u64>(), any::<u64>()), 1..8),
        ) {
            let entries: Vec<_> = (commands.into_iter())
                .map(|(command, version, millis)| JournalEntry {
                    version: MetadataVersion(version),
                    at: Timestamp::from_millis(millis),
                    command,
                })
                .collect();
            let bytes = encode(&entries);
            prop_assert_eq!(scan(&bytes, 0), Ok(Scanned { entries, last_frame: 0, end: bytes.len() }));
        }

        #[test]
        fn any_bytes_scan_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes, 0);
        }
    }
}
