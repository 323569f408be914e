//! How a generation is written.
//!
//! A file is a header and parts behind it, little endian. The header: `GNTRYCKP` 8, format 4, length of the header 4,
//! generation 8, zero 4, CRC-32C of what is before it 4. A longer header has fields that this version passes over.
//!
//! A part: CRC-32C of all that follows in it 4, its length 4, kind 1, flags 1 (1: a reader that does not know the kind may
//! pass it over), length of extension fields 2, generation 8, number of the part in its file 4; then the extension fields,
//! which a reader that does not know them passes over, and the body:
//!
//! | kind | what | body |
//! |---|---|---|
//! | 2 | shard gone | group 4, topic 4 |
//! | 3 | queues | length of a row 2, then rows: topic 4, queue 4, first retained offset 8, next offset 8 |
//! | 4 | shard | group 4, topic 4, good for 8, delivery state |
//! | 5 | end of a save | at 8, retained from 8, log to 8 |
//! | 6 | where queues begin that no save names; only in checkpoints that follow one that `gantry repair` wrote | offset 8 |
//!
//! The checksum is looked at before the kind.

use super::{Changes, Position, ShardState, Snapshot};
use crate::queue_index::QueueRow;
use bytes::{Buf, Bytes};
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};

pub(super) const FILE_HEADER_LEN: usize = 32;
const MAGIC: &[u8; 8] = b"GNTRYCKP";
const FORMAT: u32 = 1;
const PART_HEADER_LEN: usize = 24;
const MAY_PASS_OVER: u8 = 1;
const SHARD_GONE: u8 = 2;
const QUEUES: u8 = 3;
const SHARD: u8 = 4;
const END: u8 = 5;
const QUEUES_BEGIN: u8 = 6;
const QUEUE_ROW_LEN: usize = 24;
/// Queues in one part, so that no part is large.
const QUEUES_MAX: usize = 2048;

/// What reading a generation came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub generation: u64,
    pub snapshot: Snapshot,
    /// Position of the first save.
    pub base: Position,
    /// Bytes of header and first save.
    pub base_len: u64,
    /// Where the last whole save ends, and the number of the part after it.
    pub end: u64,
    pub next_part: u32,
}

/// Why bytes are not a generation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("{0}")]
    Damaged(&'static str),
    #[error("it was written by a newer gantry: {what} {number}")]
    Newer { what: &'static str, number: u64 },
}

pub(super) fn file_header(generation: u64) -> [u8; FILE_HEADER_LEN] {
    let mut out = [0; FILE_HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&(FILE_HEADER_LEN as u32).to_le_bytes());
    out[16..24].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Appends a save to `out`. Returns the number of the part after it.
pub(super) fn write_save(
    out: &mut Vec<u8>,
    generation: u64,
    mut part: u32,
    changes: &Changes,
    position: &Position,
) -> u32 {
    let mut write = |kind: u8, body: &mut dyn FnMut(&mut Vec<u8>)| {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&part.to_le_bytes());
        body(out);
        let len = (out.len() - start) as u32;
        out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        part += 1;
    };
    for (group, topic) in &changes.shards_gone {
        write(SHARD_GONE, &mut |out| {
            out.extend_from_slice(&group.0.to_le_bytes());
            out.extend_from_slice(&topic.0.to_le_bytes());
        });
    }
    if changes.queues_begin > QueueOffset(0) {
        write(QUEUES_BEGIN, &mut |out| out.extend_from_slice(&changes.queues_begin.0.to_le_bytes()));
    }
    for rows in changes.queues.chunks(QUEUES_MAX) {
        write(QUEUES, &mut |out| {
            out.extend_from_slice(&(QUEUE_ROW_LEN as u16).to_le_bytes());
            for row in rows {
                out.extend_from_slice(&row.topic.0.to_le_bytes());
                out.extend_from_slice(&row.queue.0.to_le_bytes());
                out.extend_from_slice(&row.min.0.to_le_bytes());
                out.extend_from_slice(&row.next.0.to_le_bytes());
            }
        });
    }
    for shard in &changes.shards {
        write(SHARD, &mut |out| {
            out.extend_from_slice(&shard.group.0.to_le_bytes());
            out.extend_from_slice(&shard.topic.0.to_le_bytes());
            out.extend_from_slice(&shard.good_for.0.to_le_bytes());
            out.extend_from_slice(&shard.state);
        });
    }
    write(END, &mut |out| {
        for offset in [position.at, position.retained_from, position.log_to] {
            out.extend_from_slice(&offset.0.to_le_bytes());
        }
    });
    part
}

/// Reads a generation up to where its saves stop being whole, or know of more than was on disk in the log when they were
/// written.
pub(super) fn read(bytes: &Bytes) -> Result<Read, Malformed> {
    let (generation, header_len) = read_header(bytes)?;
    let mut read = Read {
        generation,
        snapshot: Snapshot::default(),
        base: Position::default(),
        base_len: 0,
        end: 0,
        next_part: 0,
    };
    let (mut at, mut part, mut changes) = (header_len, 0, Changes::default());
    let mut ahead = false;
    while let Some((kind, may_pass_over, body, len)) = next_part(&bytes.slice(at..), generation, part) {
        at += len;
        part += 1;
        match take(kind, may_pass_over, body, &mut changes)? {
            None => {}
            Some(position) => {
                // Saves build on one another: none counts from there on. They are looked at all the same, for newer parts.
                ahead |= position.is_ahead(&changes.shards);
                if ahead {
                    changes = Changes::default();
                    continue;
                }
                read.snapshot.apply(std::mem::take(&mut changes), position);
                if read.end == 0 {
                    (read.base, read.base_len) = (position, at as u64);
                }
                (read.end, read.next_part) = (at as u64, part);
            }
        }
    }
    if read.end == 0 && ahead {
        return Err(Malformed::Damaged("it knows of more than was on disk in the log when it was written"));
    }
    if read.end == 0 {
        return Err(Malformed::Damaged("its first save is not whole"));
    }
    Ok(read)
}

fn read_header(bytes: &Bytes) -> Result<(u64, usize), Malformed> {
    let Some(header) = bytes.get(..FILE_HEADER_LEN) else {
        return Err(Malformed::Damaged("its header is cut off"));
    };
    let crc = u32::from_le_bytes([header[28], header[29], header[30], header[31]]);
    if &header[..8] != MAGIC || crc32c::crc32c(&header[..28]) != crc {
        return Err(Malformed::Damaged("its header does not match its checksum"));
    }
    let mut fields = &header[8..];
    let (format, len) = (fields.get_u32_le(), fields.get_u32_le() as usize);
    if format != FORMAT {
        return Err(Malformed::Newer { what: "format", number: format.into() });
    }
    if len < FILE_HEADER_LEN || len > bytes.len() {
        return Err(Malformed::Damaged("its header is cut off"));
    }
    Ok((fields.get_u64_le(), len))
}

/// The part at the front: kind, whether it may be passed over, body and length. `None`: no whole one is there.
fn next_part(bytes: &Bytes, generation: u64, number: u32) -> Option<(u8, bool, Bytes, usize)> {
    let mut fields = bytes.get(..PART_HEADER_LEN)?;
    let (crc, len) = (fields.get_u32_le(), fields.get_u32_le() as usize);
    if len < PART_HEADER_LEN || len > bytes.len() || crc32c::crc32c(&bytes[4..len]) != crc {
        return None;
    }
    let (kind, flags, extensions) = (fields.get_u8(), fields.get_u8(), usize::from(fields.get_u16_le()));
    if fields.get_u64_le() != generation || fields.get_u32_le() != number {
        return None;
    }
    let body_at = (PART_HEADER_LEN + extensions).min(len);
    Some((kind, flags & MAY_PASS_OVER != 0, bytes.slice(body_at..len), len))
}

/// Adds a part to the save that it belongs to. The position, if the save ends with it.
fn take(kind: u8, may_pass_over: bool, mut body: Bytes, changes: &mut Changes) -> Result<Option<Position>, Malformed> {
    const SHORT: Malformed = Malformed::Damaged("a part is shorter than its kind");
    match kind {
        SHARD_GONE if body.len() >= 8 => {
            changes.shards_gone.push((GroupId(body.get_u32_le()), TopicId(body.get_u32_le())));
        }
        QUEUES if body.len() >= 2 => {
            let row_len = usize::from(body.get_u16_le());
            if row_len < QUEUE_ROW_LEN {
                return Err(SHORT);
            }
            changes.queues.extend(body.chunks_exact(row_len).map(|mut row| QueueRow {
                topic: TopicId(row.get_u32_le()),
                queue: QueueId(row.get_u32_le()),
                min: QueueOffset(row.get_u64_le()),
                next: QueueOffset(row.get_u64_le()),
            }));
        }
        SHARD if body.len() >= 16 => {
            let (group, topic) = (GroupId(body.get_u32_le()), TopicId(body.get_u32_le()));
            let good_for = LogOffset(body.get_u64_le());
            changes.shards.push(ShardState { group, topic, good_for, state: body });
        }
        END if body.len() >= 24 => {
            let (at, retained_from) = (LogOffset(body.get_u64_le()), LogOffset(body.get_u64_le()));
            return Ok(Some(Position { at, retained_from, log_to: LogOffset(body.get_u64_le()) }));
        }
        QUEUES_BEGIN if body.len() >= 8 => changes.queues_begin = QueueOffset(body.get_u64_le()),
        SHARD_GONE | QUEUES | SHARD | END | QUEUES_BEGIN => return Err(SHORT),
        _ if may_pass_over => {}
        _ => return Err(Malformed::Newer { what: "a part of kind", number: kind.into() }),
    }
    Ok(None)
}
