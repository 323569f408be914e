//! The page at the front of a segment file: what the file is, without a look at its records.
//!
//! It is each replica's own and no part of the log: records follow it, so a record lies at [`SEGMENT_HEADER_LEN`] plus its
//! distance from the segment's first log offset. It is durable before the file gets its name and never changes.
//!
//! Layout, little endian, format 1:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `GNTRYLOG` |
//! | 8 | 4 | format |
//! | 12 | 4 | CRC-32C of the page without these four bytes. All up to here is the same in every format |
//! | 16 | 8 | log offset of the first record |
//! | 24 | 8 | capacity: bytes of records that the file was made for |
//! | 32 | 16 | folder id |
//! | 48 | 16 | cluster id, or 0 |
//! | 64 | 4 | store group id, or 0 |
//! | 68 | 4 | number of epochs |
//! | 72 | 12 each | epochs whose records lie before this segment, the newest [`EPOCHS_MAX`], oldest first: epoch 4, log offset of its first record 8 |
//! | | | zeros: room for what a later version of format 1 adds |

use super::LogHome;
use bytes::Buf;
use gantry_proto::model::{ClusterId, Epoch, FolderId, LogOffset, StoreGroupId};

/// Bytes in front of a segment's records.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 4096;

/// Epochs that a header names.
pub(crate) const EPOCHS_MAX: usize = 300;

const MAGIC: &[u8; 8] = b"GNTRYLOG";
const FORMAT: u32 = 1;
const EPOCHS_AT: usize = 72;
const EPOCH_LEN: usize = 12;

/// Where an epoch's records begin.
pub(crate) type EpochStart = (Epoch, LogOffset);

/// What the page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub base: LogOffset,
    pub capacity: u64,
    pub home: LogHome,
    pub epochs: Vec<EpochStart>,
}

/// Why a page is not a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SegmentHeaderError {
    #[error("its first {SEGMENT_HEADER_LEN} bytes are not all there")]
    CutOff,
    #[error("nothing was written to its first {SEGMENT_HEADER_LEN} bytes")]
    Blank,
    #[error("the disk does not give its first {SEGMENT_HEADER_LEN} bytes")]
    Unreadable,
    #[error("it does not begin as a log segment does")]
    Magic,
    #[error("the checksum of its first {SEGMENT_HEADER_LEN} bytes does not match")]
    Checksum,
    #[error("it was written by a newer Gantry (segment format {0}, this one knows {FORMAT})")]
    Newer(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(SEGMENT_HEADER_LEN as usize);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&self.base.0.to_le_bytes());
        page.extend_from_slice(&self.capacity.to_le_bytes());
        page.extend_from_slice(&self.home.folder.0);
        page.extend_from_slice(&self.home.cluster.map_or([0; 16], |cluster| cluster.0));
        page.extend_from_slice(&self.home.store_group.map_or(0, |group| group.0).to_le_bytes());
        let epochs = &self.epochs[self.epochs.len().saturating_sub(EPOCHS_MAX)..];
        page.extend_from_slice(&(epochs.len() as u32).to_le_bytes());
        for (epoch, from) in epochs {
            page.extend_from_slice(&epoch.0.to_le_bytes());
            page.extend_from_slice(&from.0.to_le_bytes());
        }
        page.resize(SEGMENT_HEADER_LEN as usize, 0);
        let crc = checksum(&page);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// The folder that a page names which is not whole, if it begins as a header does. Nothing checks it.
    pub(crate) fn claimed_folder(page: &[u8]) -> Option<FolderId> {
        let page = page.get(..EPOCHS_AT).filter(|page| &page[..8] == MAGIC)?;
        Some(FolderId(*page[32..].first_chunk()?))
    }

    /// In how many bits a page differs from this header in what every header of this segment says: what it is, and of which
    /// place. `None`: it is cut off.
    pub(crate) fn bits_changed(&self, page: &[u8]) -> Option<u32> {
        let own = self.encode();
        let differ = |one: &[u8], other: &[u8]| -> u32 {
            one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
        };
        let parts = [0..12, 16..32].map(|part| Some(differ(own.get(part.clone())?, page.get(part)?)));
        parts.into_iter().sum()
    }

    /// Reads the front of a segment file.
    pub(crate) fn parse(page: &[u8]) -> Result<SegmentHeader, SegmentHeaderError> {
        let page = page.get(..SEGMENT_HEADER_LEN as usize).ok_or(SegmentHeaderError::CutOff)?;
        if page.iter().all(|byte| *byte == 0) {
            return Err(SegmentHeaderError::Blank);
        }
        if &page[..8] != MAGIC {
            return Err(SegmentHeaderError::Magic);
        }
        let mut fields = &page[8..];
        let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
        if checksum(page) != crc || format == 0 {
            return Err(SegmentHeaderError::Checksum);
        }
        if format > FORMAT {
            return Err(SegmentHeaderError::Newer(format));
        }
        let (base, capacity) = (LogOffset(fields.get_u64_le()), fields.get_u64_le());
        let mut id = || {
            let mut id = [0; 16];
            fields.copy_to_slice(&mut id);
            id
        };
        let (folder, cluster) = (FolderId(id()), id());
        let (group, count) = (fields.get_u32_le(), fields.get_u32_le() as usize);
        if count > (page.len() - EPOCHS_AT) / EPOCH_LEN {
            return Err(SegmentHeaderError::Checksum);
        }
        let home = LogHome {
            folder,
            cluster: (cluster != [0; 16]).then_some(ClusterId(cluster)),
            store_group: (group != 0).then_some(StoreGroupId(group)),
        };
        let epochs = (0..count).map(|_| (Epoch(fields.get_u32_le()), LogOffset(fields.get_u64_le()))).collect();
        Ok(SegmentHeader { base, capacity, home, epochs })
    }
}

fn checksum(page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page[..12]), &page[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epochs: u32) -> SegmentHeader {
        let home = LogHome { folder: FolderId([7; 16]), cluster: None, store_group: Some(StoreGroupId(3)) };
        let epochs = (0..epochs).map(|n| (Epoch(n + 1), LogOffset(u64::from(n) * 100))).collect();
        SegmentHeader { base: LogOffset(1 << 40), capacity: 1 << 30, home, epochs }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for epochs in [0, 1, EPOCHS_MAX as u32] {
            let page = header(epochs).encode();
            assert_eq!(page.len() as u64, SEGMENT_HEADER_LEN);
            assert_eq!(SegmentHeader::parse(&page), Ok(header(epochs)));
        }
        let many = SegmentHeader::parse(&header(EPOCHS_MAX as u32 + 5).encode()).unwrap();
        assert_eq!(many.epochs.first(), Some(&(Epoch(6), LogOffset(500))), "the newest are kept");
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed_and_a_newer_format_is_not_called_damaged() {
        let page = header(2).encode();
        for byte in 0..page.len() {
            let mut changed = page.clone();
            changed[byte] ^= 0x10;
            let error = SegmentHeader::parse(&changed).unwrap_err();
            assert!(matches!(error, SegmentHeaderError::Magic | SegmentHeaderError::Checksum), "byte {byte}: {error}");
        }
        let mut newer = page.clone();
        newer[8] = 2;
        let crc = checksum(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::parse(&newer), Err(SegmentHeaderError::Newer(2)));
        for len in [0, 10, 100, 4095] {
            assert_eq!(SegmentHeader::parse(&page[..len]), Err(SegmentHeaderError::CutOff), "{len}");
        }
        assert_eq!(SegmentHeader::parse(&[0; 4096]), Err(SegmentHeaderError::Blank));
        let text = [b'x'; 4096];
        assert_eq!(SegmentHeader::parse(&text), Err(SegmentHeaderError::Magic));
    }
}
