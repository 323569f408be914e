use crate::codec::CodecError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a controller could not be opened. Nothing that the folder held was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes must not write one log.
    #[error("{}: another process uses this data folder; stop it first, or choose another folder", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A downgrade. What is whole and not understood is never called damaged.
    #[error(
        "{}: written by a newer gantry: {what}; start the newer version again",
        .path.display()
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// What was not understood.
        what: String,
    },
    /// An upgrade from before the first release.
    #[error(
        "{}: written by a pre-release of gantry, which this version cannot read; move the folder away and create topics \
         and groups again",
        .path.display()
    )]
    PreRelease { path: PathBuf },
    /// Bytes that were durable once are not what was written.
    #[error(
        "{}: damaged: {what}; if other members are well, remove this one from the cluster and add it again with an empty \
         folder and a new number (gantry admin cluster remove-controller, then add-controller); else restore the folder \
         from a copy. A standalone server without one: gantry repair controller makes it again from what the store knows",
        .path.display()
    )]
    Damaged {
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What was acknowledged is not there any more.
    #[error(
        "{}: the controller's store is older than what it acknowledged: it is at commit {found}, and commit {acknowledged} was \
         acknowledged. Its last pages are damaged, or consensus.redb was put back alone. If most other members are well, remove \
         this one from the cluster (gantry admin cluster remove-controller) and add it again with an empty folder and a new \
         number (gantry admin cluster add-controller); else restore the whole folder from a copy, or, if there is none, go on without what is missing: move the file \
         acknowledged away and start it again",
        .path.display()
    )]
    RolledBack {
        path: PathBuf,
        /// The number of the last commit that is there.
        found: u64,
        /// The number of the last one that was acknowledged.
        acknowledged: u64,
    },
    /// A folder belongs to one member for ever: it holds what that member promised to the others.
    #[error("{}: the folder of member {found}; it cannot be used for member {expected}", .path.display())]
    OtherMember {
        /// The file that says so.
        path: PathBuf,
        /// Who was to be started.
        expected: u64,
        /// Whose it is.
        found: u64,
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
    /// The configuration contradicts itself, or the log did not start with it.
    #[error("the controller cannot start: {0}")]
    Start(String),
}

impl OpenError {
    /// Whether opening it again may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            // The only member could not begin to lead: most likely its disk failed meanwhile.
            OpenError::Io { .. } | OpenError::Locked { .. } | OpenError::Start(_) => true,
            OpenError::Newer { .. }
            | OpenError::PreRelease { .. }
            | OpenError::Damaged { .. }
            | OpenError::RolledBack { .. }
            | OpenError::OtherMember { .. } => false,
        }
    }

    /// For `map_err` on calls of the file system.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { path, doing, source }
    }

    pub(crate) fn damaged(path: &Path, what: impl ToString) -> OpenError {
        OpenError::Damaged { path: path.to_owned(), what: what.to_string() }
    }

    /// What an undecodable record of a file means for the whole.
    pub(crate) fn undecodable(path: &Path, error: CodecError) -> OpenError {
        match error {
            CodecError::Newer(what) => OpenError::Newer { path: path.to_owned(), what },
            CodecError::Damaged(what) => OpenError::damaged(path, what),
        }
    }
}
