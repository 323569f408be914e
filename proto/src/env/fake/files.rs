//! [`FakeFiles`]: a disk in memory that forgets what was not synced.

use super::contents::Contents;
use super::faults::{FakeOp, Fate, Faults};
use super::names::{Entry, Names};
use super::random::SplitMix;
use crate::env::{DirEntry, DirectoryLock, File, FileIdentity, FileStatus, Files, OpenMode};
use crate::model::PlaceId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A machine's disk. Clones are the same disk, so a test keeps one and hands another to the code under test.
///
/// Promises nothing that POSIX does not:
/// - bytes not covered by a successful `sync_data`, and names not covered by a successful `sync_dir`, may be gone after
///   [`FakeFiles::crash`], whole or in part;
/// - bytes whose sync failed are never made durable by a later sync;
/// - a planned failure of a write leaves half of it in the file.
///
/// `create_dir_all` is durable at once, as it is in the real environment.
#[derive(Clone, Default)]
pub struct FakeFiles {
    machine: Arc<Mutex<Machine>>,
}

#[derive(Default)]
struct Machine {
    /// Grows with each crash; handles of an earlier one are dead.
    incarnation: u64,
    last_id: u64,
    names: Names,
    files: BTreeMap<u64, OpenableFile>,
    locks: HashMap<PathBuf, u64>,
    /// How often the machine was started again.
    boots: u64,
    faults: Faults,
    capacity: Option<u64>,
    /// Nothing is in memory: see [`FakeFiles::set_cold`].
    cold: bool,
}

#[derive(Default)]
struct OpenableFile {
    contents: Contents,
    handles: usize,
    /// What the disk does not give, until it is written over.
    unreadable: Vec<Range<u64>>,
}

impl OpenableFile {
    /// Reads as a disk with bad sectors does.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        const EIO: i32 = 5;
        let end = self.contents.len().min(offset.saturating_add(len as u64));
        if self.unreadable.iter().any(|bad| bad.start < end && offset < bad.end) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(self.contents.read(offset, len))
    }

    /// A disk replaces a bad sector when it is written.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let (written, before) = (offset..offset + data.len() as u64, std::mem::take(&mut self.unreadable));
        for bad in before {
            let left = [bad.start..bad.end.min(written.start), bad.start.max(written.end)..bad.end];
            self.unreadable.extend(left.into_iter().filter(|left| !left.is_empty()));
        }
        self.contents.write(offset, data);
    }
}

impl FakeFiles {
    /// An empty disk without a bound.
    pub fn new() -> FakeFiles {
        FakeFiles::default()
    }

    /// Power loss and restart: unsynced changes are lost (seed 0) or survive in part as the seed says: nothing, everything,
    /// a prefix with a torn last write, or any subset of sectors; names likewise. Handles and locks of before are dead,
    /// planned failures are forgotten, the power is back.
    pub fn crash(&self, seed: u64) {
        let mut machine = self.machine.lock();
        let mut random = (seed != 0).then(|| SplitMix::new(seed));
        machine.names.crash(random.as_mut());
        for file in machine.files.values_mut() {
            file.contents.crash(random.as_mut());
        }
        machine.boots += 1;
        machine.restart();
    }

    /// The process dies, the machine goes on: nothing written is lost, but what was unsynced still is. Handles and locks
    /// of before are dead.
    pub fn kill(&self) {
        self.machine.lock().restart();
    }

    /// Lets `mutations` more calls change the disk and turns the power off during the one after them; from then on every
    /// call fails until [`FakeFiles::crash`]. With [`FakeFiles::mutations`] a test can crash at each step.
    pub fn power_off_after(&self, mutations: u64) {
        self.machine.lock().faults.power_off_after(mutations);
    }

    /// How many calls that change the disk (writes, syncs, creations, renames …) were made so far.
    pub fn mutations(&self) -> u64 {
        self.machine.lock().faults.mutations()
    }

    /// Makes one call of kind `op` fail with `kind`, after `after` calls of that kind that work.
    pub fn fail_next(&self, op: FakeOp, after: u64, kind: io::ErrorKind) {
        self.machine.lock().faults.fail_next(op, after, kind);
    }

    /// Bounds the sum of all file lengths: what does not fit fails with [`io::ErrorKind::StorageFull`]. A write keeps the
    /// part that fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine.lock().capacity = bytes;
    }

    /// While it is cold, [`File::try_read_at`] finds nothing in memory.
    pub fn set_cold(&self, cold: bool) {
        self.machine.lock().cold = cold;
    }

    /// Flips the bits of `mask` in one byte of a file, as a bad disk does.
    pub fn flip_bits(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut machine = self.machine.lock();
        let id = machine.file_id(path)?;
        machine.file(id).contents.flip(offset, mask);
        Ok(())
    }

    /// Lets every read fail that touches these bytes of a file, as bad sectors do (`EIO`), until they are written over.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let mut machine = self.machine.lock();
        let id = machine.file_id(path)?;
        machine.file(id).unreadable.push(bytes);
        Ok(())
    }
}

impl Machine {
    fn restart(&mut self) {
        self.incarnation += 1;
        self.locks.clear();
        self.faults.clear();
        for file in self.files.values_mut() {
            file.handles = 0;
        }
        self.collect();
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn file(&mut self, id: u64) -> &mut OpenableFile {
        self.files.entry(id).or_default()
    }

    fn file_id(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Dir) => Err(error(io::ErrorKind::IsADirectory, path)),
            None => Err(error(io::ErrorKind::NotFound, path)),
        }
    }

    fn check_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Dir) => Ok(()),
            Some(Entry::File(_)) => Err(error(io::ErrorKind::NotADirectory, path)),
            None => Err(error(io::ErrorKind::NotFound, path)),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        self.check_dir(path.parent().ok_or_else(|| error(io::ErrorKind::InvalidInput, path))?)
    }

    /// Forgets files that nobody can reach any more.
    fn collect(&mut self) {
        let reachable = self.names.reachable_files();
        self.files.retain(|id, file| file.handles > 0 || reachable.contains(id));
    }

    fn used(&self) -> u64 {
        self.names.live_files().filter_map(|id| self.files.get(&id)).map(|file| file.contents.len()).sum()
    }

    /// How far a file of `len` bytes can grow towards `wanted`.
    fn room(&self, len: u64, wanted: u64) -> u64 {
        match self.capacity {
            Some(capacity) if wanted > len => wanted.min(len + capacity.saturating_sub(self.used())),
            _ => wanted,
        }
    }

    /// Runs a call that changes names or lengths. When the power fails during it, it has happened as far as the cache
    /// knows, and the crash will decide.
    fn mutate<T>(&mut self, op: FakeOp, call: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        match self.faults.decide(op, true) {
            Fate::Proceed => call(self),
            Fate::Vanish(error) => {
                let _ = call(self);
                Err(error)
            }
            Fate::Fail(error) => Err(error),
        }
    }

    fn observe(&mut self, op: FakeOp) -> io::Result<()> {
        match self.faults.decide(op, false) {
            Fate::Proceed => Ok(()),
            Fate::Vanish(error) | Fate::Fail(error) => Err(error),
        }
    }
}

impl Files for FakeFiles {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.machine.lock().mutate(FakeOp::Open, |machine| {
            for ancestor in path.ancestors() {
                if let Some(Entry::File(_)) = machine.names.get(ancestor) {
                    return Err(error(io::ErrorKind::NotADirectory, ancestor));
                }
            }
            machine.names.make_dir(path);
            Ok(())
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut machine = self.machine.lock();
        let id = match mode {
            OpenMode::CreateNew => machine.mutate(FakeOp::Open, |machine| {
                machine.check_parent(path)?;
                if machine.names.get(path).is_some() {
                    return Err(error(io::ErrorKind::AlreadyExists, path));
                }
                let id = machine.next_id();
                machine.names.link(path, id);
                Ok(id)
            })?,
            OpenMode::Read | OpenMode::ReadWrite => {
                machine.observe(FakeOp::Open)?;
                machine.file_id(path)?
            }
        };
        machine.file(id).handles += 1;
        Ok(Arc::new(FakeFile {
            machine: self.machine.clone(),
            incarnation: machine.incarnation,
            id,
            writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.lock().mutate(FakeOp::Rename, |machine| {
            let id = machine.file_id(from)?;
            machine.check_parent(to)?;
            if machine.names.get(to) == Some(Entry::Dir) {
                return Err(error(io::ErrorKind::IsADirectory, to));
            }
            machine.names.rename(from, to, id);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.lock().mutate(FakeOp::Remove, |machine| {
            machine.file_id(path)?;
            machine.names.unlink(path);
            Ok(())
        })
    }

    fn identity_at(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        let mut machine = self.machine.lock();
        machine.observe(FakeOp::Open)?;
        match machine.file_id(path) {
            Ok(id) => Ok(Some(FileIdentity(id.into()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut machine = self.machine.lock();
        machine.observe(FakeOp::Open)?;
        machine.check_dir(path)?;
        let entries = machine.names.children(path).filter_map(|(path, entry)| {
            let (len, is_dir) = match entry {
                Entry::Dir => (0, true),
                Entry::File(id) => (machine.files.get(&id).map_or(0, |file| file.contents.len()), false),
            };
            Some(DirEntry { name: path.file_name()?.to_str()?.to_owned(), len, is_dir })
        });
        Ok(entries.collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine.lock();
        match machine.faults.decide(FakeOp::SyncDir, true) {
            Fate::Proceed => {
                machine.check_dir(path)?;
                machine.names.sync(path);
                machine.collect();
                Ok(())
            }
            Fate::Vanish(error) | Fate::Fail(error) => Err(error),
        }
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        /// What an unbounded disk claims to have.
        const ROOMY: u64 = 1 << 40;
        let mut machine = self.machine.lock();
        machine.observe(FakeOp::Open)?;
        let all = machine.capacity.unwrap_or(ROOMY);
        Ok((all, all.saturating_sub(machine.used())))
    }

    fn try_lock(&self, path: &Path) -> io::Result<DirectoryLock> {
        let mut machine = self.machine.lock();
        machine.observe(FakeOp::Open)?;
        machine.check_parent(path)?;
        if machine.locks.contains_key(path) {
            return Err(error(io::ErrorKind::WouldBlock, path));
        }
        if machine.names.get(path).is_none() {
            let id = machine.next_id();
            machine.file(id);
            machine.names.link(path, id);
        }
        let token = machine.next_id();
        machine.locks.insert(path.to_owned(), token);
        let guard = LockGuard { machine: self.machine.clone(), path: path.to_owned(), token };
        let mut place = [0; 16];
        place[..8].copy_from_slice(&machine.boots.to_le_bytes());
        if let Some(Entry::File(id)) = machine.names.get(path) {
            place[8..].copy_from_slice(&id.to_le_bytes());
        }
        Ok(DirectoryLock { path: path.to_owned(), guard: Box::new(guard), place: Some(PlaceId(place)) })
    }
}

/// One open file of one incarnation.
struct FakeFile {
    machine: Arc<Mutex<Machine>>,
    incarnation: u64,
    id: u64,
    writable: bool,
}

impl FakeFile {
    fn alive(&self, machine: &Machine) -> io::Result<()> {
        if self.incarnation == machine.incarnation {
            Ok(())
        } else {
            Err(io::Error::other("the process that opened this file has crashed"))
        }
    }

    fn writable(&self, machine: &Machine) -> io::Result<()> {
        self.alive(machine)?;
        if self.writable {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened for reading"))
        }
    }
}

impl File for FakeFile {
    fn len(&self) -> io::Result<u64> {
        let mut machine = self.machine.lock();
        self.alive(&machine)?;
        machine.observe(FakeOp::Open)?;
        Ok(machine.file(self.id).contents.len())
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.machine.lock();
        self.writable(&machine)?;
        let (data, outcome) = match machine.faults.decide(FakeOp::Write, true) {
            Fate::Proceed => (data, Ok(())),
            Fate::Vanish(error) => (data, Err(error)),
            Fate::Fail(error) => (&data[..data.len() / 2], Err(error)),
        };
        let len = machine.file(self.id).contents.len();
        let end = offset + data.len() as u64;
        let fitting = machine.room(len, end);
        let kept = (data.len() as u64).saturating_sub(end - fitting) as usize;
        machine.file(self.id).write(offset, &data[..kept]);
        if kept < data.len() { outcome.and(Err(full())) } else { outcome }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.machine.lock();
        self.alive(&machine)?;
        match machine.faults.decide(FakeOp::Sync, true) {
            Fate::Proceed => {
                machine.file(self.id).contents.sync();
                Ok(())
            }
            Fate::Vanish(error) => Err(error),
            Fate::Fail(error) => {
                machine.file(self.id).contents.fail_sync();
                Err(error)
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut machine = self.machine.lock();
        self.writable(&machine)?;
        machine.mutate(FakeOp::Allocate, |machine| {
            let now = machine.file(self.id).contents.len();
            if machine.room(now, len) < len {
                return Err(full());
            }
            machine.file(self.id).contents.set_len(len.max(now));
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = self.machine.lock();
        self.writable(&machine)?;
        machine.mutate(FakeOp::SetLen, |machine| {
            let now = machine.file(self.id).contents.len();
            if machine.room(now, len) < len {
                return Err(full());
            }
            machine.file(self.id).contents.set_len(len);
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut machine = self.machine.lock();
        self.alive(&machine)?;
        machine.observe(FakeOp::Read)?;
        machine.file(self.id).read(offset, len).map(Bytes::from)
    }

    fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        if self.machine.lock().cold { Ok(None) } else { self.read_at(offset, len).map(Some) }
    }

    fn will_read(&self, _offset: u64, _len: u64) {}

    fn reads_are_announced(&self) {}

    fn status(&self) -> io::Result<FileStatus> {
        let mut machine = self.machine.lock();
        self.alive(&machine)?;
        machine.observe(FakeOp::Open)?;
        let removed = !machine.names.live_files().any(|id| id == self.id);
        let (len, identity) = (machine.file(self.id).contents.len(), FileIdentity(self.id.into()));
        Ok(FileStatus { len, removed, identity })
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.read_at(offset, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn next_data_at(&self, offset: u64) -> io::Result<Option<u64>> {
        // A disk may keep written zeros where there were holes: it may always say "here".
        Ok((offset < self.len()?).then_some(offset))
    }
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        let mut machine = self.machine.lock();
        if self.incarnation == machine.incarnation
            && let Some(file) = machine.files.get_mut(&self.id)
        {
            file.handles -= 1;
        }
    }
}

struct LockGuard {
    machine: Arc<Mutex<Machine>>,
    path: PathBuf,
    token: u64,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut machine = self.machine.lock();
        // After a crash somebody else may hold it.
        if machine.locks.get(&self.path) == Some(&self.token) {
            machine.locks.remove(&self.path);
        }
    }
}

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind}", path.display()))
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the fake disk's capacity is used up")
}

#[cfg(test)]
mod tests;
