//! The folder a store lives in: its lock, its format, its identity. The identity keeps a disk from serving two groups or
//! two clusters, and an epoch from being used twice.
//!
//! `identity`, little endian, format 2: `GNTRYSTO` 8, format 4, CRC-32C of what follows 4, last epoch 4, key of the receipt
//! handles 32, folder id 16, bound 1 (0 or 1); if it is bound: cluster id 16, store group id 4, length of the store group's
//! name 2, the name.
//! Format 1 ended after the key. Such a file is replaced by one of format 2, not yet bound.
//!
//! What must always hold: the last epoch here is not smaller than that of any record in the log, because it is made durable
//! before the first record of an epoch is written.

use crate::durable_file;
use crate::store::OpenError;
use bytes::Buf;
use gantry_proto::contract::StoreGrant;
use gantry_proto::env::{DirectoryLock, Env};
use gantry_proto::model::{ClusterId, Epoch, FolderId, StoreGroupId, StoreGroupName};
use std::io;
use std::path::{Path, PathBuf};

/// A locked data folder. Nobody else opens it while this value lives.
pub struct StoreFolder {
    _lock: DirectoryLock,
    env: Env,
    dir: PathBuf,
    identity: Identity,
}

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    folder: FolderId,
    last_epoch: Epoch,
    receipt_key: [u8; 32],
    home: Option<Home>,
}

/// Where a folder belongs, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    cluster: ClusterId,
    group: StoreGroupId,
    name: StoreGroupName,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataFolderError {
    #[error("{action} {path}: {source}. Choose a folder that can be written")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is used by another gantry process. Stop it, or choose another data folder")]
    Locked(PathBuf),
    #[error(
        "{path} was written by a newer gantry (format {found}, this one knows {FORMAT}). Use that version, or choose \
         another data folder"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{0} is damaged. Restore it from a backup: without it receipt handles and epochs are lost")]
    Damaged(PathBuf),
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
}

const MAGIC: &[u8; 8] = b"GNTRYSTO";
const FORMAT: u32 = 2;
const NAME: &str = "identity";

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
        let path = dir.join(NAME);
        let found = durable_file::read(files, dir, NAME).map_err(io("reading", &path))?;
        let found = found.map(|bytes| parse(&bytes, &path)).transpose()?;
        let draw_folder = || {
            let mut id = [0; 16];
            env.random.fill(&mut id);
            FolderId(id)
        };
        let (identity, changed) = match found {
            Some(Found::Current(identity)) => (identity, false),
            Some(Found::Format1 { last_epoch, receipt_key }) => {
                (Identity { folder: draw_folder(), last_epoch, receipt_key, home: None }, true)
            }
            None => {
                let mut receipt_key = [0; 32];
                env.random.fill(&mut receipt_key);
                (Identity { folder: draw_folder(), last_epoch: Epoch(0), receipt_key, home: None }, true)
            }
        };
        let mut folder = StoreFolder { _lock: lock, env: env.clone(), dir: dir.to_owned(), identity: identity.clone() };
        if changed {
            folder.save(identity)?;
        }
        Ok(folder)
    }

    /// Its identity.
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

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it may serve the store group of that name.
    pub(crate) fn check_group(&self, name: &StoreGroupName) -> Result<(), DataFolderError> {
        match &self.identity.home {
            Some(home) if home.name != *name => Err(self.other_group(home.name.to_string(), name.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether `epoch` may begin; makes it durable, and at the first time where the folder belongs. Blocks.
    pub(crate) fn begin(&mut self, grant: &StoreGrant, name: &StoreGroupName) -> Result<(), DataFolderError> {
        self.check_group(name)?;
        if let Some(home) = &self.identity.home {
            if home.cluster != grant.cluster {
                let (path, bound) = (self.dir.clone(), home.cluster);
                return Err(DataFolderError::OtherCluster { path, bound, asked: grant.cluster });
            }
            if home.group != grant.group {
                let named = |id| format!("{name} with the number {id}");
                return Err(self.other_group(named(home.group), named(grant.group)));
            }
        }
        if grant.epoch <= self.identity.last_epoch {
            return Err(self.old_epoch(grant.epoch, self.identity.last_epoch));
        }
        let home = Home { cluster: grant.cluster, group: grant.group, name: name.clone() };
        self.save(Identity { last_epoch: grant.epoch, home: Some(home), ..self.identity.clone() })
    }

    /// The log was written in `found`, which is not before `granted`: the next join must know that.
    pub(crate) fn found_epoch(&mut self, granted: Epoch, found: Epoch) -> DataFolderError {
        match self.save(Identity { last_epoch: found.max(granted), ..self.identity.clone() }) {
            Ok(()) => self.old_epoch(granted, found),
            Err(error) => error,
        }
    }

    pub(crate) fn receipt_key(&self) -> &[u8; 32] {
        &self.identity.receipt_key
    }

    fn save(&mut self, identity: Identity) -> Result<(), DataFolderError> {
        let io = |source| DataFolderError::Io { action: "writing", path: self.dir.join(NAME), source };
        durable_file::replace(&*self.env.files, &self.dir, NAME, &encode(&identity)).map_err(io)?;
        self.identity = identity;
        Ok(())
    }

    fn other_group(&self, bound: String, asked: String) -> DataFolderError {
        DataFolderError::OtherGroup { path: self.dir.clone(), bound, asked }
    }

    fn old_epoch(&self, granted: Epoch, last: Epoch) -> DataFolderError {
        DataFolderError::OldEpoch { path: self.dir.clone(), granted, last }
    }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&identity.last_epoch.0.to_le_bytes());
    out.extend_from_slice(&identity.receipt_key);
    out.extend_from_slice(&identity.folder.0);
    out.push(u8::from(identity.home.is_some()));
    if let Some(home) = &identity.home {
        out.extend_from_slice(&home.cluster.0);
        out.extend_from_slice(&home.group.0.to_le_bytes());
        out.extend_from_slice(&(home.name.as_str().len() as u16).to_le_bytes());
        out.extend_from_slice(home.name.as_str().as_bytes());
    }
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What was in the file.
enum Found {
    Format1 { last_epoch: Epoch, receipt_key: [u8; 32] },
    Current(Identity),
}

fn parse(bytes: &[u8], path: &Path) -> Result<Found, DataFolderError> {
    let damaged = || DataFolderError::Damaged(path.to_owned());
    if bytes.len() < 16 || &bytes[..8] != MAGIC {
        return Err(damaged());
    }
    let mut fields = &bytes[8..];
    let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
    if format > FORMAT {
        return Err(DataFolderError::Newer { path: path.to_owned(), found: format });
    }
    if crc32c::crc32c(&bytes[16..]) != crc {
        return Err(damaged());
    }
    parse_fields(format, fields).ok_or_else(damaged)
}

fn parse_fields(format: u32, mut fields: &[u8]) -> Option<Found> {
    let fields = &mut fields;
    let last_epoch = Epoch(fields.try_get_u32_le().ok()?);
    let receipt_key = take(fields)?;
    if format == 1 {
        return fields.is_empty().then_some(Found::Format1 { last_epoch, receipt_key });
    }
    let folder = FolderId(take(fields)?);
    let home = match fields.try_get_u8().ok()? {
        0 => None,
        1 => {
            let (cluster, group) = (ClusterId(take(fields)?), StoreGroupId(fields.try_get_u32_le().ok()?));
            let len = usize::from(fields.try_get_u16_le().ok()?);
            let name = fields.split_off(..len)?;
            let name = StoreGroupName::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some(Home { cluster, group, name })
        }
        _ => return None,
    };
    let whole = format == FORMAT && fields.is_empty();
    whole.then_some(Found::Current(Identity { folder, last_epoch, receipt_key, home }))
}

fn take<const LEN: usize>(fields: &mut &[u8]) -> Option<[u8; LEN]> {
    let (front, rest) = fields.split_first_chunk::<LEN>()?;
    *fields = rest;
    Some(*front)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::contract::LeaseTerm;
    use gantry_proto::env::fake;

    const DIR: &str = "/store";

    fn grant(cluster: u8, group: u32, epoch: u32) -> StoreGrant {
        StoreGrant {
            cluster: ClusterId([cluster; 16]),
            group: StoreGroupId(group),
            epoch: Epoch(epoch),
            lease: LeaseTerm::UntilSuperseded,
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
        let (id, key) = (folder.id(), *folder.receipt_key());
        assert_eq!((folder.cluster(), folder.store_group(), folder.last_epoch()), (None, None, Epoch(0)));
        folder.begin(&grant(1, 7, 3), &name("a")).unwrap();
        drop(folder);
        let mut folder = open(&env).unwrap();
        assert_eq!((folder.id(), folder.receipt_key()), (id, &key));
        assert_eq!(folder.store_group(), Some((StoreGroupId(7), &name("a"))));
        assert_eq!((folder.cluster(), folder.last_epoch()), (Some(ClusterId([1; 16])), Epoch(3)));

        for (other, asked, says) in [
            (grant(2, 7, 4), "a", "belongs to cluster 01"),
            (grant(1, 8, 4), "a", "store group a with the number 7, not of a with the number 8"),
            (grant(1, 7, 4), "b", "store group a, not of b"),
            (grant(1, 7, 3), "a", "epoch 3 was granted"),
            (grant(1, 7, 2), "a", "epoch 2 was granted"),
        ] {
            let error = folder.begin(&other, &name(asked)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        folder.begin(&grant(1, 7, 4), &name("a")).unwrap();
    }

    #[test]
    fn a_folder_of_format_1_is_upgraded_and_keeps_its_epoch_and_its_key() {
        let (env, _, _) = fake::env(1);
        let mut old = Vec::new();
        old.extend_from_slice(MAGIC);
        old.extend_from_slice(&1u32.to_le_bytes());
        old.extend_from_slice(&[0; 4]);
        old.extend_from_slice(&9u32.to_le_bytes());
        old.extend_from_slice(&[5; 32]);
        let crc = crc32c::crc32c(&old[16..]);
        old[12..16].copy_from_slice(&crc.to_le_bytes());
        env.files.create_dir_all(Path::new(DIR)).unwrap();
        durable_file::replace(&*env.files, Path::new(DIR), NAME, &old).unwrap();

        let folder = open(&env).unwrap();
        assert_eq!((folder.last_epoch(), folder.receipt_key(), folder.cluster()), (Epoch(9), &[5; 32], None));
        let id = folder.id();
        drop(folder);
        assert_eq!(open(&env).unwrap().id(), id, "drawn once");
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let home = Home { cluster: ClusterId([1; 16]), group: StoreGroupId(1), name: name("group") };
        let identity =
            Identity { folder: FolderId([2; 16]), last_epoch: Epoch(5), receipt_key: [3; 32], home: Some(home) };
        let encoded = encode(&identity);
        assert!(matches!(parse(&encoded, Path::new(NAME)), Ok(Found::Current(found)) if found == identity));
        for byte in 0..encoded.len() {
            let mut changed = encoded.clone();
            changed[byte] ^= 0x10;
            assert!(parse(&changed, Path::new(NAME)).is_err(), "byte {byte} changed");
            assert!(parse(&encoded[..byte], Path::new(NAME)).is_err(), "cut to {byte}");
        }
    }
}
