//! A snapshot file: a whole state.
//!
//! | bytes | what |
//! |---|---|
//! | 40 | head |
//! | 8 | length of the state |
//! | 4 | CRC-32C of the length and the state |
//! | n | state |

use super::header::{self, Header, Identity, Kind};
use crate::codec::{Reader, decode_state, encode_state};
use crate::open_error::OpenError;
use crate::state::MetadataState;
use std::path::Path;

const STATE_AT: usize = header::LEN + 12;

pub(super) fn encode(identity: Identity, state: &MetadataState) -> Vec<u8> {
    let payload = encode_state(state);
    let len = (payload.len() as u64).to_le_bytes();
    let mut out = Header { kind: Kind::Snapshot, identity, version: state.version() }.encode();
    out.extend(len);
    out.extend(checksum(len, &payload).to_le_bytes());
    out.extend(payload);
    out
}

/// Reads the snapshot that is the file at `path`. It got its name after it was whole, so anything wrong is damage.
pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<(Header, MetadataState), OpenError> {
    let header = Header::decode(Kind::Snapshot, bytes, path)?;
    let undecodable = |error| OpenError::undecodable(path, header::LEN as u64, error);
    let mut reader = Reader::new(&bytes[header::LEN..]);
    let len: [u8; 8] = reader.array().map_err(undecodable)?;
    let crc = reader.u32().map_err(undecodable)?;
    let payload = &bytes[STATE_AT..];
    if payload.len() as u64 != u64::from_le_bytes(len) || checksum(len, payload) != crc {
        return Err(OpenError::damaged(path, header::LEN as u64, "the snapshot has a wrong length or checksum"));
    }
    let state = decode_state(payload).map_err(|error| OpenError::undecodable(path, STATE_AT as u64, error))?;
    if state.version() != header.version {
        return Err(OpenError::damaged(path, STATE_AT as u64, "the snapshot is not of the version in its head"));
    }
    Ok((header, state))
}

fn checksum(len: [u8; 8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create_group;
    use gantry_proto::model::Timestamp;

    #[test]
    fn a_snapshot_reads_back_as_it_was_written_and_every_flipped_bit_is_noticed() {
        let mut state = MetadataState::default();
        state.apply(&create_group("g"), Timestamp::ZERO).unwrap();
        let bytes = encode([3; 16], &state);
        let path = Path::new("snapshot");
        let (header, read) = decode(&bytes, path).unwrap();
        assert_eq!((header.identity, read), ([3; 16], state));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, path).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], path).is_err(), "cut at {len}");
        }
    }
}
