//! The one that writes: takes the gathered batch, writes it with one call, flushes it if asked to, hands it on to be
//! confirmed. One writer exists for a log; its thread ends when the log was stopped and nothing is left.

use super::segment::{Segment, segment_name};
use super::tail::Batch;
use super::{CommitLog, Flush};
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Owns the position in the last segment.
pub(crate) struct LogWriter {
    log: Arc<CommitLog>,
    segment: Arc<Segment>,
}

impl LogWriter {
    /// Continues in `segment`, the last of the log.
    pub(crate) fn new(log: Arc<CommitLog>, segment: Arc<Segment>) -> LogWriter {
        LogWriter { log, segment }
    }

    /// Writes batches until the log is stopped. Blocks: runs on a thread of its own.
    pub(crate) fn run(mut self) {
        let log = self.log.clone();
        loop {
            let batch = {
                let mut tail = log.tail.lock();
                loop {
                    if let Some(batch) = tail.batches.pop_front() {
                        break batch;
                    }
                    if tail.refused.is_some() {
                        return;
                    }
                    log.work.wait(&mut tail);
                }
            };
            if !self.write(batch) {
                return;
            }
        }
    }

    /// False: the log has been stopped.
    fn write(&mut self, batch: Batch) -> bool {
        let end = batch.start.plus(batch.bytes.len() as u64);
        if let Err(error) = self.try_write(&batch) {
            let path = self.segment.path.display();
            let reason = StoreError::WritesStopped(format!("writing {} bytes to {path}: {error}", batch.bytes.len()));
            self.log.fail(reason);
            // Nothing behind this batch may be written either.
            self.log.tail.lock().batches.clear();
            return false;
        }
        let before = self.log.written_to.swap(end.0, Ordering::AcqRel);
        assert_eq!(before, batch.start.0, "batches are written in order and without gaps");
        if self.log.config.flush == Flush::Sync {
            self.log.flushed_to.store(end.0, Ordering::Release);
        }
        self.log.tail.lock().pending_bytes -= batch.bytes.len();
        self.log.unconfirmed.lock().push_back((end, batch));
        self.log.confirmable.notify_one();
        true
    }

    fn try_write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.opens_segment {
            self.open_segment(batch.start)?;
        }
        self.segment.file.write_all_at(&batch.bytes, batch.start.0 - self.segment.base.0)?;
        if self.log.config.flush == Flush::Sync {
            self.segment.file.sync_data()?;
        }
        Ok(())
    }

    /// Leaves the current segment, durable as it is, for the prepared one.
    fn open_segment(&mut self, base: LogOffset) -> io::Result<()> {
        self.segment.file.sync_data()?;
        self.log.flushed_to.fetch_max(base.0, Ordering::AcqRel);
        let file = self.log.prepared.lock().take().ok_or_else(|| io::Error::other("no segment was prepared"))?;
        let path = self.log.config.dir.join(segment_name(base));
        let files = &self.log.env.files;
        files.rename(&self.log.config.dir.join(super::recovery::PREPARED_NAME), &path)?;
        files.sync_dir(&self.log.config.dir)?;
        self.segment = Arc::new(Segment { base, file, path });
        self.log.segments.insert(self.segment.clone());
        self.log.wanted.notify_one();
        Ok(())
    }
}
