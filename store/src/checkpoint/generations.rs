//! The files: `checkpoint-` and the number of the generation. The newest two are kept.

use super::parts::{self, Malformed, Read};
use super::{Changes, CheckpointError, Position, Snapshot};
use bytes::Bytes;
use gantry_proto::env::{File, Files, OpenMode, is_unreadable};
use gantry_proto::model::LogOffset;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "checkpoint-";
/// Saves are appended to a generation at least until they take this much.
const SAVES_BYTES_MIN: u64 = 1 << 20;
/// A generation ends when the log has gone on by this many segments since it began: the log is kept from before that.
const SEGMENTS_MAX: u64 = 2;
/// Disks give so much or nothing.
const SECTOR: usize = 512;

#[derive(Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    segment_bytes: u64,
    /// The generation that is written, unless a new one has to be begun.
    current: Option<Current>,
    /// Number of the newest generation that there ever was.
    newest: u64,
    /// The generation that the last save is in.
    whole: Option<u64>,
    /// Where the last save of the generation before is good for, if it can be fallen back to.
    older_at: Option<LogOffset>,
    last: Position,
    /// What changed was taken for a save that was not written: the next one must say everything.
    unwritten: bool,
}

struct Current {
    number: u64,
    file: Arc<dyn File>,
    base: Position,
    base_len: u64,
    end: u64,
    next_part: u32,
}

/// What recovery starts from.
pub(crate) struct Loaded {
    pub snapshot: Snapshot,
    pub checkpoints: Checkpoints,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("number", &self.number).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Checkpoints {
    /// Reads the newest checkpoint in `dir` that is whole. `begins`: where the log begins; without any checkpoint it must hold
    /// everything, unless it `may_lack` its beginning.
    pub(crate) fn load(
        files: &dyn Files,
        dir: &Path,
        segment_bytes: u64,
        begins: LogOffset,
        may_lack: bool,
    ) -> Result<Loaded, CheckpointError> {
        let numbers = list(files, dir)?;
        let newest = numbers.last().copied().unwrap_or(0);
        let dir = dir.to_owned();
        let mut loaded = Loaded {
            snapshot: Snapshot::default(),
            checkpoints: Checkpoints {
                dir,
                segment_bytes,
                current: None,
                newest,
                whole: None,
                older_at: None,
                last: Position::default(),
                unwritten: false,
            },
        };
        let checkpoints = &mut loaded.checkpoints;
        let mut why = None;
        let mut found: Option<Read> = None;
        for number in numbers.into_iter().rev() {
            let path = path(&checkpoints.dir, number);
            let Contents { file, len, bytes, unreadable } = contents(files, &path, OpenMode::ReadWrite)?;
            match parts::read(&bytes) {
                Ok(read) if read.generation != number => why = Some("it is of another generation".to_owned()),
                // The newest that is whole: the next one to be written follows it.
                Ok(read) if found.is_none() => {
                    let Read { base, base_len, end, next_part, .. } = read;
                    // Behind something that is not whole nothing may be appended.
                    if number == newest && end == len {
                        checkpoints.current = Some(Current { number, file, base, base_len, end, next_part });
                    } else if end < len {
                        tracing::warn!(
                            checkpoint = %path.display(), from = end, disk = unreadable.unwrap_or_default(),
                            "the end of a checkpoint is cut off or damaged: recovery reads more of the log instead"
                        );
                    }
                    if number < newest {
                        tracing::error!(
                            checkpoint = %path.display(), why = why.take().unwrap_or_default(),
                            "the newest checkpoint is damaged: the one before is used, and recovery reads more of the log"
                        );
                    }
                    checkpoints.whole = Some(number);
                    found = Some(read);
                }
                Ok(read) => {
                    checkpoints.older_at = Some(read.snapshot.position.at);
                    break;
                }
                Err(Malformed::Newer { what, number }) => {
                    return Err(CheckpointError::Newer { path, what: format!("{what} {number}") });
                }
                Err(Malformed::Damaged(damage)) => {
                    let why_not = unreadable.unwrap_or_else(|| damage.to_owned());
                    why = Some(format!("{}: {why_not}", path.display()));
                }
            }
        }
        match (found, why) {
            (Some(read), _) => loaded.snapshot = read.snapshot,
            // All that a checkpoint says is in the log.
            (None, Some(why)) if begins == LogOffset(0) => {
                tracing::error!(%why, "the checkpoints are damaged: everything is read back from the log, which is whole");
            }
            (None, None) if begins == LogOffset(0) => {}
            (None, None) if may_lack => {
                tracing::warn!(%begins, "no checkpoint is there: what consumers did before the log begins is not known");
            }
            (None, Some(why)) => {
                return Err(CheckpointError::Damaged { dir: checkpoints.dir.clone(), why, begins });
            }
            (None, None) => return Err(CheckpointError::Missing { dir: checkpoints.dir.clone(), begins }),
        }
        checkpoints.last = loaded.snapshot.position;
        Ok(loaded)
    }

    /// Whether a whole one was read or written.
    pub(crate) fn are_there(&self) -> bool {
        self.whole.is_some()
    }

    /// True: the next save must say everything, because it begins a generation.
    pub(crate) fn begins_generation(&self) -> bool {
        self.unwritten
            || self.current.as_ref().is_none_or(|current| {
                let saves = current.end - current.base_len;
                let log = self.last.at.0.saturating_sub(current.base.at.0);
                saves > SAVES_BYTES_MIN.max(current.base_len) || log > SEGMENTS_MAX * self.segment_bytes
            })
    }

    /// What changed is about to be taken for a save. True: it must say everything. Should it never be written, whatever the
    /// reason, the next one must.
    pub(crate) fn begin_save(&mut self) -> bool {
        let everything = self.begins_generation();
        if everything {
            self.begin_generation();
        }
        self.unwritten = true;
        everything
    }

    /// The next save is to begin a generation.
    pub(crate) fn begin_generation(&mut self) {
        self.current = None;
    }

    /// Recovery may need the log from here on, whatever of the checkpoints is damaged by then.
    pub(crate) fn needed_from(&self) -> LogOffset {
        self.older_at.unwrap_or(LogOffset(0)).min(self.last.at)
    }

    /// What the last save knows of the log.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Writes a save. All that it knows of is on disk in the log, or it is refused. After an error the next one must begin a
    /// generation.
    pub(crate) fn save(&mut self, files: &dyn Files, changes: &Changes, position: Position) -> io::Result<u64> {
        if position.is_ahead(&changes.shards) {
            return Err(io::Error::other(format!(
                "it would know of more than is on disk in the log, which ends at {}",
                position.log_to
            )));
        }
        let (saved, written) = match self.current.take() {
            Some(mut current) => {
                let mut bytes = Vec::new();
                let next = parts::write_save(&mut bytes, current.number, current.next_part, changes, &position);
                current.append(&bytes, next)?;
                (current, bytes.len() as u64)
            }
            None => {
                self.newest += 1;
                let begun = begin(files, &self.dir, self.newest, changes, position)?;
                let written = begun.end;
                // From here on the one before is what is fallen back to, and those before it are not needed.
                self.older_at = self.whole.map(|_| self.last.at);
                let older = self.whole.replace(begun.number);
                self.remove_all_but(files, [Some(begun.number), older])?;
                (begun, written)
            }
        };
        self.current = Some(saved);
        (self.last, self.unwritten) = (position, false);
        Ok(written)
    }

    fn remove_all_but(&self, files: &dyn Files, kept: [Option<u64>; 2]) -> io::Result<()> {
        let numbers = list(files, &self.dir).map_err(io::Error::other)?;
        for number in numbers.into_iter().filter(|number| !kept.contains(&Some(*number))) {
            files.remove(&path(&self.dir, number))?;
        }
        files.sync_dir(&self.dir)
    }
}

/// Puts a checkpoint with these changes in place of all that are in `dir`, none of which can be read. A crash on the way leaves
/// those alone, or this one among them.
pub(crate) fn replace_all(files: &dyn Files, dir: &Path, changes: &Changes, position: Position) -> io::Result<()> {
    let numbers = list(files, dir).map_err(io::Error::other)?;
    begin(files, dir, numbers.last().map_or(1, |newest| newest + 1), changes, position)?;
    numbers.into_iter().try_for_each(|number| files.remove(&path(dir, number)))?;
    files.sync_dir(dir)
}

/// A generation as it is on disk, for who only looks.
#[derive(Debug)]
pub(crate) struct Generation {
    pub path: PathBuf,
    /// What its saves come to and whether bytes follow that are not a whole save; or why it cannot be used.
    pub read: Result<(Snapshot, bool), String>,
    /// It was written by a newer gantry.
    pub newer: bool,
}

/// The checkpoints in `dir`, oldest first. Writes nothing.
pub(crate) fn look(files: &dyn Files, dir: &Path) -> Result<Vec<Generation>, CheckpointError> {
    let mut generations = Vec::new();
    for number in list(files, dir)? {
        let path = path(dir, number);
        let Contents { len, bytes, unreadable, .. } = contents(files, &path, OpenMode::Read)?;
        let read = match parts::read(&bytes) {
            Ok(read) if read.generation != number => Err(Malformed::Damaged("it is of another generation")),
            read => read,
        };
        let newer = matches!(read, Err(Malformed::Newer { .. }));
        let read = read.map(|read| (read.snapshot, read.end < len)).map_err(|why| match unreadable {
            Some(disk) if !newer => disk,
            _ => why.to_string(),
        });
        generations.push(Generation { path, read, newer });
    }
    Ok(generations)
}

impl Current {
    fn append(&mut self, bytes: &[u8], next_part: u32) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        self.next_part = next_part;
        Ok(())
    }
}

fn begin(files: &dyn Files, dir: &Path, number: u64, changes: &Changes, position: Position) -> io::Result<Current> {
    let mut bytes = parts::file_header(number).to_vec();
    let next_part = parts::write_save(&mut bytes, number, 0, changes, &position);
    let path = path(dir, number);
    let aside = path.with_extension("tmp");
    match files.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    files.rename(&aside, &path)?;
    files.sync_dir(dir)?;
    let len = bytes.len() as u64;
    Ok(Current { number, file, base: position, base_len: len, end: len, next_part })
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:020}"))
}

/// Generations in the folder, oldest first.
fn list(files: &dyn Files, dir: &Path) -> Result<Vec<u64>, CheckpointError> {
    let entries = files.list(dir).map_err(|source| CheckpointError::Io {
        action: "listing the folder",
        path: dir.to_owned(),
        source,
    })?;
    let number = |name: &str| name.strip_prefix(PREFIX).filter(|digits| digits.len() == 20)?.parse().ok();
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the disk gives of a generation.
struct Contents {
    file: Arc<dyn File>,
    len: u64,
    /// All of it, or what lies in front of a bad sector.
    bytes: Bytes,
    /// What the disk said there.
    unreadable: Option<String>,
}

fn contents(files: &dyn Files, path: &Path, mode: OpenMode) -> Result<Contents, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "reading", path: path.to_owned(), source };
    let file = files.open(path, mode).map_err(io)?;
    let len = file.len().map_err(io)?;
    // Through a buffer of our own: the file is written on, and what is read must not change under us.
    let mut bytes = vec![0; len as usize];
    let (held, unreadable) = match file.read_into(0, &mut bytes) {
        Ok(held) => (held, None),
        Err(error) if is_unreadable(&error) => {
            (read_to_bad_sector(&*file, &mut bytes).map_err(io)?, Some(error.to_string()))
        }
        Err(error) => return Err(io(error)),
    };
    bytes.truncate(held);
    Ok(Contents { file, len, bytes: bytes.into(), unreadable })
}

/// How many bytes lie in front of the first one that the disk does not give, as far as sectors tell.
fn read_to_bad_sector(file: &dyn File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut held = 0;
    for sector in bytes.chunks_mut(SECTOR) {
        match file.read_into(held as u64, sector) {
            Ok(read) if read == sector.len() => held += read,
            Ok(read) => return Ok(held + read),
            Err(error) if is_unreadable(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}
