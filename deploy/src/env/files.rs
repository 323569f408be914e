//! [`SystemFiles`]: the file system contract over `std::fs`.
//!
//! Reads are positioned reads into memory of their own, never maps: a disk that cannot read, or a file that was cut, is an
//! error value and not the end of the process. What may wait for the disk and what must not are two calls.

use bytes::Bytes;
use gantry_proto::env::{DirEntry, DirectoryLock, File, FileIdentity, FileStatus, Files, OpenMode};
use gantry_proto::model::PlaceId;
use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs;
use std::io;
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

/// The operating system's file system.
pub struct SystemFiles;

impl Files for SystemFiles {
    /// Durable on return, unlike the other calls: a directory lost in a crash would take every synced file with it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !is_dir(ancestor)).collect();
        fs::create_dir_all(path).map_err(|error| naming(path, error))?;
        for made in missing.into_iter().rev() {
            self.sync_dir(parent_of(made))?;
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        let file = options.open(path).map_err(|error| naming(path, error))?;
        Ok(Arc::new(SystemFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| naming(from, error))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|error| naming(path, error))
    }

    fn identity_at(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(identity_of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(naming(path, error)),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| naming(path, error))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => entries.push(DirEntry { name, len: metadata.len(), is_dir: metadata.is_dir() }),
                // Removed since the listing began.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(naming(&entry.path(), error)),
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| naming(path, error))
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(path).map_err(|error| naming(path, error.into()))?;
        let (all, available) = without_reserved(stat.f_blocks, stat.f_bfree, stat.f_bavail);
        Ok((all.saturating_mul(stat.f_frsize), available.saturating_mul(stat.f_frsize)))
    }

    fn try_lock(&self, path: &Path) -> io::Result<DirectoryLock> {
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(|error| naming(path, error))?;
        match file.try_lock() {
            Ok(()) => {
                let place = place_of(&file);
                Ok(DirectoryLock { path: path.to_owned(), guard: Box::new(file), place })
            }
            Err(fs::TryLockError::WouldBlock) => {
                Err(naming(path, io::Error::new(io::ErrorKind::WouldBlock, "another process holds the lock")))
            }
            Err(fs::TryLockError::Error(error)) => Err(naming(path, error)),
        }
    }
}

/// Which file this is, while this machine runs: the machine's start, the file system and the file's number in it.
fn place_of(file: &fs::File) -> Option<PlaceId> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).ok()?;
    let meta = file.metadata().ok()?;
    Some(PlaceId((boot ^ identity_of(&meta).0).to_le_bytes()))
}

/// The file system and the file's number in it.
fn identity_of(metadata: &fs::Metadata) -> FileIdentity {
    FileIdentity(u128::from(metadata.dev()) << 64 | u128::from(metadata.ino()))
}

/// Blocks that (all, remain available), without those that are kept back for root, of a file system with that many blocks
/// (all, free, available): they are not ours, and neither used nor free. `df` counts the same way.
fn without_reserved(blocks: u64, free: u64, available: u64) -> (u64, u64) {
    (blocks.saturating_sub(free).saturating_add(available), available)
}

struct SystemFile {
    file: fs::File,
}

impl File for SystemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset).map_err(no_room)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(no_room)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros_to(len).map_err(no_room),
                Err(error) => return Err(no_room(error.into())),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(no_room)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        let held = self.read_into(offset, &mut buffer)?;
        buffer.truncate(held);
        Ok(buffer.into())
    }

    fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; len];
        let mut held = 0;
        while held < len {
            let mut rest = [IoSliceMut::new(&mut buffer[held..])];
            let Some(at) = readable_from(offset, held) else { break };
            match rustix::io::preadv2(&self.file, &mut rest, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                // Less than all: what follows is not in memory, or the file ends. The next turn tells.
                Ok(count) => held += count,
                Err(Errno::INTR) => {}
                // Not in memory; or this file system (or kernel) cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        buffer.truncate(held);
        Ok(Some(buffer.into()))
    }

    fn will_read(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            // An advice: where nobody takes it, the read itself waits.
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), Advice::WillNeed);
        }
    }

    fn reads_are_announced(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::Random);
    }

    fn status(&self) -> io::Result<FileStatus> {
        let metadata = self.file.metadata()?;
        Ok(FileStatus { len: metadata.len(), removed: metadata.nlink() == 0, identity: identity_of(&metadata) })
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut held = 0;
        while held < buffer.len() {
            let Some(at) = readable_from(offset, held) else { break };
            match self.file.read_at(&mut buffer[held..], at) {
                Ok(0) => break,
                Ok(count) => held += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    fn next_data_at(&self, offset: u64) -> io::Result<Option<u64>> {
        // Blocks that were reserved and never written count as data while pages of them are in memory, and reading what lies
        // in front of them brings pages in: a look at the end of a segment would read all of it, and never end early.
        let _ = rustix::fs::fadvise(&self.file, offset, None, Advice::DontNeed);
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(position) => Ok(Some(position)),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => Ok(None),
            // This file system does not know its holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((offset < self.len()?).then_some(offset)),
            Err(error) => Err(error.into()),
        }
    }
}

impl SystemFile {
    /// Where a file system cannot reserve blocks, zeros reserve them.
    fn write_zeros_to(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = self.len()?;
        while at < len {
            let now = zeros.len().min((len - at) as usize);
            self.file.write_all_at(&zeros[..now], at)?;
            at += now as u64;
        }
        Ok(())
    }
}

/// Where reading goes on; nothing lies where no file can reach.
fn readable_from(offset: u64, held: usize) -> Option<u64> {
    offset.checked_add(held as u64).filter(|at| i64::try_from(*at).is_ok())
}

fn is_dir(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_dir()
}

/// The directory that holds `path`'s name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// A used-up quota is a full disk to everybody who asks.
fn no_room(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::QuotaExceeded { io::Error::new(io::ErrorKind::StorageFull, error) } else { error }
}

fn naming(path: &Path, error: io::Error) -> io::Error {
    let advice = too_many_files(&error).map_or(String::new(), |advice| format!("; {advice}"));
    io::Error::new(error.kind(), format!("{}: {error}{advice}", path.display()))
}

/// What helps if no further file can be opened.
pub(crate) fn too_many_files(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => Some(
            "raise the limit of open files of this process (ulimit -n, LimitNOFILE= of systemd) and start it again",
        ),
        Some(Errno::NFILE) => Some("raise the limit of open files of this system (sysctl fs.file-max)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
