//! The first page of a segment, made anew when it is damaged: all that it says is known from the file's name and length, its
//! neighbours and the folder's identity.
//!
//! Only for a file that shows that it is a part of this log ([`shows_itself`]; [`super::useless`] deals with the others). It
//! is written when the log has opened, not before.

use super::error::LogOpenError;
use super::io;
use super::open_file::Opened;
use super::torn_tail::is_blank;
use crate::commit_log::LogConfig;
use crate::commit_log::record::RecordError;
use crate::commit_log::segment::{ScannedRecord, Segment, segment_name};
use crate::commit_log::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError};
use crate::commit_log::segment_reader::SegmentReader;
use gantry_proto::env::{Files, OpenMode, is_unreadable};
use gantry_proto::model::{Epoch, LogOffset};
use metrics::counter;
use std::sync::Arc;

/// A segment whose first page is to be written anew.
pub(super) struct Headless {
    segment: Arc<Segment>,
    cause: SegmentHeaderError,
}

/// The segments in order, and those among them whose first page is to be written anew. What is no part of this log is not
/// among `opened` any more: see [`super::useless`].
pub(super) fn complete(
    files: &dyn Files,
    config: &LogConfig,
    opened: Vec<Opened>,
) -> Result<(Vec<Arc<Segment>>, Vec<Headless>), LogOpenError> {
    let (mut list, mut headless) = (Vec::<Arc<Segment>>::with_capacity(opened.len()), Vec::new());
    for (place, found) in opened.iter().enumerate() {
        let (base, cause) = match found {
            Opened::Whole(segment) => {
                list.push(segment.clone());
                continue;
            }
            Opened::Headless { base, cause } => (*base, *cause),
        };
        let epochs = match opened.get(place + 1) {
            Some(Opened::Whole(next)) => next.epochs.iter().filter(|(_, from)| *from < base).copied().collect(),
            _ => match list.last() {
                Some(before) => epochs_up_to(before, base).map_err(io("reading", &before.path))?,
                None => Vec::new(),
            },
        };
        let segment = Arc::new(describe(files, config, base, cause, epochs)?);
        list.push(segment.clone());
        headless.push(Headless { segment, cause });
    }
    Ok((list, headless))
}

impl Headless {
    /// Writes the page, durably. A crash meanwhile leaves it damaged, and the next start does the same.
    pub(super) fn write(&self) -> Result<(), LogOpenError> {
        let Segment { base, capacity, epochs, home, file, path } = &*self.segment;
        let header = SegmentHeader { base: *base, capacity: *capacity, home: *home, epochs: epochs.clone() };
        let written = file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_data());
        written.map_err(io("writing anew the first page of", path))?;
        counter!("gantry_log_headers_rebuilt_total").increment(1);
        tracing::warn!(
            segment = %path.display(), cause = %self.cause,
            "the first page of a log segment was damaged and is written anew: all that it says is known from the files \
             beside it. No message was in it, but the disk or somebody changed it"
        );
        Ok(())
    }
}

/// The segment as its name, its length and the folder say that it is.
pub(super) fn describe(
    files: &dyn Files,
    config: &LogConfig,
    base: LogOffset,
    cause: SegmentHeaderError,
    epochs: Vec<EpochStart>,
) -> Result<Segment, LogOpenError> {
    let path = config.dir.join(segment_name(base));
    let file = files.open(&path, OpenMode::ReadWrite).map_err(io("opening", &path))?;
    let len = file.len().map_err(io("measuring", &path))?;
    // It cannot be read, or what it says cannot be trusted; but a page that names quite another folder is no accident.
    let page = file.read_at(0, SEGMENT_HEADER_LEN as usize).unwrap_or_default();
    if let Some(claimed) = SegmentHeader::claimed_folder(&page)
        && differing_bits(&claimed.0, &config.home.folder.0) > BITS_CHANGED_MAX
    {
        let own = config.home.folder;
        let cause = format!("{cause}, and it seems to be of the data folder {claimed}, while this one is {own}");
        return Err(LogOpenError::Segment { path, cause });
    }
    let capacity = len.saturating_sub(SEGMENT_HEADER_LEN);
    Ok(Segment { base, capacity, epochs, home: config.home, file, path })
}

/// Two ids that have nothing to do with one another differ in about 64 of 128 bits.
const BITS_CHANGED_MAX: u32 = 24;

fn differing_bits(one: &[u8; 16], other: &[u8; 16]) -> u32 {
    (u128::from_le_bytes(*one) ^ u128::from_le_bytes(*other)).count_ones()
}

/// Whether a file whose first page is damaged is a part of this log, of which `needed_to` was on this disk: a record says
/// where it lies. If nothing of it has to be in the file: the first record does, or there is nothing to be lost, because all
/// that is wrong are some bits of the page.
pub(crate) fn shows_itself(segment: &Segment, needed_to: LogOffset) -> io::Result<bool> {
    let mut reader = SegmentReader::new(segment);
    let is_whole = |read: Result<ScannedRecord<'_>, RecordError>| read.map_or_else(|cause| cause.is_whole(), |_| true);
    if needed_to > segment.base {
        let end = needed_to.min(segment.base.plus(segment.capacity));
        let first = end <= segment.base || is_whole(reader.read(segment.base, end.0 - segment.base.0)?);
        return Ok(first || reader.next_whole(segment.base, None, end)? < end);
    }
    let held = segment.held_to()?.0 - segment.base.0;
    if held > 0 && is_whole(reader.read(segment.base, held)?) {
        return Ok(true);
    }
    Ok(is_blank(&*segment.file, SEGMENT_HEADER_LEN, segment.file.len()?)? && is_own_page(segment)?)
}

/// Whether the first page may have been what it should be, but for some bits; or nothing is there, or the disk does not give
/// it.
fn is_own_page(segment: &Segment) -> io::Result<bool> {
    let page = match segment.file.read_at(0, SEGMENT_HEADER_LEN as usize) {
        Err(error) if is_unreadable(&error) => return Ok(true),
        page => page?,
    };
    let Segment { base, capacity, home, .. } = segment;
    let own = SegmentHeader { base: *base, capacity: *capacity, home: *home, epochs: Vec::new() };
    let is_blank = page.iter().all(|byte| *byte == 0);
    Ok(is_blank || own.bits_changed(&page).is_some_and(|changed| changed <= BITS_CHANGED_MAX))
}

/// Where the epochs began whose records lie before `end`, which is the end of `segment`.
fn epochs_up_to(segment: &Segment, end: LogOffset) -> io::Result<Vec<EpochStart>> {
    let mut epochs = segment.epochs.clone();
    let mut reader = SegmentReader::new(segment);
    let mut at = segment.base;
    while at < end {
        let read = reader.read(at, end.0 - at.0)?.map(|record| (record.header.epoch, record.header.end()));
        at = match read {
            Ok((epoch, next)) => {
                if epoch > epochs.last().map_or(Epoch(0), |(last, _)| *last) {
                    epochs.push((epoch, at));
                }
                next
            }
            Err(_) => reader.next_whole(at, None, end)?,
        };
    }
    Ok(epochs)
}
