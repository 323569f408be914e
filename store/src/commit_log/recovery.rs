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

use super::clock::LogClock;
use super::damage::{DamageCause, DamageError, DamageRegister, DamagedRange};
use super::positions::{Positions, PositionsError, PositionsFile};
use super::record::{BatchFrame, RecordError, RecordHeader, RecordKind};
use super::retention::BelievedTime;
use super::segment::{ScannedRecord, Segment, SegmentOpenError, SegmentReader, parse_name, segment_name};
use super::segment_header::{EpochStart, SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError};
use super::tail::{NextSegment, Tail};
use super::watermark::Watermark;
use super::writer::LogWriter;
use super::{CommitLog, Disk, LogConfig, LogHome};
use crate::queue_index::{SealedIndex, SealedIndexError};
use crate::tenure::Tenure;
use gantry_proto::env::{Env, File, Files, OpenMode, make_durable};
use gantry_proto::model::{Epoch, LogOffset, Timestamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Name of the file that will be the next segment.
pub(crate) const PREPARED_NAME: &str = "next.segment";

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogOpenError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Positions(#[from] PositionsError),
    #[error(transparent)]
    Damage(#[from] DamageError),
    #[error(
        "{0} is missing, which says how far the log was written: nobody can tell whether its end is there. Put the file \
         back, or start once with store.accept_missing_log = true to go on with what the log itself shows. Nothing was changed"
    )]
    NoPositions(PathBuf),
    #[error("{path} is not a segment of this log: {cause}. Nothing was changed")]
    Segment { path: PathBuf, cause: String },
    #[error(
        "{path} holds at byte {at} (log offset {log_offset}) a whole record, but {cause}. Start the version of Gantry that \
         wrote it, or a later one; nothing was changed"
    )]
    Newer { path: PathBuf, at: u64, log_offset: LogOffset, cause: RecordError },
    #[error(
        "the record at byte {at} of {path} (log offset {log_offset}) cannot be applied: {cause}. This should not be \
         possible: please report it. Nothing was changed"
    )]
    Inapplicable { path: PathBuf, at: u64, log_offset: LogOffset, cause: RecordError },
    #[error(
        "a part of the log is missing, from log offset {from} to {to}: {what}. The log was on this disk as a whole once. Put \
         the missing files back; or start once with store.accept_missing_log = true to go on without what is missing: its \
         messages are lost then. Nothing was changed"
    )]
    Missing { what: String, from: LogOffset, to: LogOffset },
    #[error(
        "the log begins at log offset {begins}, but the checkpoint needs it from {needed} on: segments are missing. Put them \
         back; or start once with store.accept_missing_log = true to go on without what was in them. Nothing was changed"
    )]
    TooShort { begins: LogOffset, needed: LogOffset },
}

/// The segments on disk, before anything was read from them.
pub(crate) struct Segments {
    config: LogConfig,
    env: Env,
    positions: PositionsFile,
    damage: DamageRegister,
    /// In order; each ends where the next begins.
    list: Vec<Arc<Segment>>,
}

/// What a scan passes by.
pub(crate) enum Visit<'a> {
    /// A whole record. `gaps`: what came before it may be damaged.
    Record { record: &'a ScannedRecord<'a>, gaps: bool },
    /// Something that cannot be read. `claimed`: what the header of the record there says; nothing checks that.
    Damaged { range: DamagedRange, claimed: Option<RecordHeader> },
}

/// What a scan found out.
pub(crate) struct Scanned {
    end: LogOffset,
    epoch: Epoch,
    last_store_time: Timestamp,
    epochs: Vec<EpochStart>,
    /// Why the active segment's records end at `end`.
    stop: Option<RecordError>,
    /// The log is known to have been on this disk up to here: its positions say so, or the checkpoint does.
    proven: LogOffset,
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
            return Err(LogOpenError::Segment { path: config.folder.join(super::positions::POSITIONS_NAME), cause });
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
        if bases.is_empty() {
            if flushed_to > retained_from {
                let what = format!("no segment is in {}", config.dir.display());
                let missing = Gap { what, from: retained_from, to: flushed_to };
                missing.accept(&config, &damage, found_at)?;
            }
            create_first(files, &config, flushed_to)?;
            bases.push(flushed_to);
        }
        // A process before this one may have named files and died, or failed, before that was durable.
        files.sync_dir(&config.dir).map_err(io("making durable the names in", &config.dir))?;
        let mut list = bases.iter().map(|base| open_segment(files, &config, *base)).collect::<Result<Vec<_>, _>>()?;
        for gap in gaps(&list, positions.current())? {
            if !damage.covers(gap.from, gap.to) {
                gap.accept(&config, &damage, found_at)?;
            }
        }
        let last = &list[list.len() - 1];
        if last.base.plus(last.capacity) < flushed_to {
            // What follows what is missing begins there, and not where something was once.
            create_first(files, &config, flushed_to)?;
            list.push(open_segment(files, &config, flushed_to)?);
        }
        for base in bases_of("index") {
            if base >= retained_from && bases.binary_search(&base).is_err() {
                remove(&super::segment::index_name(base))?;
            }
        }
        Ok(Segments { config, env, positions, damage, list })
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
            let from = last.held_to().map_err(io("measuring", &last.path))?;
            Gap { what, from, to: log_to }.accept(&self.config, &self.damage, found_at)?;
            create_first(&*self.env.files, &self.config, log_to)?;
            self.list.push(open_segment(&*self.env.files, &self.config, log_to)?);
        }
        if needed >= begins {
            return Ok(None);
        }
        let front = DamagedRange { from: needed, to: begins, cause: DamageCause::Missing, found_at };
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
        SealedIndex::rebuild(files, dir, segment.unwrap_or_else(|| self.active()), end)
    }

    /// The one that is written.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        self.list.last().expect("a log has at least one segment")
    }

    /// Shows `visit` every record of the active segment and of the others that reach beyond `from`. `log_to`: the checkpoint
    /// proves that the log was on this disk up to there.
    pub(crate) fn scan(
        &self,
        from: LogOffset,
        log_to: LogOffset,
        mut visit: impl FnMut(Visit<'_>) -> Result<(), RecordError>,
    ) -> Result<Scanned, LogOpenError> {
        let flushed_to = self.positions.current().flushed_to;
        let active = self.active();
        let mut scanned = Scanned {
            end: LogOffset(0),
            epoch: Epoch(0),
            last_store_time: Timestamp::ZERO,
            epochs: active.epochs.clone(),
            stop: None,
            proven: flushed_to.max(from).max(log_to),
        };
        for (segment, end) in self.sealed().filter(|(_, end)| *end > from) {
            self.scan_segment(segment, end, Some(end), &mut scanned, &mut visit)?;
        }
        let held_to = active.held_to().map_err(io("measuring", &active.path))?;
        let proven = scanned.proven;
        if active.base.plus(active.capacity) < proven {
            let what = format!("the checkpoint needs it, and {} is the last segment", active.path.display());
            return Err(LogOpenError::Missing { what, from: active.base, to: proven });
        }
        self.scan_segment(active, held_to.max(proven), None, &mut scanned, &mut visit)?;
        self.damage.save().map_err(io("writing the list of damaged parts in", &self.config.folder))?;
        Ok(scanned)
    }

    /// Opens the log behind what was scanned. What was found counts as confirmed as far as the positions say.
    pub(crate) fn open(
        mut self,
        scanned: Scanned,
        tenure: Arc<Tenure>,
    ) -> Result<(Arc<CommitLog>, LogWriter), LogOpenError> {
        let (active, found) = (self.active().clone(), self.positions.current());
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
        let path = self.config.folder.join(super::positions::POSITIONS_NAME);
        positions.and_then(|()| self.positions.settle()).map_err(io("writing", path))?;
        let tail = Tail {
            epoch,
            appended_to: scanned.end,
            segment_base: active.base,
            segment_end: active.base.plus(active.capacity),
            batches: VecDeque::new(),
            pending_bytes: 0,
            next_segment: NextSegment::Missing,
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
            written_to: AtomicU64::new(scanned.end.0),
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

fn create_first(files: &dyn Files, config: &LogConfig, base: LogOffset) -> Result<(), LogOpenError> {
    let path = config.dir.join(segment_name(base));
    let file = create_prepared(files, config).map_err(io("reserving space for", &path))?;
    name_prepared(files, config, config.home, file, (base, Vec::new())).map_err(io("creating", &path))?;
    Ok(())
}

/// The positions, which are made before the first segment is. `bases`: where the segments begin.
fn open_positions(config: &LogConfig, files: &dyn Files, bases: &[LogOffset]) -> Result<PositionsFile, LogOpenError> {
    match Positions::read(files, &config.folder) {
        Ok(Some(_)) => return Ok(PositionsFile::open(files, &config.folder)?),
        Ok(None) if bases.is_empty() => {}
        Ok(None) if !config.accept_missing => {
            return Err(LogOpenError::NoPositions(config.folder.join(super::positions::POSITIONS_NAME)));
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

fn open_segment(files: &dyn Files, config: &LogConfig, base: LogOffset) -> Result<Arc<Segment>, LogOpenError> {
    let path = config.dir.join(segment_name(base));
    let segment = match Segment::open(files, &config.dir, base, OpenMode::ReadWrite) {
        Ok(segment) => segment,
        Err(SegmentOpenError::Io(error)) => return Err(io("opening", path)(error)),
        Err(error @ SegmentOpenError::Header(SegmentHeaderError::Newer(_))) => {
            return Err(LogOpenError::Segment { path, cause: format!("{error}: start that version or a later one") });
        }
        Err(error) => return Err(LogOpenError::Segment { path, cause: error.to_string() }),
    };
    match foreign(&segment.home, &config.home) {
        Some(cause) => Err(LogOpenError::Segment { path, cause }),
        None => Ok(Arc::new(segment)),
    }
}

/// What tells that a segment was written for somebody else.
fn foreign(found: &LogHome, own: &LogHome) -> Option<String> {
    fn other<T: PartialEq>(found: Option<T>, own: Option<T>) -> Option<(T, T)> {
        found.zip(own).filter(|(found, own)| found != own)
    }
    if let Some((found, own)) = other(found.cluster, own.cluster) {
        return Some(format!("it was written for cluster {found}, and this folder belongs to cluster {own}"));
    }
    if let Some((found, own)) = other(found.group, own.group) {
        return Some(format!("it was written for store group number {found}, and this folder belongs to number {own}"));
    }
    let other_folder = found.folder != own.folder;
    other_folder.then(|| format!("it belongs to the data folder {}, and this one is {}", found.folder, own.folder))
}

/// A part of the log that no file holds.
struct Gap {
    what: String,
    from: LogOffset,
    to: LogOffset,
}

impl Gap {
    /// Goes on without it, if an operator chose to. That is noted.
    fn accept(self, config: &LogConfig, damage: &DamageRegister, found_at: Timestamp) -> Result<(), LogOpenError> {
        let Gap { what, from, to } = self;
        if !config.accept_missing {
            return Err(LogOpenError::Missing { what, from, to });
        }
        tracing::warn!(%from, %to, what, "going on without a part of the log that is missing, as store.accept_missing_log says");
        damage.note(DamagedRange { from, to, cause: DamageCause::Missing, found_at });
        Ok(())
    }
}

/// What files do not hold of what the log must have.
fn gaps(list: &[Arc<Segment>], positions: Positions) -> Result<Vec<Gap>, LogOpenError> {
    let mut gaps = Vec::new();
    let first = &list[0];
    if first.base > positions.retained_from {
        let what = format!("the first segment is {}", first.path.display());
        gaps.push(Gap { what, from: positions.retained_from, to: first.base });
    }
    for (place, segment) in list.iter().enumerate() {
        let next = list.get(place + 1);
        let held_to = segment.held_to().map_err(io("measuring", &segment.path))?;
        let needed_to = next.map_or(positions.flushed_to, |next| next.base);
        if held_to < needed_to {
            let path = segment.path.display();
            let made_for = segment.base.plus(segment.capacity);
            let what = match next {
                _ if held_to < needed_to.min(made_for) => format!("{path} was cut"),
                Some(next) => format!("{} does not follow {path}", next.path.display()),
                None => format!("{path} is not the last segment"),
            };
            gaps.push(Gap { what, from: held_to, to: needed_to });
        }
    }
    Ok(gaps)
}

impl Segments {
    /// Visits records up to `limit`, which is the end of a sealed segment; of the active one, as far as they are whole.
    fn scan_segment(
        &self,
        segment: &Segment,
        limit: LogOffset,
        end: Option<LogOffset>,
        scanned: &mut Scanned,
        visit: &mut impl FnMut(Visit<'_>) -> Result<(), RecordError>,
    ) -> Result<(), LogOpenError> {
        let read_error = io("reading", &segment.path);
        // What lies before this is known to have been on the disk.
        let proven = end.unwrap_or(scanned.proven);
        let refused = |log_offset: LogOffset, cause: RecordError| {
            let (path, at) = (segment.path.clone(), segment.position(log_offset));
            Err(match cause {
                RecordError::Newer { .. } => LogOpenError::Newer { path, at, log_offset, cause },
                _ => LogOpenError::Inapplicable { path, at, log_offset, cause },
            })
        };
        let mut reader = SegmentReader::new(segment);
        let mut at = segment.base;
        scanned.end = at;
        while at < limit {
            let cause = match reader.read(at, limit.0 - at.0).map_err(&read_error)? {
                Ok(record) if record.header.epoch < scanned.epoch => RecordError::LeftOver,
                Ok(record) => {
                    let header = record.header;
                    let gaps = !self.damage.is_empty();
                    let judged = match header.kind {
                        RecordKind::Batch => BatchFrame::parse(record.body()).map(Some),
                        RecordKind::Unknown(_) => Ok(None),
                        _ => visit(Visit::Record { record: &record, gaps }).map(|()| None),
                    };
                    match judged {
                        Err(cause) => return refused(at, cause),
                        // Behind the proof it may be torn anywhere: all of its records or none of them.
                        Ok(Some(frame)) if header.end().plus(frame.bytes) > proven => {
                            if !holds_batch(&mut reader, header.end(), frame, limit).map_err(&read_error)? {
                                scanned.stop = Some(RecordError::PartOfBatch);
                                return Ok(());
                            }
                        }
                        Ok(_) => {}
                    }
                    scanned.pass(&header);
                    at = header.end();
                    continue;
                }
                Err(cause) if cause.is_whole() => return refused(at, cause),
                Err(cause) => cause,
            };
            if at >= proven {
                scanned.stop = Some(cause);
                return Ok(());
            }
            let claimed = reader.claimed(at).map_err(&read_error)?;
            let to = reader.next_whole(at, claimed.as_ref(), proven).map_err(&read_error)?;
            let blank = cause == RecordError::Blank || cause == RecordError::CutOff;
            let missing = blank && end.is_none() && to == proven && is_blank(segment, at, to)?;
            let found_at = self.env.clock.now();
            if missing && self.damage.touching(at, 1).is_none() {
                let (path, byte) = (segment.path.display(), segment.position(at));
                let knows = if proven > self.positions.current().flushed_to {
                    ", but the checkpoint knows of more"
                } else {
                    ""
                };
                let what = format!("{path} holds nothing from byte {byte} on{knows}");
                Gap { what, from: at, to }.accept(&self.config, &self.damage, found_at)?;
            }
            // Of the last record before a gap there may be a part.
            let gone =
                self.damage.touching(LogOffset(to.0 - 1), 1).is_some_and(|known| known.cause == DamageCause::Missing);
            let cause = if gone { DamageCause::Missing } else { DamageCause::Changed };
            let range = DamagedRange { from: at, to, cause, found_at };
            self.damage.note(range);
            visit(Visit::Damaged { range, claimed }).or_else(|cause| refused(at, cause))?;
            (at, scanned.end) = (to, to);
        }
        Ok(())
    }
}

impl Scanned {
    /// A whole record was passed.
    fn pass(&mut self, header: &RecordHeader) {
        if header.epoch > self.epoch {
            self.epoch = header.epoch;
            if self.epochs.last().is_none_or(|(last, _)| *last < header.epoch) {
                self.epochs.push((header.epoch, header.log_offset));
            }
        }
        self.last_store_time = self.last_store_time.max(header.store_time);
        self.end = header.end();
    }
}

/// Whether every record that `frame` announces is there from `at` on.
fn holds_batch(reader: &mut SegmentReader<'_>, at: LogOffset, frame: BatchFrame, limit: LogOffset) -> io::Result<bool> {
    let end = at.plus(frame.bytes);
    if end > limit {
        return Ok(false);
    }
    let (mut at, mut count) = (at, 0);
    while at < end {
        at = match reader.read(at, end.0 - at.0)? {
            Ok(record) => record.header.end(),
            // It is there; what it says is for the scan to judge.
            Err(cause) if cause.is_whole() => return Ok(true),
            Err(_) => return Ok(false),
        };
        count += 1;
    }
    Ok(count == frame.count)
}

/// Erases what lies behind the end.
fn cut_tail(active: &Segment, scanned: &Scanned, answered_unflushed: bool) -> Result<(), LogOpenError> {
    let from = active.position(scanned.end);
    let erased = erase(&*active.file, from, active.file_len()).map_err(io("erasing the torn end of", &active.path))?;
    if erased == 0 {
        return Ok(());
    }
    let cause = scanned.stop.unwrap_or(RecordError::Blank);
    let segment = active.path.display();
    if answered_unflushed {
        tracing::warn!(
            %segment, at = from, bytes = erased, %cause,
            "cut off what was being written when the machine went down. Answers are given before the flush here (flush = \
             async): messages that were answered in the last moments before may be among it"
        );
    } else {
        tracing::warn!(
            %segment, at = from, bytes = erased, %cause,
            "cut off a write that was under way when the process or the machine went down. It was not answered, unless the \
             disk lost what it had reported as flushed in the last second before"
        );
    }
    Ok(())
}

const WINDOW_LEN: usize = 1 << 20;

/// Overwrites with zeros, durably, whatever a file holds from `from` to `to`. Returns how far that reached.
fn erase(file: &dyn File, from: u64, to: u64) -> io::Result<u64> {
    let zeros = vec![0; WINDOW_LEN];
    let mut erased = 0;
    for_each_window(file, from, to, |position, window| {
        // In one comparison, which is fast in every build.
        if window == &zeros[..window.len()] {
            return Ok(true);
        }
        if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            file.write_all_at(&zeros[..last + 1], position)?;
            erased = position + last as u64 + 1 - from;
        }
        Ok(true)
    })?;
    if erased > 0 {
        file.sync_data()?;
    }
    Ok(erased)
}

fn is_blank(segment: &Segment, from: LogOffset, to: LogOffset) -> Result<bool, LogOpenError> {
    let mut blank = true;
    let (from, to) = (segment.position(from), segment.position(to));
    let read = for_each_window(&*segment.file, from, to, |_, window| {
        blank = window.iter().all(|byte| *byte == 0);
        Ok(blank)
    });
    read.map_err(io("reading", &segment.path))?;
    Ok(blank)
}

/// Reads what was ever written between `from` and `to`, as long as `each` says so.
fn for_each_window(
    file: &dyn File,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; WINDOW_LEN];
    let mut from = from;
    while from < to {
        // Most of what follows the end was never written.
        let Some(position) = file.next_data_at(from)?.filter(|position| *position < to) else { break };
        let wanted = WINDOW_LEN.min((to - position) as usize);
        let held = file.read_into(position, &mut buffer[..wanted])?;
        if held == 0 || !each(position, &buffer[..held])? {
            break;
        }
        from = position + held as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::Flush;
    use crate::commit_log::record::{FLAG_SKIP, RecordHeader, write_record};
    use gantry_proto::env::fake;
    use std::time::Duration;

    const SEGMENT_BYTES: u64 = 64 << 10;

    fn config() -> LogConfig {
        LogConfig {
            folder: "/store".into(),
            dir: "/store/log".into(),
            home: LogHome::default(),
            flush: Flush::Sync,
            segment_bytes: SEGMENT_BYTES,
            pending_bytes_max: SEGMENT_BYTES as usize,
            accept_missing: false,
        }
    }

    /// What a test puts into a log: kind, epoch, body.
    type Written<'a> = (RecordKind, u32, &'a [u8]);

    fn records(records: &[Written<'_>]) -> (Vec<u8>, Vec<LogOffset>) {
        let (mut bytes, mut places) = (Vec::new(), vec![LogOffset(0)]);
        for (kind, epoch, body) in records {
            let header = RecordHeader {
                len: 0,
                kind: *kind,
                extensions_len: 0,
                epoch: Epoch(*epoch),
                log_offset: LogOffset(bytes.len() as u64),
                store_time: Timestamp::ZERO,
                topic: Default::default(),
                queue: Default::default(),
                queue_offset: Default::default(),
            };
            write_record(&mut bytes, &header, |out| out.extend_from_slice(body));
            places.push(LogOffset(bytes.len() as u64));
        }
        (bytes, places)
    }

    /// A log whose first segment holds these bytes, of which `flushed_to` are known to be on disk.
    fn log_with(bytes: &[u8], flushed_to: LogOffset) -> Env {
        let (env, _, _) = fake::env(1);
        let mut segments = Segments::find(config(), env.clone()).unwrap();
        let active = segments.active();
        active.file.write_all_at(bytes, active.position(LogOffset(0))).unwrap();
        segments.positions.update(|held| held.flushed_to = flushed_to).unwrap();
        env
    }

    fn scan(env: &Env) -> Result<(LogOffset, usize), LogOpenError> {
        let segments = Segments::find(config(), env.clone())?;
        let mut seen = 0;
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
            seen += usize::from(matches!(visit, Visit::Record { .. }));
            Ok(())
        })?;
        Ok((scanned.end, seen))
    }

    fn damage(env: &Env) -> Vec<(LogOffset, LogOffset)> {
        let ranges = crate::commit_log::damage::read(&*env.files, &config().folder).unwrap();
        ranges.iter().map(|range| (range.from, range.to)).collect()
    }

    fn file(env: &Env) -> Arc<dyn File> {
        env.files.open(&config().dir.join(segment_name(LogOffset(0))), OpenMode::ReadWrite).unwrap()
    }

    const BODY: [u8; 100] = [7; 100];
    const RECORD: RecordKind = RecordKind::Delivery;

    #[test]
    fn a_record_left_over_from_an_earlier_epoch_does_not_come_back_to_life() {
        // The second record was written over a lost one of the same length; the third is what followed that one.
        let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 2, &BODY), (RECORD, 1, &BODY)]);
        assert_eq!(scan(&log_with(&bytes, LogOffset(0))).unwrap(), (places[2], 2));
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_of_what_was_flushed_is_noted_and_passed_over() {
        let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
        bytes[places[1].0 as usize + 60] ^= 1;
        for zeroed in [false, true] {
            if zeroed {
                bytes[places[1].0 as usize..][..48].fill(0);
            }
            assert_eq!(scan(&log_with(&bytes, places[1])).unwrap(), (places[1], 1));
            let env = log_with(&bytes, places[2]);
            for _ in 0..2 {
                assert_eq!(scan(&env).unwrap(), (places[2], 1), "the log goes on behind what it lost");
                assert_eq!(damage(&env), [(places[1], places[2])]);
            }
        }
    }

    #[test]
    fn what_a_tail_lost_is_erased_so_that_it_cannot_follow_what_is_written_over_it() {
        let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
        bytes[places[1].0 as usize + 60] ^= 1;
        let env = log_with(&bytes, places[1]);
        let segments = Segments::find(config(), env.clone()).unwrap();
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| Ok(())).unwrap();
        let tenure = Tenure::new(Epoch(1), Duration::ZERO);
        let (log, _) = segments.open(scanned, Arc::new(tenure)).unwrap();
        assert_eq!(log.appended_to(), places[1]);
        let left = file(&env).read_at(SEGMENT_HEADER_LEN + places[1].0, 1 << 20).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "bytes of the cut tail are left");
        assert_eq!(Positions::read(&*env.files, &config().folder).unwrap().unwrap().flushed_to, places[1]);
    }

    #[test]
    fn a_whole_record_that_is_not_understood_is_never_cut_off() {
        let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RecordKind::Unknown(99), 1, &BODY)]);
        // It may be passed over.
        assert_eq!(scan(&log_with(&bytes, LogOffset(0))).unwrap(), (places[2], 1));
        let second = &mut bytes[places[1].0 as usize..];
        assert_eq!(second[9], FLAG_SKIP);
        second[9] = 0;
        let crc = crc32c::crc32c(&second[4..]);
        second[..4].copy_from_slice(&crc.to_le_bytes());
        for flushed_to in [LogOffset(0), places[1], places[2]] {
            let error = scan(&log_with(&bytes, flushed_to)).unwrap_err();
            assert!(matches!(error, LogOpenError::Newer { log_offset, .. } if log_offset == places[1]), "{error}");
            let text = error.to_string();
            assert!(text.contains("kind 99") && text.contains("or a later one"), "{text}");
        }
    }

    #[test]
    fn a_whole_record_that_cannot_be_applied_is_an_error_with_its_place_and_reason() {
        let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
        let env = log_with(&bytes, LogOffset(0));
        let segments = Segments::find(config(), env).unwrap();
        let mut seen = 0;
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| {
            seen += 1;
            if seen == 2 { Err(RecordError::Malformed("this is a test")) } else { Ok(()) }
        });
        let error = scanned.map(|_| ()).unwrap_err();
        assert!(matches!(error, LogOpenError::Inapplicable { log_offset, .. } if log_offset == places[1]), "{error}");
        assert!(error.to_string().contains("this is a test"), "{error}");
    }

    #[test]
    fn a_batch_at_the_end_is_there_whole_or_not_at_all() {
        let mut frame = Vec::new();
        BatchFrame { count: 3, bytes: 3 * 148 }.write(&mut frame);
        let written = [
            (RECORD, 1, BODY.as_slice()),
            (RecordKind::Batch, 1, &frame),
            (RECORD, 1, &BODY),
            (RECORD, 1, &BODY),
            (RECORD, 1, &BODY),
            (RECORD, 1, &BODY),
        ];
        let (whole, places) = records(&written);
        assert_eq!(scan(&log_with(&whole, LogOffset(0))).unwrap(), (places[6], 5));
        for member in 2..5 {
            let mut torn = whole.clone();
            torn[places[member].0 as usize + 70] ^= 1;
            assert_eq!(scan(&log_with(&torn, places[1])).unwrap(), (places[1], 1), "member {member}");
        }
        // Cut off in between.
        let cut = &whole[..places[4].0 as usize + 10];
        assert_eq!(scan(&log_with(cut, places[1])).unwrap(), (places[1], 1));
    }

    #[test]
    fn behind_damage_the_next_whole_record_is_found_by_its_own_place() {
        let written: Vec<Written<'_>> = (0..8).map(|_| (RECORD, 1, BODY.as_slice())).collect();
        let (whole, places) = records(&written);
        let place = |number: usize| places[number].0 as usize;
        // What is damaged, and which records are left: a body, a length, a header, two records in one.
        for (damaged, left) in [
            (place(3) + 90..place(3) + 91, 7),
            (place(3) + 4..place(3) + 8, 7),
            (place(3)..place(3) + 48, 7),
            (place(3) + 20..place(4) + 60, 6),
            (place(0)..place(5), 3),
        ] {
            let mut bytes = whole.clone();
            bytes[damaged.clone()].iter_mut().for_each(|byte| *byte = !*byte);
            let env = log_with(&bytes, places[8]);
            assert_eq!(scan(&env).unwrap(), (places[8], left), "{damaged:?}");
            let [(from, to)] = damage(&env)[..] else { panic!("one range: {:?}", damage(&env)) };
            assert!(from.0 as usize <= damaged.start && damaged.end <= to.0 as usize, "{from} to {to}");
            assert!(places.contains(&from) && places.contains(&to));
        }
    }

    #[test]
    fn an_operator_can_choose_to_go_on_without_what_is_missing() {
        let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
        let accepting = LogConfig { accept_missing: true, ..config() };
        for case in 0..4 {
            let env = log_with(&bytes, places[2]);
            let name = config().dir.join(segment_name(LogOffset(0)));
            let left = match case {
                0 => file(&env).set_len(SEGMENT_HEADER_LEN + places[1].0).map(|()| 1),
                1 => file(&env).write_all_at(&[0; 148], SEGMENT_HEADER_LEN + places[1].0).map(|()| 1),
                2 => env.files.remove(&name).map(|()| 0),
                _ => env.files.remove(&config().folder.join("positions")).map(|()| 2),
            };
            let left = left.unwrap();
            assert!(scan(&env).is_err(), "{case}");
            let segments = Segments::find(accepting.clone(), env.clone()).unwrap();
            let mut seen = 0;
            let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
                seen += usize::from(matches!(visit, Visit::Record { .. }));
                Ok(())
            });
            let scanned = scanned.unwrap();
            assert_eq!((scanned.end, seen), (places[2], left), "{case}: nothing is written where something was");
            assert_eq!(damage(&env).len(), usize::from(left < 2), "{case}");
            drop(segments);
            // Once is enough.
            let next = Segments::find(config(), env.clone()).unwrap();
            assert_eq!(next.scan(next.list[0].base, LogOffset(0), |_| Ok(())).unwrap().end, places[2], "{case}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
        let missing = |env: &Env, says: &str| {
            let error = scan(env).unwrap_err();
            assert!(matches!(error, LogOpenError::Missing { to, .. } if to == places[2]), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        // Cut between two records, to the header and to nothing; emptied; removed.
        for (len, says) in [(SEGMENT_HEADER_LEN + places[1].0, "was cut"), (SEGMENT_HEADER_LEN, "was cut")] {
            let env = log_with(&bytes, places[2]);
            file(&env).set_len(len).unwrap();
            missing(&env, says);
        }
        let env = log_with(&bytes, places[2]);
        file(&env).set_len(0).unwrap();
        let error = scan(&env).unwrap_err().to_string();
        assert!(error.contains(&segment_name(LogOffset(0))) && error.contains("not all there"), "{error}");
        let env = log_with(&bytes[..places[1].0 as usize], places[2]);
        missing(&env, "holds nothing from byte");
        let env = log_with(&bytes, places[2]);
        env.files.remove(&config().dir.join(segment_name(LogOffset(0)))).unwrap();
        missing(&env, "no segment");
        // What was only reserved may be cut.
        let env = log_with(&bytes, places[2]);
        file(&env).set_len(SEGMENT_HEADER_LEN + places[2].0 + 9).unwrap();
        assert_eq!(scan(&env).unwrap(), (places[2], 2));
        let env = log_with(&bytes, places[2]);
        env.files.remove(&config().folder.join("positions")).unwrap();
        assert!(matches!(scan(&env), Err(LogOpenError::NoPositions(_))));
    }

    #[test]
    fn a_segment_of_another_folder_group_or_cluster_is_refused_by_name() {
        let (bytes, places) = records(&[(RECORD, 1, &BODY)]);
        let env = log_with(&bytes, places[1]);
        let with = |home: LogHome| {
            Segments::find(LogConfig { home, ..config() }, env.clone()).map(|_| ()).map_err(|error| error.to_string())
        };
        let own = LogHome::default();
        assert_eq!(with(own), Ok(()));
        assert!(
            with(LogHome { folder: gantry_proto::model::FolderId([1; 16]), ..own })
                .unwrap_err()
                .contains("data folder")
        );
        let home = LogHome { group: Some(gantry_proto::model::StoreGroupId(4)), ..own };
        assert_eq!(foreign(&own, &home), None, "it was not known then");
        assert!(foreign(&LogHome { group: Some(gantry_proto::model::StoreGroupId(3)), ..own }, &home).is_some());
    }
}
