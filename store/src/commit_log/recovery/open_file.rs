//! Opens the log's files one by one, and refuses those of another folder, group or cluster by name.

use super::error::LogOpenError;
use super::io;
use crate::commit_log::positions::{POSITIONS_NAME, Positions, PositionsError, PositionsFile};
use crate::commit_log::prepared::{create_prepared, name_prepared};
use crate::commit_log::segment::{Segment, SegmentOpenError, segment_name};
use crate::commit_log::segment_header::SegmentHeaderError;
use crate::commit_log::{LogConfig, LogHome};
use gantry_proto::env::{Files, OpenMode};
use gantry_proto::model::LogOffset;
use std::sync::Arc;

/// What opening a segment came to.
pub(super) enum Opened {
    Whole(Arc<Segment>),
    /// Its first page is damaged, or not there: see [`super::header`] and [`super::useless`].
    Headless {
        base: LogOffset,
        cause: SegmentHeaderError,
    },
}

impl Opened {
    /// Where it begins.
    pub(super) fn base(&self) -> LogOffset {
        match self {
            Opened::Whole(segment) => segment.base,
            Opened::Headless { base, .. } => *base,
        }
    }
}

/// The positions, which are made before the first segment is. `bases`: where the segments begin.
pub(super) fn open_positions(
    config: &LogConfig,
    files: &dyn Files,
    bases: &[LogOffset],
) -> Result<PositionsFile, LogOpenError> {
    match Positions::read(files, &config.folder) {
        Ok(Some(_)) => return Ok(PositionsFile::open(files, &config.folder)?),
        Ok(None) if bases.is_empty() => {}
        Ok(None) if !config.accept_missing => {
            return Err(LogOpenError::NoPositions(config.folder.join(POSITIONS_NAME)));
        }
        Err(error) if !config.accept_missing || !matches!(error, PositionsError::Damaged(_)) => {
            return Err(error.into());
        }
        Ok(None) | Err(_) => {
            tracing::warn!(
                "nothing proves how far the log was written: going on with what it shows, as store.accept_missing_log says"
            );
        }
    }
    let mut positions = Positions::new(config.home.folder, bases.first().copied().unwrap_or_default());
    let last = bases.last().copied().unwrap_or_default();
    (positions.sealed_to, positions.flushed_to) = (last, last);
    Ok(PositionsFile::create(files, &config.folder, positions)?)
}

/// A segment, or what is there of one whose first page is damaged.
pub(super) fn open_segment(files: &dyn Files, config: &LogConfig, base: LogOffset) -> Result<Opened, LogOpenError> {
    let path = config.dir.join(segment_name(base));
    let segment = match Segment::open(files, &config.dir, base, OpenMode::ReadWrite) {
        Ok(segment) => segment,
        Err(SegmentOpenError::Io(error)) => return Err(io("opening", path)(error)),
        Err(error @ SegmentOpenError::Header(SegmentHeaderError::Newer(_))) => {
            return Err(LogOpenError::Segment { path, cause: format!("{error}: start that version or a later one") });
        }
        Err(SegmentOpenError::Header(cause)) => return Ok(Opened::Headless { base, cause }),
        Err(error) => return Err(LogOpenError::Segment { path, cause: error.to_string() }),
    };
    match foreign(&segment.home, &config.home) {
        Some(cause) => Err(LogOpenError::Segment { path, cause }),
        None => Ok(Opened::Whole(Arc::new(segment))),
    }
}

/// Makes the segment that begins at `base` anew, where nothing is.
pub(super) fn create_first(
    files: &dyn Files,
    config: &LogConfig,
    base: LogOffset,
) -> Result<Arc<Segment>, LogOpenError> {
    let path = config.dir.join(segment_name(base));
    let file = create_prepared(files, config).map_err(io("reserving space for", &path))?;
    let named = name_prepared(files, config, config.home, file, (base, Vec::new()));
    named.map(Arc::new).map_err(io("creating", &path))
}

/// Why a segment is not of this folder, if it is not.
pub(super) fn foreign(found: &LogHome, own: &LogHome) -> Option<String> {
    fn other<T: PartialEq>(found: Option<T>, own: Option<T>) -> Option<(T, T)> {
        found.zip(own).filter(|(found, own)| found != own)
    }
    if let Some((found, own)) = other(found.cluster, own.cluster) {
        return Some(format!("it was written for cluster {found}, and this folder belongs to cluster {own}"));
    }
    if let Some((found, own)) = other(found.store_group, own.store_group) {
        return Some(format!("it was written for store group number {found}, and this folder belongs to number {own}"));
    }
    let other_folder = found.folder != own.folder;
    other_folder.then(|| format!("it belongs to the data folder {}, and this one is {}", found.folder, own.folder))
}
