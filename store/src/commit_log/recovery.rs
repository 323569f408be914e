//! Opening the log: which segments there are, where the last one ends, and every record that came after the checkpoint.
//!
//! The end is where records stop being whole. What lies before the position that [`super::positions`] proves was on this
//! disk, and is never cut off. If it is not whole now it is **damaged**: noted (see [`super::damage`]) and passed over, up to
//! the next whole record, which names its own place. Or it is **missing**: files are, or nothing at all is at the end. Then
//! opening fails and says what is missing, unless an operator chose to go on without it; the log goes on behind the gap, so
//! that no place is ever given to two records. What lies behind the proof is a **torn tail**, a write that was under way when
//! the machine went down: it is erased from the file, so that it can never come back to life behind records that are written
//! later, and that is said. A record that is whole is neither, understood or not: opening fails then with its place and the
//! reason, and nothing is changed.

mod error;
mod header;
mod missing;
mod open_file;
mod scan;
#[cfg(test)]
mod tests;
mod torn_tail;
mod useless;

use super::clock::LogClock;
use super::damage::{DamageCause, DamageRegister, DamagedRange};
use super::positions::{POSITIONS_NAME, Positions, PositionsFile};
use super::prepared::PREPARED_NAME;
use super::retention::BelievedTime;
use super::segment::{Segment, index_name, parse_name};
use super::segment_reader::SegmentReader;
use super::tail::{NextSegment, Tail};
use super::watermark::Watermark;
use super::writer::LogWriter;
use super::{CommitLog, Disk, LogConfig};
use crate::queue_index::{SealedIndex, SealedIndexError};
use crate::tenure::Tenure;
pub(crate) use error::LogOpenError;
use gantry_proto::env::{Env, Files, make_durable};
use gantry_proto::model::{LogOffset, Timestamp};
use header::Headless;
pub(crate) use header::shows_itself;
use missing::{Gap, gaps, whole_to};
use open_file::{Opened, create_first, open_positions, open_segment};
use parking_lot::Mutex;
pub(crate) use scan::{Scanned, Visit};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use torn_tail::cut_tail;
pub(crate) use useless::SET_ASIDE;

/// The segments on disk, before anything was read from them.
pub(crate) struct Segments {
    config: LogConfig,
    env: Env,
    positions: PositionsFile,
    damage: DamageRegister,
    /// In order; each ends where the next begins.
    list: Vec<Arc<Segment>>,
    /// Those whose first page is written anew.
    headless: Vec<Headless>,
}

type IoError<'a> = Box<dyn Fn(io::Error) -> LogOpenError + 'a>;

fn io<'a>(action: &'static str, path: impl Into<PathBuf>) -> IoError<'a> {
    let path = path.into();
    Box::new(move |source| LogOpenError::Io { action, path: path.clone(), source })
}

impl Segments {
    /// Finds the segments, removes leftovers, creates the first one in an empty folder. Their names are durable then.
    pub(crate) fn find(config: LogConfig, env: Env) -> Result<Segments, LogOpenError> {
        let files = &*env.files;
        files.create_dir_all(&config.dir).map_err(io("creating the folder", &config.dir))?;
        let names = files.list(&config.dir).map_err(io("listing the folder", &config.dir))?;
        let bases_of = |extension| {
            let mut bases: Vec<LogOffset> =
                names.iter().filter_map(|entry| parse_name(&entry.name, extension)).collect();
            bases.sort_unstable();
            bases
        };
        let mut bases = bases_of("log");
        let positions = open_positions(&config, files, &bases)?;
        let damage = DamageRegister::open(env.files.clone(), &config.folder)?;
        let found_at = env.clock.now();
        let Positions { folder, retained_from, flushed_to, .. } = positions.current();
        if folder != config.home.folder {
            let cause = format!("it belongs to the data folder {folder}, and this one is {}", config.home.folder);
            return Err(LogOpenError::Segment { path: config.folder.join(POSITIONS_NAME), cause });
        }
        let remove = |name: &str| {
            let path = config.dir.join(name);
            files.remove(&path).map_err(io("removing the leftover", &path))
        };
        for entry in &names {
            let prepared = entry.name == PREPARED_NAME || entry.name.ends_with(".tmp");
            // Retention was interrupted after it had decided.
            let base = parse_name(&entry.name, "log").or_else(|| parse_name(&entry.name, "index"));
            if prepared || base.is_some_and(|base| base < retained_from) {
                remove(&entry.name)?;
            }
        }
        bases.retain(|base| *base >= retained_from);
        let mut opened = bases.iter().map(|base| open_segment(files, &config, *base)).collect::<Result<Vec<_>, _>>()?;
        useless::set_aside(files, &config, &mut opened, flushed_to, (&damage, found_at))?;
        bases = opened.iter().map(Opened::base).collect();
        if bases.is_empty() {
            if flushed_to > retained_from {
                let what = format!("no segment is in {}", config.dir.display());
                let missing = Gap { what, from: retained_from, to: flushed_to };
                missing.accept(&config, &damage, found_at)?;
            }
            opened.push(Opened::Whole(create_first(files, &config, flushed_to)?));
            bases.push(flushed_to);
        }
        // A process before this one may have named files and died, or failed, before that was durable.
        files.sync_dir(&config.dir).map_err(io("making durable the names in", &config.dir))?;
        let (mut list, headless) = header::complete(files, &config, opened)?;
        for gap in gaps(&list, positions.current(), &damage)? {
            gap.accept(&config, &damage, found_at)?;
        }
        let last = &list[list.len() - 1];
        if last.base.plus(last.capacity) < flushed_to {
            // What follows what is missing begins there, and not where something was once.
            list.push(create_first(files, &config, flushed_to)?);
        }
        for base in bases_of("index") {
            if base >= retained_from && bases.binary_search(&base).is_err() {
                remove(&index_name(base))?;
            }
        }
        let segments = Segments { config, env, positions, damage, list, headless };
        segments.look_again()?;
        Ok(segments)
    }

    /// Looks whether what is known to be damaged is whole again: a file was put back, or the disk gives what it did not.
    fn look_again(&self) -> Result<(), LogOpenError> {
        for range in self.damage.list() {
            if self.is_whole(&range)? {
                self.damage.whole_again(&range, self.env.clock.now());
            }
        }
        Ok(())
    }

    /// Whether whole records lie from one end of the range to the other.
    fn is_whole(&self, range: &DamagedRange) -> Result<bool, LogOpenError> {
        let mut at = range.from;
        while at < range.to {
            let place = self.list.partition_point(|segment| segment.base <= at);
            let Some(segment) = place.checked_sub(1).map(|place| &self.list[place]) else { return Ok(false) };
            let held_to = segment.held_to().map_err(io("measuring", &segment.path))?;
            let end = self.list.get(place).map_or(held_to, |next| next.base.min(held_to));
            let mut reader = SegmentReader::new(segment);
            let before = at;
            while at < end.min(range.to) {
                match reader.read(at, end.0 - at.0).map_err(io("reading", &segment.path))? {
                    Ok(record) => at = record.header.end(),
                    Err(_) => return Ok(false),
                }
            }
            if at == before {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there may be no checkpoint although the log does not begin at its first record: an operator chooses to go on
    /// without its beginning, which no checkpoint knows of either. From then on there is one.
    pub(crate) fn may_lack_checkpoint(&self) -> bool {
        self.config.accept_missing && self.damage.covers(LogOffset(0), self.begins())
    }

    /// Whether the log may begin where it does although the checkpoint needs it from `needed` on: an operator chose so, now or
    /// before.
    pub(crate) fn may_lack_from(&self, needed: LogOffset) -> bool {
        let begins = self.begins();
        begins <= needed || self.config.accept_missing || self.damage.covers(needed, begins)
    }

    /// The checkpoint needs the log from `needed` on, and proves that it was on this disk up to `log_to`. What is missing at
    /// the front is returned, if that may be.
    pub(crate) fn must_hold(
        &mut self,
        needed: LogOffset,
        log_to: LogOffset,
    ) -> Result<Option<DamagedRange>, LogOpenError> {
        let (begins, found_at) = (self.begins(), self.env.clock.now());
        if !self.may_lack_from(needed) {
            return Err(LogOpenError::TooShort { begins, needed });
        }
        let last = self.active().clone();
        if last.base.plus(last.capacity) < log_to {
            let what = format!("the checkpoint needs it, and {} is the last segment", last.path.display());
            let from = whole_to(&last).map_err(io("reading", &last.path))?;
            Gap { what, from, to: log_to }.accept(&self.config, &self.damage, found_at)?;
            self.list.push(create_first(&*self.env.files, &self.config, log_to)?);
        }
        if needed >= begins {
            return Ok(None);
        }
        let front = DamagedRange::found(needed, begins, DamageCause::Missing, found_at);
        self.damage.note(front);
        Ok(Some(front))
    }

    /// All but the last, each with its end.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&Arc<Segment>, LogOffset)> {
        self.list.iter().zip(self.list.iter().skip(1).map(|next| next.base))
    }

    /// Where the retained log begins.
    pub(crate) fn begins(&self) -> LogOffset {
        self.list.first().map_or(LogOffset(0), |segment| segment.base)
    }

    /// Where the segments begin, from `from` on.
    pub(crate) fn bases_from(&self, from: LogOffset) -> Vec<LogOffset> {
        self.list.iter().map(|segment| segment.base).filter(|base| *base >= from).collect()
    }

    /// Store time of the first record of the segment that begins at `base`, if it can be read.
    pub(crate) fn begins_at_time(&self, base: LogOffset) -> Option<Timestamp> {
        let segment = self.list.iter().find(|segment| segment.base == base)?;
        let first = SegmentReader::new(segment).read(base, segment.capacity).ok()?.ok()?.header.store_time;
        Some(first)
    }

    /// Makes the index of the segment `[base, end)` anew.
    pub(crate) fn rebuild_index(
        &self,
        files: &dyn Files,
        dir: &Path,
        base: LogOffset,
        end: LogOffset,
    ) -> Result<SealedIndex, SealedIndexError> {
        let segment = self.list.iter().find(|segment| segment.base == base);
        let found_at = self.env.clock.now();
        SealedIndex::rebuild(files, dir, segment.unwrap_or_else(|| self.active()), end, (&self.damage, found_at))
    }

    /// Whether an index speaks of damage that is not known, or not any more: it is to be made again.
    pub(crate) fn is_outdated(&self, index: &SealedIndex) -> Result<bool, SealedIndexError> {
        let ranges = index.damaged_ranges()?;
        Ok(ranges.iter().any(|range| !self.damage.covers(range.start, range.end)))
    }

    /// The one that is written.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        self.list.last().expect("a log has at least one segment")
    }

    /// Opens the log behind what was scanned. What was found counts as confirmed as far as the positions say.
    pub(crate) fn open(
        mut self,
        scanned: Scanned,
        tenure: Arc<Tenure>,
    ) -> Result<(Arc<CommitLog>, LogWriter), LogOpenError> {
        let (active, found) = (self.active().clone(), self.positions.current());
        self.headless.iter().try_for_each(Headless::write)?;
        // What nothing proves may be in the page cache only; from here on it counts as durable.
        let unproven = active.position(found.flushed_to.max(active.base))..active.position(scanned.end);
        make_durable(&*active.file, unproven).map_err(io("making durable what was read back from", &active.path))?;
        active.file.allocate(active.file_len()).map_err(io("reserving space for", &active.path))?;
        // An epoch that began and wrote nothing whole is over, too.
        let epoch = scanned.epoch.max(found.epoch);
        cut_tail(&active, &scanned, found.answered_unflushed)?;
        let begins = self.begins();
        let positions = self.positions.update(|held| {
            held.retained_from = begins;
            held.flushed_to = scanned.end;
            held.sealed_to = active.base;
            held.epoch = epoch;
        });
        let path = self.config.folder.join(POSITIONS_NAME);
        positions.and_then(|()| self.positions.settle()).map_err(io("writing", path))?;
        let tail = Tail {
            epoch,
            appended_to: scanned.end,
            segment_base: active.base,
            segment_end: active.base.plus(active.capacity),
            batches: VecDeque::new(),
            pending_bytes: 0,
            next_segment: NextSegment::Missing,
            refused_for_room: false,
            is_wanted: false,
            refused: None,
            last_store_time: scanned.last_store_time,
            epochs: scanned.epochs,
            spare: Vec::new(),
        };
        let log = CommitLog {
            clock: LogClock::new(self.env.clock.clone(), scanned.last_store_time),
            tenure,
            epoch_from: AtomicU64::new(scanned.end.0),
            segments: Default::default(),
            tail: Mutex::new(tail),
            gathering: Notify::new(),
            written: Watermark::new(scanned.end),
            flush_wanted: AtomicU64::new(0),
            flushed_to: AtomicU64::new(scanned.end.0),
            confirmed: Watermark::new(found.confirmed_to),
            damage: self.damage,
            retain_from: AtomicU64::new(begins.0),
            believed: Mutex::new(BelievedTime::starting(found.time, self.env.clock.now(), self.env.clock.monotonic())),
            disk: Mutex::new(Disk { positions: self.positions, failed: false }),
            flushing: Mutex::default(),
            prepared: Mutex::default(),
            home: Mutex::new(self.config.home),
            room: Notify::new(),
            wanted: Notify::new(),
            failed: CancellationToken::new(),
            config: self.config,
            env: self.env,
        };
        for segment in self.list {
            log.segments.insert(segment);
        }
        let log = Arc::new(log);
        let writer = LogWriter::new(log.clone(), active);
        Ok((log, writer))
    }
}
