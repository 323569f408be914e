//! Why a log does not open.

use crate::commit_log::damage::DamageError;
use crate::commit_log::positions::PositionsError;
use crate::commit_log::record::RecordError;
use gantry_proto::model::LogOffset;
use std::io;
use std::path::PathBuf;

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogOpenError {
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Positions(#[from] PositionsError),
    #[error(transparent)]
    Damage(#[from] DamageError),
    #[error(
        "{0} is missing, which says how far the log was written: nobody can tell whether its end is there. Put the file \
         back, or start once with store.accept_missing_log = true to go on with what the log itself shows. Nothing was changed"
    )]
    NoPositions(PathBuf),
    #[error("{path} is not a segment of this log: {cause}. Nothing was changed")]
    Segment { path: PathBuf, cause: String },
    #[error(
        "{path} holds at byte {at} (log offset {log_offset}) a whole record, but {cause}. Start the version of Gantry that \
         wrote it, or a later one; nothing was changed"
    )]
    Newer { path: PathBuf, at: u64, log_offset: LogOffset, cause: RecordError },
    #[error(
        "the record at byte {at} of {path} (log offset {log_offset}) cannot be applied: {cause}. This should not be \
         possible: please report it. Nothing was changed"
    )]
    Inapplicable { path: PathBuf, at: u64, log_offset: LogOffset, cause: RecordError },
    #[error(
        "a part of the log is missing, from log offset {from} to {to}: {what}. The log was on this disk as a whole once. Put \
         the missing files back; or start once with store.accept_missing_log = true to go on without what is missing: its \
         messages are lost then. Nothing was changed"
    )]
    Missing { what: String, from: LogOffset, to: LogOffset },
    #[error(
        "the log begins at log offset {begins}, but the checkpoint needs it from {needed} on: segments are missing. Put them \
         back; or start once with store.accept_missing_log = true to go on without what was in them. Nothing was changed"
    )]
    TooShort { begins: LogOffset, needed: LogOffset },
}

impl LogOpenError {
    /// False: it cannot help to try again.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            LogOpenError::Io { .. }
                | LogOpenError::Positions(PositionsError::Io { .. })
                | LogOpenError::Damage(DamageError::Io { .. })
        )
    }
}
