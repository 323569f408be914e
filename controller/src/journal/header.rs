//! The head of each file in a data folder: what it is, in which format, and to which folder it belongs.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GTRYMETJ` for a journal, `GTRYMETS` for a snapshot |
//! | 4 | format of the file: 1 |
//! | 16 | identity of the data folder, random |
//! | 8 | journal: version before its first entry; snapshot: its version |
//! | 4 | CRC-32C of everything before |
//!
//! The first two fields never move, so every program can tell a newer format from damage.

use crate::codec::Reader;
use crate::open_error::OpenError;
use gantry_proto::model::MetadataVersion;
use std::path::Path;

pub(super) const LEN: usize = 40;
/// The newest format that this program reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;

/// Ties the files of one data folder together, so that a file of another one is noticed.
pub(super) type Identity = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) identity: Identity,
    pub(super) version: MetadataVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Journal,
    Snapshot,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.extend(self.kind.magic());
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.identity);
        out.extend(self.version.0.to_le_bytes());
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the head of the file at `path`, which must be of that kind.
    pub(super) fn decode(kind: Kind, bytes: &[u8], path: &Path) -> Result<Header, OpenError> {
        let damaged = |offset, what| OpenError::damaged(path, offset, what);
        let bytes = bytes.get(..LEN).ok_or_else(|| damaged(bytes.len() as u64, "the file is shorter than its head"))?;
        let mut reader = Reader::new(bytes);
        let undecodable = |error| OpenError::undecodable(path, 0, error);
        if reader.array::<8>().map_err(undecodable)? != *kind.magic() {
            return Err(damaged(0, "the file is not what its name says"));
        }
        let format = reader.u32().map_err(undecodable)?;
        if format > FORMAT {
            return Err(OpenError::NewerFormat { path: path.to_owned(), found: format, known: FORMAT });
        }
        let header = Header {
            kind,
            identity: reader.array().map_err(undecodable)?,
            version: MetadataVersion(reader.u64().map_err(undecodable)?),
        };
        let crc = reader.u32().map_err(undecodable)?;
        if format == 0 || crc != crc32c::crc32c(&bytes[..LEN - 4]) {
            return Err(damaged(0, "the file's head has a wrong checksum"));
        }
        Ok(header)
    }
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Journal => b"GTRYMETJ",
            Kind::Snapshot => b"GTRYMETS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { kind: Kind::Journal, identity: [7; 16], version: MetadataVersion(513) };

    fn decode(bytes: &[u8]) -> Result<Header, OpenError> {
        Header::decode(Kind::Journal, bytes, Path::new("file"))
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(decode(&bytes).unwrap(), HEADER);
        assert!(matches!(Header::decode(Kind::Snapshot, &bytes, Path::new("file")), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_a_newer_format_is_named() {
        for bit in 0..LEN * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        let error = decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("written by a newer gantry"), "{error}");
        assert!(decode(&HEADER.encode()[..39]).is_err());
    }
}
