//! A member's folder as it is, without a controller: for who looks at one that may be in use, or that no controller opens.
//!
//! Nothing is written, locked or made: the database is opened on a copy of its bytes in memory, where it may repair what a
//! crash left. What one value says does not depend on the others, so what is not whole hides nothing else.

use crate::codec::{CodecError, unseal};
use crate::open_error::OpenError;
pub use crate::raft::FolderMetadata;
pub use crate::raft::Slots as Acknowledged;
use crate::raft::{FILE, read_acknowledged, read_values};
use gantry_proto::env::{Files, OpenMode};
use gantry_proto::wire::controller::v1 as wire;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// One value of the folder.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredValue {
    /// What it is: `folder`, `vote`, `commit`, `committed`, `purged`, `snapshot`, or `log` and the entry's index.
    pub name: String,
    /// As it lies there, checksum and format in front.
    pub bytes: Vec<u8>,
    /// What it says, or why it does not.
    pub content: Result<StoredContent, Unreadable>,
}

/// What a value says.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredContent {
    /// Whose folder it is.
    Folder(wire::ControllerFolder),
    Vote(wire::Vote),
    /// How far the log is known to be committed, or was removed.
    LogId(wire::LogId),
    Snapshot {
        /// What it stands for, with the members at that time.
        meta: wire::SnapshotMeta,
        state: Box<Result<wire::MetadataState, Unreadable>>,
    },
    /// An entry of the log: commands, or a change of members.
    Entry(wire::LogEntry),
    /// Which commit of the database this is.
    Commit(wire::CommitNumber),
    /// A value that this version does not know.
    Other,
}

/// Why a value does not say anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is whole.
    #[error("written by a newer gantry: {0}")]
    Newer(String),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl From<CodecError> for Unreadable {
    fn from(error: CodecError) -> Unreadable {
        match error {
            CodecError::Newer(what) => Unreadable::Newer(what),
            CodecError::Damaged(what) => Unreadable::Damaged(what.to_owned()),
        }
    }
}

/// Reads all values of a member's folder, or of its file, by name; entries of the log last, by index.
pub fn inspect(files: &dyn Files, path: &Path) -> Result<Vec<StoredValue>, OpenError> {
    let values = stored(files, &file(path))?;
    Ok(values.into_iter().map(|(name, bytes)| StoredValue { content: content(&name, &bytes), name, bytes }).collect())
}

/// The metadata that a member's folder holds, with all that its log says.
pub fn metadata_in(files: &dyn Files, dir: &Path) -> Result<FolderMetadata, OpenError> {
    let path = file(dir);
    FolderMetadata::of(&stored(files, &path)?).map_err(|error| OpenError::undecodable(&path, error))
}

fn file(path: &Path) -> PathBuf {
    if path.extension().is_some() { path.to_owned() } else { path.join(FILE) }
}

fn stored(files: &dyn Files, path: &Path) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
    let file = files.open(path, OpenMode::Read).map_err(OpenError::io(path, "open it"))?;
    let len = file.len().map_err(OpenError::io(path, "read it"))?;
    let len = usize::try_from(len).map_err(|_| OpenError::damaged(path, "it is too large to be read"))?;
    let bytes = file.read_at(0, len).map_err(OpenError::io(path, "read it"))?.to_vec();
    let read = catch_unwind(AssertUnwindSafe(|| read_values(bytes)));
    let values = read.map_err(|_| OpenError::damaged(path, "the database cannot be read"))?;
    values.map_err(|error| OpenError::damaged(path, error))
}

/// What the file `acknowledged` in a member's folder says: which commit of the database was the last that was acknowledged.
/// `None`: there is no such file. Of a folder in use, to be read before the database, which is ahead of it.
pub fn inspect_acknowledged(files: &dyn Files, dir: &Path) -> Result<Option<Acknowledged>, OpenError> {
    read_acknowledged(files, dir)
}

/// Who looks need not know it. As long as a secret, so that the rest can still be read.
fn hide(secret: &mut bytes::Bytes) {
    *secret = bytes::Bytes::from_static(b"(hidden)(hidden)(hidden)(hidden)");
}

fn content(name: &str, bytes: &[u8]) -> Result<StoredContent, Unreadable> {
    Ok(match name {
        "folder" => StoredContent::Folder(unseal(bytes)?),
        "vote" => StoredContent::Vote(unseal(bytes)?),
        "commit" => StoredContent::Commit(unseal(bytes)?),
        "committed" | "purged" => StoredContent::LogId(unseal(bytes)?),
        "snapshot" => {
            let wire::StoredSnapshot { meta, state } = unseal(bytes)?;
            let mut state = unseal(&state).map_err(Unreadable::from);
            if let Ok(wire::MetadataState { kept_groups, .. }) = &mut state {
                kept_groups.iter_mut().for_each(|kept| hide(&mut kept.secret));
            }
            StoredContent::Snapshot { meta: meta.unwrap_or_default(), state: Box::new(state) }
        }
        entry if entry.starts_with("log ") => {
            let mut entry: wire::LogEntry = unseal(bytes)?;
            if let Some(wire::log_entry::Payload::Commands(held)) = &mut entry.payload {
                for command in &mut held.commands {
                    if let Some(wire::metadata_command::Command::JoinStore(join)) = &mut command.command {
                        hide(&mut join.secret);
                    }
                }
            }
            StoredContent::Entry(entry)
        }
        _ => StoredContent::Other,
    })
}

impl fmt::Display for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.content {
            Ok(content) => content.fmt(f),
            Err(unreadable) => unreadable.fmt(f),
        }
    }
}

impl fmt::Display for StoredContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredContent::Folder(folder) => write!(f, "{folder:?}"),
            StoredContent::Vote(vote) => write!(f, "{vote:?}"),
            StoredContent::LogId(id) => write!(f, "{id:?}"),
            StoredContent::Commit(commit) => write!(f, "{commit:?}"),
            StoredContent::Snapshot { meta, state } => match &**state {
                Ok(state) => write!(f, "{meta:?} {state:?}"),
                Err(why) => write!(f, "{meta:?} {why}"),
            },
            StoredContent::Entry(entry) => write!(f, "{entry:?}"),
            StoredContent::Other => f.write_str("not known to this version"),
        }
    }
}
