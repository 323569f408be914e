use super::Machine;
use crate::note;
use bytes::Bytes;
use gantry_proto::env::{DirEntry, DirectoryLock, File, FileIdentity, FileStatus, Files, OpenMode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Calls that a bad disk only pretends to make. For showing that the checker would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLies {
    /// `sync_data` returns success and makes nothing durable.
    pub sync_data: bool,
    /// `sync_dir` does.
    pub sync_dir: bool,
}

/// A machine's disk: counts changes until the power goes off, lies if it is told to, and writes failures to the trace.
pub struct SimFiles {
    machine: Arc<Machine>,
}

impl SimFiles {
    pub(super) fn new(machine: Arc<Machine>) -> SimFiles {
        SimFiles { machine }
    }
}

impl Machine {
    /// Before every call that changes the disk.
    fn changing(&self) {
        let mut cut = self.cut_after.lock();
        match &mut *cut {
            Some(0) => {
                *cut = None;
                // The call that is about to be made is the one that is interrupted.
                self.disk.power_off_after(0);
                self.off.store(true, Ordering::SeqCst);
                note!(self.trace, &self.name, "FAULT the power goes off in the middle of a write");
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn told<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
            && !self.is_off()
        {
            note!(self.trace, &self.name, "disk: {what} failed: {error}");
        }
        result
    }
}

impl Files for SimFiles {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("creating a directory", self.machine.disk.create_dir_all(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode == OpenMode::CreateNew {
            self.machine.changing();
        }
        let file = self.machine.told("opening", self.machine.disk.open(path, mode))?;
        Ok(Arc::new(SimFile { file, machine: self.machine.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("renaming", self.machine.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("removing", self.machine.disk.remove(path))
    }

    fn identity_at(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        self.machine.disk.identity_at(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.machine.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.machine.changing();
        if self.machine.lies.sync_dir && !self.machine.is_off() {
            return Ok(());
        }
        self.machine.told("syncing a directory", self.machine.disk.sync_dir(path))
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.machine.disk.space(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<DirectoryLock> {
        self.machine.told("locking", self.machine.disk.try_lock(path))
    }
}

struct SimFile {
    file: Arc<dyn File>,
    machine: Arc<Machine>,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("writing", self.file.write_all_at(data, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.machine.changing();
        if self.machine.lies.sync_data && !self.machine.is_off() {
            return Ok(());
        }
        self.machine.told("syncing", self.file.sync_data())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("allocating", self.file.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.machine.changing();
        self.machine.told("setting a length", self.file.set_len(len))
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.machine.told("reading", self.file.read_at(offset, len))
    }

    fn try_read_at(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        self.machine.told("reading", self.file.try_read_at(offset, len))
    }

    fn will_read(&self, offset: u64, len: u64) {
        self.file.will_read(offset, len);
    }

    fn reads_are_announced(&self) {
        self.file.reads_are_announced();
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.file.status()
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.machine.told("reading", self.file.read_into(offset, buffer))
    }

    fn next_data_at(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data_at(offset)
    }
}
