//! The one that writes: takes what has gathered, each batch with one call, flushes it if asked to, and hands it back to be
//! confirmed. One writer exists for a log. It blocks: the store's write task sends it to a worker.

use super::prepared::name_prepared;
use super::segment::Segment;
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

    /// Writes what has gathered until now. Returns the batches that are as durable as configured, to be confirmed. If one
    /// fails, the log has failed and nothing behind that one was written.
    pub(crate) fn write_gathered(&mut self) -> Vec<Batch> {
        let gathered = std::mem::take(&mut self.log.tail.lock().batches);
        let mut written = Vec::with_capacity(gathered.len());
        for batch in gathered {
            if let Err(error) = self.write(&batch) {
                let (bytes, path) = (batch.bytes.len(), self.segment.path.display());
                self.log.fail(StoreError::WritesStopped(format!("writing {bytes} bytes to {path}: {error}")));
                break;
            }
            written.push(batch);
        }
        written
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
        let before = log.written_to.swap(end.0, Ordering::AcqRel);
        assert_eq!(before, batch.start.0, "batches are written in order and without gaps");
        if log.config.flush == Flush::Sync {
            log.flush_segment(segment, end)?;
        }
        log.tail.lock().pending_bytes -= batch.bytes.len();
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
