//! [`SystemFiles`]: the file system contract over `std::fs`.
//!
//! Reads follow one rule: **a file of at least [`MAPPED_BYTES_MIN`] is read through one memory map of the whole file,
//! a smaller one by `pread`**. Log segments are preallocated to their final size, so each is mapped once and every read is
//! a slice without a system call or a copy; checkpoints, manifests and journals are small and are read once. A file
//! that has outgrown its map is mapped again; slices of the old map stay right, because they keep it alive.

use super::read_map::ReadMap;
use bytes::Bytes;
use gantry_proto::env::{DirEntry, DirectoryLock, File, Files, OpenMode};
use gantry_proto::model::PlaceId;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

/// From this length on a file is read through a memory map.
pub const MAPPED_BYTES_MIN: u64 = 1 << 20;

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
        Ok(Arc::new(SystemFile { file, map: ReadMap::default() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| naming(from, error))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|error| naming(path, error))
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
    let number = u128::from(meta.dev()) << 64 | u128::from(meta.ino());
    Some(PlaceId((boot ^ number).to_le_bytes()))
}

/// Blocks that (all, remain available), without those that are kept back for root, of a file system with that many blocks
/// (all, free, available): they are not ours, and neither used nor free. `df` counts the same way.
fn without_reserved(blocks: u64, free: u64, available: u64) -> (u64, u64) {
    (blocks.saturating_sub(free).saturating_add(available), available)
}

struct SystemFile {
    file: fs::File,
    map: ReadMap,
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

    /// [`io::ErrorKind::ResourceBusy`] when the file would become shorter while bytes read through a map are still in
    /// use: their memory would vanish under them.
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.map.set_len(&self.file, len).map_err(no_room)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Some(bytes) = self.map.slice(offset, len) {
            return Ok(bytes);
        }
        let file_len = self.len()?;
        let end = file_len.min(offset.saturating_add(len as u64));
        if end <= offset {
            return Ok(Bytes::new());
        }
        let len = (end - offset) as usize;
        if file_len >= MAPPED_BYTES_MIN {
            return self.map.slice_of_file(&self.file, offset, len);
        }
        self.read_exact(offset, len)
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.len()?.min(offset.saturating_add(buffer.len() as u64));
        let len = end.saturating_sub(offset) as usize;
        self.file.read_exact_at(&mut buffer[..len], offset)?;
        Ok(len)
    }

    fn next_data_at(&self, offset: u64) -> io::Result<Option<u64>> {
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
    fn read_exact(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

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
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
