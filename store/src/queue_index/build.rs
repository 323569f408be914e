//! Makes the index of a segment: from the entries in memory, or from the segment itself if it has to be made again. Both
//! give the same bytes.
//!
//! Entries are written queue by queue as they come, so that nothing of the size of the segment is gathered; hashes are
//! sorted a sixteenth at a time.

use super::blocks::BlockWriter;
use super::filter::{FILTER_ROW_LEN, Filter};
use super::recent::Recent;
use super::sealed::{
    DAMAGE, DAMAGE_LEN, ENTRIES, ENTRY_LEN, FENCE, FENCE_LEN, FILTER, HASH_LEN, HASHES, QUEUE_LEN, QUEUES, QueueRun,
    SealedIndex, SealedIndexError,
};
use super::unsealed::{HashRows, UnsealedSegment};
use super::{IndexEntry, Indexed};
use crate::commit_log::damage::{DamageRegister, DamagedRange};
use crate::commit_log::record::{HEADER_LEN, RecordError};
use crate::commit_log::segment::{ScannedRecord, Segment, index_name};
use crate::commit_log::segment_reader::SegmentReader;
use gantry_proto::env::{Files, OpenMode};
use gantry_proto::model::{LogOffset, MessageHead, QueueId, Timestamp, TopicId};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Entries copied from a queue at a time: its lock is held for that long.
const COPY_MAX: usize = 4096;
/// A damaged range cannot have held more messages than one for so many bytes.
const RECORD_LEN_MIN: u64 = HEADER_LEN as u64;

impl SealedIndex {
    /// Writes the index of a segment that ends at `end` from what is in memory, and opens it.
    pub(crate) fn seal(
        files: &dyn Files,
        dir: &Path,
        segment: &UnsealedSegment,
        end: LogOffset,
        damaged: &[Range<LogOffset>],
    ) -> Result<SealedIndex, SealedIndexError> {
        let mut queues = segment.queues();
        queues.sort_unstable_by_key(|queue| (queue.topic, queue.id));
        write(files, dir, segment.base, end, |index| {
            let mut entries = Vec::with_capacity(COPY_MAX);
            for queue in queues {
                let mut from = queue.recent_from();
                loop {
                    entries.clear();
                    queue.copy_recent(from, end, COPY_MAX, &mut entries);
                    let Some(last) = entries.last() else { break };
                    from = last.queue_offset.next();
                    index.entries((queue.topic, queue.id), &entries)?;
                }
            }
            index.hashes(&segment.hashes())?;
            // Should that be whole again, entries are missing.
            index.damage(damaged)
        })?
        .place(files, dir)
    }

    /// Reads a segment that ends at `end`, writes its index and opens it. What is damaged is passed over up to the next
    /// whole record; the index says so, and the register knows it then.
    pub(crate) fn rebuild(
        files: &dyn Files,
        dir: &Path,
        segment: &Segment,
        end: LogOffset,
        (register, now): (&DamageRegister, Timestamp),
    ) -> Result<SealedIndex, SealedIndexError> {
        SealedIndex::rebuild_aside(files, dir, segment, end, (register, now))?.place(files, dir)
    }

    /// The same, but it is not in its place yet.
    pub(super) fn rebuild_aside(
        files: &dyn Files,
        dir: &Path,
        segment: &Segment,
        end: LogOffset,
        (register, now): (&DamageRegister, Timestamp),
    ) -> Result<Aside, SealedIndexError> {
        let gathered = Gathered::read(segment, end, register)?;
        let aside = write(files, dir, segment.base, end, |index| {
            let mut entries = Vec::with_capacity(COPY_MAX);
            for (key, recent) in &gathered.queues {
                let mut from = recent.first();
                loop {
                    entries.clear();
                    recent.copy(from, end, COPY_MAX, &mut entries);
                    let Some(last) = entries.last() else { break };
                    from = last.queue_offset.next();
                    index.entries(*key, &entries)?;
                }
            }
            index.hashes(&gathered.hashes)?;
            index.damage(&gathered.damaged)
        })?;
        for (range, cause) in gathered.damaged.iter().zip(&gathered.causes) {
            let cause = register.cause_up_to(range.end, *cause);
            register.note(DamagedRange::found(range.start, range.end, cause, now));
        }
        Ok(aside)
    }
}

const OUT_OF_ORDER: RecordError = RecordError::Malformed("its queue offset does not follow the one before it");

/// What a segment holds, read back.
struct Gathered {
    queues: BTreeMap<(TopicId, QueueId), Recent>,
    hashes: HashRows,
    damaged: Vec<Range<LogOffset>>,
    /// Why each of them is.
    causes: Vec<RecordError>,
    /// What is known to be damaged, or was: messages in it may be missing.
    known: Vec<Range<LogOffset>>,
}

impl Gathered {
    fn read(segment: &Segment, end: LogOffset, register: &DamageRegister) -> Result<Gathered, SealedIndexError> {
        let io = |source| SealedIndexError::Io { action: "reading", path: segment.path.clone(), source };
        let (queues, hashes, damaged, causes) = Default::default();
        let known = register.ever_in(segment.base, end).iter().map(|range| range.from..range.to).collect();
        let mut gathered = Gathered { queues, hashes, damaged, causes, known };
        let held_to = segment.held_to().map_err(io)?;
        if held_to < end && !register.covers(held_to, end) {
            // The file was cut, which is no damage of records: it can be put back.
            return Err(io(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut")));
        }
        let mut reader = SegmentReader::new(segment);
        let mut at = segment.base;
        while at < end {
            let read = match reader.read(at, end.0 - at.0).map_err(io)? {
                Ok(record) => gathered.add(&record, segment.base).map(|()| record.header.end()),
                Err(cause) => Err(cause),
            };
            at = match read {
                Ok(next) => next,
                Err(cause) if cause.is_whole() => {
                    return Err(SealedIndexError::NotUnderstood { path: segment.path.clone(), at, cause });
                }
                Err(cause) => {
                    let claimed = reader.claimed(at).map_err(io)?;
                    let next = reader.next_whole(at, claimed.as_ref(), end).map_err(io)?;
                    gathered.damaged.push(at..next);
                    gathered.causes.push(cause);
                    next
                }
            };
        }
        Ok(gathered)
    }

    fn add(&mut self, record: &ScannedRecord<'_>, base: LogOffset) -> Result<(), RecordError> {
        let header = &record.header;
        if !header.kind.is_message() {
            return Ok(());
        }
        let span = record.message_span()?;
        let head = MessageHead::parse(span.head(record.bytes))?;
        let Indexed { tag_hash, message_group_hash, hashes } = Indexed::of(header.topic, &head);
        let entry = IndexEntry {
            queue_offset: header.queue_offset,
            log_offset: header.log_offset,
            len: header.len,
            tag_hash,
            message_group_hash,
            store_time: header.store_time,
        };
        let fresh = || Recent::starting(header.queue_offset, base);
        let recent = self.queues.entry((header.topic, header.queue)).or_insert_with(fresh);
        let missing = header.queue_offset.0.checked_sub(recent.end().0).ok_or(OUT_OF_ORDER)?;
        if missing > 0 {
            // Its records were damaged; but not more than there was room for.
            let before = |range: &&Range<LogOffset>| range.end <= header.log_offset;
            let gaps = || self.known.iter().filter(before).chain(&self.damaged);
            let lost: u64 = gaps().map(|range| range.end.0 - range.start.0).sum();
            let Some(range) = gaps().last().filter(|_| missing <= lost / RECORD_LEN_MIN) else {
                return Err(OUT_OF_ORDER);
            };
            for _ in 0..missing {
                recent.push(IndexEntry::damaged(recent.end(), range.start));
            }
        }
        recent.push(entry);
        hashes.into_iter().for_each(|hash| self.hashes.push(hash, (header.log_offset.0 - base.0) as u32));
        Ok(())
    }
}

/// An index that is whole and not in its place yet.
pub(super) struct Aside {
    path: PathBuf,
    name: PathBuf,
    base: LogOffset,
    end: LogOffset,
}

impl Aside {
    /// Puts it there, durably, and opens it.
    pub(super) fn place(self, files: &dyn Files, dir: &Path) -> Result<SealedIndex, SealedIndexError> {
        let io = |source| SealedIndexError::Io { action: "writing", path: self.name.clone(), source };
        files.rename(&self.path, &self.name).and_then(|()| files.sync_dir(dir)).map_err(io)?;
        SealedIndex::open(files, dir, self.base, self.end)
    }

    /// Nobody needs it any more.
    pub(super) fn discard(self, files: &dyn Files) -> Result<(), SealedIndexError> {
        files.remove(&self.path).map_err(|source| SealedIndexError::Io { action: "removing", path: self.path, source })
    }
}

/// Writes an index beside its place.
fn write(
    files: &dyn Files,
    dir: &Path,
    base: LogOffset,
    end: LogOffset,
    fill: impl FnOnce(&mut IndexWriter) -> io::Result<()>,
) -> Result<Aside, SealedIndexError> {
    let name = index_name(base);
    let (name, path) = (dir.join(&name), dir.join(format!("{name}.tmp")));
    let written = || -> io::Result<()> {
        match files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.open(&path, OpenMode::CreateNew)?;
        let mut index = IndexWriter::new(BlockWriter::new(file, base), base)?;
        fill(&mut index)?;
        index.finish(end)
    };
    written().map_err(|source| SealedIndexError::Io { action: "writing", path: name.clone(), source })?;
    Ok(Aside { path, name, base, end })
}

/// Fills the sections in order.
struct IndexWriter {
    blocks: BlockWriter,
    base: LogOffset,
    rows: u32,
    runs: Vec<QueueRun>,
    newest: Timestamp,
}

impl IndexWriter {
    fn new(mut blocks: BlockWriter, base: LogOffset) -> io::Result<IndexWriter> {
        blocks.begin(ENTRIES, ENTRY_LEN)?;
        Ok(IndexWriter { blocks, base, rows: 0, runs: Vec::new(), newest: Timestamp::ZERO })
    }

    /// Adds consecutive entries of a queue. Queues come in order, and so do their entries.
    fn entries(&mut self, (topic, queue): (TopicId, QueueId), entries: &[IndexEntry]) -> io::Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        let begun = self.runs.last().is_some_and(|run| (run.topic, run.queue) == (topic, queue));
        if !begun {
            self.runs.push(QueueRun { topic, queue, first: first.queue_offset, count: 0, row: self.rows });
        }
        if let Some(run) = self.runs.last_mut() {
            assert_eq!(run.end(), first.queue_offset, "the entries of a run are consecutive");
            run.count += entries.len() as u32;
        }
        self.rows += entries.len() as u32;
        for entry in entries {
            let mut row = [0; ENTRY_LEN];
            row[..4].copy_from_slice(&((entry.log_offset.0 - self.base.0) as u32).to_le_bytes());
            row[4..8].copy_from_slice(&entry.len.to_le_bytes());
            row[8..12].copy_from_slice(&entry.tag_hash.to_le_bytes());
            row[12..16].copy_from_slice(&entry.message_group_hash.to_le_bytes());
            row[16..24].copy_from_slice(&entry.store_time.as_millis().to_le_bytes());
            self.blocks.row(&row)?;
            self.newest = self.newest.max(entry.store_time);
        }
        Ok(())
    }

    /// Ends the entries and adds what follows them.
    fn hashes(&mut self, hashes: &HashRows) -> io::Result<()> {
        self.blocks.begin(QUEUES, QUEUE_LEN)?;
        for run in &self.runs {
            self.blocks.row(&run.encode())?;
        }
        self.blocks.begin(FENCE, FENCE_LEN)?;
        for run in self.runs.iter().step_by(super::blocks::rows_per_block(QUEUE_LEN as u32) as usize) {
            self.blocks.row(&run.encode()[..FENCE_LEN])?;
        }
        self.blocks.begin(HASHES, HASH_LEN)?;
        let mut filter = Filter::new(hashes.len());
        for part in 0..16 {
            for (hash, place) in hashes.sorted_part(part) {
                let mut row = [0; HASH_LEN];
                row[..8].copy_from_slice(&hash.to_le_bytes());
                row[8..].copy_from_slice(&place.to_le_bytes());
                self.blocks.row(&row)?;
                filter.insert(hash);
            }
        }
        self.blocks.begin(FILTER, FILTER_ROW_LEN)?;
        filter.rows().try_for_each(|row| self.blocks.row(&row))
    }

    fn damage(&mut self, ranges: &[Range<LogOffset>]) -> io::Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        self.blocks.begin(DAMAGE, DAMAGE_LEN)?;
        for range in ranges {
            let mut row = [0; DAMAGE_LEN];
            row[..8].copy_from_slice(&(range.start.0 - self.base.0).to_le_bytes());
            row[8..].copy_from_slice(&(range.end.0 - self.base.0).to_le_bytes());
            self.blocks.row(&row)?;
        }
        Ok(())
    }

    fn finish(self, end: LogOffset) -> io::Result<()> {
        self.blocks.finish(end, self.newest)
    }
}
