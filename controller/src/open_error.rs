use crate::codec::CodecError;
use crate::raft::{ACKNOWLEDGED, FILE};
use std::io;
use std::path::{Path, PathBuf};

/// Why a controller could not be opened. Nothing that the folder held was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes must not write one log.
    #[error("{}: another process uses this data folder; stop it first, or choose another folder", .path.display())]
    Locked { path: PathBuf },
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
        "{}: damaged: {what}; {}",
        .path.display(), way_out(.path)
    )]
    Damaged {
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What was acknowledged is not there any more.
    #[error(
        "{}: the controller's store is older than what it acknowledged: it is at commit {found}, and commit {acknowledged} was \
         acknowledged. Its last pages are damaged, or consensus.redb was put back alone. What to do: {}. A server with one \
         controller can also go on without what is missing: move {} away and start it again",
        .path.display(), way_out(.path), .path.join(ACKNOWLEDGED).display()
    )]
    RolledBack {
        path: PathBuf,
        /// The number of the last commit that is there.
        found: u64,
        /// The number of the last one that was acknowledged.
        acknowledged: u64,
    },
    /// The database is not there, and was.
    #[error(
        "{}: {FILE} is gone, and {why}. What this member promised was in it, so none is made in its place. Put it back; if it \
         is lost: {}. Nothing was made or changed",
        .path.display(), way_out(.path)
    )]
    Lost {
        /// The folder.
        path: PathBuf,
        /// How that is known.
        why: &'static str,
    },
    /// A folder belongs to one member for ever: it holds what that member promised to the others.
    #[error("{}: the folder of member {found}; it cannot be used for member {expected}: start it with controller.id = {found}, or with \
         another folder", .path.display())]
    OtherMember {
        /// The file that says so.
        path: PathBuf,
        /// Who was to be started.
        expected: u64,
        found: u64,
    },
    /// The file system failed.
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
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
            | OpenError::Lost { .. }
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

/// What an operator does about a member's folder whose database cannot be used any more, or about that file. Goes into a
/// sentence.
pub fn way_out(path: &Path) -> String {
    let is_file = path.file_name().is_some_and(|name| name == FILE || name == ACKNOWLEDGED);
    let folder = if is_file { path.parent() } else { Some(path) };
    let data = folder.and_then(Path::parent).filter(|data| !data.as_os_str().is_empty()).unwrap_or(Path::new("."));
    format!(
        "if most other members are well, remove this one from the cluster and add it again with an empty folder and a new number \
         (gantry admin cluster remove-controller NUMBER, then add-controller); else restore the folder from a copy. A standalone \
         server without one: `gantry repair controller {}` makes it again from what the store knows",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_names_the_data_folder_whatever_is_wrong() {
        for path in ["/data/controller", "/data/controller/consensus.redb", "/data/controller/acknowledged"] {
            assert!(way_out(Path::new(path)).contains("`gantry repair controller /data`"), "{path}");
        }
        assert!(way_out(Path::new("controller")).contains("`gantry repair controller .`"));
        let lost = OpenError::Lost { path: "/data/controller".into(), why: "it was" };
        let rolled_back = OpenError::RolledBack { path: "/data/controller".into(), found: 1, acknowledged: 2 };
        for error in [lost, rolled_back, OpenError::damaged(Path::new("/data/controller/consensus.redb"), "a bit")] {
            assert!(error.to_string().contains("`gantry repair controller /data`"), "{error}");
            assert!(!error.may_pass());
        }
    }
}
