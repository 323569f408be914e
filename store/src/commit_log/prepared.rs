//! The file that will be the next segment: reserved before it is needed, so that rolling waits for nothing.

use super::segment::{Segment, segment_name};
use super::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader};
use super::{LogConfig, LogHome};
use gantry_proto::env::{File, Files, OpenMode};
use gantry_proto::model::LogOffset;
use std::io;
use std::sync::Arc;

/// Its name until it is one.
pub(crate) const PREPARED_NAME: &str = "next.segment";

/// Reserves a file that will become a segment.
pub(crate) fn create_prepared(files: &dyn Files, config: &LogConfig) -> io::Result<Arc<dyn File>> {
    let path = config.dir.join(PREPARED_NAME);
    match files.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.open(&path, OpenMode::CreateNew)?;
    file.allocate(SEGMENT_HEADER_LEN + config.segment_bytes)?;
    // The new length must be durable before records in it are.
    file.sync_data()?;
    Ok(file)
}

/// Makes the prepared file the segment that begins at `base`. Its header is durable before it has its name.
pub(crate) fn name_prepared(
    files: &dyn Files,
    config: &LogConfig,
    home: LogHome,
    file: Arc<dyn File>,
    (base, epochs): (LogOffset, Vec<EpochStart>),
) -> io::Result<Segment> {
    let capacity = config.segment_bytes;
    let header = SegmentHeader { base, capacity, home, epochs };
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    let path = config.dir.join(segment_name(base));
    files.rename(&config.dir.join(PREPARED_NAME), &path)?;
    files.sync_dir(&config.dir)?;
    Ok(Segment { base, capacity, epochs: header.epochs, home, file, path })
}
