//! A file's bytes as shared memory. The only `unsafe` code of this crate.
//!
//! Why the slices handed out are sound, although other bytes of the same file are written meanwhile:
//! - *They do not change.* The contract of `File::read_at` is that a caller asks only for ranges that are not written any
//!   more. A log is append-only; a range is read after the write that filled it returned.
//! - *They do not vanish.* A mapped page past the end of its file faults when touched. Files are cut only through
//!   [`ReadMap::set_len`], which refuses while a slice of any map of this handle is alive. A file that is cut has one handle,
//!   and data directories are locked, so nobody else cuts it; unlinking a mapped file keeps its bytes until the map goes.
//! - *They are not freed.* Each slice is a `Bytes` that owns a share of its map.
//!
//! What remains: a disk that cannot read a mapped page kills the process (SIGBUS), as does a person who cuts a data file
//! under a running server. The first is fail-stop by the operating system's hand; nothing is done about the second.

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use parking_lot::RwLock;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// The lazily made map of one file.
#[derive(Default)]
pub(super) struct ReadMap {
    state: RwLock<State>,
    /// Shared by every map that this handle has made and that somebody still uses.
    alive: Arc<()>,
}

#[derive(Default)]
struct State {
    current: Option<Bytes>,
    /// No map that may still be in use is longer.
    longest: u64,
}

struct Owner {
    map: Mmap,
    _alive: Arc<()>,
}

impl ReadMap {
    /// `[offset, offset + len)` if the map made earlier covers all of it.
    pub(super) fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        slice_of(self.state.read().current.as_ref()?, offset, len)
    }

    /// `[offset, offset + len)`, which must lie within the file now: from the map, remade when the file has outgrown it.
    pub(super) fn slice_of_file(&self, file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.state.write();
        // Somebody may have mapped it, or cut the file, while this thread waited.
        if let Some(bytes) = state.current.as_ref().and_then(|map| slice_of(map, offset, len)) {
            return Ok(bytes);
        }
        let file_len = file.metadata()?.len();
        let map_len = usize::try_from(file_len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: see the module's header. The map is as long as the file is now, and the file is not cut below that
        // while the lock is held or a share of `alive` is out.
        let map = unsafe { MmapOptions::new().len(map_len).map(file)? };
        let map = Bytes::from_owner(Owner { map, _alive: self.alive.clone() });
        let bytes = slice_of(&map, offset, len).ok_or(io::ErrorKind::UnexpectedEof)?;
        *state = State { current: Some(map), longest: state.longest.max(file_len) };
        Ok(bytes)
    }

    /// Cuts or extends the file. Refuses with [`io::ErrorKind::ResourceBusy`] to cut what somebody still uses.
    pub(super) fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let mut state = self.state.write();
        if len < state.longest {
            state.current = None;
            // New maps need the lock, so the count can only fall from here.
            if Arc::strong_count(&self.alive) > 1 {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "bytes read from the file are still in use"));
            }
            state.longest = 0;
        }
        file.set_len(len)
    }
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

fn slice_of(map: &Bytes, offset: u64, len: usize) -> Option<Bytes> {
    let from = usize::try_from(offset).ok()?;
    let to = from.checked_add(len)?;
    (to <= map.len()).then(|| map.slice(from..to))
}
