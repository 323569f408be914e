//! The folder a store lives in: its lock and its [identity](crate::identity).
//!
//! What must always hold: the last epoch here is not smaller than that of any record in the log, because it is made durable
//! before the first record of an epoch is written (`a_crash_at_any_moment_of_a_beginning_lets_no_epoch_begin_twice`); and a
//! folder is bound to its store group and cluster before its first record
//! (`a_folder_is_bound_before_anything_is_written_and_refuses_other_groups_and_clusters`).

use crate::identity::{Home, Identity, IdentityError, NAME};
use crate::open_error::OpenError;
use crate::rebuild::LOG_DIR;
use gantry_proto::contract::{PreviousLeader, StoreGrant};
use gantry_proto::env::{DirectoryLock, Env};
use gantry_proto::model::{ClusterId, Epoch, FolderId, PlaceId, ProcessId, StoreGroupId, StoreGroupName};
use std::io;
use std::path::{Path, PathBuf};

/// A locked data folder. Nobody else opens it while this value lives.
pub struct StoreFolder {
    /// `None`: it was given back, and nothing is written any more.
    lock: Option<DirectoryLock>,
    /// This opening of it.
    process: ProcessId,
    env: Env,
    dir: PathBuf,
    identity: Identity,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataFolderError {
    #[error("{action} {path}: {source}{}", advice(.source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is used by another gantry process. Stop it, or choose another data folder")]
    Locked(PathBuf),
    #[error("{path}: {source}. Use that version, or choose another data folder")]
    Newer { path: PathBuf, source: IdentityError },
    #[error(
        "the identity of the data folder {path} cannot be read: {source}. Restore the file {NAME} of this folder from a \
         backup, or make it again with `gantry repair identity {}`; the messages are where they were, nothing was changed",
        .path.display()
    )]
    Unknown { path: PathBuf, source: IdentityError },
    #[error(
        "the data folder {0} holds messages, but has lost its identity: the files {NAME} and {NAME}.copy are gone. Restore \
         one of them from a backup, or make them again with `gantry repair identity {0}`; nothing was changed"
    )]
    Lost(PathBuf),
    #[error(
        "the data folder {path} belongs to cluster {bound}, not to {asked}. Start it with the controllers of its own \
         cluster, or choose another data folder"
    )]
    OtherCluster { path: PathBuf, bound: ClusterId, asked: ClusterId },
    #[error(
        "the data folder {path} holds the data of store group {bound}, not of {asked}. Start it as {bound}, or choose \
         another data folder for {asked}"
    )]
    OtherGroup { path: PathBuf, bound: String, asked: String },
    #[error(
        "epoch {granted} was granted, but the data folder {path} was written in epoch {last}. Start the store again; if \
         that does not help, the controller has lost metadata: restore them from a backup"
    )]
    OldEpoch { path: PathBuf, granted: Epoch, last: Epoch },
    #[error(
        "the store group was led from the data folder {} in epoch {}: what {path} holds may lack what was stored then. Start \
         the store with that folder",
        previous.folder, previous.epoch
    )]
    LedElsewhere { path: PathBuf, previous: PreviousLeader },
}

/// Another folder helps only where this one is at fault.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotADirectory => ". Choose another data folder",
        io::ErrorKind::PermissionDenied => {
            ". The file and the folder must be writable for this user: look at them with ls -ld and lsattr"
        }
        io::ErrorKind::ReadOnlyFilesystem => ". See why the file system is read-only (dmesg, mount)",
        io::ErrorKind::IsADirectory => ". A folder is in the place of the file, or of its .tmp: move it away",
        io::ErrorKind::StorageFull => ". Make room on the disk",
        _ => "",
    }
}

/// What stays as it is until somebody does something.
fn is_for_operators(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
    )
}

impl DataFolderError {
    /// False: it cannot help to try again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            DataFolderError::Io { source, .. } => !is_for_operators(source),
            DataFolderError::Locked(_) | DataFolderError::OldEpoch { .. } => true,
            _ => false,
        }
    }
}

impl StoreFolder {
    /// Creates the folder if need be, locks it and reads its identity. Blocks. Nothing else is read or written until
    /// [`crate::Store::open`].
    pub fn open(env: &Env, dir: &Path) -> Result<StoreFolder, OpenError> {
        Ok(StoreFolder::try_open(env, dir)?)
    }

    fn try_open(env: &Env, dir: &Path) -> Result<StoreFolder, DataFolderError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataFolderError::Io { action, path, source }
        };
        let files = &*env.files;
        files.create_dir_all(dir).map_err(io("creating the folder", dir))?;
        let lock_path = dir.join("lock");
        let lock = files.try_lock(&lock_path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DataFolderError::Locked(dir.to_owned()),
            _ => DataFolderError::Io { action: "locking", path: lock_path.clone(), source },
        })?;
        let unknown = |source: IdentityError| {
            let path = dir.to_owned();
            match source {
                IdentityError::Newer { .. } | IdentityError::NewerField { .. } => {
                    DataFolderError::Newer { path, source }
                }
                IdentityError::Io(source) => DataFolderError::Io { action: "reading the identity in", path, source },
                IdentityError::Damaged | IdentityError::Two(..) => DataFolderError::Unknown { path, source },
            }
        };
        let (identity, changed) = match Identity::load(files, dir).map_err(unknown)? {
            Some(found) => found,
            None if holds_messages(env, dir)? => return Err(DataFolderError::Lost(dir.to_owned())),
            None => {
                let mut id = [0; 16];
                env.random.fill(&mut id);
                (Identity::new(FolderId(id)), true)
            }
        };
        let mut process = [0; 16];
        env.random.fill(&mut process);
        let process = ProcessId(process);
        let mut folder = StoreFolder {
            lock: Some(lock),
            process,
            env: env.clone(),
            dir: dir.to_owned(),
            identity: identity.clone(),
        };
        if changed {
            folder.save(identity)?;
        }
        Ok(folder)
    }

    pub fn id(&self) -> FolderId {
        self.identity.folder
    }

    /// The cluster that it belongs to, if it ever joined one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.home.as_ref().map(|home| home.cluster)
    }

    /// The store group that it belongs to, if it ever joined one.
    pub fn store_group(&self) -> Option<(StoreGroupId, &StoreGroupName)> {
        self.identity.home.as_ref().map(|home| (home.group, &home.name))
    }

    /// The last epoch that may have written to it; 0 before the first.
    pub fn last_epoch(&self) -> Epoch {
        self.identity.last_epoch
    }

    /// This opening of the folder, and where its lock is held.
    pub(crate) fn process(&self) -> (ProcessId, Option<PlaceId>) {
        (self.process, self.lock.as_ref().and_then(|lock| lock.place))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it may serve the store group of that name. To be asked before anything in it is opened.
    pub fn check_group(&self, name: &StoreGroupName) -> Result<(), OpenError> {
        Ok(self.try_group(name)?)
    }

    fn try_group(&self, name: &StoreGroupName) -> Result<(), DataFolderError> {
        match &self.identity.home {
            Some(home) if home.name != *name => Err(self.other_group(home.name.to_string(), name.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether `epoch` may begin, when the log was last written in `log_epoch`; makes it durable, and at the first time
    /// where the folder belongs. Blocks.
    pub(crate) fn begin(
        &mut self,
        grant: &StoreGrant,
        name: &StoreGroupName,
        log_epoch: Epoch,
    ) -> Result<(), DataFolderError> {
        self.try_group(name)?;
        if let Some(home) = &self.identity.home {
            if home.cluster != grant.cluster {
                let (path, bound) = (self.dir.clone(), home.cluster);
                return Err(DataFolderError::OtherCluster { path, bound, asked: grant.cluster });
            }
            if home.group != grant.store_group {
                let named = |id| format!("{name} with the number {id}");
                return Err(self.other_group(named(home.group), named(grant.store_group)));
            }
        }
        if let Some(previous) = grant.previous.filter(|previous| previous.folder != self.identity.folder) {
            return Err(DataFolderError::LedElsewhere { path: self.dir.clone(), previous });
        }
        let last = self.identity.last_epoch.max(log_epoch);
        if grant.epoch <= last {
            return Err(DataFolderError::OldEpoch { path: self.dir.clone(), granted: grant.epoch, last });
        }
        let home = Home { cluster: grant.cluster, group: grant.store_group, name: name.clone() };
        let mut identity = self.identity.clone();
        (identity.last_epoch, identity.home) = (grant.epoch, Some(home));
        self.save(identity)
    }

    /// Whether nobody else can have it.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Lets somebody else open it.
    pub(crate) fn unlock(&mut self) {
        self.lock = None;
    }

    fn save(&mut self, mut identity: Identity) -> Result<(), DataFolderError> {
        if self.lock.is_none() {
            return Err(DataFolderError::Locked(self.dir.clone()));
        }
        let io = |source| DataFolderError::Io { action: "writing", path: self.dir.join(NAME), source };
        identity.save(&*self.env.files, &self.dir).map_err(io)?;
        self.identity = identity;
        Ok(())
    }

    fn other_group(&self, bound: String, asked: String) -> DataFolderError {
        DataFolderError::OtherGroup { path: self.dir.clone(), bound, asked }
    }
}

/// Whether there is a log in a folder without an identity. A folder gets its identity before its log.
fn holds_messages(env: &Env, dir: &Path) -> Result<bool, DataFolderError> {
    let log = dir.join(LOG_DIR);
    match env.files.list(&log) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DataFolderError::Io { action: "listing", path: log, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::contract::StoreLease;
    use gantry_proto::env::fake::{self, FakeOp};
    use gantry_proto::model::GroupSecret;

    const DIR: &str = "/store";

    fn grant(cluster: u8, group: u32, epoch: u32) -> StoreGrant {
        StoreGrant {
            cluster: ClusterId([cluster; 16]),
            store_group: StoreGroupId(group),
            epoch: Epoch(epoch),
            lease: StoreLease::UntilSuperseded,
            previous: None,
            secret: GroupSecret([0; 32]),
        }
    }

    fn name(text: &str) -> StoreGroupName {
        StoreGroupName::parse(text).unwrap()
    }

    fn open(env: &Env) -> Result<StoreFolder, DataFolderError> {
        StoreFolder::try_open(env, Path::new(DIR))
    }

    #[test]
    fn a_folder_keeps_its_identity_and_belongs_to_the_group_that_it_joined_first() {
        let (env, _, _) = fake::env(1);
        let mut folder = open(&env).unwrap();
        let id = folder.id();
        assert_eq!((folder.cluster(), folder.store_group(), folder.last_epoch()), (None, None, Epoch(0)));
        folder.begin(&grant(1, 7, 3), &name("a"), Epoch(0)).unwrap();
        drop(folder);
        let mut folder = open(&env).unwrap();
        assert_eq!(folder.id(), id);
        assert_eq!(folder.store_group(), Some((StoreGroupId(7), &name("a"))));
        assert_eq!((folder.cluster(), folder.last_epoch()), (Some(ClusterId([1; 16])), Epoch(3)));

        for (other, asked, log_epoch, says) in [
            (grant(2, 7, 4), "a", 0, "belongs to cluster 01"),
            (grant(1, 8, 4), "a", 0, "store group a with the number 7, not of a with the number 8"),
            (grant(1, 7, 4), "b", 0, "store group a, not of b"),
            (grant(1, 7, 3), "a", 0, "epoch 3 was granted"),
            (grant(1, 7, 2), "a", 0, "epoch 2 was granted"),
            (grant(1, 7, 4), "a", 5, "was written in epoch 5"),
        ] {
            let error = folder.begin(&other, &name(asked), Epoch(log_epoch)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        // What it holds is all there is only if nobody led elsewhere since.
        let led_by = |folder, epoch| StoreGrant {
            previous: Some(PreviousLeader { folder, epoch: Epoch(epoch) }),
            ..grant(1, 7, 5)
        };
        let error = folder.begin(&led_by(FolderId([8; 16]), 4), &name("a"), Epoch(3)).unwrap_err().to_string();
        assert!(error.contains("was led from the data folder 0808"), "{error}");
        // A leadership that was granted and never heard of is no matter.
        folder.begin(&led_by(id, 4), &name("a"), Epoch(3)).unwrap();
    }

    #[test]
    fn an_identity_that_cannot_be_written_is_named_and_only_a_disk_is_waited_for() {
        for (kind, may_pass) in [
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::ReadOnlyFilesystem, false),
            (io::ErrorKind::IsADirectory, false),
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::Other, true),
        ] {
            let (env, files, _) = fake::env(1);
            let mut folder = open(&env).unwrap();
            files.fail_next(FakeOp::Rename, 0, kind);
            let error = folder.begin(&grant(1, 7, 3), &name("a"), Epoch(0)).unwrap_err();
            assert!(error.to_string().contains("/store/identity"), "{error}");
            assert_eq!(error.may_pass(), may_pass, "{error}");
        }
    }

    #[test]
    fn a_folder_that_lost_its_identity_is_told_from_a_new_one() {
        let (env, _, _) = fake::env(1);
        env.files.create_dir_all(&Path::new(DIR).join(LOG_DIR)).unwrap();
        let folder = open(&env).expect("an empty log holds nothing");
        drop(folder);
        let log = Path::new(DIR).join(LOG_DIR).join("00000000000000000000.log");
        env.files.open(&log, gantry_proto::env::OpenMode::CreateNew).unwrap();
        open(&env).unwrap();
        for file in ["identity", "identity.copy"] {
            env.files.remove(&Path::new(DIR).join(file)).unwrap();
        }
        let error = open(&env).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("has lost its identity") && error.contains("backup"), "{error}");
    }
}
