//! What lies behind the log's end: it is erased, so that it can never come back to life.

use super::error::LogOpenError;
use super::io;
use super::scan::Scanned;
use crate::commit_log::record::RecordError;
use crate::commit_log::segment::Segment;
use gantry_proto::env::{File, is_unreadable};

/// Erases what lies behind the end.
pub(super) fn cut_tail(active: &Segment, scanned: &Scanned, answered_unflushed: bool) -> Result<(), LogOpenError> {
    let from = active.position(scanned.end);
    let erased = erase(&*active.file, from, active.file_len()).map_err(io("erasing the torn end of", &active.path))?;
    if erased == 0 {
        return Ok(());
    }
    let cause = scanned.stop.unwrap_or(RecordError::Blank);
    let segment = active.path.display();
    if answered_unflushed {
        tracing::warn!(
            %segment, at = from, bytes = erased, %cause,
            "cut off what was being written when the machine went down. Answers are given before the flush here (flush = \
             async): messages that were answered in the last moments before may be among it"
        );
    } else {
        tracing::warn!(
            %segment, at = from, bytes = erased, %cause,
            "cut off a write that was under way when the process or the machine went down. No send and no acknowledgement in \
             it was answered, unless the disk lost what it had reported as flushed in the last second before; a message \
             whose delivery was in it is delivered again"
        );
    }
    Ok(())
}

const WINDOW_LEN: usize = 1 << 20;

/// Overwrites with zeros, durably, whatever a file holds from `from` to `to`. Returns how far that reached.
fn erase(file: &dyn File, from: u64, to: u64) -> io::Result<u64> {
    let zeros = vec![0; WINDOW_LEN];
    let (mut erased, mut from_here) = (0, from);
    loop {
        let passed = for_each_window(file, from_here, to, |position, window| {
            from_here = position + window.len() as u64;
            // In one comparison, which is fast in every build.
            if window == &zeros[..window.len()] {
                return Ok(true);
            }
            if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
                file.write_all_at(&zeros[..last + 1], position)?;
                erased = position + last as u64 + 1 - from;
            }
            Ok(true)
        });
        match passed {
            // Nobody needs what the disk does not give there; written over, it may give it again.
            Err(error) if is_unreadable(&error) => {
                let part = WINDOW_LEN.min((to - from_here) as usize);
                file.write_all_at(&zeros[..part], from_here)?;
                from_here += part as u64;
                erased = from_here - from;
            }
            passed => {
                passed?;
                break;
            }
        }
    }
    if erased > 0 {
        file.sync_data()?;
    }
    Ok(erased)
}

/// Reads what was ever written between `from` and `to`, as long as `each` says so.
fn for_each_window(
    file: &dyn File,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; WINDOW_LEN];
    let mut from = from;
    while from < to {
        // Most of what follows the end was never written.
        let Some(position) = file.next_data_at(from)?.filter(|position| *position < to) else { break };
        let wanted = WINDOW_LEN.min((to - position) as usize);
        let held = file.read_into(position, &mut buffer[..wanted])?;
        if held == 0 || !each(position, &buffer[..held])? {
            break;
        }
        from = position + held as u64;
    }
    Ok(())
}

/// Whether there are only zeros between `from` and `to`.
pub(super) fn is_blank(file: &dyn File, from: u64, to: u64) -> io::Result<bool> {
    let mut blank = true;
    let read = for_each_window(file, from, to, |_, window| {
        blank = window.iter().all(|byte| *byte == 0);
        Ok(blank)
    });
    match read {
        // What lies there nobody knows.
        Err(error) if is_unreadable(&error) => Ok(false),
        read => read.map(|()| blank),
    }
}
