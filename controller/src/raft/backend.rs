//! The database's file: redb over the [`File`] that it is given.

use gantry_proto::env::File;
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open file as redb sees it. The folder's lock keeps others out, so its own locks are not used.
///
/// A write or a sync that failed is the last one: what the disk holds is then unknown, and a sync that works later would
/// promise what it cannot.
pub(super) struct FileBackend {
    file: Arc<dyn File>,
    failed: AtomicBool,
}

impl FileBackend {
    pub(super) fn new(file: Arc<dyn File>) -> FileBackend {
        FileBackend { file, failed: AtomicBool::new(false) }
    }

    fn change(&self, change: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write or sync failed"));
        }
        change(&*self.file).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let wanted = out.len();
        match self.file.read_into(offset, out)? {
            read if read == wanted => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|file| file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| file.write_all_at(data, offset))
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend").finish_non_exhaustive()
    }
}
