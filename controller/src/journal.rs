//! The durable log of commands, and the snapshots that keep it short.
//!
//! Owned by the committer, the only one that calls it. A data folder holds
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | locked while a controller runs |
//! | `journal-<base>` | the commands after version `base`; normally one such file |
//! | `snapshot-<version>` | the whole state at that version; none before the first |
//! | `*.tmp` | being written, or left by a crash: removed on open |
//!
//! What must always hold:
//! - A frame is written only after every frame before it was synced. So a crash can tear the last frame and no other, and
//!   a bad frame with a whole one behind it is damage, not a crash.
//! - The newest journal's base has a snapshot of that version or a later one (or is 0): an old journal is removed after
//!   both were durable.
//! - After a sync that failed nothing more is written: what the disk holds is unknown until the folder is opened again.

mod folder;
mod frame;
mod header;
mod recovery;
mod snapshot;

pub use recovery::Recovery;

use crate::config::ControllerConfig;
use crate::open_error::OpenError;
use crate::state::MetadataState;
use folder::StageError;
use gantry_proto::env::{DirectoryLock, Env, File, Files};
use gantry_proto::model::{MetadataCommand, MetadataVersion, Timestamp};
use header::{Header, Identity};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The journal of one open data folder.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    dir: PathBuf,
    identity: Identity,
    /// The version before the first entry of `file`.
    base: MetadataVersion,
    file: Arc<dyn File>,
    /// Where the next frame goes; everything before it is synced.
    end: u64,
    bytes_max: u64,
    /// Past this length a snapshot is due. Above `bytes_max` after a snapshot that failed.
    roll_at: u64,
    /// Why nothing can be written any more.
    broken: Option<String>,
    _lock: DirectoryLock,
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JournalEntry {
    /// The version that it made.
    pub(crate) version: MetadataVersion,
    /// The time it was carried out with.
    pub(crate) at: Timestamp,
    /// What was asked.
    pub(crate) command: MetadataCommand,
}

/// Why entries were not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    /// Nothing of them is on the disk.
    #[error("{0}")]
    NotWritten(String),
    /// They may or may not be there when the folder is opened again.
    #[error("{0}")]
    Unknown(String),
}

impl Journal {
    /// Opens or makes the data folder: the journal ready for writing, the state it leads to, and how that went.
    pub(crate) fn open(config: &ControllerConfig, env: &Env) -> Result<(Journal, MetadataState, Recovery), OpenError> {
        recovery::open(config, env)
    }

    /// Makes entries durable: all of them or, after a crash, none.
    pub(crate) fn append(&mut self, entries: &[JournalEntry]) -> Result<(), AppendError> {
        if let Some(reason) = &self.broken {
            return Err(AppendError::NotWritten(reason.clone()));
        }
        let frame = frame::encode(entries);
        if let Err(error) = self.file.write_all_at(&frame, self.end) {
            // Part of the frame may be there. It must be gone before another one takes its place, because of the frames
            // that could then be read behind a shorter one.
            return match self.file.set_len(self.end).and_then(|()| self.file.sync_data()) {
                Ok(()) => Err(AppendError::NotWritten(format!("the journal cannot be written: {error}"))),
                Err(cut) => {
                    tracing::error!(%error, "a write to the journal failed");
                    Err(AppendError::Unknown(self.fail("failed write could not be undone", &cut)))
                }
            };
        }
        if let Err(error) = self.file.sync_data() {
            return Err(AppendError::Unknown(self.fail("sync failed", &error)));
        }
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Why nothing can be written any more, if so.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Replaces the journal by a snapshot of `state`, which must be the state after its last entry, if it has grown too
    /// long. A failure is logged and tried again later; only one that leaves the folder unclear stops the journal.
    pub(crate) fn roll_if_due(&mut self, state: &MetadataState) {
        let nothing_new = state.version() == self.base;
        if nothing_new || self.end <= self.roll_at || self.broken.is_some() {
            return;
        }
        match self.roll(state) {
            Ok(()) => self.roll_at = self.bytes_max,
            Err(StageError::NotPublished(error)) => {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot write a snapshot of the metadata; trying again later");
                self.roll_at = self.end + self.bytes_max / 4;
            }
            Err(StageError::Unclear(error)) => {
                self.fail("replacement failed", &error);
            }
        }
    }

    /// Snapshot, then new journal, then the old ones go. A crash between any two steps leaves a folder that opens to the
    /// same state.
    fn roll(&mut self, state: &MetadataState) -> Result<(), StageError> {
        let version = state.version();
        let bytes = snapshot::encode(self.identity, state);
        // With the old journal in place, a snapshot whose name is not durable yet does no harm.
        folder::write(&*self.files, &self.dir, &folder::snapshot_name(version), &bytes).map_err(
            |(StageError::NotPublished(error) | StageError::Unclear(error))| StageError::NotPublished(error),
        )?;
        let file = create(&*self.files, &self.dir, self.identity, version)?;
        (self.base, self.file, self.end) = (version, file, header::LEN as u64);
        folder::remove_outdated(&*self.files, &self.dir, version);
        Ok(())
    }

    fn fail(&mut self, what: &str, error: &io::Error) -> String {
        let reason = format!("the journal's {what}: {error}; restart the controller to go on");
        tracing::error!(dir = %self.dir.display(), reason, "metadata cannot be changed any more");
        self.broken = Some(reason.clone());
        reason
    }
}

/// Makes an empty journal durable under its name.
fn create(
    files: &dyn Files,
    dir: &Path,
    identity: Identity,
    base: MetadataVersion,
) -> Result<Arc<dyn File>, StageError> {
    let header = Header { kind: header::Kind::Journal, identity, version: base };
    folder::write(files, dir, &folder::journal_name(base), &header.encode())
}

#[cfg(test)]
mod tests;
