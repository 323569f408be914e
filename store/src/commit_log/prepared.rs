//! The file that will be the next segment: reserved before it is needed, so that rolling waits for nothing.

use super::CommitLog;
use super::segment::{Segment, segment_name};
use super::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader};
use super::tail::NextSegment;
use super::{LogConfig, LogHome};
use gantry_proto::contract::StoreError;
use gantry_proto::env::{File, Files, OpenMode};
use gantry_proto::model::LogOffset;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Its name until it is one.
pub(crate) const PREPARED_NAME: &str = "next.segment";

/// Between two looks while something is written, and while nothing is.
const PAUSE: Duration = Duration::from_millis(500);
const QUIET_PAUSE: Duration = Duration::from_secs(5);

/// Prepares segments until the store stops.
pub(crate) async fn prepare(log: Arc<CommitLog>, stopping: CancellationToken) {
    let mut seen_to = None;
    loop {
        let written_to = log.written_to();
        let preparing = log.clone();
        if let Err(panicked) = log.env.run_blocking(move || preparing.prepare_next_segment()).await {
            return log.fail(StoreError::WritesStopped(format!("preparing a segment: {panicked}")));
        }
        // While nothing is written no segment fills; the writer says when that changes.
        let pause = if seen_to.replace(written_to) == Some(written_to) { QUIET_PAUSE } else { PAUSE };
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = log.wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl CommitLog {
    /// Makes room behind the current segment when less than half of it is left, or when somebody waits. Blocks.
    fn prepare_next_segment(&self) {
        let (missing, starved) = {
            let tail = self.tail.lock();
            let left = tail.segment_end.0.saturating_sub(tail.appended_to.0);
            let starved = tail.is_wanted || left < self.config.segment_bytes / 2;
            (tail.next_segment != NextSegment::Prepared, starved)
        };
        if !missing || !starved {
            return;
        }
        let prepared = create_prepared(&*self.env.files, &self.config);
        let mut tail = self.tail.lock();
        tail.next_segment = match prepared {
            Ok(file) => {
                *self.prepared.lock() = Some(file);
                (tail.refused_for_room, tail.is_wanted) = (false, false);
                NextSegment::Prepared
            }
            Err(error) => {
                let (reason, full) = (error.to_string(), error.kind() == io::ErrorKind::StorageFull);
                let failed = if full { NextSegment::DiskFull(reason) } else { NextSegment::Failed(reason) };
                if tail.next_segment != failed {
                    let advice = if full { "free disk space" } else { "see the error" };
                    tracing::error!(%error, advice, "the next log segment cannot be prepared; messages will be refused when the current segment is full");
                }
                failed
            }
        };
        drop(tail);
        self.room.notify_waiters();
    }
}

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
