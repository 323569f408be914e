//! The immutable index of a sealed segment.
//!
//! Layout, little endian, format 1:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `GNTRYIDX` |
//! | 8 | 4 | format |
//! | 12 | 4 | CRC-32C of everything from byte 16 to the end of the queue table |
//! | 16 | 8 | first log offset of the segment |
//! | 24 | 8 | its end |
//! | 32 | 8 | store time of its newest record |
//! | 40 | 4 | number of queues |
//! | 44 | 4 | number of hashes |
//! | 48 | 32 each | queue table, sorted: topic 4, queue 4, first queue offset 8, number of entries 8, position of the first entry 8 |
//! | | 20 each | entries: log offset relative to the segment 4, record length 4, tag hash 4, store time 8 |
//! | | 12 each | sorted hashes of message ids and keys: hash 8, log offset relative to the segment 4 |
//!
//! Entries are not under the checksum: whoever follows one reads a record that names its topic, queue and offset and
//! has a checksum of its own.

use super::IndexEntry;
use crate::commit_log::record::{RecordError, key_hash};
use crate::commit_log::segment::{ScannedRecord, Segment, SegmentReader, index_name};
use crate::durable_file;
use bytes::Buf;
use gantry_proto::contract::StoreError;
use gantry_proto::env::{File, Files, OpenMode};
use gantry_proto::model::{LogOffset, MessageHead, QueueId, QueueOffset, Timestamp, TopicId, tag_hash};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open index file.
pub(crate) struct SealedIndex {
    pub base: LogOffset,
    pub end: LogOffset,
    /// Store time of the segment's newest record.
    pub newest: Timestamp,
    path: PathBuf,
    file: Arc<dyn File>,
    queue_count: u32,
    hash_count: u32,
}

/// Consecutive messages of one queue in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRun {
    pub topic: TopicId,
    pub queue: QueueId,
    pub first: QueueOffset,
    pub count: u64,
    /// Where its first entry is in the file.
    pub position: u64,
}

/// Why an index file cannot be used. It can always be built again from its segment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedIndexError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is damaged or of another format")]
    Damaged(PathBuf),
    #[error("{path} is damaged at byte {at} ({cause})")]
    Segment { path: PathBuf, at: u64, cause: RecordError },
}

const MAGIC: &[u8; 8] = b"GNTRYIDX";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 48;
const QUEUE_LEN: usize = 32;
const ENTRY_LEN: usize = 20;
const HASH_LEN: usize = 12;

impl SealedIndex {
    /// Opens the index of the segment `[base, end)`.
    pub(crate) fn open(
        files: &dyn Files,
        dir: &Path,
        base: LogOffset,
        end: LogOffset,
    ) -> Result<SealedIndex, SealedIndexError> {
        let path = dir.join(index_name(base));
        let io = |source| SealedIndexError::Io { action: "opening", path: path.clone(), source };
        let damaged = || SealedIndexError::Damaged(path.clone());
        let file = files.open(&path, OpenMode::Read).map_err(io)?;
        let header = file.read_at(0, HEADER_LEN).map_err(io)?;
        if header.len() < HEADER_LEN || &header[..8] != MAGIC {
            return Err(damaged());
        }
        let mut fields = &header[8..];
        let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
        let (own_base, own_end) = (LogOffset(fields.get_u64_le()), LogOffset(fields.get_u64_le()));
        let newest = Timestamp::from_millis(fields.get_u64_le());
        let (queue_count, hash_count) = (fields.get_u32_le(), fields.get_u32_le());
        if format != FORMAT || own_base != base || own_end != end {
            return Err(damaged());
        }
        let checked_len = HEADER_LEN - 16 + queue_count as usize * QUEUE_LEN;
        let checked = file.read_at(16, checked_len).map_err(io)?;
        if checked.len() != checked_len || crc32c::crc32c(&checked) != crc {
            return Err(damaged());
        }
        Ok(SealedIndex { base, end, newest, path, file, queue_count, hash_count })
    }

    /// Reads a sealed segment, writes its index and opens it.
    pub(crate) fn build(
        files: &dyn Files,
        dir: &Path,
        segment: &Segment,
        end: LogOffset,
    ) -> Result<SealedIndex, SealedIndexError> {
        let mut builder = Builder::default();
        let mut reader = SegmentReader::new(segment);
        let mut position = 0;
        while segment.base.0 + position < end.0 {
            let at = segment.base.plus(position);
            let damaged = |cause| SealedIndexError::Segment { path: segment.path.clone(), at: position, cause };
            let io = |source| SealedIndexError::Io { action: "reading", path: segment.path.clone(), source };
            let record = reader.read(at, end.0 - at.0).map_err(io)?.map_err(damaged)?;
            builder.add(&record, segment.base).map_err(damaged)?;
            position += u64::from(record.header.len);
        }
        let name = index_name(segment.base);
        durable_file::replace(files, dir, &name, &builder.encode(segment.base, end))
            .map_err(|source| SealedIndexError::Io { action: "writing", path: dir.join(&name), source })?;
        SealedIndex::open(files, dir, segment.base, end)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The queues in it, sorted.
    pub(crate) fn runs(&self) -> Result<Vec<QueueRun>, StoreError> {
        let table = self.read(HEADER_LEN as u64, self.queue_count as usize * QUEUE_LEN)?;
        let run = |mut row: &[u8]| QueueRun {
            topic: TopicId(row.get_u32_le()),
            queue: QueueId(row.get_u32_le()),
            first: QueueOffset(row.get_u64_le()),
            count: row.get_u64_le(),
            position: row.get_u64_le(),
        };
        Ok(table.chunks_exact(QUEUE_LEN).map(run).collect())
    }

    /// Hashes of message ids and keys with the places of their messages, of the last `max` or so messages.
    pub(crate) fn newest_hashes(&self, max: usize) -> Result<Vec<(u64, LogOffset)>, StoreError> {
        let end = self.file.len().map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let count = self.hash_count as usize;
        let bytes = self.read(end - (count * HASH_LEN) as u64, count * HASH_LEN)?;
        let segment_len = self.end.0 - self.base.0;
        let from = segment_len - (segment_len as u128 * max.min(count) as u128 / count.max(1) as u128) as u64;
        let hash = |mut row: &[u8]| (row.get_u64_le(), u64::from(row.get_u32_le()));
        let newest = bytes.chunks_exact(HASH_LEN).map(hash).filter(|(_, place)| *place >= from);
        Ok(newest.map(|(hash, place)| (hash, self.base.plus(place))).collect())
    }

    /// Adds `count` entries of a run, from its `skip`-th on, which is `first`.
    pub(super) fn read_entries(
        &self,
        position: u64,
        skip: u64,
        count: u64,
        first: QueueOffset,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), StoreError> {
        let rows = self.read(position + skip * ENTRY_LEN as u64, count as usize * ENTRY_LEN)?;
        let entry = |(place, mut row): (usize, &[u8])| IndexEntry {
            queue_offset: QueueOffset(first.0 + place as u64),
            log_offset: self.base.plus(u64::from(row.get_u32_le())),
            len: row.get_u32_le(),
            tag_hash: row.get_u32_le(),
            store_time: Timestamp::from_millis(row.get_u64_le()),
        };
        out.extend(rows.chunks_exact(ENTRY_LEN).enumerate().map(entry));
        Ok(())
    }

    fn read(&self, position: u64, len: usize) -> Result<bytes::Bytes, StoreError> {
        let unreadable = |why: String| StoreError::Unreadable(format!("{}: {why}", self.path.display()));
        let bytes = self.file.read_at(position, len).map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() != len { Err(unreadable("the file is too short".into())) } else { Ok(bytes) }
    }
}

/// Gathers a segment's messages.
#[derive(Default)]
struct Builder {
    queues: BTreeMap<(TopicId, QueueId), (QueueOffset, Vec<u8>)>,
    hashes: Vec<(u64, u32)>,
    newest: Timestamp,
}

impl Builder {
    fn add(&mut self, record: &ScannedRecord<'_>, base: LogOffset) -> Result<(), RecordError> {
        let header = &record.header;
        self.newest = self.newest.max(header.store_time);
        if !header.kind.is_message() {
            return Ok(());
        }
        let span = record.message_span()?;
        let head = MessageHead::parse(span.head(record.bytes))?;
        let relative = (header.log_offset.0 - base.0) as u32;
        let (_, rows) =
            self.queues.entry((header.topic, header.queue)).or_insert_with(|| (header.queue_offset, Vec::new()));
        rows.extend_from_slice(&relative.to_le_bytes());
        rows.extend_from_slice(&header.len.to_le_bytes());
        rows.extend_from_slice(&tag_hash(head.tag).to_le_bytes());
        rows.extend_from_slice(&header.store_time.as_millis().to_le_bytes());
        self.hashes.push((key_hash(header.topic, head.message_id), relative));
        self.hashes.extend(head.keys.iter().map(|key| (key_hash(header.topic, key), relative)));
        Ok(())
    }

    fn encode(mut self, base: LogOffset, end: LogOffset) -> Vec<u8> {
        self.hashes.sort_unstable();
        let table_len = self.queues.len() * QUEUE_LEN;
        let rows_len: usize = self.queues.values().map(|(_, rows)| rows.len()).sum();
        let mut out = Vec::with_capacity(HEADER_LEN + table_len + rows_len + self.hashes.len() * HASH_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [base.0, end.0, self.newest.as_millis()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(self.queues.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.hashes.len() as u32).to_le_bytes());
        let mut position = (HEADER_LEN + table_len) as u64;
        for ((topic, queue), (first, rows)) in &self.queues {
            out.extend_from_slice(&topic.0.to_le_bytes());
            out.extend_from_slice(&queue.0.to_le_bytes());
            for number in [first.0, (rows.len() / ENTRY_LEN) as u64, position] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            position += rows.len() as u64;
        }
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        for (_, rows) in self.queues.values() {
            out.extend_from_slice(rows);
        }
        for (hash, relative) in &self.hashes {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&relative.to_le_bytes());
        }
        out
    }
}
