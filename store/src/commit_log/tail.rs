//! The log's end: where records get their offsets. Held for the time it takes to copy a record, never during I/O.
//!
//! A caller takes the lock with [`CommitLog::begin`], makes sure that all its records fit ([`Appender::reserve`]),
//! and adds them ([`Appender::push`]). They gather in the open batch until the writer takes it.

use super::CommitLog;
use super::record::{BatchFrame, RecordHeader, RecordKind, write_record};
use super::segment_header::{EPOCHS_MAX, EpochStart};
use crate::queue_index::Queue;
use crate::tenure::Tenure;
use gantry_proto::contract::StoreError;
use gantry_proto::model::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use gantry_proto::model::{Epoch, LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What the writer writes with one call, in one segment.
#[derive(Default)]
pub(crate) struct Batch {
    /// Where its first byte goes.
    pub start: LogOffset,
    /// True: the writer opens a new segment at `start` first.
    pub opens_segment: bool,
    pub bytes: Vec<u8>,
    /// Queues that grow when this batch is confirmed, each with its new end.
    pub arrivals: Vec<(Arc<Queue>, QueueOffset)>,
}

impl Batch {
    /// Where the next batch begins.
    pub(crate) fn end(&self) -> LogOffset {
        self.start.plus(self.bytes.len() as u64)
    }
}

/// A batch that is in its segment.
pub(crate) struct Written {
    /// Where the next batch begins.
    pub end: LogOffset,
    /// As of [`Batch::arrivals`].
    pub arrivals: Vec<(Arc<Queue>, QueueOffset)>,
}

/// State behind the tail's lock.
pub(crate) struct Tail {
    /// Leadership that records are written in.
    pub epoch: Epoch,
    /// Next byte to be given away.
    pub appended_to: LogOffset,
    /// Where the current segment begins.
    pub segment_base: LogOffset,
    /// First byte that does not fit into the current segment.
    pub segment_end: LogOffset,
    /// Waiting for the writer, oldest first. Only the last one grows.
    pub batches: VecDeque<Batch>,
    /// Bytes in `batches` and in those that the writer is writing.
    pub pending_bytes: usize,
    /// The file that the next segment will be, as far as it is known.
    pub next_segment: NextSegment,
    /// A record was refused because it could not be prepared, and it still is not.
    pub refused_for_room: bool,
    /// Somebody waits for it.
    pub is_wanted: bool,
    /// Why nothing is taken any more.
    pub refused: Option<StoreError>,
    /// Store times never go back: two callers may have looked at the clock in another order than they came here.
    pub last_store_time: Timestamp,
    /// Where the epochs began, the newest ones, oldest first.
    pub epochs: Vec<EpochStart>,
    /// Empty buffers to be used again.
    pub spare: Vec<Vec<u8>>,
}

/// Whether there is room behind the current segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextSegment {
    /// It is to be prepared.
    Missing,
    /// It is there.
    Prepared,
    /// There is no room on the disk for it; tried again from time to time.
    DiskFull(String),
    /// It could not be prepared for another reason; tried again from time to time.
    Failed(String),
}

impl NextSegment {
    /// The error for records that would need it.
    fn refusal(&self) -> Option<StoreError> {
        match self {
            NextSegment::Missing | NextSegment::Prepared => None,
            NextSegment::DiskFull(reason) => Some(StoreError::DiskFull(format!("no next segment: {reason}"))),
            NextSegment::Failed(reason) => Some(StoreError::Busy(format!("no next segment: {reason}"))),
        }
    }
}

/// Why records do not fit right now.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// The next segment is being prepared: wait for it and try again.
    SegmentNotReady,
    /// Larger than a segment can hold.
    TooLarge { bytes: usize, max: usize },
    /// Nothing is taken.
    Refused(StoreError),
}

impl From<NoRoom> for StoreError {
    fn from(no_room: NoRoom) -> StoreError {
        match no_room {
            NoRoom::Refused(error) => error,
            NoRoom::SegmentNotReady => StoreError::Busy("the next log segment is not ready".into()),
            NoRoom::TooLarge { bytes, max } => {
                StoreError::Busy(format!("{bytes} bytes of progress do not fit into one segment of {max}"))
            }
        }
    }
}

/// What room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What fills the disk: messages, dead letters among them.
    Messages,
    /// What consumers do, and what was deleted. It may use the end of a segment that has none behind it.
    Progress,
}

/// Adds records while the tail is locked.
pub(crate) struct Appender<'a> {
    pub(super) tail: MutexGuard<'a, Tail>,
    pub(super) limits: TailLimits,
    pub(super) tenure: &'a Tenure,
    pub(super) now: Timestamp,
    pub(super) gathering: &'a Notify,
}

/// What bounds the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailLimits {
    pub segment_bytes: u64,
    pub pending_bytes_max: usize,
}

/// Larger write buffers are given back to the allocator.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The end of a segment that no message gets while there is none behind it: consumers go on working off what fills the disk
/// (`consumers_go_on_when_there_is_no_room_for_messages`). A delivery and its acknowledgement take some 150 bytes, if each is
/// a message of its own.
const PROGRESS_BYTES_MAX: u64 = 64 << 20;
const PROGRESS_PART: u64 = 16;

/// How long a caller waits for the next segment before it is told that the store is busy.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
impl CommitLog {
    /// Lets the current segment end at `end`, with no other prepared. Returns where it ended before.
    pub(crate) fn end_segment_at(&self, end: LogOffset) -> LogOffset {
        let mut tail = self.tail.lock();
        tail.next_segment = NextSegment::Missing;
        std::mem::replace(&mut tail.segment_end, end)
    }
}

impl CommitLog {
    /// Locks the tail. Nothing slow may happen until the appender is dropped.
    pub(crate) fn begin(&self) -> Appender<'_> {
        let now = self.now();
        Appender {
            tail: self.tail.lock(),
            limits: self.limits(),
            tenure: &self.tenure,
            now,
            gathering: &self.gathering,
        }
    }

    /// Waits until `bytes` of records would fit. They may not fit any more a moment later.
    pub(crate) async fn room_for(&self, purpose: Purpose, bytes: usize) -> Result<(), NoRoom> {
        let deadline = Instant::now() + ROOM_WAIT_MAX;
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.begin().reserve(purpose, bytes) {
                Err(NoRoom::SegmentNotReady) => {}
                other => return other,
            }
            self.wanted.notify_one();
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(NoRoom::Refused(StoreError::Busy("the next segment is not ready".into())));
            }
        }
    }

    /// Whether the log takes messages now; else why not. The next segment may be impossible to prepare: then
    /// acknowledgements are refused, too, as soon as the current one is full to the end.
    pub(crate) fn has_room(&self) -> Result<(), StoreError> {
        let record_len_max = ((BODY_BYTES_MAX + HEAD_BYTES_MAX) as u64).min(self.config.segment_bytes / 16);
        self.tail.lock().has_room(record_len_max + self.limits().progress_bytes())
    }

    fn limits(&self) -> TailLimits {
        TailLimits { segment_bytes: self.config.segment_bytes, pending_bytes_max: self.config.pending_bytes_max }
    }
}

impl TailLimits {
    fn progress_bytes(&self) -> u64 {
        PROGRESS_BYTES_MAX.min(self.segment_bytes / PROGRESS_PART)
    }
}

impl Tail {
    /// Whether there is so much room, and no record was refused for want of it; else why not.
    pub(crate) fn has_room(&self, bytes: u64) -> Result<(), StoreError> {
        let left = self.segment_end.0.saturating_sub(self.appended_to.0);
        match self.next_segment.refusal() {
            Some(refusal) if self.refused_for_room || left < bytes => Err(refusal),
            _ => Ok(()),
        }
    }

    /// A batch is written: its buffer is used again.
    pub(crate) fn is_written(&mut self, batch: Batch) -> Written {
        let end = batch.end();
        let Batch { mut bytes, arrivals, .. } = batch;
        self.pending_bytes -= bytes.len();
        if self.spare.len() < 2 && bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
        Written { end, arrivals }
    }

    /// Records carry `epoch` from here on.
    pub(crate) fn begin_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        // An epoch that wrote nothing need not be remembered.
        while self.epochs.last().is_some_and(|(_, from)| *from >= self.appended_to) {
            self.epochs.pop();
        }
        // After a start there may be more than the segments' headers take.
        let too_many = (self.epochs.len() + 1).saturating_sub(EPOCHS_MAX);
        self.epochs.drain(..too_many);
        self.epochs.push((epoch, self.appended_to));
    }

    /// Where the epochs began whose records lie before `at`.
    pub(crate) fn epochs_before(&self, at: LogOffset) -> Vec<EpochStart> {
        self.epochs.iter().filter(|(_, from)| *from < at).copied().collect()
    }
}

impl Appender<'_> {
    /// Makes sure that `bytes` of records can follow without a break. Nothing has changed when it fails.
    pub(crate) fn reserve(&mut self, purpose: Purpose, bytes: usize) -> Result<(), NoRoom> {
        if let Some(refused) = &self.tail.refused {
            return Err(NoRoom::Refused(refused.clone()));
        }
        // The fence, in front of the only door into the log.
        self.tenure.check().map_err(NoRoom::Refused)?;
        let need = bytes as u64;
        if need > self.limits.segment_bytes {
            return Err(NoRoom::TooLarge { bytes, max: self.limits.segment_bytes as usize });
        }
        if self.tail.pending_bytes > self.limits.pending_bytes_max {
            let pending = self.tail.pending_bytes;
            return Err(NoRoom::Refused(StoreError::Busy(format!("{pending} bytes wait to be written"))));
        }
        let kept = match (purpose, &self.tail.next_segment) {
            (Purpose::Progress, _) | (_, NextSegment::Prepared) => 0,
            (Purpose::Messages, _) => self.limits.progress_bytes(),
        };
        if self.tail.appended_to.0 + need + kept > self.tail.segment_end.0 {
            match &self.tail.next_segment {
                NextSegment::Prepared => self.roll(),
                NextSegment::Missing => {
                    self.tail.is_wanted = true;
                    return Err(NoRoom::SegmentNotReady);
                }
                failed => {
                    let refused = failed.refusal().unwrap_or_else(|| StoreError::Busy("no next segment".into()));
                    self.tail.refused_for_room = true;
                    return Err(NoRoom::Refused(refused));
                }
            }
        }
        if self.tail.batches.is_empty() {
            self.open_batch(false);
        }
        Ok(())
    }

    /// When the records of this appender are stored. Never before the time of an earlier record.
    pub(crate) fn store_time(&mut self) -> Timestamp {
        self.tail.last_store_time = self.tail.last_store_time.max(self.now);
        self.tail.last_store_time
    }

    /// Adds a record; room was reserved. Returns where it begins and its length.
    pub(crate) fn push(
        &mut self,
        kind: RecordKind,
        (topic, queue, queue_offset): (TopicId, QueueId, QueueOffset),
        body: impl FnOnce(&mut Vec<u8>),
    ) -> (LogOffset, u32) {
        let store_time = self.store_time();
        let log_offset = self.tail.appended_to;
        let epoch = self.tail.epoch;
        let header =
            RecordHeader { len: 0, kind, extensions_len: 0, epoch, log_offset, store_time, topic, queue, queue_offset };
        let batch = self.tail.batches.back_mut().expect("room was reserved before a record is pushed");
        let len = write_record(&mut batch.bytes, &header, body);
        self.tail.appended_to = log_offset.plus(u64::from(len));
        self.tail.pending_bytes += len as usize;
        debug_assert!(self.tail.appended_to <= self.tail.segment_end, "a record crossed its segment's end");
        (log_offset, len)
    }

    /// Announces that the next `count` records of together `bytes` bytes are all there or none of them is. Room for them and
    /// for [`BatchFrame::RECORD_LEN`] was reserved with one call.
    pub(crate) fn push_batch_frame(&mut self, count: usize, bytes: usize) {
        let frame = BatchFrame { count: count as u32, bytes: bytes as u64 };
        self.push(RecordKind::Batch, Default::default(), |out| frame.write(out));
    }

    /// Notes that `queue` ends at `end` once the records pushed so far are confirmed.
    pub(crate) fn arrival(&mut self, queue: &Arc<Queue>, end: QueueOffset) {
        let batch = self.tail.batches.back_mut().expect("a message was pushed before its arrival is noted");
        match batch.arrivals.last_mut() {
            Some((last, last_end)) if Arc::ptr_eq(last, queue) => *last_end = end,
            _ => batch.arrivals.push((queue.clone(), end)),
        }
    }

    /// Where the segment begins that the records pushed last are in.
    pub(crate) fn segment_base(&self) -> LogOffset {
        self.tail.segment_base
    }

    /// Where the next record would begin: wait for this to be confirmed.
    pub(crate) fn end(&self) -> LogOffset {
        self.tail.appended_to
    }

    fn roll(&mut self) {
        self.tail.next_segment = NextSegment::Missing;
        self.tail.segment_base = self.tail.appended_to;
        self.tail.segment_end = self.tail.appended_to.plus(self.limits.segment_bytes);
        self.open_batch(true);
    }

    fn open_batch(&mut self, opens_segment: bool) {
        let bytes = self.tail.spare.pop().unwrap_or_default();
        let start = self.tail.appended_to;
        self.tail.batches.push_back(Batch { start, opens_segment, bytes, arrivals: Vec::new() });
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        if !self.tail.batches.is_empty() {
            self.gathering.notify_one();
        }
    }
}
