//! Opening a data folder: from its files to a state, and a journal that can be written on.

use super::folder::{self, Folder, StageError};
use super::frame::{self, BadFrame, BadFrameError, Scanned};
use super::header::{self, Header, Identity, Kind};
use super::{Journal, JournalEntry, create, snapshot};
use crate::config::ControllerConfig;
use crate::open_error::OpenError;
use crate::state::MetadataState;
use bytes::Bytes;
use gantry_proto::env::{DirectoryLock, Env, File, Files, OpenMode};
use gantry_proto::model::MetadataVersion;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How opening a data folder went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The version reached.
    pub version: MetadataVersion,
    /// Journal entries applied on top of the snapshot.
    pub replayed: u64,
    /// Bytes of an unfinished write that were cut off the journal's end. What they held was never answered.
    pub cut_bytes: u64,
}

/// See [`Journal::open`]. Changes nothing before everything has been read and found good.
pub(super) fn open(config: &ControllerConfig, env: &Env) -> Result<(Journal, MetadataState, Recovery), OpenError> {
    let (files, dir) = (&*env.files, config.dir.as_path());
    files.create_dir_all(dir).map_err(OpenError::io(dir, "make it"))?;
    let lock = lock(files, dir)?;
    let folder = Folder::list(files, dir).map_err(OpenError::io(dir, "list it"))?;
    // Names that a failed sync left in the cache only must not be built upon.
    files.sync_dir(dir).map_err(OpenError::io(dir, "sync it"))?;

    let snapshot = match folder.snapshots.last() {
        Some(version) => Some(read_snapshot(files, &dir.join(folder::snapshot_name(*version)))?),
        None => None,
    };
    let Some(&base) = folder.journals.last() else {
        if snapshot.is_some() {
            return Err(OpenError::inconsistent(dir, "there is a snapshot but no journal"));
        }
        return begin(config, env, lock);
    };
    let path = dir.join(folder::journal_name(base));
    let (header, file, bytes) = open_journal(files, &path, base)?;
    if snapshot.as_ref().is_some_and(|(identity, _)| *identity != header.identity) {
        return Err(OpenError::inconsistent(&path, "the journal belongs to another data folder than the snapshot"));
    }
    let mut state = snapshot.map(|(_, state)| state).unwrap_or_default();
    if state.version() < base {
        return Err(OpenError::inconsistent(&path, format!("the snapshot of version {} or later is missing", base.0)));
    }
    let scanned = frame::scan(&bytes, header::LEN).map_err(|bad| bad.into_open_error(&path))?;
    let replayed = replay(&mut state, base, &scanned, &path)?;

    // From here on the folder is known to be good.
    let cut_bytes = (bytes.len() - scanned.end) as u64;
    let last_frame = bytes[scanned.last_frame..scanned.end].to_vec();
    // A mapped file is not cut while its bytes are in use.
    drop(bytes);
    make_durable(&*file, &scanned, &last_frame, cut_bytes).map_err(OpenError::io(&path, "repair its end"))?;
    let recovery = Recovery { version: state.version(), replayed, cut_bytes };
    if cut_bytes > 0 {
        tracing::warn!(path = %path.display(), cut_bytes, "cut off the journal's end: a crash left it unfinished");
    }
    folder::remove_outdated(files, dir, base);
    let journal = journal(config, env, lock, header.identity, base, file, scanned.end as u64);
    Ok((journal, state, recovery))
}

fn lock(files: &dyn Files, dir: &Path) -> Result<DirectoryLock, OpenError> {
    let path = dir.join(folder::LOCK);
    files.try_lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path },
        _ => OpenError::io(&path, "lock it")(error),
    })
}

/// A new folder.
fn begin(
    config: &ControllerConfig,
    env: &Env,
    lock: DirectoryLock,
) -> Result<(Journal, MetadataState, Recovery), OpenError> {
    let mut identity = Identity::default();
    env.random.fill(&mut identity);
    let base = MetadataVersion(0);
    let file = create(&*env.files, &config.dir, identity, base).map_err(
        |(StageError::NotPublished(error) | StageError::Unclear(error))| {
            OpenError::io(&config.dir, "write a new journal into it")(error)
        },
    )?;
    let journal = journal(config, env, lock, identity, base, file, header::LEN as u64);
    Ok((journal, MetadataState::default(), Recovery::default()))
}

fn journal(
    config: &ControllerConfig,
    env: &Env,
    lock: DirectoryLock,
    identity: Identity,
    base: MetadataVersion,
    file: Arc<dyn File>,
    end: u64,
) -> Journal {
    Journal {
        files: env.files.clone(),
        dir: config.dir.clone(),
        identity,
        base,
        file,
        end,
        bytes_max: config.journal_bytes_max,
        roll_at: config.journal_bytes_max,
        broken: None,
        _lock: lock,
    }
}

fn read_snapshot(files: &dyn Files, path: &Path) -> Result<(Identity, MetadataState), OpenError> {
    let file = files.open(path, OpenMode::Read).map_err(OpenError::io(path, "open it"))?;
    let bytes = read_all(&*file).map_err(OpenError::io(path, "read it"))?;
    let (header, state) = snapshot::decode(&bytes, path)?;
    Ok((header.identity, state))
}

fn open_journal(
    files: &dyn Files,
    path: &Path,
    base: MetadataVersion,
) -> Result<(Header, Arc<dyn File>, Bytes), OpenError> {
    let file = files.open(path, OpenMode::ReadWrite).map_err(OpenError::io(path, "open it"))?;
    let bytes = read_all(&*file).map_err(OpenError::io(path, "read it"))?;
    let header = Header::decode(Kind::Journal, &bytes, path)?;
    if header.version != base {
        return Err(OpenError::damaged(path, 0, "the journal does not begin at the version in its name"));
    }
    Ok((header, file, bytes))
}

fn read_all(file: &dyn File) -> io::Result<Bytes> {
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    file.read_at(0, len)
}

/// Applies the entries that the snapshot does not hold yet, and says how many they were.
fn replay(state: &mut MetadataState, base: MetadataVersion, scanned: &Scanned, path: &Path) -> Result<u64, OpenError> {
    let damaged = |what: String| OpenError::damaged(path, scanned.last_frame as u64, what);
    let (from, mut expected) = (state.version(), base);
    for JournalEntry { version, at, command } in &scanned.entries {
        expected.0 += 1;
        if *version != expected {
            return Err(damaged(format!("the journal goes on with version {} instead of {}", version.0, expected.0)));
        }
        if *version > from {
            // Only what was accepted is ever written, and the same state accepts it again.
            state.apply(command, *at).map_err(|refusal| damaged(format!("version {}: {refusal}", version.0)))?;
        }
    }
    if expected < from {
        return Err(damaged(format!("the journal ends at version {}, before its snapshot {}", expected.0, from.0)));
    }
    Ok(state.version().0 - from.0)
}

/// Cuts what a crash tore, and makes sure of the last frame: a process whose sync failed may have left it in the cache,
/// where it can be read but is never written back. Only writing it anew makes the cache dirty again.
fn make_durable(file: &dyn File, scanned: &Scanned, last_frame: &[u8], cut_bytes: u64) -> io::Result<()> {
    if cut_bytes > 0 {
        file.set_len(scanned.end as u64)?;
    }
    file.write_all_at(last_frame, scanned.last_frame as u64)?;
    file.sync_data()
}

impl BadFrame {
    fn into_open_error(self, path: &Path) -> OpenError {
        let offset = self.offset as u64;
        match self.error {
            BadFrameError::Undecodable(error) => OpenError::undecodable(path, offset, error),
            BadFrameError::FollowedBy { what, next } => {
                OpenError::damaged(path, offset, format!("{what}, and a whole frame follows at byte {next}"))
            }
        }
    }
}
