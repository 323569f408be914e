//! Damage is a state of the log, not its end: which parts of it cannot be read, why, and since when it is known.
//!
//! Whoever comes across damage notes it: recovery, a receive, the making of an index. From then on nobody tries to read there
//! again, everything around it goes on, and operators see it: a line in the log, a metric, [`crate::Store::damaged`]. What was
//! noted survives a restart, in the file `damaged` of the store's folder.
//!
//! Layout, little endian, format 1: `GNTRYDMG` 8, format 4, CRC-32C of the rest and what comes before it 4, length of an entry
//! 4, number of entries 4, each: from 8, to 8, found at 8, cause 1, three zeros. A longer entry has fields of a later version,
//! which are passed over.

use crate::durable_file;
use bytes::Buf;
use gantry_proto::env::Files;
use gantry_proto::model::{LogOffset, Timestamp};
use metrics::{Label, gauge};
use parking_lot::RwLock;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A part of the log that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Where it begins.
    pub from: LogOffset,
    /// Where what follows can be read again.
    pub to: LogOffset,
    /// What is wrong.
    pub cause: DamageCause,
    /// When that was found out.
    pub found_at: Timestamp,
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
    unsaved: AtomicBool,
}

pub(crate) const NAME: &str = "damaged";
const MAGIC: &[u8; 8] = b"GNTRYDMG";
const FORMAT: u32 = 1;
const ENTRY_LEN: usize = 28;

impl DamageRegister {
    /// What is known in the store's folder.
    pub(crate) fn open(files: Arc<dyn Files>, dir: &Path) -> Result<DamageRegister, DamageError> {
        let ranges = read(&*files, dir)?;
        let none = AtomicBool::new(ranges.is_empty());
        let register = DamageRegister {
            files,
            dir: dir.to_owned(),
            ranges: RwLock::new(ranges),
            none,
            unsaved: AtomicBool::default(),
        };
        for range in register.list() {
            let DamagedRange { from, to, cause, found_at } = range;
            tracing::warn!(%from, %to, %cause, %found_at, "a part of the log is known to be damaged; messages in it are set aside");
        }
        register.measure();
        Ok(register)
    }

    /// Notes damage, unless it is known. Does not wait for the disk: see [`DamageRegister::save`].
    pub(crate) fn note(&self, range: DamagedRange) {
        let mut ranges = self.ranges.write();
        if ranges.iter().any(|known| known.from <= range.from && range.to <= known.to) {
            return;
        }
        ranges.retain(|known| known.from < range.from || known.to > range.to);
        let place = ranges.partition_point(|known| known.from < range.from);
        ranges.insert(place, range);
        drop(ranges);
        self.none.store(false, Ordering::Release);
        self.unsaved.store(true, Ordering::Release);
        self.measure();
        let DamagedRange { from, to, cause, .. } = range;
        tracing::error!(
            %from, %to, %cause,
            "a part of the log is damaged: messages in it are set aside, everything else goes on. `gantry inspect` shows what \
             it held"
        );
    }

    /// The damage that touches the record at `at`.
    pub(crate) fn touching(&self, at: LogOffset, len: u32) -> Option<DamagedRange> {
        if self.none.load(Ordering::Acquire) {
            return None;
        }
        let end = at.plus(u64::from(len.max(1)));
        self.ranges.read().iter().find(|range| range.from < end && at < range.to).copied()
    }

    /// How far what ends at `end` is there: up to the damage that reaches `end`, if any does.
    pub(crate) fn intact_to(&self, end: LogOffset) -> LogOffset {
        let ranges = self.ranges.read();
        let reaching = ranges.iter().filter(|range| range.from < end && end <= range.to);
        reaching.map(|range| range.from).min().unwrap_or(end)
    }

    /// Whether all of `[from, to)` is known to be damaged.
    pub(crate) fn covers(&self, from: LogOffset, to: LogOffset) -> bool {
        self.ranges.read().iter().any(|range| range.from <= from && to <= range.to)
    }

    /// Whether anything is.
    pub(crate) fn is_empty(&self) -> bool {
        self.none.load(Ordering::Acquire)
    }

    /// By place.
    pub(crate) fn list(&self) -> Vec<DamagedRange> {
        self.ranges.read().clone()
    }

    /// What lies before is not retained any more.
    pub(crate) fn forget_before(&self, retained_from: LogOffset) {
        let mut ranges = self.ranges.write();
        let before = ranges.len();
        ranges.retain(|range| range.to > retained_from);
        if ranges.len() < before {
            self.none.store(ranges.is_empty(), Ordering::Release);
            self.unsaved.store(true, Ordering::Release);
            drop(ranges);
            self.measure();
        }
    }

    /// Makes durable what was noted since. Blocks.
    pub(crate) fn save(&self) -> io::Result<()> {
        if !self.unsaved.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let saved = durable_file::replace(&*self.files, &self.dir, NAME, &encode(&self.list()));
        if saved.is_err() {
            self.unsaved.store(true, Ordering::Release);
        }
        saved
    }

    fn measure(&self) {
        let ranges = self.list();
        let bytes: u64 = ranges.iter().map(|range| range.to.0 - range.from.0).sum();
        let local = || vec![Label::new("storage_type", "local"), Label::new("storage_medium", "disk")];
        gauge!("gantry_log_damaged_ranges", local()).set(ranges.len() as f64);
        gauge!("gantry_log_damaged_bytes", local()).set(bytes as f64);
    }
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

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn encode(ranges: &[DamagedRange]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + ranges.len() * ENTRY_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(ENTRY_LEN as u32).to_le_bytes());
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
    let entry = |mut fields: &[u8]| DamagedRange {
        from: LogOffset(fields.get_u64_le()),
        to: LogOffset(fields.get_u64_le()),
        found_at: Timestamp::from_millis(fields.get_u64_le()),
        cause: match fields.get_u8() {
            1 => DamageCause::Changed,
            2 => DamageCause::Unreadable,
            3 => DamageCause::Missing,
            number => DamageCause::Other(number),
        },
    };
    Ok(fields.chunks_exact(entry_len).take(count).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake;

    fn range(from: u64, to: u64) -> DamagedRange {
        let (from, to) = (LogOffset(from), LogOffset(to));
        DamagedRange { from, to, cause: DamageCause::Changed, found_at: Timestamp::from_millis(7) }
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart_and_only_once() {
        let (env, files, _) = fake::env(1);
        let dir = Path::new("/store");
        env.files.create_dir_all(dir).unwrap();
        let open = || DamageRegister::open(env.files.clone(), dir).unwrap();
        let register = open();
        assert!(register.is_empty());
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
        assert!(open().is_empty());
        let mut newer = encode(&[missing]);
        newer[8] = 2;
        let crc = checksum(&newer);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        durable_file::replace(&*env.files, dir, NAME, &newer).unwrap();
        assert!(matches!(DamageRegister::open(env.files.clone(), dir), Err(DamageError::Newer { found: 2, .. })));
    }
}
