//! The first page of a segment, made anew when it is damaged: all that it says is known from the file's name and length, its
//! neighbours and the folder's identity.
//!
//! Only for a file that shows that it is a part of this log: records lie in it where its name says, or nothing that was
//! flushed lies there at all ([`super::useless`] deals with the others). It is written when the log has opened, not before.

use super::error::LogOpenError;
use super::io;
use super::open_file::Opened;
use crate::commit_log::LogConfig;
use crate::commit_log::segment::{Segment, segment_name};
use crate::commit_log::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError};
use crate::commit_log::segment_reader::SegmentReader;
use gantry_proto::env::{Files, OpenMode};
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

/// Whether what lies in the file up to `end` is this log's: a record says where it lies. True if nothing has to.
pub(super) fn holds_records(segment: &Segment, end: LogOffset) -> io::Result<bool> {
    let end = end.min(segment.base.plus(segment.capacity));
    if end <= segment.base {
        return Ok(true);
    }
    let mut reader = SegmentReader::new(segment);
    let whole = match reader.read(segment.base, end.0 - segment.base.0)? {
        Ok(_) => true,
        Err(cause) => cause.is_whole(),
    };
    Ok(whole || reader.next_whole(segment.base, None, end)? < end)
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
