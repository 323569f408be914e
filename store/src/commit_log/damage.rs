//! Damage is a state of the log, not its end: which parts of it cannot be read, why, and since when it is known.
//!
//! Whoever comes across damage notes it: recovery, a receive, the making of an index. From then on nobody tries to read there
//! again, everything around it goes on, and operators see it: a line in the log, a metric, [`crate::Store::damaged`]. What was
//! noted survives a restart, in the file `damaged` of the store's folder.
//!
//! A range leaves the list with its segments, or when it is found whole again ([`Standing::WholeAgain`]): then it is kept only
//! for what it explains, a jump of queue offsets. What becomes of it otherwise is an operator's word ([`Standing::GivenUp`],
//! said with `gantry repair record`): from then on its messages count as gone, like those that expired.
//!
//! Layout, little endian, format 1: `GNTRYDMG` 8, format 4, CRC-32C of the rest and what comes before it 4, length of an entry
//! 4, number of entries 4, each: from 8, to 8, found at 8, cause 1, three zeros; and if any of them stands otherwise than
//! open: since when 8, standing 1 (0 open, 1 given up, 2 whole again), seven zeros; and if any was given back: whether this one
//! was 1, seven zeros. A longer entry has fields of a later version, which are passed over.

use super::record::RecordError;
use crate::durable_file;
use bytes::Buf;
use gantry_proto::env::Files;
use gantry_proto::model::{LogOffset, Timestamp};
use metrics::{Label, gauge};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A part of the log that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    pub from: LogOffset,
    /// Where what follows can be read again.
    pub to: LogOffset,
    pub cause: DamageCause,
    /// When that was found out.
    pub found_at: Timestamp,
    /// What became of it since.
    pub standing: Standing,
}

/// What became of a damaged part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet: messages in it are set aside.
    Open,
    /// An operator gave it up then: messages in it are gone.
    GivenUp(Timestamp),
    /// It was found to be whole again then.
    WholeAgain(Timestamp),
    /// It was found to be whole again then, and groups have got what they had set aside of it.
    GivenBack(Timestamp),
}

impl DamagedRange {
    pub(crate) fn found(from: LogOffset, to: LogOffset, cause: DamageCause, found_at: Timestamp) -> DamagedRange {
        DamagedRange { from, to, cause, found_at, standing: Standing::Open }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.standing, Standing::GivenUp(_))
    }

    /// There is nothing wrong with it any more.
    pub(crate) fn is_whole_again(&self) -> bool {
        matches!(self.standing, Standing::WholeAgain(_) | Standing::GivenBack(_))
    }
}

/// What is wrong with a part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageCause {
    /// The bytes are not those that were written.
    Changed,
    /// The disk does not give them.
    Unreadable,
    /// They are not there, and an operator chose to go on without them.
    Missing,
    /// Something that a later version of this program knows.
    Other(u8),
}

impl DamageCause {
    /// Of a record that is not whole for that reason.
    pub(crate) fn of(cause: RecordError) -> DamageCause {
        if cause == RecordError::Unreadable { DamageCause::Unreadable } else { DamageCause::Changed }
    }
}

impl fmt::Display for DamageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamageCause::Changed => f.write_str("the bytes are not those that were written"),
            DamageCause::Unreadable => f.write_str("the disk does not give the bytes"),
            DamageCause::Missing => f.write_str("the bytes are missing"),
            DamageCause::Other(number) => write!(f, "cause {number}, which a newer Gantry knows"),
        }
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DamageError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} was written by a newer Gantry (format {found}, this one knows {FORMAT}): start that version or a later one"
    )]
    Newer { path: PathBuf, found: u32 },
}

/// All that is known to be damaged.
pub(crate) struct DamageRegister {
    files: Arc<dyn Files>,
    dir: PathBuf,
    ranges: RwLock<Vec<DamagedRange>>,
    /// Nearly always true: then nobody looks further.
    none: AtomicBool,
    /// There never was any, as far as the log reaches.
    never: AtomicBool,
    unsaved: AtomicBool,
    /// Wakes whoever saves the list.
    pub(crate) noted: Notify,
    /// How often the disk did not give what lies there, and when last.
    failing: Mutex<HashMap<LogOffset, (u32, Timestamp)>>,
}

pub(crate) const NAME: &str = "damaged";
const MAGIC: &[u8; 8] = b"GNTRYDMG";
const FORMAT: u32 = 1;
const ENTRY_LEN: usize = 28;
/// With what became of it.
const LONG_ENTRY_LEN: usize = 44;
/// And with whether groups have got it back.
const GIVEN_BACK_ENTRY_LEN: usize = 52;
/// A record that the disk did not give so often is damaged. Receives ask again some seconds apart.
const READS_MAX: u32 = 3;
/// So many are counted at a time.
const FAILING_MAX: usize = 1024;
/// What did not fail for so long makes room for others.
const FAILING_FOR: Duration = Duration::from_secs(600);

impl DamageRegister {
    /// What is known in the store's folder.
    pub(crate) fn open(files: Arc<dyn Files>, dir: &Path) -> Result<DamageRegister, DamageError> {
        let ranges = read(&*files, dir)?;
        let register = DamageRegister {
            files,
            dir: dir.to_owned(),
            ranges: RwLock::new(ranges),
            none: AtomicBool::default(),
            never: AtomicBool::default(),
            unsaved: AtomicBool::default(),
            noted: Notify::new(),
            failing: Mutex::default(),
        };
        for range in register.list() {
            let DamagedRange { from, to, cause, found_at, standing } = range;
            if let Standing::GivenUp(at) = standing {
                tracing::info!(%from, %to, %cause, %at, "a damaged part of the log was given up by an operator: messages in it are gone");
                continue;
            }
            tracing::warn!(%from, %to, %cause, %found_at, "a part of the log is known to be damaged; messages in it are set aside");
        }
        register.changed(&register.ranges.read());
        Ok(register)
    }

    /// Notes damage, unless it is known. Does not wait for the disk: see [`DamageRegister::save`].
    pub(crate) fn note(&self, range: DamagedRange) {
        let mut ranges = self.ranges.write();
        // What an operator gave up stays given up, also if there is damage beside it now.
        let parts = without_given_up(range, &ranges);
        let mut noted = false;
        for part in parts {
            let is_known =
                |known: &DamagedRange| known.from <= part.from && part.to <= known.to && !known.is_whole_again();
            if ranges.iter().any(is_known) {
                continue;
            }
            ranges.retain(|known| known.from < part.from || known.to > part.to);
            let place = ranges.partition_point(|known| known.from < part.from);
            ranges.insert(place, part);
            noted = true;
        }
        if !noted {
            return;
        }
        self.unsaved.store(true, Ordering::Release);
        self.noted.notify_one();
        self.changed(&ranges);
        drop(ranges);
        let DamagedRange { from, to, cause, .. } = range;
        tracing::error!(
            %from, %to, %cause,
            "a part of the log is damaged: messages in it are set aside, everything else goes on. `gantry inspect` shows what \
             it held, and `gantry repair record` gives it up"
        );
    }

    /// The disk did not give the record at `at`. True: it did not so often that the record is damaged.
    pub(crate) fn fails_for_good(&self, at: LogOffset, now: Timestamp) -> bool {
        let mut failing = self.failing.lock();
        if failing.len() >= FAILING_MAX && !failing.contains_key(&at) {
            failing.retain(|_, (_, last)| now.since(*last) < FAILING_FOR);
            if failing.len() >= FAILING_MAX {
                // Those that are counted come first: where more fail than that, none would be counted to the end else.
                return false;
            }
        }
        let (times, last) = failing.entry(at).or_default();
        (*times, *last) = (*times + 1, now);
        let for_good = *times >= READS_MAX;
        if for_good {
            failing.remove(&at);
        }
        for_good
    }

    /// Whole records lie where the range was damaged.
    pub(crate) fn whole_again(&self, range: &DamagedRange, now: Timestamp) {
        let mut ranges = self.ranges.write();
        for known in ranges.iter_mut().filter(|known| *known == range) {
            known.standing = Standing::WholeAgain(now);
        }
        self.unsaved.store(true, Ordering::Release);
        self.noted.notify_one();
        self.changed(&ranges);
        let DamagedRange { from, to, cause, .. } = range;
        tracing::warn!(
            %from, %to, %cause,
            "a part of the log that was damaged is whole again: its messages are there. Groups that have set them aside \
             get them"
        );
    }

    /// Groups have got what they had set aside of these ranges, and that is on disk.
    pub(crate) fn given_back(&self, given_back: &[DamagedRange]) {
        let mut ranges = self.ranges.write();
        for range in ranges.iter_mut().filter(|range| given_back.contains(range)) {
            if let Standing::WholeAgain(at) = range.standing {
                range.standing = Standing::GivenBack(at);
            }
        }
        self.unsaved.store(true, Ordering::Release);
        self.noted.notify_one();
    }

    /// The damage that touches the record at `at`.
    pub(crate) fn touching(&self, at: LogOffset, len: u32) -> Option<DamagedRange> {
        if self.none.load(Ordering::Acquire) {
            return None;
        }
        let end = at.plus(u64::from(len.max(1)));
        let ranges = self.ranges.read();
        ranges.iter().find(|range| range.from < end && at < range.to && !range.is_whole_again()).copied()
    }

    /// Why there is no whole record in front of `to`: of the last one before a gap there may be a part.
    pub(crate) fn cause_up_to(&self, to: LogOffset, cause: RecordError) -> DamageCause {
        let known = self.touching(LogOffset(to.0.saturating_sub(1)), 1).map(|known| known.cause);
        if known == Some(DamageCause::Missing) { DamageCause::Missing } else { DamageCause::of(cause) }
    }

    /// How far what ends at `end` is there: up to the damage that reaches `end`, if any does.
    pub(crate) fn intact_to(&self, end: LogOffset) -> LogOffset {
        let ranges = self.ranges.read();
        let reaching = ranges.iter().filter(|range| range.from < end && end <= range.to && !range.is_whole_again());
        reaching.map(|range| range.from).min().unwrap_or(end)
    }

    /// Whether all of `[from, to)` is known to be damaged.
    pub(crate) fn covers(&self, from: LogOffset, to: LogOffset) -> bool {
        let mut known_to = from;
        for range in self.ranges.read().iter().filter(|range| !range.is_whole_again() && range.to > from) {
            if range.from > known_to {
                break;
            }
            known_to = known_to.max(range.to);
        }
        known_to >= to
    }

    /// Where the last part before `at` ends that is damaged, or was: messages in front of it may have followed.
    pub(crate) fn gap_before(&self, at: LogOffset) -> Option<LogOffset> {
        if self.never.load(Ordering::Acquire) {
            return None;
        }
        self.ranges.read().iter().map(|range| range.to).filter(|to| *to <= at).max()
    }

    /// The parts that are damaged, or were, and lie in `[from, to)`.
    pub(crate) fn ever_in(&self, from: LogOffset, to: LogOffset) -> Vec<DamagedRange> {
        self.ranges.read().iter().filter(|range| range.from < to && from < range.to).copied().collect()
    }

    /// By place.
    pub(crate) fn list(&self) -> Vec<DamagedRange> {
        self.ranges.read().iter().filter(|range| !range.is_whole_again()).copied().collect()
    }

    /// What lies before is not retained any more.
    pub(crate) fn forget_before(&self, retained_from: LogOffset) {
        let mut ranges = self.ranges.write();
        let before = ranges.len();
        ranges.retain(|range| range.to > retained_from);
        if ranges.len() < before {
            self.unsaved.store(true, Ordering::Release);
            self.noted.notify_one();
            self.changed(&ranges);
        }
    }

    /// Whether [`DamageRegister::save`] has something to do.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Acquire)
    }

    /// Makes durable what was noted since. Blocks.
    pub(crate) fn save(&self) -> io::Result<()> {
        if !self.unsaved.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let saved = replace(&*self.files, &self.dir, &self.ranges.read().clone());
        if saved.is_err() {
            self.unsaved.store(true, Ordering::Release);
        }
        saved
    }

    fn changed(&self, ranges: &[DamagedRange]) {
        let open = || ranges.iter().filter(|range| range.standing == Standing::Open);
        self.none.store(ranges.iter().all(DamagedRange::is_whole_again), Ordering::Release);
        self.never.store(ranges.is_empty(), Ordering::Release);
        let bytes: u64 = open().map(|range| range.to.0 - range.from.0).sum();
        let local = || vec![Label::new("storage_type", "local"), Label::new("storage_medium", "disk")];
        gauge!("gantry_log_damaged_ranges", local()).set(open().count() as f64);
        gauge!("gantry_log_damaged_bytes", local()).set(bytes as f64);
    }
}

/// The parts of `range` that no operator gave up. `ranges` are by place.
fn without_given_up(range: DamagedRange, ranges: &[DamagedRange]) -> Vec<DamagedRange> {
    let mut parts = Vec::with_capacity(1);
    let mut from = range.from;
    for given_up in ranges.iter().filter(|known| known.is_given_up() && known.from < range.to && range.from < known.to)
    {
        if from < given_up.from {
            parts.push(DamagedRange { from, to: given_up.from, ..range });
        }
        from = from.max(given_up.to);
    }
    if from < range.to {
        parts.push(DamagedRange { from, ..range });
    }
    parts
}

/// Replaces the file in the store's folder. At every moment it says what it said before, or this.
pub(crate) fn replace(files: &dyn Files, dir: &Path, ranges: &[DamagedRange]) -> io::Result<()> {
    durable_file::replace(files, dir, NAME, &encode(ranges))
}

/// What the file in the store's folder says. Changes nothing.
pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Vec<DamagedRange>, DamageError> {
    let path = dir.join(NAME);
    let io = |source| DamageError::Io { action: "reading", path: path.clone(), source };
    let Some(bytes) = durable_file::read(files, dir, NAME).map_err(io)? else { return Ok(Vec::new()) };
    match parse(&bytes) {
        Ok(ranges) => Ok(ranges),
        Err(Some(found)) => Err(DamageError::Newer { path, found }),
        Err(None) => {
            tracing::error!(path = %path.display(), "the list of damaged parts of the log is damaged itself; they are found again as they are read");
            Ok(Vec::new())
        }
    }
}

const GIVEN_UP: u8 = 1;
const WHOLE_AGAIN: u8 = 2;
/// Behind the standing.
const GIVEN_BACK_AT: usize = 7;

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn encode(ranges: &[DamagedRange]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + ranges.len() * ENTRY_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let long = ranges.iter().any(|range| range.standing != Standing::Open);
    let longer = ranges.iter().any(|range| matches!(range.standing, Standing::GivenBack(_)));
    let entry_len = match (long, longer) {
        (_, true) => GIVEN_BACK_ENTRY_LEN,
        (true, false) => LONG_ENTRY_LEN,
        (false, false) => ENTRY_LEN,
    };
    out.extend_from_slice(&(entry_len as u32).to_le_bytes());
    out.extend_from_slice(&(ranges.len() as u32).to_le_bytes());
    for range in ranges {
        for number in [range.from.0, range.to.0, range.found_at.as_millis()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let cause = match range.cause {
            DamageCause::Changed => 1,
            DamageCause::Unreadable => 2,
            DamageCause::Missing => 3,
            DamageCause::Other(number) => number,
        };
        out.extend_from_slice(&[cause, 0, 0, 0]);
        if long {
            let (since, standing) = match range.standing {
                Standing::Open => (0, 0),
                Standing::GivenUp(at) => (at.as_millis(), GIVEN_UP),
                Standing::WholeAgain(at) | Standing::GivenBack(at) => (at.as_millis(), WHOLE_AGAIN),
            };
            out.extend_from_slice(&u64::to_le_bytes(since));
            out.extend_from_slice(&[standing, 0, 0, 0, 0, 0, 0, 0]);
        }
        if longer {
            let given_back = matches!(range.standing, Standing::GivenBack(_));
            out.extend_from_slice(&[u8::from(given_back), 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    let crc = checksum(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// `Err`: the newer format that it is of, or `None` if it is damaged.
fn parse(bytes: &[u8]) -> Result<Vec<DamagedRange>, Option<u32>> {
    if bytes.len() < 24 || &bytes[..8] != MAGIC {
        return Err(None);
    }
    let mut fields = &bytes[8..];
    let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
    if checksum(bytes) != crc {
        return Err(None);
    }
    if format != FORMAT {
        return Err(Some(format));
    }
    let (entry_len, count) = (fields.get_u32_le() as usize, fields.get_u32_le() as usize);
    if entry_len < ENTRY_LEN || fields.len() / entry_len < count {
        return Err(None);
    }
    let entry = |mut fields: &[u8]| {
        let (from, to) = (LogOffset(fields.get_u64_le()), LogOffset(fields.get_u64_le()));
        let found_at = Timestamp::from_millis(fields.get_u64_le());
        let cause = match fields.get_u8() {
            1 => DamageCause::Changed,
            2 => DamageCause::Unreadable,
            3 => DamageCause::Missing,
            number => DamageCause::Other(number),
        };
        fields.advance(3);
        let mut range = DamagedRange::found(from, to, cause, found_at);
        if let (Ok(since), Ok(standing)) = (fields.try_get_u64_le(), fields.try_get_u8()) {
            let since = Timestamp::from_millis(since);
            range.standing = match standing {
                GIVEN_UP => Standing::GivenUp(since),
                WHOLE_AGAIN if fields.get(GIVEN_BACK_AT) == Some(&1) => Standing::GivenBack(since),
                WHOLE_AGAIN => Standing::WholeAgain(since),
                // What a later version made of it: nothing is given up that nobody is known to have.
                _ => Standing::Open,
            };
        }
        range
    };
    Ok(fields.chunks_exact(entry_len).take(count).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake;

    fn range(from: u64, to: u64) -> DamagedRange {
        let (from, to) = (LogOffset(from), LogOffset(to));
        DamagedRange::found(from, to, DamageCause::Changed, Timestamp::from_millis(7))
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart_and_only_once() {
        let (env, files, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let open = || DamageRegister::open(env.files.clone(), dir).unwrap();
        let register = open();
        assert!(register.list().is_empty());
        let missing = DamagedRange { cause: DamageCause::Missing, ..range(500, 600) };
        for noted in [range(100, 200), missing, range(300, 350), range(100, 200), range(310, 320), range(290, 360)] {
            register.note(noted);
        }
        let all = [range(100, 200), range(290, 360), missing];
        assert_eq!(register.list(), all);
        let touching = |at, len| register.touching(LogOffset(at), len).map(|range| range.from.0);
        assert_eq!(
            [touching(0, 100), touching(0, 101), touching(199, 1), touching(200, 90)],
            [None, Some(100), Some(100), None]
        );
        register.save().unwrap();
        files.crash(0);
        let register = open();
        assert_eq!(register.list(), all);
        register.forget_before(LogOffset(360));
        assert_eq!(register.list(), [missing]);
        register.save().unwrap();
        // A damaged list is found again by and by; a newer one is not overwritten.
        files.flip_bits(&dir.join(NAME), 30, 1).unwrap();
        assert!(open().list().is_empty());
        let mut newer = encode(&[missing]);
        newer[8] = 2;
        let crc = checksum(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        durable_file::replace(&*env.files, dir, NAME, &newer).unwrap();
        assert!(matches!(DamageRegister::open(env.files.clone(), dir), Err(DamageError::Newer { found: 2, .. })));
    }

    #[test]
    fn what_was_given_up_stays_so_when_there_is_damage_around_it() {
        let (env, _, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let given_up = DamagedRange { standing: Standing::GivenUp(Timestamp::from_millis(9)), ..range(100, 200) };
        replace(&*env.files, dir, &[given_up]).unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        register.note(range(50, 250));
        register.note(range(120, 260));
        assert_eq!(register.list(), [range(50, 100), given_up, range(200, 260)]);
        let covers = |from, to| register.covers(LogOffset(from), LogOffset(to));
        assert_eq!([covers(50, 260), covers(60, 130), covers(49, 60), covers(250, 261)], [true, true, false, false]);
    }

    #[test]
    fn what_became_of_a_range_is_known_after_a_restart_and_an_earlier_version_can_read_it() {
        let (env, _, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let now = Timestamp::from_millis(9);
        let given_up = DamagedRange { standing: Standing::GivenUp(now), ..range(100, 200) };
        assert_eq!(encode(&[range(1, 2)]).len(), 24 + ENTRY_LEN, "as it ever was");
        replace(&*env.files, dir, &[given_up, range(300, 400)]).unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        assert_eq!(register.list(), [given_up, range(300, 400)]);
        register.note(range(120, 130));
        register.whole_again(&range(300, 400), now);
        register.save().unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        assert_eq!(register.list(), [given_up]);
        assert_eq!(register.touching(LogOffset(150), 1), Some(given_up));
        assert_eq!(
            (register.touching(LogOffset(300), 9), register.covers(LogOffset(300), LogOffset(400))),
            (None, false)
        );
        assert_eq!(register.intact_to(LogOffset(400)), LogOffset(400));
        let gaps = [199, 200, 399, 400].map(|at| register.gap_before(LogOffset(at)).map(|gap| gap.0));
        assert_eq!(gaps, [None, Some(200), Some(200), Some(400)], "it explains what is missing behind it all the same");
        // What groups got back they do not get again.
        let whole_again = register.ever_in(LogOffset(300), LogOffset(301));
        assert_eq!(whole_again[0].standing, Standing::WholeAgain(now));
        register.given_back(&whole_again);
        register.save().unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        assert_eq!(register.ever_in(LogOffset(300), LogOffset(301))[0].standing, Standing::GivenBack(now));
        assert_eq!((register.list(), register.intact_to(LogOffset(400))), (vec![given_up], LogOffset(400)));
        let gap = register.gap_before(LogOffset(400));
        assert_eq!(gap, Some(LogOffset(400)));
        // Damaged again, and whole again: then they do.
        register.note(range(300, 400));
        assert_eq!(register.list(), [given_up, range(300, 400)]);
        register.whole_again(&range(300, 400), now);
        assert_eq!(register.ever_in(LogOffset(300), LogOffset(301))[0].standing, Standing::WholeAgain(now));
        register.note(range(310, 320));
        assert_eq!(register.list(), [given_up, range(310, 320)]);
    }

    #[test]
    fn what_the_disk_does_not_give_three_times_is_damaged() {
        let (env, _, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        let fails = |at| register.fails_for_good(LogOffset(at), Timestamp::from_millis(7));
        assert_eq!(
            [fails(1), fails(2), fails(1), fails(1), fails(2), fails(1)],
            [false, false, false, true, false, false]
        );
    }

    #[test]
    fn however_much_the_disk_does_not_give_all_of_it_is_damaged_in_the_end() {
        let (env, _, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let register = DamageRegister::open(env.files.clone(), dir).unwrap();
        let mut now = Timestamp::from_millis(1 << 40);
        // Each failed once and is well again.
        for at in 0..FAILING_MAX as u64 {
            assert!(!register.fails_for_good(LogOffset(at), now));
        }
        now = now.after(FAILING_FOR);
        let mut left: Vec<u64> = (1_000_000..1_000_000 + 3 * FAILING_MAX as u64).collect();
        for _ in 0..9 {
            now = now.after(Duration::from_secs(10));
            left.retain(|at| !register.fails_for_good(LogOffset(*at), now));
        }
        assert_eq!(left, [0; 0], "each is asked for again and again");
    }
}
