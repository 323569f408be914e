//! Segment files: preallocated, named by the log offset of their first record. A segment ends where the next one begins;
//! bytes that it reserved behind that stay zero.

use super::LogHome;
use super::damage::DamagedRange;
use super::read::Place;
use super::record::{HEADER_LEN, MessageSpan, RecordError, RecordHeader, claimed_len};
use super::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError};
use bytes::Bytes;
use gantry_proto::env::{File, FileStatus, Files, OpenMode, is_unreadable};
use gantry_proto::model::LogOffset;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One file of the log.
pub(crate) struct Segment {
    pub base: LogOffset,
    /// Bytes of records that the file was made for.
    pub capacity: u64,
    /// Where the epochs began whose records lie before it.
    pub epochs: Vec<EpochStart>,
    /// What wrote it.
    pub home: LogHome,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
}

/// All segments, by first log offset. Readers take a snapshot of one and keep it alive.
#[derive(Default)]
pub(crate) struct SegmentSet {
    by_base: RwLock<BTreeMap<LogOffset, Arc<Segment>>>,
}

/// A record as it lies in the log.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub header: RecordHeader,
    /// The whole record, header included. Shares memory with the file's map.
    pub bytes: Bytes,
}

/// A record that passes by while a segment is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedRecord<'a> {
    pub header: RecordHeader,
    /// The whole record, header included.
    pub bytes: &'a [u8],
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("log offset {0} is not retained any more")]
    Gone(LogOffset),
    #[error("reading {path} at byte {at}: {source}")]
    Io { path: PathBuf, at: u64, source: io::Error },
    #[error("{path} is damaged at byte {at}: {source}")]
    Damaged { path: PathBuf, at: u64, source: RecordError },
    #[error("the record at log offset {at} is in a part of the log that is damaged ({})", .range.cause)]
    Known { at: LogOffset, range: DamagedRange },
}

/// File name of the segment that begins at `base`: 20 digits, so that names sort like offsets.
pub(crate) fn segment_name(base: LogOffset) -> String {
    format!("{:020}.log", base.0)
}

/// File name of a segment's index.
pub(crate) fn index_name(base: LogOffset) -> String {
    format!("{:020}.index", base.0)
}

/// The log offset in a segment's or an index's file name.
pub(crate) fn parse_name(name: &str, extension: &str) -> Option<LogOffset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(LogOffset)
}

/// Why a file is not the segment that its name says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentOpenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] SegmentHeaderError),
    #[error("it is the segment that begins at log offset {0}, under another name")]
    Name(LogOffset),
}

impl Segment {
    /// Opens the segment that begins at `base`.
    pub(crate) fn open(
        files: &dyn Files,
        dir: &Path,
        base: LogOffset,
        mode: OpenMode,
    ) -> Result<Segment, SegmentOpenError> {
        let path = dir.join(segment_name(base));
        let file = files.open(&path, mode)?;
        let page = match file.read_at(0, SEGMENT_HEADER_LEN as usize) {
            Err(error) if is_unreadable(&error) => return Err(SegmentHeaderError::Unreadable.into()),
            page => page?,
        };
        let header = SegmentHeader::parse(&page)?;
        if header.base != base {
            return Err(SegmentOpenError::Name(header.base));
        }
        let SegmentHeader { capacity, epochs, home, .. } = header;
        Ok(Segment { base, capacity, epochs, home, file, path })
    }

    /// Where in the file what lies at `at` in the log is.
    pub(crate) fn position(&self, at: LogOffset) -> u64 {
        SEGMENT_HEADER_LEN + (at.0 - self.base.0)
    }

    /// Length of its file.
    pub(crate) fn file_len(&self) -> u64 {
        SEGMENT_HEADER_LEN + self.capacity
    }

    /// Fails if its name does not lead to the file any more, or if the file is shorter than `needed`: somebody removed,
    /// moved, replaced or cut it.
    pub(crate) fn check_file(&self, files: &dyn Files, needed: u64) -> io::Result<()> {
        let status = self.file.status()?;
        check_name(files, &self.path, &status)?;
        if status.len < needed {
            let (path, len) = (self.path.display(), status.len);
            return Err(io::Error::other(format!(
                "{path} was cut to {len} bytes while the server used it: put it back, or what it held is lost, and start the \
                 server again"
            )));
        }
        Ok(())
    }

    /// Where the file ends in the log. A file that was cut ends earlier.
    pub(crate) fn held_to(&self) -> io::Result<LogOffset> {
        Ok(self.base.plus(self.file.len()?.min(self.file_len()).saturating_sub(SEGMENT_HEADER_LEN)))
    }

    /// Reads and checks the record at `at`, whose length is known from its index entry.
    pub(crate) fn read(&self, at: LogOffset, len: u32) -> Result<Record, ReadError> {
        let position = self.position(at);
        let bytes = (self.file.read_at(position, len as usize)).map_err(|source| ReadError::Io {
            path: self.path.clone(),
            at: position,
            source,
        })?;
        let damaged = |source| ReadError::Damaged { path: self.path.clone(), at: position, source };
        super::read::checked(bytes, Place { at, len }).map_err(damaged)
    }
}

/// Fails if `path` is not the name of the open file any more.
pub(super) fn check_name(files: &dyn Files, path: &Path, status: &FileStatus) -> io::Result<()> {
    let what = match files.identity_at(path)? {
        Some(found) if found == status.identity && !status.removed => return Ok(()),
        Some(_) => "was replaced by another file",
        None if status.removed => "was removed",
        None => "was moved away",
    };
    let path = path.display();
    Err(io::Error::other(format!(
        "{path} {what} while the server used it: put back the one that was there, or what it held is lost, and start the \
         server again"
    )))
}

impl SegmentSet {
    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        // See `super::read`.
        segment.file.reads_are_announced();
        self.by_base.write().insert(segment.base, segment);
    }

    pub(crate) fn remove(&self, base: LogOffset) -> Option<Arc<Segment>> {
        self.by_base.write().remove(&base)
    }

    /// The segment that holds `at`, if it is retained.
    pub(crate) fn holding(&self, at: LogOffset) -> Option<Arc<Segment>> {
        self.by_base.read().range(..=at).next_back().map(|(_, segment)| segment.clone())
    }

    /// All segments in order, each with its end; the last one's end is `None`: it is being written.
    pub(crate) fn list(&self) -> Vec<(Arc<Segment>, Option<LogOffset>)> {
        let by_base = self.by_base.read();
        let ends = by_base.keys().skip(1).map(|base| Some(*base)).chain([None]);
        by_base.values().cloned().zip(ends).collect()
    }

    /// Where the segment ends; `None`: it is being written.
    pub(crate) fn end_of(&self, segment: &Segment) -> Option<LogOffset> {
        self.by_base.read().range(segment.base.plus(1)..).next().map(|(base, _)| *base)
    }

    /// Where the retained log begins.
    pub(crate) fn retained_from(&self) -> LogOffset {
        self.by_base.read().keys().next().copied().unwrap_or_default()
    }

    /// Reads and checks the record at `at`, which tells its length itself.
    pub(crate) fn read_record_blocking(&self, at: LogOffset) -> Result<Record, ReadError> {
        let segment = self.holding(at).ok_or(ReadError::Gone(at))?;
        let position = segment.position(at);
        let path = || segment.path.clone();
        let header = segment.file.read_at(position, HEADER_LEN);
        let header = header.map_err(|source| ReadError::Io { path: path(), at: position, source })?;
        let len = claimed_len(&header).map_err(|source| ReadError::Damaged { path: path(), at: position, source })?;
        if at.plus(u64::from(len)).0 > segment.base.0 + segment.capacity {
            return Err(ReadError::Damaged { path: path(), at: position, source: RecordError::Checksum });
        }
        segment.read(at, len)
    }
}

impl ScannedRecord<'_> {
    pub(crate) fn body(&self) -> &[u8] {
        self.header.body(self.bytes)
    }

    /// The message in it, if its kind adds one.
    pub(crate) fn message_span(&self) -> Result<MessageSpan, RecordError> {
        MessageSpan::find(&self.header, self.bytes)
    }
}

impl Record {
    /// The message in it, if its kind adds one.
    pub(crate) fn message_span(&self) -> Result<MessageSpan, RecordError> {
        MessageSpan::find(&self.header, &self.bytes)
    }
}
