//! The log: the one truth of a store group. Everything else in this crate is a function of its records.
//!
//! A record's way: a caller locks the [`tail`] and copies the record to the open batch; the [`writer`] takes the batch,
//! writes it with one call and, with synchronous flush, makes it durable as soon as somebody waits for that; then the batch is
//! confirmed ([`confirmation`]): the queues it filled grow, receivers wake, and whoever waits for its position goes on. Reads are positioned reads ([`read`]).
//!
//! Watermarks: `confirmed_to ≤ written_to ≤ appended_to`, with synchronous flush also `confirmed_to ≤ flushed_to`. They only
//! grow, and are asserted where they move ([`writer`], [`confirmation`], [`watermark`]).
//!
//! Epochs: a record carries the epoch it was put into the log in, and epochs never go back along the log. The tail's lock
//! is also the fence: a record is taken only while the store's tenure lasts, and its caller hears of success only if the
//! same tenure still lasts when the record is confirmed ([`CommitLog::acknowledged`]).
//!
//! After a write or a flush failed nothing is known about the bytes behind it: nothing more is written or flushed, the log
//! refuses everything from then on, and only reopening it (recovery) can go on.
//!
//! How far this disk has the log is noted beside it after each flush: see [`positions`].

mod clock;
mod confirmation;
pub(crate) mod damage;
pub(crate) mod positions;
pub(crate) mod prepared;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod retention;
pub(crate) mod segment;
pub(crate) mod segment_header;
pub(crate) mod segment_reader;
pub(crate) mod tail;
pub(crate) mod watermark;
pub(crate) mod writer;

use crate::tenure::Tenure;
use clock::LogClock;
use damage::{DamageCause, DamageRegister, DamagedRange};
use gantry_proto::contract::{StoreError, StoreLease};
use gantry_proto::env::{Env, File, is_unreadable};
use gantry_proto::model::{ClusterId, Epoch, FolderId, LogOffset, StoreGroupId, Timestamp};
use parking_lot::Mutex;
use positions::{Positions, PositionsFile};
use read::{Cold, Place};
use retention::BelievedTime;
use segment::{ReadError, Record, Segment, SegmentSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tail::Tail;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watermark::Watermark;

/// When an answer may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After the record is on disk (`fdatasync`, shared by everybody who waits).
    Sync,
    /// After the record is in the operating system's page cache. A power failure can take back the last half second or so
    /// of answered messages; the death of the process cannot.
    Async,
}

/// Where a log belongs, as far as that is known. It stands in the header of each segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogHome {
    pub folder: FolderId,
    pub cluster: Option<ClusterId>,
    pub store_group: Option<StoreGroupId>,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// The store's folder, which holds the positions.
    pub folder: PathBuf,
    /// The folder in it that holds the segments.
    pub dir: PathBuf,
    pub home: LogHome,
    pub flush: Flush,
    pub segment_bytes: u64,
    pub pending_bytes_max: usize,
    /// An operator chose to go on without a part of the log that is missing.
    pub accept_missing: bool,
}

/// The log of one store group, open for appending.
pub(crate) struct CommitLog {
    pub(crate) config: LogConfig,
    pub(crate) env: Env,
    clock: LogClock,
    /// Without it nothing is taken, and nothing is called a success.
    pub(crate) tenure: Arc<Tenure>,
    /// Where the current epoch's records begin.
    epoch_from: AtomicU64,
    pub(crate) segments: SegmentSet,
    tail: Mutex<Tail>,
    /// Wakes the write task.
    gathering: Notify,
    /// Deliveries go by this.
    written: Watermark,
    /// Everything before this is waited for to be durable.
    flush_wanted: AtomicU64,
    flushed_to: AtomicU64,
    disk: Mutex<Disk>,
    /// Held while the log's files are flushed, and taken before `disk`: the system tells of a failed flush only once, so
    /// whoever hears of it has to have said so before anybody else may call anything flushed.
    flushing: Mutex<()>,
    /// It is on disk that the log begins here.
    retain_from: AtomicU64,
    believed: Mutex<BelievedTime>,
    pub(crate) damage: DamageRegister,
    /// Consumers and waiting callers go by this.
    pub(crate) confirmed: Watermark,
    /// Where the segments that are made from now on belong.
    home: Mutex<LogHome>,
    /// The file that will be the next segment.
    prepared: Mutex<Option<Arc<dyn File>>>,
    /// Wakes those who wait for room.
    room: Notify,
    /// Wakes the task that prepares segments.
    pub(crate) wanted: Notify,
    /// Cancelled when nothing is taken any more because of a failure.
    pub(crate) failed: CancellationToken,
}

/// Held by whoever writes or flushes: after a failure nobody does any more.
struct Disk {
    positions: PositionsFile,
    failed: bool,
}

impl CommitLog {
    /// Continues in a later epoch: records carry it from here on, and the tenure begins. The epoch is durable already.
    pub(crate) fn begin_epoch(&self, epoch: Epoch, lease: StoreLease, called_at: Instant) -> Result<(), StoreError> {
        let mut tail = self.tail.lock();
        if let Some(refused) = &tail.refused {
            return Err(refused.clone());
        }
        if epoch <= tail.epoch {
            return Err(StoreError::NotLeader(format!("epoch {} has begun already", tail.epoch)));
        }
        tail.begin_epoch(epoch);
        self.epoch_from.store(tail.appended_to.0, Ordering::Release);
        self.tenure.begin(epoch, lease, called_at);
        Ok(())
    }

    /// The store has joined its group.
    pub(crate) fn belongs_to(&self, cluster: ClusterId, group: StoreGroupId) {
        let mut home = self.home.lock();
        (home.cluster, home.store_group) = (Some(cluster), Some(group));
    }

    /// Whether what lies at `at` in the log was put there in `epoch`, as far as that is known: of the times before the first
    /// epochs that are remembered only that they were before.
    pub(crate) fn is_of_epoch(&self, at: LogOffset, epoch: Epoch) -> bool {
        let tail = self.tail.lock();
        let begun = tail.epochs.partition_point(|(_, from)| *from <= at);
        let fits = match begun.checked_sub(1) {
            Some(last) => tail.epochs[last].0 == epoch,
            None => tail.epochs.first().is_none_or(|(first, _)| epoch < *first),
        };
        fits && at < tail.appended_to
    }

    /// The epoch that was written last.
    pub(crate) fn epoch(&self) -> Epoch {
        self.tail.lock().epoch
    }

    /// Reads a record that was confirmed, and that tells its length itself.
    pub(crate) fn read_record_blocking(&self, at: LogOffset) -> Result<Record, ReadError> {
        self.known_damage(at, 1)?;
        self.segments.read_record_blocking(at).inspect_err(|error| self.note_damage(at, 1, error))
    }

    /// The same, fit for a task of the runtime: without waiting if it is in memory, else on a worker.
    pub(crate) async fn read_record(
        self: &Arc<CommitLog>,
        at: LogOffset,
    ) -> Result<Result<Record, ReadError>, StoreError> {
        if let Err(known) = self.known_damage(at, 1) {
            return Ok(Err(known));
        }
        match self.segments.read_record_warm(at) {
            Ok(read) => Ok(read.inspect_err(|error| self.note_damage(at, 1, error))),
            Err(Cold) => {
                let log = self.clone();
                let reading = self.env.run_blocking(move || log.read_record_blocking(at)).await;
                reading.map_err(|panicked| StoreError::Unreadable(format!("reading a message: {panicked}")))
            }
        }
    }

    fn known_damage(&self, at: LogOffset, len: u32) -> Result<(), ReadError> {
        match self.damage.touching(at, len) {
            Some(range) if range.is_given_up() => Err(ReadError::Gone(at)),
            Some(range) => Err(ReadError::Known { at, range }),
            None => Ok(()),
        }
    }

    /// What does not come back as it was written is noted. What the disk does not give may come back later: it is asked
    /// again some times before that is damage.
    fn note_damage(&self, at: LogOffset, len: u32, error: &ReadError) {
        let cause = match error {
            ReadError::Damaged { source, .. } if !source.is_whole() => {
                // The file itself may be gone, which is no damage of a record: it can be put back.
                if self.segments.holding(at).is_some_and(|segment| self.check_segment(&segment).is_err()) {
                    return;
                }
                DamageCause::Changed
            }
            ReadError::Io { source, .. } if is_unreadable(source) && self.damage.fails_for_good(at, self.now()) => {
                DamageCause::Unreadable
            }
            _ => return,
        };
        self.damage.note(DamagedRange::found(at, at.plus(u64::from(len)), cause, self.now()));
    }

    /// Reads and checks records that were confirmed, in the order asked for: without waiting if they are in memory, else on
    /// a worker. Nobody may hold a lock meanwhile.
    pub(crate) async fn read_records(
        self: &Arc<CommitLog>,
        places: Vec<Place>,
    ) -> Result<Vec<Result<Record, ReadError>>, StoreError> {
        let known = |place: &Place| self.known_damage(place.at, place.len).err();
        let mut known: Vec<Option<ReadError>> = places.iter().map(known).collect();
        let asked: Vec<Place> =
            places.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(p, _)| *p).collect();
        let read = match self.segments.read_warm(&asked) {
            Ok(records) => records,
            Err(Cold) => {
                let (log, asked) = (self.clone(), asked.clone());
                let reading = self.env.run_blocking(move || log.segments.read_cold(&asked)).await;
                reading.map_err(|panicked| StoreError::Unreadable(format!("reading the log: {panicked}")))?
            }
        };
        let mut read = asked
            .iter()
            .zip(read)
            .map(|(place, record)| record.inspect_err(|error| self.note_damage(place.at, place.len, error)));
        let next = |known: &mut Option<ReadError>| known.take().map_or_else(|| read.next(), |known| Some(Err(known)));
        Ok(known.iter_mut().filter_map(next).collect())
    }

    fn note_progress(&self, held: &mut Positions) {
        held.flushed_to = held.flushed_to.max(self.flushed_to());
        held.confirmed_to = held.confirmed_to.max(self.confirmed.get().min(held.flushed_to));
        held.epoch = self.tail.lock().epoch;
        held.answered_unflushed = self.config.flush == Flush::Async;
        held.time = Some(self.believed_now());
    }

    /// The log begins at `at` from now on: what lies before may be removed. Durable on return. Blocks.
    pub(crate) fn retain_from(&self, at: LogOffset) -> Result<(), StoreError> {
        let noted = self.on_disk(|positions| {
            positions.update(|held| {
                self.note_progress(held);
                held.retained_from = held.retained_from.max(at);
            })?;
            positions.settle()
        });
        if let Err(error) = noted {
            let stopped = StoreError::WritesStopped(format!("noting where the log begins: {error}"));
            self.fail(stopped.clone());
            return Err(stopped);
        }
        self.retain_from.fetch_max(at.0, Ordering::AcqRel);
        Ok(())
    }

    /// The time that retention goes by: see [`BelievedTime`].
    pub(crate) fn believed_now(&self) -> Timestamp {
        let (wall, at) = (self.env.clock.now(), self.env.clock.monotonic());
        self.believed.lock().follow(wall, at)
    }

    /// Whether there is something to be made durable that nobody waits for.
    pub(crate) fn unsettled(&self) -> bool {
        let unflushed = self.config.flush == Flush::Sync && self.flushed_to() < self.written_to();
        let disk = self.disk.lock();
        !disk.failed && (unflushed || disk.positions.unsettled())
    }

    /// Makes durable what is noted beside the log. Blocks. A failure fails the log.
    pub(crate) fn settle_positions(&self) {
        let settled = self.on_disk(|positions| {
            positions.check_file(&*self.env.files)?;
            positions.update(|held| self.note_progress(held))?;
            positions.settle()
        });
        if let Err(error) = settled {
            self.fail(StoreError::WritesStopped(format!("noting the positions of the log: {error}")));
        }
    }

    /// Looks whether the files are what they were when they were written: somebody may have removed, moved, replaced or cut
    /// one. Then nothing more is taken, for it could not be read back. Blocks.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        let found = self.disk.lock().positions.check_file(&*self.env.files);
        self.stop_if(found)?;
        self.segments.list().iter().try_for_each(|(segment, _)| self.check_segment(segment))
    }

    fn check_segment(&self, segment: &Segment) -> Result<(), StoreError> {
        if segment.base.0 < self.retain_from.load(Ordering::Acquire) {
            // Retention is about to remove it, or has.
            return Ok(());
        }
        // What is known to be missing at its end is no news.
        let end = self.segments.end_of(segment);
        let needed =
            end.map_or(segment.file_len(), |end| segment.position(self.damage.intact_to(end).max(segment.base)));
        let found = segment.check_file(&*self.env.files, needed);
        if found.is_err() && segment.base.0 < self.retain_from.load(Ordering::Acquire) {
            // Retention has begun to remove it meanwhile.
            return Ok(());
        }
        self.stop_if(found)
    }

    fn stop_if(&self, found: io::Result<()>) -> Result<(), StoreError> {
        let Err(error) = found else { return Ok(()) };
        let stopped = StoreError::WritesStopped(error.to_string());
        self.fail(stopped.clone());
        Err(stopped)
    }

    /// Refuses everything from now on, for the reason given first.
    pub(crate) fn stop(&self, reason: StoreError) {
        let mut tail = self.tail.lock();
        let first = tail.refused.is_none() || matches!(tail.refused, Some(StoreError::ShuttingDown));
        if first {
            if !matches!(reason, StoreError::ShuttingDown) {
                tracing::error!(%reason, "the log refuses all writes until it is reopened");
                self.failed.cancel();
            }
            tail.refused = Some(reason);
        }
        drop(tail);
        self.room.notify_waiters();
    }

    /// Refuses everything from now on, and fails those who wait: nobody may hear of success any more.
    pub(crate) fn fail(&self, reason: StoreError) {
        self.stop(reason);
        self.close_watermarks();
    }

    /// Fails those who wait for what will not come any more.
    pub(crate) fn close_watermarks(&self) {
        self.written.close();
        self.confirmed.close();
    }

    /// Guards a change of state that must be made as a whole: if it panics half-way, the log fails.
    pub(crate) fn fail_on_panic(&self) -> FailOnPanic<'_> {
        FailOnPanic(self)
    }

    /// Why nothing is taken, if so.
    pub(crate) fn refusal(&self) -> Option<StoreError> {
        self.tail.lock().refused.clone()
    }

    pub(crate) fn appended_to(&self) -> LogOffset {
        self.tail.lock().appended_to
    }

    pub(crate) fn written_to(&self) -> LogOffset {
        self.written.get()
    }

    pub(crate) fn flushed_to(&self) -> LogOffset {
        LogOffset(self.flushed_to.load(Ordering::Acquire))
    }

    /// The time that everything in the log goes by.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// See [`CommitLog::fail_on_panic`].
pub(crate) struct FailOnPanic<'a>(&'a CommitLog);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(StoreError::WritesStopped("a change of state panicked half-way".into()));
        }
    }
}
