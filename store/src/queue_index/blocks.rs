//! The container of a sealed index: blocks of [`BLOCK_LEN`] bytes, each with a checksum, and sections of fixed-length rows.
//!
//! Every block ends with the CRC-32C of its number, the file's first log offset and its payload, and it is checked whenever
//! the block is read: a flipped bit, a block of another file and a block at a wrong place are all noticed before a row of
//! it is believed. Rows never cross a block.
//!
//! Block 0, little endian, format 1. In every format the first block is 4096 bytes that end with their checksum, so that a
//! newer file is told from a damaged one.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `GNTRYIDX` |
//! | 8 | 4 | format |
//! | 12 | 4 | zero |
//! | 16 | 4 | demands: a bit that a reader does not know means that the file is newer |
//! | 20 | 4 | number of sections |
//! | 24 | 8 | first log offset |
//! | 32 | 8 | end |
//! | 40 | 8 | store time of the newest message |
//! | 48 | 8 | blocks in the file |
//! | 56 | 8 | zero |
//! | 64 | 32 each | sections: kind 2, demands 2, row length 4, rows 8, first block 8, blocks 8 |
//!
//! A reader passes over sections of kinds that it does not know unless they demand something, and over what follows the
//! part of a row that it knows: both are room for later fields.

use bytes::{Buf, Bytes};
use gantry_proto::env::File;
use gantry_proto::model::{LogOffset, Timestamp};
use std::io;
use std::sync::Arc;

/// Bytes of a block: what the page cache reads at a time. A damaged one costs few entries.
pub(super) const BLOCK_LEN: usize = 4096;
const PAYLOAD_LEN: usize = BLOCK_LEN - 4;
const MAGIC: &[u8; 8] = b"GNTRYIDX";
const FORMAT: u32 = 1;
const SECTIONS_AT: usize = 64;
const SECTION_LEN: usize = 32;
const SECTIONS_MAX: usize = (PAYLOAD_LEN - SECTIONS_AT) / SECTION_LEN;
/// Written and flushed in pieces of this size: one large flush would hold up those of the log.
const FLUSH_BYTES: u64 = 4 << 20;

/// Why a file of blocks cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("block {0} is damaged")]
    Damaged(u64),
    #[error(
        "it was written by a newer Gantry (format {0}, this one knows {FORMAT}). Start the version of Gantry that wrote it, \
         or a later one; it was not changed"
    )]
    Newer(u32),
    #[error("it ends before {0}")]
    CutOff(&'static str),
    #[error("it is of another segment")]
    Other,
}

/// Rows of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub kind: u16,
    /// Not zero: who does not know the kind must not use the file.
    pub demands: u16,
    pub row_len: u32,
    pub rows: u64,
    pub first_block: u64,
    pub blocks: u64,
}

/// What block 0 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub base: LogOffset,
    pub end: LogOffset,
    pub newest: Timestamp,
    pub blocks: u64,
    pub sections: Vec<Section>,
}

/// Writes sections one after the other, then block 0.
pub(super) struct BlockWriter {
    file: Arc<dyn File>,
    base: LogOffset,
    /// Blocks that are finished, block 0 counted.
    blocks: u64,
    /// Finished blocks that were not written yet.
    finished: Vec<u8>,
    unflushed: u64,
    /// Payload of the current block.
    current: Vec<u8>,
    open: Option<Section>,
    sections: Vec<Section>,
}

/// Reads rows, whose blocks it checks.
pub(crate) struct BlockReader {
    file: Arc<dyn File>,
    pub header: FileHeader,
}

impl Section {
    /// Rows in one block.
    pub(super) fn rows_per_block(&self) -> u64 {
        rows_per_block(self.row_len)
    }
}

pub(super) fn rows_per_block(row_len: u32) -> u64 {
    (PAYLOAD_LEN as u64 / u64::from(row_len.max(1))).max(1)
}

impl BlockWriter {
    pub(super) fn new(file: Arc<dyn File>, base: LogOffset) -> BlockWriter {
        let (finished, current, sections) = Default::default();
        BlockWriter { file, base, blocks: 1, finished, unflushed: 0, current, open: None, sections }
    }

    pub(super) fn begin(&mut self, kind: u16, row_len: usize) -> io::Result<()> {
        self.end_section()?;
        let row_len = row_len as u32;
        self.open = Some(Section { kind, demands: 0, row_len, rows: 0, first_block: self.blocks, blocks: 0 });
        Ok(())
    }

    /// Adds a row to the open section.
    pub(super) fn row(&mut self, row: &[u8]) -> io::Result<()> {
        let section = self.open.as_mut().expect("a section was begun before a row is added");
        debug_assert_eq!(row.len(), section.row_len as usize, "rows of a section are of one length");
        section.rows += 1;
        let full = self.current.len() + 2 * row.len() > PAYLOAD_LEN;
        self.current.extend_from_slice(row);
        if full { self.end_block() } else { Ok(()) }
    }

    /// Writes block 0 and makes everything durable.
    pub(super) fn finish(mut self, end: LogOffset, newest: Timestamp) -> io::Result<()> {
        self.end_section()?;
        self.write_finished()?;
        let header = FileHeader {
            base: self.base,
            end,
            newest,
            blocks: self.blocks,
            sections: std::mem::take(&mut self.sections),
        };
        self.file.write_all_at(&header.encode(), 0)?;
        self.file.sync_data()
    }

    fn end_section(&mut self) -> io::Result<()> {
        if !self.current.is_empty() {
            self.end_block()?;
        }
        if let Some(mut section) = self.open.take() {
            section.blocks = self.blocks - section.first_block;
            self.sections.push(section);
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let mut payload = std::mem::take(&mut self.current);
        payload.resize(PAYLOAD_LEN, 0);
        let crc = checksum(self.blocks, self.base, &payload);
        self.finished.extend_from_slice(&payload);
        self.finished.extend_from_slice(&crc.to_le_bytes());
        self.blocks += 1;
        payload.clear();
        self.current = payload;
        if self.finished.len() >= 64 * BLOCK_LEN { self.write_finished() } else { Ok(()) }
    }

    fn write_finished(&mut self) -> io::Result<()> {
        let at = self.blocks * BLOCK_LEN as u64 - self.finished.len() as u64;
        self.file.write_all_at(&self.finished, at)?;
        self.unflushed += self.finished.len() as u64;
        self.finished.clear();
        if self.unflushed >= FLUSH_BYTES {
            self.unflushed = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl BlockReader {
    /// Reads block 0.
    pub(crate) fn open(file: Arc<dyn File>) -> Result<BlockReader, BlockError> {
        let header = FileHeader::parse(&file.read_at(0, BLOCK_LEN)?)?;
        if file.len()? < header.blocks * BLOCK_LEN as u64 {
            return Err(BlockError::CutOff("its last block"));
        }
        Ok(BlockReader { file, header })
    }

    /// The section of that kind; an empty one if there is none.
    pub(super) fn section(&self, kind: u16, known_len: usize) -> Section {
        let found = self.header.sections.iter().find(|section| section.kind == kind);
        // Shorter rows than format 1 has cannot be read; the header is under a checksum, so nobody wrote them.
        found.filter(|section| section.row_len as usize >= known_len).copied().unwrap_or_default()
    }

    /// Shows `visit` rows `from` to `to`, which must exist, reading `chunk` blocks at a time.
    pub(super) fn rows(
        &self,
        section: &Section,
        (from, to): (u64, u64),
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), BlockError> {
        const CHUNK: u64 = 64;
        if to > section.rows {
            return Err(BlockError::CutOff("its last row"));
        }
        let (per_block, row_len) = (section.rows_per_block(), section.row_len as usize);
        let mut row = from;
        while row < to {
            let block = row / per_block;
            let blocks = ((to - 1) / per_block + 1 - block).min(CHUNK);
            let bytes = self.blocks(section.first_block + block, blocks)?;
            for payload in bytes.chunks_exact(BLOCK_LEN) {
                let last = to.min((row / per_block + 1) * per_block);
                let at = (row % per_block) as usize * row_len;
                let wanted = &payload[at..at + (last - row) as usize * row_len];
                wanted.chunks_exact(row_len).for_each(&mut visit);
                row = last;
            }
        }
        Ok(())
    }

    /// The rows of one block of a section, in a row.
    pub(super) fn block_rows(&self, section: &Section, block: u64) -> Result<(Bytes, u64), BlockError> {
        let per_block = section.rows_per_block();
        let rows = section.rows.saturating_sub(block * per_block).min(per_block);
        let bytes = self.blocks(section.first_block + block, 1)?;
        Ok((bytes.slice(..rows as usize * section.row_len as usize), rows))
    }

    /// Numbers of the blocks that are damaged.
    pub(crate) fn damaged_blocks(&self) -> Result<Vec<u64>, io::Error> {
        let mut damaged = Vec::new();
        for block in 1..self.header.blocks {
            match self.blocks(block, 1) {
                Ok(_) => {}
                Err(BlockError::Io(error)) => return Err(error),
                Err(_) => damaged.push(block),
            }
        }
        Ok(damaged)
    }

    fn blocks(&self, first: u64, count: u64) -> Result<Bytes, BlockError> {
        let len = count as usize * BLOCK_LEN;
        let bytes = self.file.read_at(first * BLOCK_LEN as u64, len)?;
        if bytes.len() != len {
            return Err(BlockError::CutOff("a block"));
        }
        for (block, number) in bytes.chunks_exact(BLOCK_LEN).zip(first..) {
            if checksum(number, self.header.base, &block[..PAYLOAD_LEN]) != stored_checksum(block) {
                return Err(BlockError::Damaged(number));
            }
        }
        Ok(bytes)
    }
}

impl FileHeader {
    fn encode(&self) -> Vec<u8> {
        assert!(self.sections.len() <= SECTIONS_MAX, "the sections fit into block 0");
        let mut out = Vec::with_capacity(BLOCK_LEN);
        out.extend_from_slice(MAGIC);
        for number in [FORMAT, 0, 0, self.sections.len() as u32] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.base.0, self.end.0, self.newest.as_millis(), self.blocks, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for section in &self.sections {
            out.extend_from_slice(&section.kind.to_le_bytes());
            out.extend_from_slice(&section.demands.to_le_bytes());
            out.extend_from_slice(&section.row_len.to_le_bytes());
            for number in [section.rows, section.first_block, section.blocks] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.resize(PAYLOAD_LEN, 0);
        let crc = checksum(0, LogOffset(0), &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn parse(block: &[u8]) -> Result<FileHeader, BlockError> {
        if block.len() != BLOCK_LEN {
            return Err(BlockError::CutOff("its first block"));
        }
        if &block[..8] != MAGIC || checksum(0, LogOffset(0), &block[..PAYLOAD_LEN]) != stored_checksum(block) {
            return Err(BlockError::Damaged(0));
        }
        let mut fields = &block[8..];
        let format = fields.get_u32_le();
        if format != FORMAT {
            return Err(BlockError::Newer(format));
        }
        fields.advance(4);
        let (demands, count) = (fields.get_u32_le(), fields.get_u32_le() as usize);
        let (base, end) = (LogOffset(fields.get_u64_le()), LogOffset(fields.get_u64_le()));
        let newest = Timestamp::from_millis(fields.get_u64_le());
        let blocks = fields.get_u64_le();
        if demands != 0 {
            return Err(BlockError::Newer(format));
        }
        if count > SECTIONS_MAX {
            return Err(BlockError::Damaged(0));
        }
        let mut sections = Vec::with_capacity(count);
        for mut row in block[SECTIONS_AT..].chunks_exact(SECTION_LEN).take(count) {
            let section = Section {
                kind: row.get_u16_le(),
                demands: row.get_u16_le(),
                row_len: row.get_u32_le(),
                rows: row.get_u64_le(),
                first_block: row.get_u64_le(),
                blocks: row.get_u64_le(),
            };
            if section.demands != 0 {
                return Err(BlockError::Newer(format));
            }
            sections.push(section);
        }
        Ok(FileHeader { base, end, newest, blocks, sections })
    }
}

fn checksum(block: u64, base: LogOffset, payload: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&block.to_le_bytes()), &base.0.to_le_bytes());
    crc32c::crc32c_append(place, payload)
}

fn stored_checksum(block: &[u8]) -> u32 {
    block.last_chunk::<4>().map_or(0, |crc| u32::from_le_bytes(*crc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::{OpenMode, fake};
    use std::path::Path;

    fn written(rows: u64) -> (fake::FakeFiles, Arc<dyn File>) {
        let (env, files, _) = fake::env(1);
        env.files.create_dir_all(Path::new("/")).unwrap();
        let file = env.files.open(Path::new("/blocks"), OpenMode::CreateNew).unwrap();
        let mut writer = BlockWriter::new(file.clone(), LogOffset(77));
        writer.begin(3, 12).unwrap();
        for row in 0..rows {
            writer.row(&[row.to_le_bytes().as_slice(), &[7; 4]].concat()).unwrap();
        }
        writer.begin(9, 4).unwrap();
        writer.row(b"last").unwrap();
        writer.finish(LogOffset(99), Timestamp::from_millis(5)).unwrap();
        (files, file)
    }

    #[test]
    fn rows_read_back_whatever_blocks_they_are_in() {
        for rows in [0, 1, 340, 341, 342, 30_000] {
            let (_, file) = written(rows);
            let reader = BlockReader::open(file).unwrap();
            assert_eq!((reader.header.base, reader.header.end), (LogOffset(77), LogOffset(99)));
            let section = reader.section(3, 12);
            assert_eq!(section.rows, rows);
            for (from, to) in [(0, rows), (rows / 3, rows / 2), (rows.saturating_sub(1), rows)] {
                let mut seen = Vec::new();
                reader.rows(&section, (from, to), |mut row| seen.push(row.get_u64_le())).unwrap();
                assert_eq!(seen, (from..to).collect::<Vec<_>>());
            }
            assert!(reader.rows(&section, (0, rows + 1), |_| {}).is_err());
            assert_eq!(reader.section(9, 4).rows, 1);
            assert_eq!(reader.section(4, 4).rows, 0, "a section that is not there is empty");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_before_a_row_is_believed() {
        let (files, file) = written(700);
        for byte in 0..file.len().unwrap() {
            files.flip_bits(Path::new("/blocks"), byte, 1 << (byte % 8)).unwrap();
            let read = BlockReader::open(file.clone()).and_then(|reader| {
                reader.rows(&reader.section(3, 12), (0, 700), |_| {})?;
                reader.rows(&reader.section(9, 4), (0, 1), |_| {})
            });
            assert!(matches!(read, Err(BlockError::Damaged(block)) if block == byte / 4096), "byte {byte}: {read:?}");
            files.flip_bits(Path::new("/blocks"), byte, 1 << (byte % 8)).unwrap();
        }
    }

    #[test]
    fn a_block_at_another_place_is_damaged_and_a_shorter_file_is_cut_off() {
        let (_, file) = written(700);
        let block = file.read_at(4096, BLOCK_LEN).unwrap();
        file.write_all_at(&block, 2 * 4096).unwrap();
        let reader = BlockReader::open(file.clone()).unwrap();
        assert!(matches!(reader.rows(&reader.section(3, 12), (0, 700), |_| {}), Err(BlockError::Damaged(2))));
        file.set_len(file.len().unwrap() - 1).unwrap();
        assert!(matches!(BlockReader::open(file), Err(BlockError::CutOff(_))));
    }

    #[test]
    fn newer_is_not_damaged() {
        for at in [8, 16, SECTIONS_AT + 2] {
            let (_, file) = written(1);
            let mut block = file.read_at(0, BLOCK_LEN).unwrap().to_vec();
            block[at] ^= 2;
            let crc = checksum(0, LogOffset(0), &block[..PAYLOAD_LEN]);
            block[PAYLOAD_LEN..].copy_from_slice(&crc.to_le_bytes());
            file.write_all_at(&block, 0).unwrap();
            assert!(matches!(BlockReader::open(file), Err(BlockError::Newer(_))), "byte {at}");
        }
    }

    #[test]
    fn what_a_later_version_adds_to_rows_and_sections_is_passed_over() {
        let (env, _, _) = fake::env(1);
        let file = env.files.open(Path::new("/later"), OpenMode::CreateNew).unwrap();
        let mut writer = BlockWriter::new(file.clone(), LogOffset(0));
        writer.begin(3, 20).unwrap();
        for row in 0..500u64 {
            writer.row(&[row.to_le_bytes().as_slice(), &[9; 12]].concat()).unwrap();
        }
        writer.begin(4000, 64).unwrap();
        writer.row(&[1; 64]).unwrap();
        writer.finish(LogOffset(1), Timestamp::ZERO).unwrap();
        let reader = BlockReader::open(file).unwrap();
        let mut seen = Vec::new();
        reader.rows(&reader.section(3, 12), (0, 500), |mut row| seen.push(row.get_u64_le())).unwrap();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }
}
