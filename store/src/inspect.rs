//! Reading a store's files without opening the store: for who looks at a folder that may be in use, or broken. Nothing here
//! writes, locks or creates anything.
//!
//! Each reader takes one file; [`verify_store`] reads a whole folder and compares its files with one another. Memory is
//! bounded by a chunk of a segment and by what a queue costs, however long the log is.

mod checkpoint;
mod index;
mod own_files;
mod segment;
mod verify;

pub use checkpoint::{CheckpointFacts, GenerationFacts, ProgressFacts, QueueFacts, read_checkpoints};
pub use index::{IndexContents, IndexEntryAt, IndexFile, IndexFileError, IndexRun};
pub use own_files::{IdentityCopy, IdentityFacts, PositionsFacts, PositionsSlot, read_identity, read_positions};
pub use segment::{
    BatchInfo, Delivery, Ending, LetterOrigin, MessageInfo, RecordContent, RecordInfo, Seen, SegmentFacts, SegmentFile,
    segment_paths,
};
pub use verify::{Finding, Severity, Verified, verify_store};

use std::io;
use std::path::PathBuf;

/// Why a file or a folder cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The system does not give it.
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// It is something else.
    #[error("{path} is not {expected}: {cause}")]
    Other {
        path: PathBuf,
        /// What was asked for.
        expected: &'static str,
        cause: String,
    },
    /// Its checksum does not match.
    #[error("{0}")]
    Damaged(String),
    /// It is of a later version of this program.
    #[error("{path}: {cause}. Look at it with the version of Gantry that wrote it, or a later one")]
    Newer { path: PathBuf, cause: String },
}

impl InspectError {
    /// Whether the path itself is at fault: nothing is there, or something else.
    pub fn is_wrong_path(&self) -> bool {
        match self {
            InspectError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            InspectError::Other { .. } => true,
            InspectError::Newer { .. } | InspectError::Damaged(_) => false,
        }
    }
}

fn io_error(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> InspectError {
    let path = path.into();
    move |source| InspectError::Io { action, path, source }
}
