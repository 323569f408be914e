//! Files with a segment's name that hold nothing of this log: emptied, cut within their first page, all zeros, or overwritten.
//! Also where nothing proves that anything of it was in them: of what has not been understood no byte is erased
//! (`bytes_of_which_nothing_is_known_are_asked_about_and_kept`).
//!
//! What was in them is missing, as if they had been removed: opening fails and says what is, unless an operator chose to go on
//! without it. Then they go out of the way: what holds nothing but zeros is removed, everything else keeps its bytes under
//! another name. All of them are judged before the first is touched.

use super::error::LogOpenError;
use super::header::{describe, shows_itself};
use super::io;
use super::missing::Gap;
use super::open_file::Opened;
use super::torn_tail::is_blank;
use crate::commit_log::LogConfig;
use crate::commit_log::damage::DamageRegister;
use crate::commit_log::segment::segment_name;
use crate::commit_log::segment_header::SegmentHeaderError;
use gantry_proto::env::{Files, OpenMode};
use gantry_proto::model::{LogOffset, Timestamp};
use std::path::Path;

/// In the name that such a file gets, in front of a number.
pub(crate) const SET_ASIDE: &str = ".set-aside-";

/// Takes them out of `opened`, and durably out of the folder's names. `flushed_to`: the log was on this disk as far as this.
pub(super) fn set_aside(
    files: &dyn Files,
    config: &LogConfig,
    opened: &mut Vec<Opened>,
    flushed_to: LogOffset,
    (damage, found_at): (&DamageRegister, Timestamp),
) -> Result<(), LogOpenError> {
    let mut useless = Vec::new();
    for (place, found) in opened.iter().enumerate() {
        let Opened::Headless { base, cause } = *found else { continue };
        let to = opened.get(place + 1).map_or(flushed_to, Opened::base).max(base);
        let why = match cause {
            // Its name is younger than its first page: somebody cut it.
            SegmentHeaderError::CutOff => cause.to_string(),
            _ => {
                let segment = describe(files, config, base, cause, Vec::new())?;
                if shows_itself(&segment, to).map_err(io("reading", &segment.path))? {
                    continue;
                }
                let unproven = if to > base { "" } else { "; nothing proves that messages were in it" };
                format!("{cause}, and no record in it shows that it is{unproven}")
            }
        };
        let path = config.dir.join(segment_name(base));
        let what = format!("{} is not a segment of this log: {why}", path.display());
        Gap { what, from: base, to }.accept(config, damage, found_at)?;
        useless.push(base);
    }
    for base in &useless {
        take_away(files, &config.dir.join(segment_name(*base)))?;
    }
    if !useless.is_empty() {
        // Before another file takes such a name.
        files.sync_dir(&config.dir).map_err(io("making durable the names in", &config.dir))?;
    }
    opened.retain(|found| !useless.contains(&found.base()));
    Ok(())
}

fn take_away(files: &dyn Files, path: &Path) -> Result<(), LogOpenError> {
    if holds_only_zeros(files, path)? {
        files.remove(path).map_err(io("removing", path))?;
        tracing::warn!(path = %path.display(), "removed a log file that held nothing but zeros");
        return Ok(());
    }
    let mut number = 1;
    let aside = loop {
        let mut name = path.to_owned().into_os_string();
        name.push(format!("{SET_ASIDE}{number}"));
        if files.identity_at(Path::new(&name)).map_err(io("looking for", &name))?.is_none() {
            break name;
        }
        number += 1;
    };
    files.rename(path, Path::new(&aside)).map_err(io("setting aside", path))?;
    tracing::warn!(
        path = %path.display(), now = %Path::new(&aside).display(),
        "set aside a file that is not a segment of this log: nothing reads it any more"
    );
    Ok(())
}

fn holds_only_zeros(files: &dyn Files, path: &Path) -> Result<bool, LogOpenError> {
    let file = files.open(path, OpenMode::Read).map_err(io("opening", path))?;
    let len = file.len().map_err(io("measuring", path))?;
    is_blank(&*file, 0, len).map_err(io("reading", path))
}
