//! The file system as the store and the controller need it.

use crate::model::PlaceId;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Files::open`] treats a missing or an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist and is only read.
    Read,
    /// The file must exist.
    ReadWrite,
    /// The file must not exist yet.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name without its directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// True for a directory.
    pub is_dir: bool,
}

/// Which file this is, whatever its name: the same for each of its handles, and for no other file that exists now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity(pub u128);

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Length in bytes.
    pub len: u64,
    /// It has no name any more: it ends with the process.
    pub removed: bool,
    /// Which one it is.
    pub identity: FileIdentity,
}

/// A file system. Calls block; callers keep them off the paths where that matters.
///
/// Nothing is durable before [`File::sync_data`] (contents) or [`Files::sync_dir`] (names) returned.
pub trait Files: Send + Sync + 'static {
    /// Creates a directory and its parents. The one change of names that is durable on return.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Replaces `to` by `from` atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Which file has the name `path` now. `None`: there is none.
    fn identity_at(&self, path: &Path) -> io::Result<Option<FileIdentity>>;
    /// What a directory holds, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that (all, remain available) on the file system that holds `path`, without what is kept back from this process.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
    /// Takes the exclusive lock on the file `path`, creating it when missing. [`io::ErrorKind::WouldBlock`]: somebody
    /// else holds it. The lock ends when the value is dropped, or with the process.
    fn try_lock(&self, path: &Path) -> io::Result<DirectoryLock>;
}

/// An open file. Reads and writes carry their position, so a file can be shared.
pub trait File: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all earlier writes of this file durable. After an error nothing is known about what reached the disk.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves blocks for the first `len` bytes and makes the file that long. [`io::ErrorKind::StorageFull`] when there
    /// is no room; the file is then unchanged or longer, never damaged.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts the file (or extends it with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The bytes in `[offset, offset + len)`, cut at the end of the file. Waits for the disk if it must.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
    /// The same without waiting for the disk: `None` if not all of it is in memory (or if nobody can tell).
    fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>>;
    /// Tells the system that these bytes are going to be read. An advice: nothing waits, and nothing fails.
    fn will_read(&self, offset: u64, len: u64);
    /// Tells the system to read no more than it is asked for: whoever reads here says itself what comes next. An advice.
    fn reads_are_announced(&self);
    /// Length and standing of the file, as they are now.
    fn status(&self) -> io::Result<FileStatus>;
    /// Copies what follows `offset` into `buffer` and says how much that was: less than the buffer only at the end of the
    /// file. For reading a file through once, without keeping it in memory.
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// The first position from `offset` on that may hold anything but zeros. `None`: nothing was ever written there.
    fn next_data_at(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// The disk answered that it cannot give these bytes (a bad sector), which other bytes of the file need not share. Other
/// errors of a read are not about the bytes.
pub fn is_unreadable(error: &io::Error) -> bool {
    // As Linux numbers them: what a disk that fails to read comes to, through the layers below a file system.
    const EIO: i32 = 5;
    const ENODATA: i32 = 61;
    const EILSEQ: i32 = 84;
    matches!(error.raw_os_error(), Some(EIO | ENODATA | EILSEQ))
}

/// Makes durable what `range` of a file holds, whoever wrote it. To be called for everything that a process finds and is
/// going to count on, if it does not know that it was flushed.
///
/// A flush alone is not enough. When a flush fails the system takes the pages for written: they are shown to every reader,
/// the next process among them, are not on disk, and later flushes pass them over. So they are written once more, as they
/// are. (Found in PostgreSQL in 2018: <https://wiki.postgresql.org/wiki/Fsync_Errors>.)
pub fn make_durable(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut position = range.start;
    let mut buffer = vec![0; CHUNK.min(range.end.saturating_sub(position)) as usize];
    while position < range.end {
        let wanted = CHUNK.min(range.end - position) as usize;
        let held = file.read_into(position, &mut buffer[..wanted])?;
        if held == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(&buffer[..held], position)?;
        position += held as u64;
    }
    file.sync_data()
}

/// Holds a lock until dropped.
pub struct DirectoryLock {
    /// Which file is locked.
    pub path: PathBuf,
    /// Whatever keeps the lock.
    pub guard: Box<dyn Send + Sync>,
    /// The same for every lock on this very file while this machine runs, and for no other: not for a copy of the file, nor
    /// after a restart of the machine. `None`: that is not known here.
    pub place: Option<PlaceId>,
}
