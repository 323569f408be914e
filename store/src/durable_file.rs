//! Small durable state: a file that is always either the old or the new one, never something between.

use gantry_proto::env::{Files, OpenMode};
use std::io;
use std::path::Path;

/// Replaces `dir/name` by `contents`: write aside, flush, rename, flush the directory.
pub(crate) fn replace(files: &dyn Files, dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let aside = dir.join(format!("{name}.tmp"));
    match files.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(contents, 0)?;
    file.sync_data()?;
    files.rename(&aside, &dir.join(name))?;
    files.sync_dir(dir)
}

/// The contents of `dir/name`, or `None` if there is no such file.
pub(crate) fn read(files: &dyn Files, dir: &Path, name: &str) -> io::Result<Option<bytes::Bytes>> {
    let file = match files.open(&dir.join(name), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    file.read_at(0, len as usize).map(Some)
}
