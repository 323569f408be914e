//! A sealed index by itself.

use crate::queue_index::{QueueRun, SealedIndex, SealedIndexError};
use gantry_proto::env::Files;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use std::io;
use std::ops::Range;
use std::path::Path;

/// An index file that is open for reading.
pub struct IndexFile(SealedIndex);

/// What an index says of itself, and which of it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexContents {
    /// First log offset of its segment.
    pub base: LogOffset,
    /// Where the segment ends.
    pub end: LogOffset,
    /// Store time of the segment's newest message.
    pub newest: Timestamp,
    /// Blocks of 4096 bytes in the file.
    pub blocks: u64,
    /// Those whose checksum does not match.
    pub damaged_blocks: Vec<u64>,
    /// Rows by kind of section, in the order of the file: (kind, rows, bytes of a row).
    pub sections: Vec<(u16, u64, u32)>,
    /// Hashes of ids and keys.
    pub hashes: u64,
}

/// A queue's messages in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRun {
    pub topic: TopicId,
    pub queue: QueueId,
    /// Offset of the first.
    pub first: QueueOffset,
    /// How many they are.
    pub count: u32,
    row: u32,
}

/// One message as its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntryAt {
    /// Its place in the queue.
    pub queue_offset: QueueOffset,
    /// Where its record begins.
    pub log_offset: LogOffset,
    /// Bytes of the record. 0: the record was damaged when the index was made.
    pub len: u32,
    /// Hash of its tag, or 0.
    pub tag_hash: u32,
    /// Hash of its message group, or 0.
    pub message_group_hash: u32,
    /// When the store took it.
    pub store_time: Timestamp,
}

/// Why an index cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IndexFileError(#[from] SealedIndexError);

impl IndexFile {
    /// Opens an index, whatever segment it is of.
    pub fn open(files: &dyn Files, path: &Path) -> Result<IndexFile, IndexFileError> {
        Ok(IndexFile(SealedIndex::open_file(files, path)?))
    }

    /// Reads all of the file and says which of it is whole.
    pub fn contents(&self) -> io::Result<IndexContents> {
        let blocks = self.0.blocks();
        let sections = blocks.header.sections.iter().map(|section| (section.kind, section.rows, section.row_len));
        Ok(IndexContents {
            base: self.0.base,
            end: self.0.end,
            newest: self.0.newest,
            blocks: blocks.header.blocks,
            damaged_blocks: blocks.damaged_blocks()?,
            sections: sections.collect(),
            hashes: self.0.hash_count(),
        })
    }

    /// The queues with messages in the segment, sorted by topic and queue.
    pub fn runs(&self) -> Result<Vec<IndexRun>, IndexFileError> {
        let mut runs = Vec::new();
        self.0.runs(|QueueRun { topic, queue, first, count, row }| {
            runs.push(IndexRun { topic, queue, first, count, row });
        })?;
        Ok(runs)
    }

    /// The entries of one of them.
    pub fn entries(&self, run: &IndexRun) -> Result<Vec<IndexEntryAt>, IndexFileError> {
        let IndexRun { topic, queue, first, count, row } = *run;
        let mut entries = Vec::with_capacity(count as usize);
        self.0.read_entries(&QueueRun { topic, queue, first, count, row }, first, count as usize, &mut entries)?;
        let entry = |entry: crate::queue_index::IndexEntry| IndexEntryAt {
            queue_offset: entry.queue_offset,
            log_offset: entry.log_offset,
            len: entry.len,
            tag_hash: entry.tag_hash,
            message_group_hash: entry.message_group_hash,
            store_time: entry.store_time,
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    /// Ranges of the segment that were damaged when the index was made.
    pub fn damaged_ranges(&self) -> Result<Vec<Range<LogOffset>>, IndexFileError> {
        Ok(self.0.damaged_ranges()?)
    }
}
