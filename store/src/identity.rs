//! Who a folder is: the file `identity` and its copy.
//!
//! Owned by [`crate::StoreFolder`]. It keeps a disk from serving two groups or two clusters, and an epoch from beginning
//! twice. It is there twice, as `identity` and as `identity.copy`, so that a sector that went bad takes nobody's name away,
//! and a folder whose identity was lost is told from one that never had any.
//!
//! Little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GNTRYSTO` |
//! | 4 | format: 1 |
//! | 4 | CRC-32C of all the other bytes |
//! | 2 + 2 + n each | fields: kind, length, value |
//!
//! Fields: 1 folder id, 2 how often the file was written (8), 3 last epoch (4), 4 cluster id, 5 store group id (4), 6 store
//! group name. Where it belongs is there once the folder has joined a cluster. A field of a kind that is not known here is
//! kept as it is, and written again; from [`NEEDED`] on, the file cannot be understood without it, and was written by a newer
//! Gantry. So was a file of another format whose checksum is right: every format keeps the first 16 bytes.
//!
//! What must always hold: an epoch begins only after both files name it, `identity` first. So whichever of them is lost, the
//! other knows every epoch that began (`an_epoch_that_began_is_never_forgotten`).

use crate::durable_file;
use bytes::{Buf, Bytes};
use gantry_proto::env::{Files, is_unreadable};
use gantry_proto::model::{ClusterId, Epoch, FolderId, StoreGroupId, StoreGroupName};
use std::io;
use std::path::Path;

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub folder: FolderId,
    /// The last epoch that may have written to the folder; 0 before the first.
    pub last_epoch: Epoch,
    /// Where it belongs, for ever. `None`: it never joined a cluster.
    pub home: Option<Home>,
    /// Counts the times it was written.
    written: u64,
    /// Fields that only newer versions know.
    others: Vec<(u16, Bytes)>,
}

/// Where a folder belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub cluster: ClusterId,
    pub group: StoreGroupId,
    pub name: StoreGroupName,
}

/// Why a folder's identity is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("reading: {0}")]
    Io(#[from] io::Error),
    #[error("{NAME} was written by a newer gantry (format {found}, this one knows {FORMAT})")]
    Newer { found: u32 },
    #[error("{NAME} was written by a newer gantry (it holds a field of kind {found:#x} that must be understood)")]
    NewerField { found: u16 },
    #[error("neither {NAME} nor {COPY} is whole and can be read")]
    Damaged,
    #[error("{NAME} is of the folder {0}, but {COPY} of the folder {1}")]
    Two(FolderId, FolderId),
}

pub(crate) const NAME: &str = "identity";
pub(crate) const COPY: &str = "identity.copy";

const MAGIC: &[u8; 8] = b"GNTRYSTO";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 16;
/// Fields from this kind on must be understood.
const NEEDED: u16 = 0x8000;

const FOLDER: u16 = 1;
const WRITTEN: u16 = 2;
const LAST_EPOCH: u16 = 3;
const CLUSTER: u16 = 4;
const GROUP: u16 = 5;
const GROUP_NAME: u16 = 6;

impl Identity {
    /// Of a folder that is new.
    pub(crate) fn new(folder: FolderId) -> Identity {
        Identity { folder, last_epoch: Epoch(0), home: None, written: 0, others: Vec::new() }
    }

    /// What the folder `dir` says, and whether a file of it has to be written again. `None`: it has no identity.
    pub(crate) fn load(files: &dyn Files, dir: &Path) -> Result<Option<(Identity, bool)>, IdentityError> {
        let (first, copy) = (IdentityFile::read(files, dir, NAME)?, IdentityFile::read(files, dir, COPY)?);
        match (first, copy) {
            (IdentityFile::Whole(first), IdentityFile::Whole(copy)) if first.folder != copy.folder => {
                Err(IdentityError::Two(first.folder, copy.folder))
            }
            (IdentityFile::Whole(first), IdentityFile::Whole(copy)) => {
                let differ = first != copy;
                Ok(Some((if copy.written > first.written { copy } else { first }, differ)))
            }
            (IdentityFile::Whole(one), lost) | (lost, IdentityFile::Whole(one)) => {
                tracing::warn!(
                    dir = %dir.display(), lost = %lost,
                    "one of the two files with the identity of the data folder is lost; it is made again from the other"
                );
                Ok(Some((one, true)))
            }
            (IdentityFile::Missing, IdentityFile::Missing) => Ok(None),
            _ => Err(IdentityError::Damaged),
        }
    }

    /// What one of the two files says. `None`: it is missing.
    pub(crate) fn read_one(files: &dyn Files, dir: &Path, name: &str) -> Result<Option<Identity>, IdentityError> {
        match IdentityFile::read(files, dir, name)? {
            IdentityFile::Whole(identity) => Ok(Some(identity)),
            IdentityFile::Missing => Ok(None),
            IdentityFile::Damaged => Err(IdentityError::Damaged),
            IdentityFile::Unreadable(error) => Err(error.into()),
        }
    }

    /// How often it was written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes both files; durable when it returns. After an error the folder may have either identity.
    pub(crate) fn save(&mut self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        self.written += 1;
        let bytes = self.encode();
        durable_file::replace(files, dir, NAME, &bytes)?;
        durable_file::replace(files, dir, COPY, &bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut put = |kind: u16, value: &[u8]| {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(value);
        };
        put(FOLDER, &self.folder.0);
        put(WRITTEN, &self.written.to_le_bytes());
        put(LAST_EPOCH, &self.last_epoch.0.to_le_bytes());
        if let Some(home) = &self.home {
            put(CLUSTER, &home.cluster.0);
            put(GROUP, &home.group.0.to_le_bytes());
            put(GROUP_NAME, home.name.as_str().as_bytes());
        }
        for (kind, value) in &self.others {
            put(*kind, value);
        }
        let crc = checksum(&out);
        out[12..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let Some((header, mut fields)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(IdentityError::Damaged);
        };
        let (format, crc) = ((&header[8..]).get_u32_le(), (&header[12..]).get_u32_le());
        if &header[..8] != MAGIC || checksum(bytes) != crc {
            return Err(IdentityError::Damaged);
        }
        if format != FORMAT {
            return Err(IdentityError::Newer { found: format });
        }
        let (mut folder, mut written, mut last_epoch) = (None, None, None);
        let (mut cluster, mut group, mut name) = (None, None, None);
        let mut others = Vec::new();
        while !fields.is_empty() {
            let (kind, value) = take_field(&mut fields).ok_or(IdentityError::Damaged)?;
            match kind {
                FOLDER => folder = exactly(value).map(FolderId),
                WRITTEN => written = exactly(value).map(u64::from_le_bytes),
                LAST_EPOCH => last_epoch = exactly(value).map(u32::from_le_bytes).map(Epoch),
                CLUSTER => cluster = exactly(value).map(ClusterId),
                GROUP => group = exactly(value).map(u32::from_le_bytes).map(StoreGroupId),
                GROUP_NAME => {
                    name = std::str::from_utf8(value).ok().and_then(|text| StoreGroupName::parse(text).ok());
                }
                NEEDED.. => return Err(IdentityError::NewerField { found: kind }),
                _ => others.push((kind, Bytes::copy_from_slice(value))),
            }
        }
        let home = match (cluster, group, name) {
            (Some(cluster), Some(group), Some(name)) => Some(Home { cluster, group, name }),
            (None, None, None) => None,
            _ => return Err(IdentityError::Damaged),
        };
        let (Some(folder), Some(written), Some(last_epoch)) = (folder, written, last_epoch) else {
            return Err(IdentityError::Damaged);
        };
        Ok(Identity { folder, last_epoch, home, written, others })
    }
}

/// One of the two files.
enum IdentityFile {
    Whole(Identity),
    Missing,
    Damaged,
    /// The disk does not give it.
    Unreadable(io::Error),
}

impl IdentityFile {
    /// What a newer version wrote is an error, whatever the other file says.
    fn read(files: &dyn Files, dir: &Path, name: &str) -> Result<IdentityFile, IdentityError> {
        match durable_file::read(files, dir, name) {
            Ok(None) => Ok(IdentityFile::Missing),
            Ok(Some(bytes)) => match Identity::parse(&bytes) {
                Ok(identity) => Ok(IdentityFile::Whole(identity)),
                Err(IdentityError::Damaged) => Ok(IdentityFile::Damaged),
                Err(newer) => Err(newer),
            },
            Err(error) if is_unreadable(&error) => Ok(IdentityFile::Unreadable(error)),
            // It may be whole.
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Display for IdentityFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdentityFile::Whole(_) => f.write_str("whole"),
            IdentityFile::Missing => f.write_str("missing"),
            IdentityFile::Damaged => f.write_str("damaged"),
            IdentityFile::Unreadable(error) => write!(f, "unreadable: {error}"),
        }
    }
}

/// Of all but the place where it stands.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_LEN..])
}

fn take_field<'a>(fields: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let kind = fields.try_get_u16_le().ok()?;
    let len = usize::from(fields.try_get_u16_le().ok()?);
    Some((kind, fields.split_off(..len)?))
}

fn exactly<const LEN: usize>(value: &[u8]) -> Option<[u8; LEN]> {
    value.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::Env;
    use gantry_proto::env::fake::{self, FakeFiles, FakeOp};
    use proptest::prelude::*;

    fn dir() -> &'static Path {
        Path::new("/store")
    }

    fn machine() -> (Env, FakeFiles) {
        let (env, files, _) = fake::env(1);
        env.files.create_dir_all(dir()).unwrap();
        (env, files)
    }

    fn identity(epoch: u32) -> Identity {
        let name = StoreGroupName::parse("group").unwrap();
        let home = Home { cluster: ClusterId([1; 16]), group: StoreGroupId(7), name };
        Identity { last_epoch: Epoch(epoch), home: Some(home), ..Identity::new(FolderId([2; 16])) }
    }

    fn put(env: &Env, name: &str, bytes: &[u8]) {
        durable_file::replace(&*env.files, dir(), name, bytes).unwrap();
    }

    fn load(env: &Env) -> Result<Option<(Identity, bool)>, IdentityError> {
        Identity::load(&*env.files, dir())
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let encoded = identity(5).encode();
        assert_eq!(Identity::parse(&encoded).unwrap(), identity(5));
        for byte in 0..encoded.len() {
            for bit in 0..8 {
                let mut changed = encoded.clone();
                changed[byte] ^= 1 << bit;
                assert!(matches!(Identity::parse(&changed), Err(IdentityError::Damaged)), "bit {bit} of byte {byte}");
            }
            assert!(matches!(Identity::parse(&encoded[..byte]), Err(IdentityError::Damaged)), "cut to {byte}");
        }
    }

    /// `encoded` with `change` made to it and a right checksum.
    fn resealed(mut encoded: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        change(&mut encoded);
        let crc = checksum(&encoded);
        encoded[12..16].copy_from_slice(&crc.to_le_bytes());
        encoded
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept_or_named_and_never_called_damaged() {
        let newer = resealed(identity(5).encode(), |bytes| bytes[8] = 2);
        assert!(matches!(Identity::parse(&newer), Err(IdentityError::Newer { found: 2 })));
        let field = |kind: u16| {
            move |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(&kind.to_le_bytes());
                bytes.extend_from_slice(b"\x03\0new");
            }
        };
        let needed = resealed(identity(5).encode(), field(0x8001));
        assert!(matches!(Identity::parse(&needed), Err(IdentityError::NewerField { found: 0x8001 })));
        let kept = Identity::parse(&resealed(identity(5).encode(), field(99))).unwrap();
        assert_eq!((kept.last_epoch, &kept.others[..]), (Epoch(5), &[(99, Bytes::from_static(b"new"))][..]));
        assert_eq!(Identity::parse(&kept.encode()).unwrap(), kept, "it is written again");

        // Not even where an older file lies beside it.
        let (env, _) = machine();
        identity(4).save(&*env.files, dir()).unwrap();
        for name in [NAME, COPY] {
            put(&env, name, &newer);
            assert!(matches!(load(&env), Err(IdentityError::Newer { .. })));
            put(&env, name, &identity(4).encode());
        }
    }

    #[test]
    fn either_file_is_enough_and_without_both_it_is_known_what_happened() {
        let (env, files) = machine();
        assert!(load(&env).unwrap().is_none());
        let mut saved = identity(5);
        saved.save(&*env.files, dir()).unwrap();
        assert_eq!(load(&env).unwrap(), Some((saved.clone(), false)));
        for name in [NAME, COPY] {
            put(&env, name, b"GNTRYSTO and then nothing that makes sense");
            assert_eq!(load(&env).unwrap(), Some((saved.clone(), true)), "{name} is damaged");
            env.files.remove(&dir().join(name)).unwrap();
            assert_eq!(load(&env).unwrap(), Some((saved.clone(), true)), "{name} is missing");
            put(&env, name, b"");
            saved.save(&*env.files, dir()).unwrap();
        }
        put(&env, NAME, b"");
        put(&env, COPY, b"x");
        assert!(matches!(load(&env), Err(IdentityError::Damaged)));
        env.files.remove(&dir().join(COPY)).unwrap();
        assert!(matches!(load(&env), Err(IdentityError::Damaged)), "it had one");

        put(&env, NAME, &identity(5).encode());
        put(&env, COPY, &identity(5).encode());
        for (name, serves) in [(NAME, true), (COPY, false)] {
            files.make_unreadable(&dir().join(name), 3..4).unwrap();
            match load(&env) {
                Ok(found) => assert!(serves && found == Some((identity(5), true)), "{name} is on a bad sector"),
                Err(error) => assert!(!serves && matches!(error, IdentityError::Damaged), "{error}"),
            }
        }
        put(&env, COPY, &identity(5).encode());
        identity(5).save(&*env.files, dir()).unwrap();
        assert!(matches!(load(&env), Ok(Some((_, false)))), "written again it is whole");
        // The disk did not say that the file is bad.
        files.fail_next(FakeOp::Open, 0, io::ErrorKind::Other);
        assert!(matches!(load(&env), Err(IdentityError::Io(_))));

        put(&env, NAME, &identity(5).encode());
        put(&env, COPY, &Identity::new(FolderId([9; 16])).encode());
        assert!(matches!(load(&env), Err(IdentityError::Two(..))), "a file of another folder");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), sealed: bool) {
            let bytes = match sealed && bytes.len() >= HEADER_LEN {
                true => resealed(bytes, |bytes| bytes[..12].copy_from_slice(b"GNTRYSTO\x01\0\0\0")),
                false => bytes,
            };
            if let Ok(identity) = Identity::parse(&bytes) {
                prop_assert_eq!(Identity::parse(&identity.encode()).unwrap(), identity);
            }
        }

        /// The power fails at any moment, and then one of the files goes bad: an epoch that began is known all the same.
        #[test]
        fn an_epoch_that_began_is_never_forgotten(fails_after in 0u64..14, seed: u64, lost in 0usize..3) {
            let (env, files) = machine();
            identity(4).save(&*env.files, dir()).unwrap();
            let (mut next, _) = load(&env).unwrap().unwrap();
            next.last_epoch = Epoch(5);
            files.power_off_after(fails_after);
            let begun = next.save(&*env.files, dir()).is_ok();
            files.crash(seed);
            if let Some(name) = [NAME, COPY].get(lost) {
                env.files.remove(&dir().join(name)).unwrap();
            }
            let (found, _) = load(&env).unwrap().unwrap();
            prop_assert!(found.last_epoch == Epoch(5) || !begun && found.last_epoch == Epoch(4));
        }
    }
}
