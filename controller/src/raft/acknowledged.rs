//! How far the database was when something was last promised of it: a small file beside it.
//!
//! redb keeps two versions of its root. One that does not fit its checksum is taken for a commit that a crash tore, and the
//! one before it is used, without a word. So a bit that flips in the last commit takes a vote or an entry back that others
//! count on. Every commit has a number, which is in the database and, once the commit is durable and before anybody hears of
//! it, here. A database that is behind this file is refused.
//!
//! Two slots of [`SLOT_LEN`] bytes, the one at `number % 2` is overwritten in place: one that is torn leaves the other.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GNTRYACK` |
//! | 4 | format: 1 |
//! | 4 | CRC-32C of the other 20 bytes |
//! | 8 | number of the commit |
//!
//! What is caught: a last commit that redb passes over, and a copy of the database alone that is older. What is not: a folder
//! that was put back as a whole; damage of the last commit together with the loss of this file, which is made again with a
//! warning; the last commit only, if this file's newest slot is damaged, too. It costs a write of 24 bytes and a sync for
//! each commit, whose entries share them.
//!
//! What must always hold: a number is here only after its commit is durable, so a crash at any step leaves a database that is
//! not behind.

use crate::open_error::OpenError;
use gantry_proto::env::{File, Files, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const NAME: &str = "acknowledged";

const MAGIC: &[u8; 8] = b"GNTRYACK";
const FORMAT: u32 = 1;
const LEN: usize = 24;
const SLOT_LEN: u64 = 4096;

/// The open file.
pub(super) struct Acknowledged {
    path: PathBuf,
    file: Arc<dyn File>,
    number: u64,
}

impl Acknowledged {
    /// Opens or makes the file beside a database that is at commit `found`, durably.
    pub(super) fn open(files: &dyn Files, dir: &Path, found: u64) -> Result<Acknowledged, OpenError> {
        let path = dir.join(NAME);
        let failed = |doing| OpenError::io(&path, doing);
        let file = match files.open(&path, OpenMode::ReadWrite) {
            Ok(file) => {
                match newest(&*file).map_err(failed("read it"))? {
                    Slots::Newest(acknowledged) if acknowledged > found => {
                        return Err(OpenError::RolledBack { path: dir.to_owned(), found, acknowledged });
                    }
                    Slots::Newest(_) => {}
                    Slots::Newer(format) => {
                        let what = format!("format {format}, this one understands {FORMAT}");
                        return Err(OpenError::Newer { path, what });
                    }
                    Slots::Damaged => tracing::warn!(
                        path = %path.display(),
                        "damaged: whether the controller's store is all there is not known this time; the file is made again"
                    ),
                }
                file
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if found > 0 {
                    tracing::warn!(
                        path = %path.display(),
                        "missing: whether the controller's store is all there is not known this time; the file is made again"
                    );
                }
                files.open(&path, OpenMode::CreateNew).map_err(failed("make it"))?
            }
            Err(error) => return Err(failed("open it")(error)),
        };
        let mut acknowledged = Acknowledged { path: path.clone(), file, number: found };
        // Both slots are there from now on, so a number never needs room on the disk.
        let written = (acknowledged.put(found.saturating_sub(1)))
            .and_then(|()| acknowledged.note(found))
            .and_then(|()| files.sync_dir(dir));
        written.map_err(failed("write it"))?;
        Ok(acknowledged)
    }

    /// What became of the name of the open file, if it is not this file's any more.
    pub(super) fn moved(&self, files: &dyn Files) -> io::Result<Option<String>> {
        moved(files, &self.path, &*self.file)
    }

    /// The number of the last commit.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The commit of that number is durable: whoever hears of it may count on it when this returns.
    pub(super) fn note(&mut self, number: u64) -> io::Result<()> {
        self.put(number)?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }

    fn put(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(number), number % 2 * SLOT_LEN)
    }
}

/// What became of `path` under an open file that had that name. `None`: it still has.
pub(super) fn moved(files: &dyn Files, path: &Path, file: &dyn File) -> io::Result<Option<String>> {
    let status = file.status()?;
    let what = match files.identity_at(path)? {
        Some(found) if found == status.identity && !status.removed => return Ok(None),
        Some(_) => "was replaced by another file",
        None if status.removed => "was removed",
        None => "was moved away",
    };
    Ok(Some(format!("{} {what} while the controller used it", path.display())))
}

fn slot(number: u64) -> [u8; LEN] {
    let mut slot = [0; LEN];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    slot[16..].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(&slot);
    slot[12..16].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn checksum(slot: &[u8; LEN]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..12]), &slot[16..])
}

/// What the file `acknowledged` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// The number of the last commit that was acknowledged.
    Newest(u64),
    /// A later version wrote it, in that format.
    Newer(u32),
    /// None of its two places is whole.
    Damaged,
}

/// What the file in `dir` says, without changing it. `None`: there is none.
pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Slots>, OpenError> {
    let path = dir.join(NAME);
    match files.open(&path, OpenMode::Read) {
        Ok(file) => newest(&*file).map(Some).map_err(OpenError::io(&path, "read it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(&path, "open it")(error)),
    }
}

fn newest(file: &dyn File) -> io::Result<Slots> {
    let mut newest = None;
    for at in [0, SLOT_LEN] {
        let mut slot = [0; LEN];
        let held = file.read_into(at, &mut slot)?;
        let word = |at: usize| u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]]);
        if held < LEN || &slot[..8] != MAGIC || word(12) != checksum(&slot) {
            continue;
        }
        if word(8) != FORMAT {
            return Ok(Slots::Newer(word(8)));
        }
        let number = u64::from(word(20)) << 32 | u64::from(word(16));
        newest = newest.max(Some(number));
    }
    Ok(newest.map_or(Slots::Damaged, Slots::Newest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake::{self, FakeFiles};

    const DIR: &str = "/data";

    fn disk() -> FakeFiles {
        let (_, files, _) = fake::env(1);
        files.create_dir_all(Path::new(DIR)).unwrap();
        files
    }

    fn open(files: &FakeFiles, found: u64) -> Result<Acknowledged, OpenError> {
        Acknowledged::open(files, Path::new(DIR), found)
    }

    fn is_refused(files: &FakeFiles, behind: u64, at: u64) -> bool {
        match open(files, behind) {
            Ok(_) => false,
            Err(OpenError::RolledBack { found, acknowledged, .. }) => (found, acknowledged) == (behind, at),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_database_that_is_behind_is_refused_and_nothing_is_written() {
        for last in 1..5 {
            let files = disk();
            let mut acknowledged = open(&files, 0).unwrap();
            (1..=last).for_each(|number| acknowledged.note(number).unwrap());
            for behind in 0..last {
                assert!(is_refused(&files, behind, last));
                assert!(is_refused(&files, behind, last), "still");
            }
            assert_eq!(open(&files, last).unwrap().number(), last);
            assert_eq!(open(&files, last + 1).unwrap().number(), last + 1);
        }
    }

    #[test]
    fn one_damaged_slot_leaves_the_other_and_a_later_format_is_newer() {
        let files = disk();
        let mut acknowledged = open(&files, 6).unwrap();
        acknowledged.note(7).unwrap();
        let path = Path::new(DIR).join(NAME);
        for at in 0..LEN as u64 {
            files.flip_bits(&path, SLOT_LEN + at, 0x10).unwrap();
            assert!(is_refused(&files, 5, 6), "byte {at}");
            files.flip_bits(&path, SLOT_LEN + at, 0x10).unwrap();
            assert!(is_refused(&files, 6, 7), "byte {at}");
        }
        files.flip_bits(&path, 0, 0x01).unwrap();
        files.flip_bits(&path, SLOT_LEN, 0x01).unwrap();
        assert_eq!(open(&files, 3).unwrap().number(), 3, "made again");
        assert!(is_refused(&files, 2, 3));
        let mut later = slot(9);
        later[8] = 2;
        let sum = checksum(&later);
        later[12..16].copy_from_slice(&sum.to_le_bytes());
        files.open(&path, OpenMode::ReadWrite).unwrap().write_all_at(&later, 0).unwrap();
        assert!(matches!(open(&files, 99), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn a_power_failure_at_any_step_keeps_what_was_noted_and_never_more() {
        for seed in 0..8 {
            for step in 0..40 {
                let files = disk();
                files.sync_dir(Path::new("/")).unwrap();
                files.power_off_after(step);
                let (mut tried, mut noted) = (0, 0);
                if let Ok(mut acknowledged) = open(&files, 0) {
                    for number in 1..=8 {
                        tried = number;
                        if acknowledged.note(number).is_err() {
                            break;
                        }
                        noted = number;
                    }
                }
                files.crash(seed);
                files.create_dir_all(Path::new(DIR)).unwrap();
                assert!(open(&files, tried).is_ok(), "seed {seed}, step {step}: it says no more than was tried");
                if noted > 0 && noted == tried {
                    assert!(is_refused(&files, noted - 1, noted), "seed {seed}, step {step}");
                }
            }
        }
    }
}
