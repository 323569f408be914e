//! A controller whose folder is lost must not begin anew: a new one would found another cluster, or vote a second time.
//!
//! Asked before a controller is opened. A standalone server is told by its store, which belongs to a cluster; a member of a
//! cluster by a file beside the folder, `DATA/controller-member`, with its number. Who loses that, too, is told by nothing
//! on this machine.

use crate::beside::{holds_segments, identity_in};
use gantry_controller::is_lost;
use gantry_proto::env::Files;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Beside the folder of a member.
const MARK: &str = "controller-member";

/// A folder that must not be made, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LostController {
    /// The store is there.
    #[error(
        "the controller's folder {} is gone or empty, but the store beside it belongs to a cluster: a new controller would \
         found another one, without its topics and groups. Restore the folder from a copy; if there is none, make it again \
         from what the store knows with `{first}gantry repair controller {}`. If the store belongs to controllers elsewhere, \
         start it with gantry store. Nothing was changed",
        .root.join("controller").display(), .root.display()
    )]
    Standalone {
        /// The data folder.
        root: PathBuf,
        /// What must be done before.
        first: String,
    },
    /// The others are there.
    #[error(
        "the controller's folder {} of member {id} is gone or empty: what this member promised to the others was in it, so it \
         must not take part as a new one. Remove it with `gantry admin cluster remove-controller {id}`; then start it with a \
         number that was never used and --controller-join true, and add that with `gantry admin cluster add-controller`. \
         Nothing was changed",
        .root.join("controller").display()
    )]
    Member {
        /// The data folder.
        root: PathBuf,
        /// Its number.
        id: u64,
    },
    /// It cannot be looked at.
    #[error("cannot look for the controller's folder in {}: {source}", .root.display())]
    Io {
        /// The data folder.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Refuses a standalone server whose store belongs to a controller that is not there.
pub fn check_standalone(files: &dyn Files, root: &Path) -> Result<(), LostController> {
    if !is_lost_in(files, root)? {
        return Ok(());
    }
    let store = root.join("store");
    let refused = |first: &str| Err(LostController::Standalone { root: root.to_owned(), first: first.to_owned() });
    match identity_in(files, &store) {
        Some(identity) if identity.home.is_some() => refused(""),
        Some(_) => Ok(()),
        None if holds_segments(files, &store) => {
            refused(&format!("gantry repair identity {} --store-group NAME --unchecked-name --yes && ", root.display()))
        }
        None => Ok(()),
    }
}

/// Refuses a member that had a folder here.
pub fn check_member(files: &dyn Files, root: &Path, id: u64) -> Result<(), LostController> {
    if !is_lost_in(files, root)? {
        return Ok(());
    }
    match std::fs::read_to_string(root.join(MARK)) {
        // Another number is a new member.
        Ok(mark) if mark.trim().parse().is_ok_and(|marked: u64| marked != id) => Ok(()),
        Ok(_) => Err(LostController::Member { root: root.to_owned(), id }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LostController::Io { root: root.to_owned(), source }),
    }
}

/// Notes that the folder of this member is there.
pub fn note_member(root: &Path, id: u64) -> io::Result<()> {
    let (path, aside) = (root.join(MARK), root.join(format!("{MARK}.tmp")));
    let mark = format!("{id}\n");
    if std::fs::read_to_string(&path).is_ok_and(|held| held == mark) {
        return Ok(());
    }
    let mut file = File::create(&aside)?;
    file.write_all(mark.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, &path)?;
    File::open(root)?.sync_all()
}

fn is_lost_in(files: &dyn Files, root: &Path) -> Result<bool, LostController> {
    match is_lost(files, &root.join("controller")) {
        // The data folder lies below a file: whoever makes it says so.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        looked => looked.map_err(|source| LostController::Io { root: root.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemFiles;

    fn member(root: &Path, id: u64) -> bool {
        check_member(&SystemFiles, root, id).is_ok()
    }

    #[test]
    fn a_new_data_folder_has_lost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["controller", "store", "store/commit-log"] {
            assert!(check_standalone(&SystemFiles, dir.path()).is_ok(), "before {part} is made");
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        assert!(check_standalone(&SystemFiles, dir.path()).is_ok());
        std::fs::write(dir.path().join("store/commit-log/00000000000000000000.log"), "").unwrap();
        let error = check_standalone(&SystemFiles, dir.path()).unwrap_err().to_string();
        assert!(error.contains("gantry repair identity"), "{error}");
    }

    #[test]
    fn a_member_that_had_a_folder_is_told_from_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(member(&root.join("not-made-yet"), 2));
        assert!(member(root, 2), "never started");
        let folder = root.join("controller");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("consensus.redb"), "x").unwrap();
        assert!(member(root, 2), "from before there was a mark");
        note_member(root, 2).unwrap();
        note_member(root, 2).unwrap();
        assert!(member(root, 2));
        std::fs::remove_file(folder.join("consensus.redb")).unwrap();
        let error = check_member(&SystemFiles, root, 2).unwrap_err().to_string();
        assert!(error.contains("gantry admin cluster remove-controller 2"), "{error}");
        std::fs::remove_dir(&folder).unwrap();
        assert!(!member(root, 2));
        assert!(member(root, 4), "a new number");
        note_member(root, 4).unwrap();
        assert!(!member(root, 4));
        std::fs::write(root.join(MARK), "").unwrap();
        assert!(!member(root, 4), "whose it was cannot be read");
    }
}
