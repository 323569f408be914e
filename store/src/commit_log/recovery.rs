//! Opening the log: which segments there are, where the last one ends, and every record that came after the checkpoint.
//!
//! The end is where records stop being whole. Bytes behind it are a **torn tail** (a write that was under way when the
//! power failed; nobody was told of it) or **damage** (something that was durable is gone). They are told apart by the
//! marks: the writer notes in each batch how far the log was flushed when it began. A mark behind the end that says
//! `flushed_to` beyond the end proves that whole records once stood there: that is damage, and an error. Otherwise the
//! tail is cut off, which is said in the log.
//!
//! Bytes of a cut tail stay in the file until they are written over. They cannot come back to life: a record names its
//! own log offset and its epoch, each opening begins a new epoch, and an epoch that goes back ends the scan.

use super::clock::LogClock;
use super::record::{HEADER_LEN, RecordError, RecordKind, parse_record};
use super::segment::{ScannedRecord, Segment, SegmentReader, parse_name, segment_name};
use super::tail::{NextSegment, Tail};
use super::watermark::Watermark;
use super::writer::LogWriter;
use super::{CommitLog, LogConfig};
use crate::tenure::Tenure;
use gantry_proto::env::{Env, File, Files, OpenMode, make_durable};
use gantry_proto::model::{Epoch, LogOffset, Timestamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Notify;

/// Name of the file that will be the next segment.
pub(crate) const PREPARED_NAME: &str = "next.segment";

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogOpenError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged at byte {at} ({cause}), and later records prove that it was whole once. Restore the file from \
         a backup; nothing was changed"
    )]
    Damaged { path: PathBuf, at: u64, cause: RecordError },
    #[error("the segment that should begin at log offset {expected} is missing: {found} follows {previous}")]
    Gap { previous: PathBuf, found: PathBuf, expected: LogOffset },
    #[error("the log begins at {begins} but the checkpoint needs it from {needed} on: segments are missing")]
    TooShort { begins: LogOffset, needed: LogOffset },
}

/// The segments on disk, before anything was read from them.
pub(crate) struct Segments {
    config: LogConfig,
    env: Env,
    /// In order; each ends where the next begins.
    list: Vec<Arc<Segment>>,
}

/// What a scan found out.
pub(crate) struct Scanned {
    end: LogOffset,
    epoch: Epoch,
    last_store_time: Timestamp,
    marked: LogOffset,
}

impl Segments {
    /// Finds the segments, removes leftovers, creates the first one in an empty folder. Their names are durable then.
    pub(crate) fn find(config: LogConfig, env: Env) -> Result<Segments, LogOpenError> {
        let files = &*env.files;
        let io = |action, path: PathBuf| move |source| LogOpenError::Io { action, path, source };
        files.create_dir_all(&config.dir).map_err(io("creating the folder", config.dir.clone()))?;
        let mut names = files.list(&config.dir).map_err(io("listing the folder", config.dir.clone()))?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let mut bases: Vec<(LogOffset, u64)> = Vec::new();
        for entry in &names {
            if let Some(base) = parse_name(&entry.name, "log") {
                bases.push((base, entry.len));
            } else if entry.name == PREPARED_NAME || entry.name.ends_with(".tmp") {
                let path = config.dir.join(&entry.name);
                files.remove(&path).map_err(io("removing the leftover", path.clone()))?;
            }
        }
        bases.sort_unstable();
        // An index whose segment is gone: retention was interrupted between the two.
        for entry in &names {
            if parse_name(&entry.name, "index").is_some_and(|base| bases.iter().all(|(held, _)| *held != base)) {
                let path = config.dir.join(&entry.name);
                files.remove(&path).map_err(io("removing the leftover", path.clone()))?;
            }
        }
        for pair in bases.windows(2) {
            let [(base, len), (next, _)] = [pair[0], pair[1]];
            if base.0 + len < next.0 {
                return Err(LogOpenError::Gap {
                    previous: config.dir.join(segment_name(base)),
                    found: config.dir.join(segment_name(next)),
                    expected: base.plus(len),
                });
            }
        }
        if bases.is_empty() {
            create_first(files, &config)?;
            bases.push((LogOffset(0), config.segment_bytes));
        }
        // A process before this one may have named files and died, or failed, before that was durable.
        files.sync_dir(&config.dir).map_err(io("making durable the names in", config.dir.clone()))?;
        let list = (bases.iter())
            .map(|(base, _)| {
                let path = config.dir.join(segment_name(*base));
                Segment::open(files, &config.dir, *base).map(Arc::new).map_err(io("opening", path))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Segments { config, env, list })
    }

    /// All but the last, each with its end.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&Arc<Segment>, LogOffset)> {
        self.list.iter().zip(self.list.iter().skip(1).map(|next| next.base))
    }

    /// The one that is written.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        self.list.last().expect("a log has at least one segment")
    }

    /// Shows `visit` every record of the active segment and of the others that reach beyond `from`.
    pub(crate) fn scan(
        &self,
        from: LogOffset,
        mut visit: impl FnMut(&ScannedRecord<'_>) -> Result<(), RecordError>,
    ) -> Result<Scanned, LogOpenError> {
        let begins = self.list[0].base;
        if from < begins {
            return Err(LogOpenError::TooShort { begins, needed: from });
        }
        let mut scanned =
            Scanned { end: LogOffset(0), epoch: Epoch(0), last_store_time: Timestamp::ZERO, marked: LogOffset(0) };
        for (segment, end) in self.sealed().filter(|(_, end)| *end > from) {
            let stop = scan_segment(segment, Some(end), &mut scanned, &mut visit)?;
            if let Some((at, cause)) = stop {
                return Err(LogOpenError::Damaged { path: segment.path.clone(), at: at.0 - segment.base.0, cause });
            }
        }
        let active = self.active();
        if let Some((at, cause)) = scan_segment(active, None, &mut scanned, &mut visit)? {
            let position = at.0 - active.base.0;
            if from > at || was_durable(active, at, self.config.pending_bytes_max)? {
                return Err(LogOpenError::Damaged { path: active.path.clone(), at: position, cause });
            }
            if cause != RecordError::Blank {
                tracing::warn!(
                    segment = %active.path.display(), at = position, %cause,
                    "cut off a write that was under way when the process or the machine went down; it was never answered"
                );
            }
        }
        Ok(scanned)
    }

    /// Opens the log behind what was scanned.
    pub(crate) fn open(
        self,
        scanned: Scanned,
        tenure: Arc<Tenure>,
    ) -> Result<(Arc<CommitLog>, LogWriter), LogOpenError> {
        let epoch = tenure.epoch();
        assert!(epoch > scanned.epoch, "each opening begins a new epoch");
        let active = self.active().clone();
        let io = |action| {
            let path = active.path.clone();
            move |source| LogOpenError::Io { action, path, source }
        };
        // What no mark proves may be in the page cache only; from here on it counts as durable.
        let within = |at: LogOffset| at.0.saturating_sub(active.base.0);
        let unproven = within(scanned.marked)..within(scanned.end);
        make_durable(&*active.file, unproven).map_err(io("making durable what was read back from"))?;
        let capacity = active.file.len().map_err(io("measuring"))?.max(self.config.segment_bytes);
        active.file.allocate(capacity).map_err(io("reserving space for"))?;
        let tail = Tail {
            epoch,
            appended_to: scanned.end,
            segment_end: active.base.plus(capacity),
            batches: VecDeque::new(),
            pending_bytes: 0,
            next_segment: NextSegment::Missing,
            refused: None,
            last_store_time: scanned.last_store_time,
            marked: scanned.marked,
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
            confirmed: Watermark::new(scanned.end),
            prepared: Mutex::default(),
            room: Notify::new(),
            wanted: Notify::new(),
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

impl Scanned {
    /// The newest epoch that wrote.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
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
    file.allocate(config.segment_bytes)?;
    // The new length must be durable before records in it are.
    file.sync_data()?;
    Ok(file)
}

fn create_first(files: &dyn Files, config: &LogConfig) -> Result<(), LogOpenError> {
    let path = config.dir.join(segment_name(LogOffset(0)));
    let io = |action, path: &PathBuf| {
        let path = path.clone();
        move |source| LogOpenError::Io { action, path, source }
    };
    create_prepared(files, config).map_err(io("reserving space for", &path))?;
    files.rename(&config.dir.join(PREPARED_NAME), &path).map_err(io("creating", &path))
}

/// Visits records up to `end` (or as far as they are whole). Returns where and why it stopped, unless it reached `end`.
fn scan_segment(
    segment: &Segment,
    end: Option<LogOffset>,
    scanned: &mut Scanned,
    visit: &mut impl FnMut(&ScannedRecord<'_>) -> Result<(), RecordError>,
) -> Result<Option<(LogOffset, RecordError)>, LogOpenError> {
    let io = |source| LogOpenError::Io { action: "reading", path: segment.path.clone(), source };
    let file_len = segment.file.len().map_err(io)?;
    let limit = end.map_or(file_len, |end| end.0 - segment.base.0);
    let mut reader = SegmentReader::new(segment);
    let mut position = 0;
    scanned.end = segment.base;
    while position < limit {
        let at = segment.base.plus(position);
        let record = match reader.read(at, limit - position).map_err(io)? {
            Ok(record) if record.header.epoch < scanned.epoch => return Ok(Some((at, RecordError::Other))),
            Ok(record) => record,
            Err(cause) => return Ok(Some((at, cause))),
        };
        if let Err(cause) = visit(&record) {
            return Ok(Some((at, cause)));
        }
        if record.header.kind == RecordKind::Mark {
            scanned.marked = scanned.marked.max(marked(&record));
        }
        scanned.epoch = record.header.epoch;
        scanned.last_store_time = scanned.last_store_time.max(record.header.store_time);
        scanned.end = record.header.end();
        position += u64::from(record.header.len);
    }
    Ok(None)
}

fn marked(mark: &ScannedRecord<'_>) -> LogOffset {
    let bytes = mark.bytes.get(HEADER_LEN..HEADER_LEN + 8).and_then(|b| b.first_chunk::<8>());
    LogOffset(bytes.map_or(0, |b| u64::from_le_bytes(*b)))
}

/// Whether a mark within `reach` bytes behind `at` proves that the log was flushed beyond `at`.
fn was_durable(segment: &Segment, at: LogOffset, reach: usize) -> Result<bool, LogOpenError> {
    let io = |source| LogOpenError::Io { action: "reading", path: segment.path.clone(), source };
    let file = &segment.file;
    let end = at.0 - segment.base.0 + reach as u64;
    let mut from = at.0 - segment.base.0;
    let mut buffer = vec![0; SEARCH_LEN + MARK_LEN];
    // Most of what follows the end was never written.
    while let Some(position) = file.next_data_at(from).map_err(io)?.filter(|position| *position < end) {
        // A mark may begin in one window and end in the next: they overlap by one.
        let held = file.read_into(position, &mut buffer).map_err(io)?;
        if holds_mark_beyond(&buffer[..held], segment.base.plus(position), at) {
            return Ok(true);
        }
        from = position + SEARCH_LEN as u64;
    }
    Ok(false)
}

const SEARCH_LEN: usize = 1 << 20;
const MARK_LEN: usize = HEADER_LEN + 8;

/// Whether bytes that lie at `begins` contain a mark that was written when the log was flushed beyond `at`.
fn holds_mark_beyond(window: &[u8], begins: LogOffset, at: LogOffset) -> bool {
    let is_one = |place: usize| {
        let (here, bytes) = (begins.plus(place as u64), &window[place..]);
        bytes.len() >= MARK_LEN
            && bytes[8] == RecordKind::Mark as u8
            && bytes[16..24] == here.0.to_le_bytes()
            && parse_record(bytes, here).is_ok_and(|(header, body)| {
                let flushed_to = body.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                header.kind == RecordKind::Mark && flushed_to > at.0
            })
    };
    // Pages of zeros are passed over; a mark that reaches from one into the next is looked for from there.
    let pages = (0..window.len()).step_by(PAGE.len());
    pages
        .filter(|start| {
            let page = &window[*start..window.len().min(start + PAGE.len())];
            page != &PAGE[..page.len()]
        })
        .any(|start| (start.saturating_sub(MARK_LEN)..window.len().min(start + PAGE.len())).any(is_one))
}

const PAGE: [u8; 4096] = [0; 4096];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::Flush;
    use crate::commit_log::record::{RecordHeader, write_record};
    use gantry_proto::env::fake;

    const SEGMENT_BYTES: u64 = 64 << 10;

    fn config() -> LogConfig {
        LogConfig {
            dir: "/log".into(),
            flush: Flush::Sync,
            segment_bytes: SEGMENT_BYTES,
            pending_bytes_max: SEGMENT_BYTES as usize,
        }
    }

    /// A log whose first segment holds these records one after another: kind, epoch, body.
    fn log_with(records: &[(RecordKind, u32, &[u8])]) -> (Env, Vec<LogOffset>) {
        let (env, _, _) = fake::env(1);
        let segments = Segments::find(config(), env.clone()).unwrap();
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (kind, epoch, body) in records {
            let log_offset = LogOffset(bytes.len() as u64);
            places.push(log_offset);
            let header = RecordHeader {
                len: 0,
                kind: *kind,
                epoch: Epoch(*epoch),
                log_offset,
                store_time: Timestamp::ZERO,
                topic: Default::default(),
                queue: Default::default(),
                queue_offset: Default::default(),
            };
            write_record(&mut bytes, &header, |out| out.extend_from_slice(body));
        }
        segments.active().file.write_all_at(&bytes, 0).unwrap();
        places.push(LogOffset(bytes.len() as u64));
        (env, places)
    }

    fn scan(env: &Env) -> Result<(LogOffset, usize), LogOpenError> {
        let segments = Segments::find(config(), env.clone())?;
        let mut seen = 0;
        let scanned = segments.scan(LogOffset(0), |_| {
            seen += 1;
            Ok(())
        })?;
        Ok((scanned.end, seen))
    }

    #[test]
    fn a_record_left_over_from_an_earlier_epoch_does_not_come_back_to_life() {
        // The second record was written over a lost one of the same length; the third is what followed that one.
        let body = [7; 100];
        let record = RecordKind::Delivery;
        let (env, places) = log_with(&[(record, 1, &body), (record, 2, &body), (record, 1, &body)]);
        assert_eq!(scan(&env).unwrap(), (places[2], 2));
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_before_a_mark_is_an_error() {
        let body = [7; 100];
        for (flushed_to, expected) in [(0, Ok(1)), (500, Err(()))] {
            let flushed_to: u64 = flushed_to;
            let mark = flushed_to.to_le_bytes();
            let records: [(RecordKind, u32, &[u8]); 3] =
                [(RecordKind::Delivery, 1, &body), (RecordKind::Delivery, 1, &body), (RecordKind::Mark, 1, &mark)];
            let (env, places) = log_with(&records);
            let segment = env.files.open(&config().dir.join(segment_name(LogOffset(0))), OpenMode::ReadWrite).unwrap();
            segment.write_all_at(b"x", places[1].0 + 60).unwrap();
            assert_eq!(scan(&env).map(|(_, seen)| seen).map_err(|_| ()), expected, "flushed to {flushed_to}");
        }
    }
}
