//! From a folder to a store's state: the checkpoint, the indexes of sealed segments, and every record after them.

use crate::checkpoint::Checkpoint;
use crate::commit_log::record::{Origin, RecordError, RecordKind, key_hash};
use crate::commit_log::recovery::{LogOpenError, Segments};
use crate::commit_log::segment::{ScannedRecord, Segment};
use crate::commit_log::writer::LogWriter;
use crate::commit_log::{CommitLog, LogConfig, LogHome};
use crate::data_folder::StoreFolder;
use crate::dedup::{DedupWindow, GENERATION_MAX};
use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::progress::{ProgressTable, Shard};
use crate::queue_index::{IndexEntry, QueueTable, SealedIndex, SealedIndexError};
use crate::store::{OpenErrorKind, StoreConfig};
use crate::tenure::Tenure;
use gantry_proto::contract::StoreError;
use gantry_proto::env::Env;
use gantry_proto::model::{GroupId, LogOffset, MessageHead, TopicId, tag_hash};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A store's state as the log says it is.
pub(crate) struct Recovered {
    pub log: Arc<CommitLog>,
    pub writer: LogWriter,
    pub queues: QueueTable,
    pub progress: ProgressTable,
    pub dedup: DedupWindow,
    pub sealed: VecDeque<Arc<SealedIndex>>,
    pub needed_from: LogOffset,
}

/// Name of the log's folder in the store's.
pub(crate) const LOG_DIR: &str = "commit-log";

/// Reads the folder. Nothing is put into the log before `tenure` begins an epoch.
pub(crate) fn recover(
    config: &StoreConfig,
    env: &Env,
    folder: &StoreFolder,
    tenure: Arc<Tenure>,
) -> Result<Recovered, OpenErrorKind> {
    let dir = folder.dir();
    let log_config = LogConfig {
        folder: dir.to_owned(),
        dir: dir.join(LOG_DIR),
        home: LogHome {
            folder: folder.id(),
            cluster: folder.cluster(),
            group: folder.store_group().map(|(group, _)| group),
        },
        flush: config.flush,
        segment_bytes: config.segment_bytes,
        pending_bytes_max: config.pending_bytes_max,
    };
    // A process before this one may have replaced the checkpoint, and died before its name was durable.
    let io = |source| LogOpenError::Io { action: "making durable the names in", path: dir.to_owned(), source };
    env.files.sync_dir(dir).map_err(io)?;
    let checkpoint = Checkpoint::read(&*env.files, dir)?.unwrap_or_default();
    let needed_from = checkpoint.needed_from();
    let segments = Segments::find(log_config.clone(), env.clone())?;

    let mut replay = Replay::start(&checkpoint, segments.active().base, config.dedup_window)?;
    let mut sealed = VecDeque::new();
    for (segment, end) in segments.sealed() {
        let index = Arc::new(open_or_build_index(env, &log_config, segment, end)?);
        replay.queues.add_sealed(&index)?;
        sealed.push_back(index);
    }
    remember_sealed_ids(&mut replay.dedup, &sealed, config.dedup_window)?;
    let scanned = segments.scan(needed_from, |record| replay.apply(record))?;
    for (topic, queue, next) in &checkpoint.queues {
        replay.queues.open_queue(*topic, *queue).restore_next(*next);
    }
    let (log, writer) = segments.open(scanned, tenure)?;
    log.confirm_found();
    let Replay { queues, progress, dedup, .. } = replay;
    for topic in queues.list() {
        topic.list().iter().for_each(|queue| queue.confirm_all());
    }
    for shard in progress.list() {
        queues.open(shard.topic, []).attach(shard);
    }
    Ok(Recovered { log, writer, queues, progress, dedup, sealed, needed_from })
}

/// The state being rebuilt.
struct Replay {
    queues: QueueTable,
    progress: ProgressTable,
    dedup: DedupWindow,
    /// Records before this are in the shard's state already.
    good_for: HashMap<(GroupId, TopicId), LogOffset>,
    /// Messages before this are in sealed indexes.
    active_base: LogOffset,
}

impl Replay {
    fn start(checkpoint: &Checkpoint, active_base: LogOffset, dedup_window: Duration) -> Result<Replay, OpenErrorKind> {
        let progress = ProgressTable::default();
        let mut good_for = HashMap::new();
        for shard in &checkpoint.shards {
            let state = DeliveryState::decode(&shard.state)
                .map_err(|error| StoreError::Unreadable(format!("delivery state in the checkpoint: {error}")))?;
            progress.open(shard.group, shard.topic, state);
            good_for.insert((shard.group, shard.topic), shard.good_for);
        }
        let (queues, dedup) = (QueueTable::default(), DedupWindow::new(dedup_window));
        Ok(Replay { queues, progress, dedup, good_for, active_base })
    }

    fn apply(&mut self, record: &ScannedRecord<'_>) -> Result<(), RecordError> {
        match record.header.kind {
            // They say nothing of their own.
            RecordKind::Batch | RecordKind::Unknown(_) => Ok(()),
            RecordKind::Message => self.apply_message(record),
            RecordKind::DeadLetter => {
                self.apply_message(record)?;
                let origin = Origin::parse(record.body())?;
                if let Some(shard) = self.shard(origin.group, origin.topic, record.header.log_offset) {
                    shard.state.lock().finish(origin.queue, origin.queue_offset);
                }
                Ok(())
            }
            RecordKind::Delivery => {
                let (group, topic, change) = DeliveryRecord::decode(record.body())?;
                if let Some(shard) = self.shard(group, topic, record.header.log_offset) {
                    shard.state.lock().apply(&change, record.header.log_offset);
                }
                Ok(())
            }
        }
    }

    fn apply_message(&mut self, record: &ScannedRecord<'_>) -> Result<(), RecordError> {
        let header = &record.header;
        if header.log_offset < self.active_base {
            return Ok(());
        }
        let span = record.message_span()?;
        let head = MessageHead::parse(span.head(record.bytes))?;
        let entry = IndexEntry {
            queue_offset: header.queue_offset,
            log_offset: header.log_offset,
            len: header.len,
            tag_hash: tag_hash(head.tag),
            store_time: header.store_time,
        };
        if header.kind == RecordKind::Message {
            self.dedup.insert(key_hash(header.topic, head.message_id), header.log_offset, header.store_time);
        }
        let queue = self.queues.open_queue(header.topic, header.queue);
        let follows = queue.recover(entry);
        if follows { Ok(()) } else { Err(RecordError::Malformed("its queue offset does not follow the one before it")) }
    }

    /// The shard that a record at `at` changes, unless its state has the change already.
    fn shard(&self, group: GroupId, topic: TopicId, at: LogOffset) -> Option<Arc<Shard>> {
        if self.good_for.get(&(group, topic)).is_some_and(|good_for| at < *good_for) {
            return None;
        }
        Some(self.progress.open(group, topic, DeliveryState::default()).0)
    }
}

/// Fills the window from the newest sealed segments; the ids of the active one come with its records.
fn remember_sealed_ids(
    dedup: &mut DedupWindow,
    sealed: &VecDeque<Arc<SealedIndex>>,
    window: Duration,
) -> Result<(), StoreError> {
    let Some(newest) = sealed.back().map(|index| index.newest) else { return Ok(()) };
    let mut left = GENERATION_MAX;
    let mut batches = Vec::new();
    for index in sealed.iter().rev().take_while(|index| newest.since(index.newest) <= window) {
        let hashes = index.newest_hashes(left)?;
        left = left.saturating_sub(hashes.len());
        batches.push((index.newest, hashes));
        if left == 0 {
            break;
        }
    }
    for (time, hashes) in batches.into_iter().rev() {
        hashes.into_iter().for_each(|(key, at)| dedup.insert(key, at, time));
    }
    Ok(())
}

fn open_or_build_index(
    env: &Env,
    config: &LogConfig,
    segment: &Segment,
    end: LogOffset,
) -> Result<SealedIndex, SealedIndexError> {
    match SealedIndex::open(&*env.files, &config.dir, segment.base, end) {
        Ok(index) => Ok(index),
        Err(error) => {
            tracing::info!(segment = %segment.path.display(), %error, "building the index of a sealed segment");
            SealedIndex::build(&*env.files, &config.dir, segment, end)
        }
    }
}
