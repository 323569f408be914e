//! The folder a store lives in: its lock, its format, its identity.
//!
//! `identity`, little endian: `GNTRYSTO` 8, format 4, CRC-32C of what follows 4, epoch 4, key of the receipt handles 32.

use crate::durable_file;
use bytes::Buf;
use gantry_proto::env::{DirectoryLock, Env};
use gantry_proto::model::Epoch;
use std::io;
use std::path::{Path, PathBuf};

/// A locked folder. Nobody else opens it while this value lives.
pub(crate) struct DataFolder {
    _lock: DirectoryLock,
    /// Key of the receipt handles.
    pub receipt_key: [u8; 32],
    /// The epoch that begins with this opening.
    pub epoch: Epoch,
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
}

const MAGIC: &[u8; 8] = b"GNTRYSTO";
const FORMAT: u32 = 1;
const NAME: &str = "identity";
const LEN: usize = 52;

impl DataFolder {
    /// Creates the folder if need be, locks it, and begins a new epoch in it.
    pub(crate) fn open(env: &Env, dir: &Path) -> Result<DataFolder, DataFolderError> {
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
        let (epoch, receipt_key) = match durable_file::read(files, dir, NAME).map_err(io("reading", &path))? {
            Some(bytes) => parse(&bytes, &path)?,
            None => {
                let mut key = [0; 32];
                env.random.fill(&mut key);
                (Epoch(0), key)
            }
        };
        let epoch = Epoch(epoch.0 + 1);
        durable_file::replace(files, dir, NAME, &encode(epoch, &receipt_key)).map_err(io("writing", &path))?;
        Ok(DataFolder { _lock: lock, receipt_key, epoch })
    }
}

fn encode(epoch: Epoch, key: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(key);
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

fn parse(bytes: &[u8], path: &Path) -> Result<(Epoch, [u8; 32]), DataFolderError> {
    let damaged = || DataFolderError::Damaged(path.to_owned());
    if bytes.len() < 16 || &bytes[..8] != MAGIC {
        return Err(damaged());
    }
    let mut fields = &bytes[8..];
    let (format, crc) = (fields.get_u32_le(), fields.get_u32_le());
    if format > FORMAT {
        return Err(DataFolderError::Newer { path: path.to_owned(), found: format });
    }
    if format != FORMAT || bytes.len() != LEN || crc32c::crc32c(&bytes[16..]) != crc {
        return Err(damaged());
    }
    let epoch = Epoch(fields.get_u32_le());
    let key = *fields.first_chunk::<32>().ok_or_else(damaged)?;
    Ok((epoch, key))
}
