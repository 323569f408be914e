//! How far *this disk* has the log: the proof that what is missing was there once. Never a part of the log's own bytes,
//! which other replicas copy.
//!
//! One small file beside the log, `positions`, with two slots that are written in turn. A slot is written after the flush of
//! the log that it speaks of has returned, so whatever of the file reaches the disk claims too little and never too much.
//! The file itself is flushed when the writer goes idle, from time to time under load, and before anything relies on it: a
//! segment is sealed only when it is on disk that the log was flushed so far, and removed only when it is on disk that the
//! log begins behind it.
//!
//! Layout of a slot, little endian, format 1, [`SLOT_LEN`] bytes, the slots a page apart:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `GNTRYPOS` |
//! | 8 | 4 | format |
//! | 12 | 4 | CRC-32C of the slot without these four bytes. All up to here is the same in every format |
//! | 16 | 8 | sequence: the slot with the larger one is the newer |
//! | 24 | 16 | folder id |
//! | 40 | 8 | `retained_from`: where the log begins. Files before it are leftovers |
//! | 48 | 8 | `sealed_to`: where the newest segment begins. Everything before it is flushed |
//! | 56 | 8 | `flushed_to` |
//! | 64 | 8 | `confirmed_to`: never beyond `flushed_to` |
//! | 72 | 4 | epoch that the log goes on in |
//! | 76 | 1 | flags: 1 = answers were given before the flush (`flush = async`) |
//! | 80 | 8 | the time that retention believed last; 0: none yet |
//! | | | zeros: room for what a later version of format 1 adds |

use super::segment::check_name;
use bytes::Buf;
use gantry_proto::env::{File, Files, OpenMode, is_unreadable};
use gantry_proto::model::{Epoch, FolderId, LogOffset, Timestamp};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its name in the store's folder.
pub(crate) const POSITIONS_NAME: &str = "positions";

const MAGIC: &[u8; 8] = b"GNTRYPOS";
const FORMAT: u32 = 1;
const SLOT_LEN: usize = 512;
const SLOT_STRIDE: u64 = 4096;
const FLAG_ASYNC: u8 = 1;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    pub folder: FolderId,
    pub retained_from: LogOffset,
    pub sealed_to: LogOffset,
    pub flushed_to: LogOffset,
    pub confirmed_to: LogOffset,
    pub epoch: Epoch,
    /// Answers were given before the log was flushed: its end may lack what was answered.
    pub answered_unflushed: bool,
    /// What retention believed last, if it ever looked.
    pub time: Option<Timestamp>,
}

/// Why the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PositionsError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} was written by a newer Gantry (format {found}, this one knows {FORMAT}): start that version or a later one"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "both copies in {0} are damaged: nobody can tell whether the log's end is there. Put the file back, or start once with \
         store.accept_missing_log = true to go on with what the log itself shows. Nothing was changed"
    )]
    Damaged(PathBuf),
}

/// The file, open for writing.
pub(crate) struct PositionsFile {
    file: Arc<dyn File>,
    path: PathBuf,
    /// What was written last.
    current: Positions,
    sequence: u64,
    /// The sequence of the last slot that is surely on disk.
    settled: u64,
}

impl Positions {
    /// Of a log that begins at `begins` and holds nothing.
    pub(crate) fn new(folder: FolderId, begins: LogOffset) -> Positions {
        Positions {
            folder,
            retained_from: begins,
            sealed_to: begins,
            flushed_to: begins,
            confirmed_to: begins,
            epoch: Epoch(0),
            answered_unflushed: false,
            time: None,
        }
    }

    /// What the file in the store's folder `dir` says, if there is one. Changes nothing.
    pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Positions>, PositionsError> {
        Ok(read_slots(files, dir)?.map(|(_, positions)| positions))
    }

    fn encode(&self, sequence: u64) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        slot[16..24].copy_from_slice(&sequence.to_le_bytes());
        slot[24..40].copy_from_slice(&self.folder.0);
        let offsets = [self.retained_from, self.sealed_to, self.flushed_to, self.confirmed_to];
        for (place, offset) in slot[40..72].chunks_exact_mut(8).zip(offsets) {
            place.copy_from_slice(&offset.0.to_le_bytes());
        }
        slot[72..76].copy_from_slice(&self.epoch.0.to_le_bytes());
        slot[76] = if self.answered_unflushed { FLAG_ASYNC } else { 0 };
        slot[80..88].copy_from_slice(&self.time.map_or(0, Timestamp::as_millis).to_le_bytes());
        seal(&mut slot);
        slot
    }
}

fn checksum(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..12]), &slot[16..])
}

fn seal(slot: &mut [u8; SLOT_LEN]) {
    let crc = checksum(slot);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// What one slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Held(u64, Positions),
    Newer(u32),
    Damaged,
}

fn parse_slot(slot: &[u8]) -> Slot {
    let Some(slot) = slot.get(..SLOT_LEN).filter(|slot| &slot[..8] == MAGIC) else {
        return Slot::Damaged;
    };
    let mut fields = &slot[8..];
    let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
    if checksum(slot) != crc || format == 0 {
        return Slot::Damaged;
    }
    if format > FORMAT {
        return Slot::Newer(format);
    }
    let sequence = fields.get_u64_le();
    let mut folder = [0; 16];
    fields.copy_to_slice(&mut folder);
    let mut offset = || LogOffset(fields.get_u64_le());
    let (retained_from, sealed_to, flushed_to, confirmed_to) = (offset(), offset(), offset(), offset());
    let (epoch, flags) = (Epoch(fields.get_u32_le()), fields.get_u8());
    fields.advance(3);
    let time = Some(fields.get_u64_le()).filter(|millis| *millis > 0).map(Timestamp::from_millis);
    let positions = Positions {
        folder: FolderId(folder),
        retained_from,
        sealed_to,
        flushed_to,
        confirmed_to,
        epoch,
        answered_unflushed: flags & FLAG_ASYNC != 0,
        time,
    };
    Slot::Held(sequence, positions)
}

/// Both slots of the file in the store's folder `dir`, if there is one.
pub(crate) fn slots(files: &dyn Files, dir: &Path) -> io::Result<Option<[Slot; 2]>> {
    let file = match files.open(&dir.join(POSITIONS_NAME), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let slot = |at| match file.read_at(at, SLOT_LEN) {
        // The other one may be there.
        Err(error) if is_unreadable(&error) => Ok(Slot::Damaged),
        bytes => bytes.map(|bytes| parse_slot(&bytes)),
    };
    Ok(Some([slot(0)?, slot(SLOT_STRIDE)?]))
}

fn read_slots(files: &dyn Files, dir: &Path) -> Result<Option<(u64, Positions)>, PositionsError> {
    let path = dir.join(POSITIONS_NAME);
    let io = |source| PositionsError::Io { action: "reading", path: path.clone(), source };
    let Some(slots) = slots(files, dir).map_err(io)? else { return Ok(None) };
    let mut newest: Option<(u64, Positions)> = None;
    for slot in slots {
        match slot {
            Slot::Newer(found) => return Err(PositionsError::Newer { path, found }),
            Slot::Held(sequence, positions) if newest.is_none_or(|(held, _)| sequence > held) => {
                newest = Some((sequence, positions));
            }
            Slot::Held(..) | Slot::Damaged => {}
        }
    }
    newest.map(Some).ok_or(PositionsError::Damaged(path))
}

impl PositionsFile {
    /// Opens the file in the store's folder, which must be there and readable.
    pub(crate) fn open(files: &dyn Files, dir: &Path) -> Result<PositionsFile, PositionsError> {
        let path = dir.join(POSITIONS_NAME);
        let io = |source| PositionsError::Io { action: "opening", path: path.clone(), source };
        let (sequence, current) = read_slots(files, dir)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        let file = files.open(&path, OpenMode::ReadWrite).map_err(io)?;
        // Whether it was flushed is not known.
        Ok(PositionsFile { file, path, current, sequence, settled: 0 })
    }

    /// Writes a new file, durably, in place of what is there.
    pub(crate) fn create(files: &dyn Files, dir: &Path, positions: Positions) -> Result<PositionsFile, PositionsError> {
        let path = dir.join(POSITIONS_NAME);
        let io = |source| PositionsError::Io { action: "writing", path: path.clone(), source };
        let mut contents = vec![0; SLOT_STRIDE as usize + SLOT_LEN];
        contents[..SLOT_LEN].copy_from_slice(&positions.encode(1));
        contents[SLOT_STRIDE as usize..].copy_from_slice(&positions.encode(2));
        crate::durable_file::replace(files, dir, POSITIONS_NAME, &contents).map_err(io)?;
        PositionsFile::open(files, dir)
    }

    /// What was written last.
    pub(crate) fn current(&self) -> Positions {
        self.current
    }

    /// Writes the positions as `change` leaves them. The log must be flushed as far as they say. Not durable before
    /// [`PositionsFile::settle`].
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Positions)) -> io::Result<()> {
        let mut changed = self.current;
        change(&mut changed);
        assert!(
            changed.confirmed_to <= changed.flushed_to && changed.sealed_to <= changed.flushed_to,
            "positions contradict one another: {changed:?}"
        );
        if changed != self.current {
            self.current = changed;
            self.write()?;
        }
        Ok(())
    }

    /// Fails if its name does not lead to the file any more: what is written to it nobody would find.
    pub(crate) fn check_file(&self, files: &dyn Files) -> io::Result<()> {
        check_name(files, &self.path, &self.file.status()?)
    }

    /// Some of what was written may not be on disk yet.
    pub(crate) fn unsettled(&self) -> bool {
        self.settled < self.sequence
    }

    /// Makes durable what was written, in both slots: one damaged byte does not take the proof of the last flush.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        if !self.unsettled() {
            return Ok(());
        }
        // One after the other: a torn write never meets both.
        self.file.sync_data()?;
        self.write()?;
        self.file.sync_data()?;
        self.settled = self.sequence;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let at = (self.sequence % 2) * SLOT_STRIDE;
        self.file.write_all_at(&self.current.encode(self.sequence), at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake;

    const DIR: &str = "/store";

    fn positions(number: u64) -> Positions {
        Positions {
            retained_from: LogOffset(number),
            sealed_to: LogOffset(number + 1),
            flushed_to: LogOffset(number + 3),
            confirmed_to: LogOffset(number + 2),
            epoch: Epoch(5),
            answered_unflushed: number % 2 == 1,
            time: Some(Timestamp::from_millis(number + 4)),
            ..Positions::new(FolderId([9; 16]), LogOffset(0))
        }
    }

    #[test]
    fn positions_read_back_as_they_were_written_and_one_damaged_byte_costs_nothing_once_settled() {
        let (env, files, _) = fake::env(1);
        let (dir, path) = (Path::new(DIR), Path::new(DIR).join(POSITIONS_NAME));
        env.files.create_dir_all(dir).unwrap();
        assert_eq!(Positions::read(&*env.files, dir).unwrap(), None);
        let mut file = PositionsFile::create(&*env.files, dir, positions(0)).unwrap();
        for number in 1..6 {
            file.update(|held| *held = positions(number)).unwrap();
            assert_eq!(Positions::read(&*env.files, dir).unwrap(), Some(positions(number)));
        }
        assert!(file.unsettled());
        file.settle().unwrap();
        assert!(!file.unsettled());
        for byte in (0..SLOT_LEN as u64).chain(SLOT_STRIDE..SLOT_STRIDE + SLOT_LEN as u64) {
            files.flip_bits(&path, byte, 1).unwrap();
            assert_eq!(Positions::read(&*env.files, dir).unwrap(), Some(positions(5)), "byte {byte}");
            files.flip_bits(&path, byte, 1).unwrap();
        }
        // A bad sector neither; what is written there next makes it good.
        for slot in [0, SLOT_STRIDE] {
            files.make_unreadable(&path, slot..slot + SLOT_LEN as u64).unwrap();
            let mut file = PositionsFile::open(&*env.files, dir).unwrap();
            assert_eq!(file.current(), positions(5), "slot at {slot}");
            file.update(|held| *held = positions(6)).unwrap();
            file.update(|held| *held = positions(5)).unwrap();
            file.settle().unwrap();
        }
        files.flip_bits(&path, 20, 1).unwrap();
        files.make_unreadable(&path, SLOT_STRIDE + 20..SLOT_STRIDE + 21).unwrap();
        assert!(matches!(Positions::read(&*env.files, dir), Err(PositionsError::Damaged(_))));
    }

    #[test]
    fn a_newer_format_is_said_to_be_newer() {
        let (env, _, _) = fake::env(1);
        let dir = Path::new(DIR);
        env.files.create_dir_all(dir).unwrap();
        PositionsFile::create(&*env.files, dir, positions(1)).unwrap();
        let file = env.files.open(&dir.join(POSITIONS_NAME), OpenMode::ReadWrite).unwrap();
        let mut slot = positions(2).encode(9);
        slot[8] = 2;
        seal(&mut slot);
        file.write_all_at(&slot, 0).unwrap();
        assert!(matches!(Positions::read(&*env.files, dir), Err(PositionsError::Newer { found: 2, .. })));
    }

    #[test]
    fn a_power_failure_leaves_positions_that_were_written_and_none_from_before_the_last_settling() {
        for seed in 0..200 {
            let (env, files, _) = fake::env(seed);
            let dir = Path::new(DIR);
            env.files.create_dir_all(dir).unwrap();
            let mut file = PositionsFile::create(&*env.files, dir, positions(0)).unwrap();
            files.power_off_after(seed % 23);
            let (mut settled, mut written) = (0, 0);
            for number in 1..10 {
                if file.update(|held| *held = positions(number)).is_err() {
                    written = number;
                    break;
                }
                written = number;
                if number % 3 == 0 {
                    if file.settle().is_err() {
                        break;
                    }
                    settled = number;
                }
            }
            files.crash(seed);
            let found = Positions::read(&*env.files, dir).unwrap().unwrap();
            let number = found.retained_from.0;
            assert_eq!(found, positions(number));
            assert!((settled..=written).contains(&number), "seed {seed}: {number} of {settled} to {written}");
        }
    }
}
