//! The immutable index of a sealed segment: which queues have messages in it, where each message is, and the hashes of
//! message ids and keys. Derived from the segment: it can always be built again ([`super::build`]).
//!
//! The container is that of [`super::blocks`]. Sections of format 1, rows little endian:
//!
//! | kind | what | row |
//! |---|---|---|
//! | 1 | entries, by queue and queue offset | place 4, record length 4 (0: the record is damaged), tag hash 4, message-group hash 4 (0: none), store time 8, due time 8 (0: none) |
//! | 2 | queues, sorted by topic and queue | topic 4, queue 4, first queue offset 8, number of entries 4, row of the first entry 4 |
//! | 3 | fence: the first queue of each block of section 2 | topic 4, queue 4 |
//! | 4 | hashes, sorted | hash 8, place 4 |
//! | 5 | filter of the hashes | see [`super::filter`] |
//! | 6 | damaged ranges of the segment, sorted | place 8, end 8 |
//!
//! A place is a log offset relative to the segment's first one. The queue offsets of a queue's entries are consecutive: one
//! whose record was damaged has an entry that says so.
//!
//! What must always hold: nothing of a block is used whose checksum does not match
//! (`every_flipped_bit_is_noticed_before_a_row_is_believed`).

use super::IndexEntry;
use super::blocks::{BlockError, BlockReader, Section};
use super::filter::{FILTER_ROW_LEN, Filter};
use crate::commit_log::record::RecordError;
use crate::commit_log::segment::index_name;
use bytes::Buf;
use gantry_proto::env::{Files, OpenMode, is_unreadable};
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(super) const ENTRIES: u16 = 1;
pub(super) const QUEUES: u16 = 2;
pub(super) const FENCE: u16 = 3;
pub(super) const HASHES: u16 = 4;
pub(super) const FILTER: u16 = 5;
pub(super) const DAMAGE: u16 = 6;
pub(super) const ENTRY_LEN: usize = 32;
pub(super) const QUEUE_LEN: usize = 24;
pub(super) const FENCE_LEN: usize = 8;
pub(super) const HASH_LEN: usize = 12;
pub(super) const DAMAGE_LEN: usize = 16;

/// An open index file. Takes little memory: what is looked up is read from the file.
pub(crate) struct SealedIndex {
    pub base: LogOffset,
    pub end: LogOffset,
    /// Store time of the segment's newest message.
    pub newest: Timestamp,
    path: PathBuf,
    blocks: BlockReader,
    entries: Section,
    queues: Section,
    hashes: Section,
    /// First queue of each block of the queue table. Read when first needed.
    fence: OnceLock<Vec<(TopicId, QueueId)>>,
}

/// Consecutive messages of one queue in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRun {
    pub topic: TopicId,
    pub queue: QueueId,
    pub first: QueueOffset,
    pub count: u32,
    /// Row of its first entry.
    pub row: u32,
}

/// Why an index file cannot be used, or could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedIndexError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}: {cause}")]
    Unusable { path: PathBuf, cause: BlockError },
    #[error("{path} holds at log offset {at} a whole record that this gantry does not understand: {cause}")]
    NotUnderstood { path: PathBuf, at: LogOffset, cause: RecordError },
}

impl QueueRun {
    /// The offset behind its last.
    pub(crate) fn end(&self) -> QueueOffset {
        QueueOffset(self.first.0 + u64::from(self.count))
    }

    fn parse(mut row: &[u8]) -> QueueRun {
        QueueRun {
            topic: TopicId(row.get_u32_le()),
            queue: QueueId(row.get_u32_le()),
            first: QueueOffset(row.get_u64_le()),
            count: row.get_u32_le(),
            row: row.get_u32_le(),
        }
    }

    pub(super) fn encode(&self) -> [u8; QUEUE_LEN] {
        let mut out = [0; QUEUE_LEN];
        out[..4].copy_from_slice(&self.topic.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.queue.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..].copy_from_slice(&self.row.to_le_bytes());
        out
    }
}

impl SealedIndex {
    /// Opens the index of the segment `[base, end)`. Reads one block.
    pub(crate) fn open(
        files: &dyn Files,
        dir: &Path,
        base: LogOffset,
        end: LogOffset,
    ) -> Result<SealedIndex, SealedIndexError> {
        let index = SealedIndex::open_file(files, &dir.join(index_name(base)))?;
        if index.base != base || index.end != end {
            return Err(SealedIndexError::Unusable { path: index.path, cause: BlockError::Other });
        }
        Ok(index)
    }

    /// Opens an index file by itself, whatever segment it is of.
    pub(crate) fn open_file(files: &dyn Files, path: &Path) -> Result<SealedIndex, SealedIndexError> {
        let file = files.open(path, OpenMode::Read);
        let file = file.map_err(|source| SealedIndexError::Io { action: "opening", path: path.to_owned(), source })?;
        let blocks =
            BlockReader::open(file).map_err(|cause| SealedIndexError::Unusable { path: path.to_owned(), cause })?;
        Ok(SealedIndex {
            base: blocks.header.base,
            end: blocks.header.end,
            newest: blocks.header.newest,
            path: path.to_owned(),
            entries: blocks.section(ENTRIES, ENTRY_LEN),
            queues: blocks.section(QUEUES, QUEUE_LEN),
            hashes: blocks.section(HASHES, HASH_LEN),
            fence: OnceLock::new(),
            blocks,
        })
    }

    /// Shows `visit` the queues in it, sorted.
    pub(crate) fn runs(&self, mut visit: impl FnMut(QueueRun)) -> Result<(), SealedIndexError> {
        self.read(self.blocks.rows(&self.queues, (0, self.queues.rows), |row| visit(QueueRun::parse(row))))
    }

    /// The queue's messages in it. Reads at most one block, once the fence is there.
    pub(crate) fn run(&self, topic: TopicId, queue: QueueId) -> Result<Option<QueueRun>, SealedIndexError> {
        let key = (topic, queue);
        let after = self.fence()?.partition_point(|first| *first <= key);
        let Some(block) = after.checked_sub(1) else { return Ok(None) };
        let (rows, _) = self.read(self.blocks.block_rows(&self.queues, block as u64))?;
        let runs: Vec<QueueRun> = rows.chunks_exact(self.queues.row_len as usize).map(QueueRun::parse).collect();
        let found = runs.binary_search_by_key(&key, |run| (run.topic, run.queue));
        Ok(found.ok().map(|place| runs[place]))
    }

    /// Adds at most `max` entries of a run, from the offset `from` on, which is in it.
    pub(crate) fn read_entries(
        &self,
        run: &QueueRun,
        from: QueueOffset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), SealedIndexError> {
        let skip = from.0 - run.first.0;
        let count = (u64::from(run.count) - skip).min(max as u64);
        let row = u64::from(run.row) + skip;
        let mut queue_offset = from;
        self.read(self.blocks.rows(&self.entries, (row, row + count), |mut row| {
            out.push(IndexEntry {
                queue_offset,
                log_offset: self.base.plus(u64::from(row.get_u32_le())),
                len: row.get_u32_le(),
                tag_hash: row.get_u32_le(),
                message_group_hash: row.get_u32_le(),
                store_time: Timestamp::from_millis(row.get_u64_le()),
            });
            queue_offset = queue_offset.next();
        }))
    }

    /// Number of hashes in it.
    pub(crate) fn hash_count(&self) -> u64 {
        self.hashes.rows
    }

    /// Hashes of message ids and keys with the places of their messages, of the last `max` or so messages.
    pub(crate) fn newest_hashes(&self, max: usize) -> Result<Vec<(u64, LogOffset)>, SealedIndexError> {
        let (count, segment_len) = (self.hashes.rows, self.end.0 - self.base.0);
        let wanted = (max as u64).min(count);
        let from = segment_len - (u128::from(segment_len) * u128::from(wanted) / u128::from(count.max(1))) as u64;
        let mut newest = Vec::with_capacity(wanted as usize);
        self.read(self.blocks.rows(&self.hashes, (0, count), |mut row| {
            let (hash, place) = (row.get_u64_le(), u64::from(row.get_u32_le()));
            if place >= from {
                newest.push((hash, self.base.plus(place)));
            }
        }))?;
        Ok(newest)
    }

    /// Adds the places of messages with that hash of an id or a key. Hashes are spread evenly, so that it takes two or
    /// three blocks to find one; but whoever chooses ids must not be able to make it more than halving takes.
    pub(crate) fn find(&self, hash: u64, out: &mut Vec<LogOffset>) -> Result<(), SealedIndexError> {
        let per_block = self.hashes.rows_per_block();
        let (mut low, mut high) = (0, self.hashes.rows.div_ceil(per_block));
        let mut guess = ((u128::from(hash) * u128::from(high)) >> 64) as u64;
        // The first block whose last hash is not below the wanted one.
        let mut steps = 0;
        while low < high {
            let (first, last) = self.hash_bounds(guess)?;
            if last < hash {
                low = guess + 1;
                guess = low;
            } else if first < hash {
                low = guess;
                break;
            } else {
                high = guess;
                guess = guess.saturating_sub(1);
            }
            steps += 1;
            if steps >= 3 {
                guess = low + (high - low) / 2;
            }
        }
        let mut row = low * per_block;
        while row < self.hashes.rows {
            let end = (row + per_block).min(self.hashes.rows);
            let mut beyond = false;
            self.read(self.blocks.rows(&self.hashes, (row, end), |mut row| {
                let (found, place) = (row.get_u64_le(), u64::from(row.get_u32_le()));
                if found == hash {
                    out.push(self.base.plus(place));
                }
                beyond |= found > hash;
            }))?;
            if beyond {
                break;
            }
            row = end;
        }
        Ok(())
    }

    /// Ranges of its segment that were damaged when it was built.
    pub(crate) fn damaged_ranges(&self) -> Result<Vec<Range<LogOffset>>, SealedIndexError> {
        let section = self.blocks.section(DAMAGE, DAMAGE_LEN);
        let mut ranges = Vec::new();
        self.read(self.blocks.rows(&section, (0, section.rows), |mut row| {
            let from = self.base.plus(row.get_u64_le());
            ranges.push(from..self.base.plus(row.get_u64_le()));
        }))?;
        Ok(ranges)
    }

    /// The filter of its hashes, read from the file.
    pub(super) fn filter(&self) -> Result<Filter, SealedIndexError> {
        let section = self.blocks.section(FILTER, FILTER_ROW_LEN);
        let mut filter = Filter::with_capacity(section.rows);
        self.read(self.blocks.rows(&section, (0, section.rows), |row| filter.push_row(row)))?;
        Ok(filter)
    }

    /// The container, for who looks at all of it.
    pub(crate) fn blocks(&self) -> &BlockReader {
        &self.blocks
    }

    fn fence(&self) -> Result<&[(TopicId, QueueId)], SealedIndexError> {
        if self.fence.get().is_none() {
            let section = self.blocks.section(FENCE, FENCE_LEN);
            let mut fence = Vec::with_capacity(section.rows as usize);
            self.read(self.blocks.rows(&section, (0, section.rows), |mut row| {
                fence.push((TopicId(row.get_u32_le()), QueueId(row.get_u32_le())));
            }))?;
            let _ = self.fence.set(fence);
        }
        Ok(self.fence.get().map_or(&[], Vec::as_slice))
    }

    fn hash_bounds(&self, block: u64) -> Result<(u64, u64), SealedIndexError> {
        let (rows, count) = self.read(self.blocks.block_rows(&self.hashes, block))?;
        let row_len = self.hashes.row_len as usize;
        let hash = |row: usize| rows.get(row * row_len..).map_or(0, |mut row| row.get_u64_le());
        Ok((hash(0), hash(count.saturating_sub(1) as usize)))
    }

    fn read<T>(&self, result: Result<T, BlockError>) -> Result<T, SealedIndexError> {
        result.map_err(|cause| SealedIndexError::Unusable { path: self.path.clone(), cause })
    }
}

impl SealedIndexError {
    /// The file itself is at fault, or the place that it has on the disk, not the disk's answer of a moment; nor is it whole,
    /// and not understood.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            SealedIndexError::Unusable { cause: BlockError::Io(error), .. } => is_unreadable(error),
            SealedIndexError::Unusable { cause, .. } => !matches!(cause, BlockError::Newer(_)),
            _ => false,
        }
    }

    /// What a damaged block is.
    #[cfg(test)]
    pub(crate) fn of_damage() -> SealedIndexError {
        SealedIndexError::Unusable { path: PathBuf::new(), cause: BlockError::Damaged(1) }
    }

    /// There is no such file.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, SealedIndexError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What the disk answered, which may be another thing the next time.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, SealedIndexError::Io { .. } | SealedIndexError::Unusable { cause: BlockError::Io(_), .. })
    }
}
