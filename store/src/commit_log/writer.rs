//! Writes the log: one task takes what has gathered, writes each batch with one call, flushes what somebody waits for, and has
//! confirmed what is as durable as configured. One [`LogWriter`] exists for a log. It blocks, so the task sends it to a worker.
//!
//! With synchronous flush a flush is made as soon as a caller waits for one ([`CommitLog::confirmed`]) or a message is to be
//! seen by consumers; else, which concerns deliveries, after [`SETTLE_AFTER`] of rest, or [`SETTLE_INTERVAL`] under load.

use super::positions::PositionsFile;
use super::prepared::name_prepared;
use super::segment::Segment;
use super::tail::{Batch, Written};
use super::{CommitLog, Flush};
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What nobody waits for is flushed, and how far the log is durable is noted beside it, when nothing gathered for so long ...
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// ... and this often under load.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);
/// With asynchronous flush: how often it is done.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// Writes what gathers and confirms it, until the store stops. The log was stopped before that, so nothing gathers behind what
/// is written last.
///
/// When nothing gathers for [`SETTLE_AFTER`], and every [`SETTLE_INTERVAL`] under load, it makes durable how far it was.
pub(crate) async fn write(log: Arc<CommitLog>, mut writer: LogWriter, stopping: CancellationToken) {
    let (mut last, mut settled_at) = (false, Instant::now());
    let mut quiet = true;
    while !last {
        let idle = tokio::select! {
            biased;
            () = log.gathering.notified() => false,
            () = stopping.cancelled() => {
                last = true;
                false
            }
            () = tokio::time::sleep(SETTLE_AFTER), if log.unsettled() => true,
        };
        let settle = idle || last || settled_at.elapsed() >= SETTLE_INTERVAL;
        if log.has_to_write() || settle {
            if !idle && std::mem::take(&mut quiet) {
                // Segments are prepared seldom while nothing is written.
                log.wanted.notify_one();
            }
            // Everybody who is ready to append does so first and shares the write. Measured: without this, with asynchronous
            // flush, a write carried 1.5 messages instead of 40.
            tokio::task::yield_now().await;
            let writing = log.env.run_blocking(move || {
                let durable = writer.write_gathered(settle);
                (writer, durable)
            });
            match writing.await {
                Ok((back, durable)) => {
                    writer = back;
                    log.confirm(durable);
                }
                Err(panicked) => return log.fail(StoreError::WritesStopped(format!("writing the log: {panicked}"))),
            }
        }
        quiet |= idle;
        if settle {
            settled_at = Instant::now();
            let settling = log.clone();
            if let Err(panicked) = log.env.run_blocking(move || settling.settle_positions()).await {
                return log.fail(StoreError::WritesStopped(format!("noting the positions of the log: {panicked}")));
            }
        }
    }
}

/// Owns the position in the last segment.
pub(crate) struct LogWriter {
    log: Arc<CommitLog>,
    segment: Arc<Segment>,
    /// Written and not confirmed.
    written: Vec<Written>,
}

impl LogWriter {
    /// Continues in `segment`, the last of the log.
    pub(crate) fn new(log: Arc<CommitLog>, segment: Arc<Segment>) -> LogWriter {
        LogWriter { log, segment, written: Vec::new() }
    }

    /// Writes what has gathered until now, and flushes it if somebody waits for that, or if `settle` asks for it. Returns the
    /// batches that have become as durable as configured, to be confirmed. If one fails, the log has failed and nothing
    /// behind that one was written.
    pub(crate) fn write_gathered(&mut self, settle: bool) -> Vec<Written> {
        let gathered = std::mem::take(&mut self.log.tail.lock().batches);
        let mut failed = false;
        for batch in gathered {
            if let Err(error) = self.write(&batch) {
                // Whatever failed: what gathers meanwhile would lie behind a gap.
                failed = true;
                self.log.disk.lock().failed = true;
                let (bytes, path) = (batch.bytes.len(), self.segment.path.display());
                self.log.fail(StoreError::WritesStopped(format!("writing {bytes} bytes to {path}: {error}")));
                break;
            }
            self.written.push(self.log.tail.lock().is_written(batch));
        }
        if self.log.config.flush == Flush::Sync && !failed && (settle || self.is_waited_for()) {
            // If it fails the log has, and said so.
            let _ = self.log.flush();
        }
        let durable_to = self.log.durable_to();
        let durable = self.written.partition_point(|batch| batch.end <= durable_to);
        self.written.drain(..durable).collect()
    }

    fn is_waited_for(&self) -> bool {
        self.log.flush_is_wanted() || self.written.iter().any(|batch| !batch.arrivals.is_empty())
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.opens_segment {
            self.open_segment(batch.start)?;
        }
        let (log, segment, end) = (&self.log, &self.segment, batch.end());
        log.on_disk(|_| {
            segment.file.write_all_at(&batch.bytes, segment.position(batch.start))?;
            // Else it would be answered, and be gone.
            segment.check_file(&*log.env.files, segment.file_len())
        })?;
        assert_eq!(log.written_to(), batch.start, "batches are written in order and without gaps");
        log.written.advance(end);
        Ok(())
    }

    /// Leaves the current segment, durable as it is, for the prepared one.
    fn open_segment(&mut self, base: LogOffset) -> io::Result<()> {
        let log = &self.log;
        log.flush_segment(&self.segment, base)?;
        // Recovery takes every segment but the last for durable: that has to be known before there is another.
        log.on_disk(|positions| {
            positions.update(|held| held.sealed_to = base)?;
            positions.settle()
        })?;
        let file = log.prepared.lock().take().ok_or_else(|| io::Error::other("no segment was prepared"))?;
        let epochs = log.tail.lock().epochs_before(base);
        let home = *log.home.lock();
        let segment = name_prepared(&*log.env.files, &log.config, home, file, (base, epochs))?;
        self.segment = Arc::new(segment);
        log.segments.insert(self.segment.clone());
        log.wanted.notify_one();
        Ok(())
    }
}

/// With asynchronous flush: makes what was written durable every [`FLUSH_INTERVAL`], whatever else the store is busy with.
pub(crate) async fn flush(log: Arc<CommitLog>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(FLUSH_INTERVAL)).await.is_some() {
        if log.written_to() <= log.flushed_to() {
            continue;
        }
        let flushing = log.clone();
        match log.env.run_blocking(move || flushing.flush()).await {
            Ok(Ok(())) => {}
            // It has stopped the log, and was reported there.
            Ok(Err(_)) => return,
            Err(panicked) => return log.fail(StoreError::WritesStopped(format!("flushing the log: {panicked}"))),
        }
    }
}

impl CommitLog {
    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let target = self.written_to();
        if target <= self.flushed_to() {
            return Ok(());
        }
        // Rolling flushes the segment it leaves: only the last one can have unflushed bytes below `target`.
        let Some(segment) = self.segments.holding(LogOffset(target.0.saturating_sub(1))) else {
            return Ok(());
        };
        if let Err(error) = self.flush_segment(&segment, target) {
            let stopped = StoreError::WritesStopped(format!("flushing {}: {error}", segment.path.display()));
            self.fail(stopped.clone());
            return Err(stopped);
        }
        Ok(())
    }

    /// Makes a segment durable, whose bytes before `to` were written, and notes that. Writes go on meanwhile: with
    /// asynchronous flush nobody waits for this.
    fn flush_segment(&self, segment: &Segment, to: LogOffset) -> io::Result<()> {
        let _flushing = self.flushing.lock();
        let flushed = segment.file.sync_data();
        self.on_disk(|positions| {
            flushed?;
            self.flushed_to.fetch_max(to.0, Ordering::AcqRel);
            positions.update(|held| self.note_progress(held))
        })
    }

    /// Writes, or notes a flush, one caller at a time. After a failure nothing more is written and nothing is called flushed: what
    /// a later flush says is not about what the earlier one lost.
    pub(super) fn on_disk(&self, change: impl FnOnce(&mut PositionsFile) -> io::Result<()>) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.failed {
            return Err(io::Error::other("an earlier write or flush failed"));
        }
        let changed = change(&mut disk.positions);
        disk.failed = changed.is_err();
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::recovery::Segments;
    use crate::commit_log::{LogConfig, LogHome};
    use crate::tenure::Tenure;
    use gantry_proto::env::fake;
    use gantry_proto::model::Epoch;
    use std::time::Duration;

    #[tokio::test]
    async fn what_gathers_while_a_segment_cannot_be_opened_is_not_written() {
        let config = LogConfig {
            folder: "/store".into(),
            dir: "/store/log".into(),
            home: LogHome::default(),
            flush: Flush::Sync,
            segment_bytes: 64 << 10,
            pending_bytes_max: 64 << 10,
            accept_missing: false,
        };
        let (env, _, _) = fake::env(1);
        let segments = Segments::find(config, env).unwrap();
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| Ok(())).unwrap();
        let tenure = Arc::new(Tenure::new(Epoch(0), Duration::ZERO));
        let (log, mut writer) = segments.open(scanned, tenure).unwrap();
        let gather = |start, opens_segment| {
            let batch = Batch { start: LogOffset(start), opens_segment, bytes: vec![7; 100], arrivals: Vec::new() };
            let mut tail = log.tail.lock();
            tail.pending_bytes += batch.bytes.len();
            tail.batches.push_back(batch);
        };
        gather(0, false);
        assert_eq!(writer.write_gathered(true).len(), 1);
        let len = writer.segment.file.len().unwrap();
        let at = writer.segment.position(LogOffset(100));
        let segment = writer.segment.clone();
        let behind = || segment.file.read_at(at, 300).unwrap();
        let before = behind();
        // None is prepared; another batch gathered before the log was told.
        gather(100, true);
        assert_eq!(writer.write_gathered(true).len(), 0);
        gather(200, false);
        assert_eq!(writer.write_gathered(true).len(), 0);
        assert_eq!((log.written_to(), behind()), (LogOffset(100), before));
        assert_eq!(writer.segment.file.len().unwrap(), len);
        assert!(log.refusal().is_some());
    }
}
