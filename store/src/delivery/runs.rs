//! Lists of messages as runs of consecutive offsets of one queue: a batch from one queue is one run.
//!
//! Layout, little endian: runs, then 2 bytes of zero. Each run: number of messages 2, queue 4, first offset 8, then what
//! its messages have in common.

use crate::commit_log::record::RecordError;
use bytes::{Buf, BufMut, TryGetError};
use gantry_proto::model::{ClientHash, QueueId, QueueOffset, Timestamp};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// They end too early.
    #[error("the bytes are cut off")]
    CutOff,
    /// Something follows.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// Written by something that knows more.
    #[error("{0} is no kind of delivery record")]
    UnknownKind(u8),
    /// Written by something that knows more.
    #[error("the flags {0:#04x} are not known")]
    UnknownFlags(u8),
    /// No queue is that long.
    #[error("a run of messages goes beyond the last offset")]
    RunTooLong,
}

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Malformed {
        Malformed::CutOff
    }
}

impl From<Malformed> for RecordError {
    fn from(error: Malformed) -> RecordError {
        match error {
            Malformed::UnknownKind(number) => RecordError::Newer { what: "delivery records of kind", number },
            Malformed::UnknownFlags(number) => RecordError::Newer { what: "the flags of a delivery record", number },
            Malformed::CutOff => RecordError::Malformed("its delivery record is cut off"),
            Malformed::TrailingBytes(_) => RecordError::Malformed("something follows its delivery record"),
            Malformed::RunTooLong => RecordError::Malformed("a run of messages in it goes beyond the last offset"),
        }
    }
}

/// Messages of a run. Few enough that damaged bytes cannot claim more than memory holds.
type Count = u16;

/// Appends a list, in its order. `put` writes what a run's messages have in common.
pub(super) fn put_runs<B: BufMut, T: PartialEq>(
    out: &mut B,
    messages: impl IntoIterator<Item = (QueueId, QueueOffset, T)>,
    put: impl Fn(&mut B, &T),
) {
    let mut put_run = |(queue, first, common, count): (QueueId, QueueOffset, T, Count)| {
        out.put_u16_le(count);
        out.put_u32_le(queue.0);
        out.put_u64_le(first.0);
        put(out, &common);
    };
    let mut open: Option<(QueueId, QueueOffset, T, Count)> = None;
    for (queue, offset, common) in messages {
        if let Some((run_queue, first, run_common, count)) = &mut open
            && *run_queue == queue
            && first.0.checked_add(u64::from(*count)) == Some(offset.0)
            && *run_common == common
            && *count < Count::MAX
        {
            *count += 1;
        } else if let Some(run) = open.replace((queue, offset, common, 1)) {
            put_run(run);
        }
    }
    if let Some(run) = open {
        put_run(run);
    }
    out.put_u16_le(0);
}

/// Reads a list and calls `each` with its messages, in order.
pub(super) fn take_runs<T: Copy, E: From<Malformed>>(
    bytes: &mut &[u8],
    take: impl Fn(&mut &[u8]) -> Result<T, E>,
    mut each: impl FnMut(QueueId, QueueOffset, T) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        let count = bytes.try_get_u16_le().map_err(Malformed::from)?;
        if count == 0 {
            return Ok(());
        }
        let queue = QueueId(bytes.try_get_u32_le().map_err(Malformed::from)?);
        let first = bytes.try_get_u64_le().map_err(Malformed::from)?;
        // Exclusive, so that every offset has one after it.
        let end = first.checked_add(u64::from(count)).ok_or(Malformed::RunTooLong)?;
        let common = take(bytes)?;
        for offset in first..end {
            each(queue, QueueOffset(offset), common)?;
        }
    }
}

pub(super) fn take_time(bytes: &mut &[u8]) -> Result<Timestamp, Malformed> {
    Ok(Timestamp::from_millis(bytes.try_get_u64_le()?))
}

pub(super) fn take_owner(bytes: &mut &[u8]) -> Result<ClientHash, Malformed> {
    Ok(ClientHash(bytes.try_get_u64_le()?))
}

/// Nothing must be left.
pub(super) fn end(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes(bytes.len())) }
}
