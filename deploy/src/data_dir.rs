//! The data folder: made before any tier looks at it, so that what is wrong with it is said once and plainly. The store
//! takes the lock that keeps a second server out.

use crate::env::too_many_files;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The folder that everything is kept in, each tier in a folder of its own below it.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// Why the folder cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep data in {}: {reason}; {advice}", .path.display())]
pub struct DataDirError {
    path: PathBuf,
    reason: String,
    advice: &'static str,
}

const CHOOSE_ANOTHER: &str = "choose another folder with --data";
const MAKE_WRITABLE: &str = "make the folder writable for this user or choose another with --data";

impl DataDir {
    /// Below `root`. Nothing is made yet.
    pub fn new(root: &Path) -> DataDir {
        DataDir { root: root.to_owned() }
    }

    /// The store's part.
    pub fn prepare_store(&self) -> Result<PathBuf, DataDirError> {
        self.prepare("store")
    }

    /// The controller's part.
    pub fn prepare_controller(&self) -> Result<PathBuf, DataDirError> {
        self.prepare("controller")
    }

    /// The part of the self-signed certificate.
    pub fn prepare_tls(&self) -> Result<PathBuf, DataDirError> {
        self.prepare("tls")
    }

    /// Creates what is missing and makes sure that files can be written. Only this user may look inside.
    fn prepare(&self, part: &str) -> Result<PathBuf, DataDirError> {
        let path = self.root.join(part);
        for path in [&self.root, &path] {
            create(path).map_err(|error| explain(path, &error))?;
        }
        // A folder that exists may still be read-only, or on a full disk.
        let probe = path.join(".write-probe");
        std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe)).map_err(|e| explain(&path, &e))?;
        Ok(path)
    }
}

fn create(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path) {
        // `create` accepts an existing folder only; anything else of that name must be told apart from a missing parent.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(io::ErrorKind::NotADirectory.into()),
        done => done,
    }
}

fn explain(path: &Path, error: &io::Error) -> DataDirError {
    let (reason, advice) = match error.kind() {
        io::ErrorKind::NotADirectory => ("it is, or lies below, a file".to_owned(), CHOOSE_ANOTHER),
        io::ErrorKind::PermissionDenied => ("permission denied".to_owned(), MAKE_WRITABLE),
        io::ErrorKind::ReadOnlyFilesystem => ("the file system is read-only".to_owned(), CHOOSE_ANOTHER),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ("the disk is full".to_owned(), "make room or choose another folder with --data")
        }
        _ => (error.to_string(), too_many_files(error).unwrap_or(CHOOSE_ANOTHER)),
    };
    DataDirError { path: path.to_owned(), reason, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_created_and_a_second_start_finds_it() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("a/b");
        for _ in 0..2 {
            let dir = DataDir::new(&root);
            let parts = [dir.prepare_store(), dir.prepare_controller(), dir.prepare_tls()].map(Result::unwrap);
            assert!(parts.iter().all(|part| part.is_dir()));
            assert_eq!(std::fs::read_dir(&parts[0]).unwrap().count(), 0, "the probe is gone");
        }
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 3);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        for root in [file.clone(), file.join("below")] {
            let error = DataDir::new(&root).prepare_store().unwrap_err().to_string();
            let expected = "it is, or lies below, a file; choose another folder with --data";
            assert_eq!(error, format!("cannot keep data in {}: {expected}", root.display()));
        }
    }

    #[test]
    fn what_the_system_refuses_comes_with_advice() {
        for (kind, expected) in [
            (io::ErrorKind::PermissionDenied, "permission denied; make the folder writable for this user or choose"),
            (io::ErrorKind::ReadOnlyFilesystem, "the file system is read-only; choose another"),
            (io::ErrorKind::StorageFull, "the disk is full; make room or choose another"),
        ] {
            let error = explain(Path::new("/data"), &kind.into()).to_string();
            assert!(error.starts_with(&format!("cannot keep data in /data: {expected}")), "{error}");
        }
    }
}
