//! From a folder to a store's state: the checkpoint, the indexes of sealed segments, and every record after them.

use crate::apply::Applier;
use crate::checkpoint::{Checkpoints, Loaded, Snapshot};
use crate::commit_log::recovery::{LogOpenError, Segments, Visit};
use crate::commit_log::writer::LogWriter;
use crate::commit_log::{CommitLog, LogConfig, LogHome};
use crate::config::StoreConfig;
use crate::data_folder::StoreFolder;
use crate::dedup::{DedupWindow, Generation};
use crate::delivery::DeliveryState;
use crate::given_up::GivenUp;
use crate::open_error::OpenErrorKind;
use crate::progress::ProgressTable;
use crate::queue_index::{IndexedSegment, QueueRow, QueueTable, SealedIndex, SealedIndexError, SealedSet};
use crate::store::Store;
use crate::tenure::Tenure;
use gantry_proto::contract::StoreError;
use gantry_proto::env::Env;
use gantry_proto::model::LogOffset;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A store's state as the log says it is.
pub(crate) struct Rebuilt {
    pub log: Arc<CommitLog>,
    pub writer: LogWriter,
    pub queues: QueueTable,
    pub progress: ProgressTable,
    pub dedup: DedupWindow,
    pub given_up: GivenUp,
    pub checkpoints: Checkpoints,
    /// The log does not begin at its first record, and no checkpoint says what came before.
    pub lacks_checkpoint: bool,
}

/// Name of the log's folder in the store's.
pub(crate) const LOG_DIR: &str = "commit-log";

/// Reads the folder. Nothing is put into the log before `tenure` begins an epoch.
pub(crate) fn rebuild(
    config: &StoreConfig,
    env: &Env,
    folder: &StoreFolder,
    tenure: Arc<Tenure>,
) -> Result<Rebuilt, OpenErrorKind> {
    let dir = folder.dir();
    let log_config = LogConfig {
        folder: dir.to_owned(),
        dir: dir.join(LOG_DIR),
        home: LogHome {
            folder: folder.id(),
            cluster: folder.cluster(),
            store_group: folder.store_group().map(|(group, _)| group),
        },
        flush: config.flush,
        segment_bytes: config.segment_bytes,
        pending_bytes_max: config.pending_bytes_max,
        accept_missing: config.accept_missing_log,
    };
    // A process before this one may have replaced the checkpoint, and died before its name was durable.
    let io = |source| LogOpenError::Io { action: "making durable the names in", path: dir.to_owned(), source };
    env.files.sync_dir(dir).map_err(io)?;
    let mut segments = Segments::find(log_config.clone(), env.clone())?;
    let begins = segments.begins();
    // Without a checkpoint the log is needed from its beginning on.
    let may_lack = segments.may_lack_checkpoint();
    let Loaded { snapshot, checkpoints } = Checkpoints::load(&*env.files, dir, config.segment_bytes, begins, may_lack)?;
    let position = snapshot.position;
    let lacking = segments.must_hold(position.at, position.log_to)?;
    let mut applier = start(snapshot, config)?;
    if let Some(range) = lacking {
        applier.damaged(range, None);
    }
    if position.retained_from != begins {
        // Segments have expired since the checkpoint was written.
        applier.queues.sealed.forget_begins();
    }
    let indexed = open_indexes(env, &log_config, &segments, config.dedup_window)?;
    for segment in indexed {
        applier.queues.sealed.push(segment);
    }
    applier.unsealed = segments.bases_from(applier.queues.sealed.end().unwrap_or(begins));
    remember_sealed_ids(&mut applier.dedup, &applier.queues.sealed, config).map_err(OpenErrorKind::Rebuild)?;
    let at = position.at.max(begins);
    let from = at.min(applier.unsealed.first().copied().unwrap_or(at));
    let scanned = segments.scan(from, position.log_to, |visit| match visit {
        Visit::Record { record, gap } => applier.apply(record, gap),
        Visit::Damaged { range, claimed } => {
            applier.damaged(range, claimed);
            Ok(())
        }
    })?;
    applier.pass_over_lost_offsets();
    let (log, writer) = segments.open(scanned, tenure)?;
    log.confirm_found();
    let Applier { queues, progress, dedup, given_up, .. } = applier;
    for topic in queues.list() {
        topic.list().iter().for_each(|queue| queue.confirm_all());
    }
    for shard in progress.list() {
        queues.open(shard.topic, []).attach(shard);
    }
    let lacks_checkpoint = begins > LogOffset(0) && !checkpoints.are_there();
    Ok(Rebuilt { log, writer, queues, progress, dedup, given_up, checkpoints, lacks_checkpoint })
}

/// The state as the checkpoint says that it was. Records change it from there on.
fn start(snapshot: Snapshot, config: &StoreConfig) -> Result<Applier, OpenErrorKind> {
    let progress = ProgressTable::default();
    let mut good_for = HashMap::new();
    for ((group, topic), (offset, state)) in snapshot.shards {
        let state = DeliveryState::decode(&state)
            .map_err(|error| StoreError::Unreadable(format!("delivery state in the checkpoint: {error}")))
            .map_err(OpenErrorKind::Rebuild)?;
        progress.open(group, topic, state, |_| {});
        good_for.insert((group, topic), offset);
    }
    let queues = QueueTable::beginning_at(snapshot.queues_begin);
    let dedup = DedupWindow::new(config.dedup_window, config.dedup_bytes_max);
    for ((topic, queue), (min, next)) in snapshot.queues {
        queues.restore(&QueueRow { topic, queue, min, next });
    }
    let (checkpoint_at, unsealed, lost, lost_before) = (snapshot.position.at, Vec::new(), 0, HashMap::new());
    let given_up = GivenUp::known_from(snapshot.position.at);
    Ok(Applier { queues, progress, dedup, given_up, checkpoint_at, good_for, unsealed, lost, lost_before })
}

/// Fills the window from the newest sealed segments; the ids of those without an index come with their records.
fn remember_sealed_ids(dedup: &mut DedupWindow, sealed: &SealedSet, config: &StoreConfig) -> Result<(), StoreError> {
    let segments = sealed.list();
    let indexes: Vec<_> = segments.iter().rev().map_while(|segment| segment.index.clone()).collect();
    let Some(newest) = indexes.first().map(|index| index.newest) else { return Ok(()) };
    let mut left = config.dedup_recalled_at_once;
    let mut batches = Vec::new();
    for index in indexes.iter().take_while(|index| newest.since(index.newest) <= config.dedup_window) {
        let hashes = match index.newest_hashes(left) {
            Ok(hashes) => hashes,
            Err(error) if error.is_damage() => {
                // It is built again; what it would have said is not known until then.
                let _ = sealed.unusable(index, &error);
                break;
            }
            Err(error) => return Err(StoreError::Unreadable(error.to_string())),
        };
        left = left.saturating_sub(hashes.len());
        batches.push((index.newest, hashes));
        if left == 0 {
            break;
        }
    }
    for (time, mut hashes) in batches.into_iter().rev() {
        hashes.sort_unstable_by_key(|(_, at)| *at);
        hashes.into_iter().for_each(|(key, at)| dedup.insert(key, at, time));
    }
    Ok(())
}

/// Fills the window of remembered message ids with what recovery left for later: ids in sealed segments, the latest first.
pub(crate) async fn remember_older_ids(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(remember_rest(&store)).await;
}

async fn remember_rest(store: &Arc<Store>) {
    let segments = store.queues.sealed.list();
    let indexes: Vec<_> = segments.iter().rev().map_while(|segment| segment.index.clone()).collect();
    let Some(newest) = indexes.first().map(|index| index.newest) else { return };
    let within = |index: &&Arc<SealedIndex>| newest.since(index.newest) <= store.config.dedup_window;
    let indexes: Vec<_> = indexes.iter().take_while(within).cloned().collect();
    let hashes: u64 = indexes.iter().map(|index| index.hash_count()).sum();
    if hashes <= store.config.dedup_recalled_at_once as u64 {
        return;
    }
    for index in indexes {
        let reading = store.env.run_blocking(move || {
            let mut older = Generation::new(index.base, index.newest);
            for (hash, at) in index.newest_hashes(usize::MAX)? {
                older.add(hash, at, index.newest);
            }
            Ok::<_, SealedIndexError>(older)
        });
        match reading.await {
            Ok(Ok(older)) => {
                if !store.dedup.lock().add_older(older) {
                    return;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not all message ids of the last minutes can be remembered");
                return;
            }
            Err(panicked) => {
                tracing::error!(%panicked, "remembering message ids");
                return;
            }
        }
    }
}

/// Full segments at the end that get their entries from their records when they have no index, because the process ended
/// before their turn came: at most so many, or so many bytes of them.
const UNSEALED_MAX: usize = 2;
const UNSEALED_BYTES_MAX: u64 = 256 << 20;

/// The indexes of the full segments, but for the last few that have none. Any other that is missing or damaged is built in
/// the background; at once if ids in it must be remembered. One that is newer, or that the disk does not give, is an error:
/// it may be whole, and is not to be replaced.
fn open_indexes(
    env: &Env,
    config: &LogConfig,
    segments: &Segments,
    window: Duration,
) -> Result<Vec<IndexedSegment>, OpenErrorKind> {
    let mut indexed = Vec::new();
    for (segment, end) in segments.sealed() {
        let index = match SealedIndex::open(&*env.files, &config.dir, segment.base, end) {
            Ok(index) => match segments.is_outdated(&index) {
                Ok(false) => Some(Arc::new(index)),
                Ok(true) => {
                    tracing::info!(segment = %segment.path.display(), "the index of a segment lists damage that is not there, or was not known: it is made again");
                    None
                }
                Err(error) if error.is_damage() => {
                    tracing::info!(segment = %segment.path.display(), %error, "the index of a segment cannot be used and is made again");
                    None
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) if error.is_absence() || error.is_damage() => {
                tracing::info!(segment = %segment.path.display(), %error, "the index of a segment cannot be used and is made again");
                None
            }
            Err(error) => return Err(error.into()),
        };
        indexed.push(IndexedSegment { base: segment.base, end, index });
    }
    let missing = indexed.iter().rev().take_while(|segment| segment.index.is_none()).count();
    let unsealed_max = UNSEALED_MAX.max((UNSEALED_BYTES_MAX / config.segment_bytes) as usize);
    indexed.truncate(indexed.len() - missing.min(unsealed_max));
    let newest = segments.begins_at_time(segments.active().base);
    for segment in indexed.iter_mut().rev() {
        if let (Some(newest), Some(ended)) = (newest, segments.begins_at_time(segment.end))
            && newest.since(ended) > window
        {
            break;
        }
        if segment.index.is_none() && !window.is_zero() {
            let index = segments.rebuild_index(&*env.files, &config.dir, segment.base, segment.end);
            let unreadable =
                |error: SealedIndexError| OpenErrorKind::Rebuild(StoreError::Unreadable(error.to_string()));
            segment.index = Some(Arc::new(index.map_err(unreadable)?));
        }
    }
    Ok(indexed)
}
