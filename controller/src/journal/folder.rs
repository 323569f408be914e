//! Names in the data folder, and files that appear under their name whole or not at all.

use gantry_proto::env::{File, Files, OpenMode};
use gantry_proto::model::MetadataVersion;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(super) const LOCK: &str = "LOCK";

const JOURNAL: &str = "journal-";
const SNAPSHOT: &str = "snapshot-";
const TEMPORARY: &str = ".tmp";

/// What a data folder holds.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Bases, ascending.
    pub(super) journals: Vec<MetadataVersion>,
    /// Versions, ascending.
    pub(super) snapshots: Vec<MetadataVersion>,
    /// Names of files that a crash left half written.
    pub(super) leftovers: Vec<String>,
}

/// Why a file did not appear.
#[derive(Debug)]
pub(super) enum StageError {
    /// It did not, and will not after a crash.
    NotPublished(io::Error),
    /// It may be there now, or after a crash, or not.
    Unclear(io::Error),
}

impl Folder {
    pub(super) fn list(files: &dyn Files, dir: &Path) -> io::Result<Folder> {
        let mut folder = Folder::default();
        for entry in files.list(dir)?.into_iter().filter(|entry| !entry.is_dir) {
            if let Some(base) = entry.name.strip_prefix(JOURNAL).and_then(parse_version) {
                folder.journals.push(base);
            } else if let Some(version) = entry.name.strip_prefix(SNAPSHOT).and_then(parse_version) {
                folder.snapshots.push(version);
            } else if entry.name.ends_with(TEMPORARY) {
                folder.leftovers.push(entry.name);
            }
        }
        folder.journals.sort();
        folder.snapshots.sort();
        Ok(folder)
    }
}

pub(super) fn journal_name(base: MetadataVersion) -> String {
    format!("{JOURNAL}{:020}", base.0)
}

pub(super) fn snapshot_name(version: MetadataVersion) -> String {
    format!("{SNAPSHOT}{:020}", version.0)
}

fn parse_version(digits: &str) -> Option<MetadataVersion> {
    if digits.len() == 20 { digits.parse().ok().map(MetadataVersion) } else { None }
}

/// Writes a file aside, syncs it, gives it its name, and syncs the folder.
pub(super) fn write(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> Result<Arc<dyn File>, StageError> {
    let aside = dir.join(format!("{name}{TEMPORARY}"));
    let written = write_aside(files, &aside, bytes).map_err(|error| {
        // Best effort: the next open removes it otherwise.
        let _ = files.remove(&aside);
        StageError::NotPublished(error)
    })?;
    files.rename(&aside, &dir.join(name)).and_then(|()| files.sync_dir(dir)).map_err(StageError::Unclear)?;
    Ok(written)
}

/// Removes what an open would not read: journals before `base`, snapshots before the newest, and half-written files. What
/// cannot be removed only takes room, and the next call tries again.
pub(super) fn remove_outdated(files: &dyn Files, dir: &Path, base: MetadataVersion) {
    let folder = match Folder::list(files, dir) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot look for outdated metadata files");
            return;
        }
    };
    let journals = folder.journals.iter().filter(|journal| **journal < base).map(|base| journal_name(*base));
    let older = folder.snapshots.split_last().map_or(&[][..], |(_, older)| older);
    let snapshots = older.iter().map(|version| snapshot_name(*version));
    for name in journals.chain(snapshots).chain(folder.leftovers.iter().cloned()) {
        if let Err(error) = files.remove(&dir.join(&name)) {
            tracing::warn!(name, %error, "cannot remove an outdated metadata file");
        }
    }
}

fn write_aside(files: &dyn Files, aside: &Path, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    match files.remove(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.open(aside, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    Ok(file)
}
