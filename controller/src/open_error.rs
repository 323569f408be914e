use crate::codec::CodecError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data folder could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes must not write one journal.
    #[error("{}: another process uses this data folder", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A downgrade.
    #[error("{}: the data folder was written by a newer gantry (format {found}; this one understands up to {known})", .path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program understands.
        known: u32,
    },
    /// Bytes that were durable once are not what was written. Restore the folder from a copy.
    #[error("{}: damaged at byte {offset}: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The files do not belong together. Restore the folder from a copy.
    #[error("{}: {what}", .path.display())]
    Inconsistent {
        /// The folder, or the file that does not fit.
        path: PathBuf,
        /// What is missing or does not fit.
        what: String,
    },
    /// The file system failed.
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err` on calls of the file system.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { path, doing, source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl ToString) -> OpenError {
        OpenError::Damaged { path: path.to_owned(), offset, what: what.to_string() }
    }

    pub(crate) fn inconsistent(path: &Path, what: impl ToString) -> OpenError {
        OpenError::Inconsistent { path: path.to_owned(), what: what.to_string() }
    }

    /// What an undecodable record at `offset` of a file means for the whole.
    pub(crate) fn undecodable(path: &Path, offset: u64, error: CodecError) -> OpenError {
        match error {
            CodecError::Newer { found, known } => {
                OpenError::NewerFormat { path: path.to_owned(), found: found.into(), known: known.into() }
            }
            CodecError::Damaged(what) => OpenError::damaged(path, offset, what),
        }
    }
}
