//! The durable position that recovery starts from: what cannot be had from the retained log alone.
//!
//! A checkpoint is written only when everything it knows of is on disk in the log, so it is never ahead of it. Each part
//! carries the log offset that it is good for: records before it are in the part already.
//!
//! Layout, little endian, format 1: `GNTRYCKP` 8, format 4, CRC-32C of what follows 4; then
//! `queues_at` 8, number of queues 4, each: topic 4, queue 4, next queue offset 8;
//! number of shards 4, each: group 4, topic 4, `good_for` 8, length 4, delivery state.

use crate::durable_file;
use crate::queue_index::QueueRow;
use bytes::{Buf, Bytes};
use gantry_proto::env::Files;
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, TopicId};
use std::io;
use std::path::{Path, PathBuf};

/// A checkpoint in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Records before this are counted in `queues`.
    pub queues_at: LogOffset,
    /// Where every queue goes on, for queues whose messages may all have expired.
    pub queues: Vec<QueueRow>,
    pub shards: Vec<ShardCheckpoint>,
}

/// One group's progress on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardCheckpoint {
    pub group: GroupId,
    pub topic: TopicId,
    /// Records before this are in `state`.
    pub good_for: LogOffset,
    /// Encoded delivery state.
    pub state: Bytes,
}

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("reading {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{0} is damaged, and the consumers' progress is in it. `gantry repair checkpoint` makes it again if all of the log is \
         there; else restore it from a backup"
    )]
    Damaged(PathBuf),
    #[error("{path} was written by a newer gantry (format {found}, this one knows {FORMAT})")]
    Newer { path: PathBuf, found: u32 },
}

const MAGIC: &[u8; 8] = b"GNTRYCKP";
const FORMAT: u32 = 1;
const NAME: &str = "checkpoint";

impl Checkpoint {
    /// Replaces the checkpoint in `dir`.
    pub(crate) fn write(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        durable_file::replace(files, dir, NAME, &self.encode())
    }

    /// The checkpoint in `dir`, if there is one.
    pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
        let path = dir.join(NAME);
        let bytes = durable_file::read(files, dir, NAME)
            .map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
        bytes.map(|bytes| parse(&bytes, &path)).transpose()
    }

    /// Recovery needs the log from here on.
    pub(crate) fn needed_from(&self) -> LogOffset {
        self.shards.iter().map(|shard| shard.good_for).fold(self.queues_at, LogOffset::min)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.queues_at.0.to_le_bytes());
        out.extend_from_slice(&(self.queues.len() as u32).to_le_bytes());
        for row in &self.queues {
            out.extend_from_slice(&row.topic.0.to_le_bytes());
            out.extend_from_slice(&row.queue.0.to_le_bytes());
            out.extend_from_slice(&row.min.0.to_le_bytes());
            out.extend_from_slice(&row.next.0.to_le_bytes());
        }
        out.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        for shard in &self.shards {
            out.extend_from_slice(&shard.group.0.to_le_bytes());
            out.extend_from_slice(&shard.topic.0.to_le_bytes());
            out.extend_from_slice(&shard.good_for.0.to_le_bytes());
            out.extend_from_slice(&(shard.state.len() as u32).to_le_bytes());
            out.extend_from_slice(&shard.state);
        }
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

fn parse(bytes: &Bytes, path: &Path) -> Result<Checkpoint, CheckpointError> {
    let damaged = || CheckpointError::Damaged(path.to_owned());
    if bytes.len() < 16 || &bytes[..8] != MAGIC {
        return Err(damaged());
    }
    let mut header = &bytes[8..16];
    let (format, crc) = (header.get_u32_le(), header.get_u32_le());
    if format > FORMAT {
        return Err(CheckpointError::Newer { path: path.to_owned(), found: format });
    }
    if format != FORMAT || crc32c::crc32c(&bytes[16..]) != crc {
        return Err(damaged());
    }
    parse_body(bytes.slice(16..)).ok_or_else(damaged)
}

fn parse_body(mut bytes: Bytes) -> Option<Checkpoint> {
    let queues_at = LogOffset(bytes.try_get_u64_le().ok()?);
    let mut queues = Vec::new();
    for _ in 0..bytes.try_get_u32_le().ok()? {
        let (topic, queue) = (bytes.try_get_u32_le().ok()?, bytes.try_get_u32_le().ok()?);
        let (min, next) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
        let (topic, queue) = (TopicId(topic), QueueId(queue));
        queues.push(QueueRow { topic, queue, min: QueueOffset(min), next: QueueOffset(next) });
    }
    let mut shards = Vec::new();
    for _ in 0..bytes.try_get_u32_le().ok()? {
        let (group, topic) = (bytes.try_get_u32_le().ok()?, bytes.try_get_u32_le().ok()?);
        let good_for = LogOffset(bytes.try_get_u64_le().ok()?);
        let len = bytes.try_get_u32_le().ok()? as usize;
        if len > bytes.len() {
            return None;
        }
        let state = bytes.split_to(len);
        shards.push(ShardCheckpoint { group: GroupId(group), topic: TopicId(topic), good_for, state });
    }
    bytes.is_empty().then_some(Checkpoint { queues_at, queues, shards })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_reads_back_as_it_was_written(
            queues_at: u64,
            queues in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 0..9),
            shards in proptest::collection::vec(
                (any::<u32>(), any::<u32>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..9),
        ) {
            let checkpoint = Checkpoint {
                queues_at: LogOffset(queues_at),
                queues: queues
                    .into_iter()
                    .map(|(t, q, o)| QueueRow { topic: TopicId(t), queue: QueueId(q), min: QueueOffset(o), next: QueueOffset(o) })
                    .collect(),
                shards: shards
                    .into_iter()
                    .map(|(g, t, at, state)| ShardCheckpoint {
                        group: GroupId(g), topic: TopicId(t), good_for: LogOffset(at), state: state.into(),
                    })
                    .collect(),
            };
            let (env, _, _) = fake::env(1);
            let dir = Path::new("/store");
            env.files.create_dir_all(dir).unwrap();
            checkpoint.write(&*env.files, dir).unwrap();
            prop_assert_eq!(Checkpoint::read(&*env.files, dir).unwrap(), Some(checkpoint));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let encoded = Checkpoint { queues_at: LogOffset(9), ..Checkpoint::default() }.encode();
        for byte in 0..encoded.len() {
            let mut changed = encoded.clone();
            changed[byte] ^= 1;
            assert!(parse(&changed.into(), Path::new("checkpoint")).is_err(), "byte {byte}");
        }
    }
}
