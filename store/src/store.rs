//! The store: what it is made of, how it is opened and how it ends. The calls themselves are in [`crate::service`].

use crate::checkpoint::CheckpointError;
use crate::commit_log::record::key_hash;
use crate::commit_log::recovery::LogOpenError;
use crate::commit_log::retention::RetentionPolicy;
use crate::commit_log::{CommitLog, Flush};
use crate::data_folder::{DataFolder, DataFolderError};
use crate::dedup::DedupWindow;
use crate::disk::DiskGuard;
use crate::maintenance;
use crate::progress::{ProgressTable, Shard};
use crate::queue_index::{QueueTable, SealedIndex, SealedIndexError};
use crate::receipt::ReceiptSealer;
use crate::recovery::{self, Recovered};
use futures_util::FutureExt as _;
use gantry_proto::contract::StoreError;
use gantry_proto::env::Env;
use gantry_proto::model::{LogOffset, MetadataView, TopicId};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Folder of this store alone. Created if missing.
    pub dir: PathBuf,
    /// When an answer may be given.
    pub flush: Flush,
    /// Size of a log segment, [`StoreConfig::SEGMENT_BYTES_MIN`] to [`StoreConfig::SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Bytes that may wait to be written before the store says that it is busy.
    pub pending_bytes_max: usize,
    /// What is kept.
    pub retention: RetentionPolicy,
    /// New messages are refused while more than this percentage of the disk is used.
    pub disk_full_percent: u8,
    /// How often progress is saved, so that recovery has little to read.
    pub checkpoint_interval: Duration,
    /// Messages that one group may hold unacknowledged on one topic.
    pub inflight_max: usize,
    /// Receives that may wait for one group and topic.
    pub waiting_max: usize,
    /// How long a message id is remembered, so that a producer's retry is not stored twice. Zero: not at all.
    pub dedup_window: Duration,
}

impl StoreConfig {
    /// Smallest segment: any one record must fit.
    pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
    /// Largest segment: positions in its index have 32 bits.
    pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

    /// The defaults, in the folder `dir`.
    pub fn new(dir: PathBuf) -> StoreConfig {
        StoreConfig {
            dir,
            flush: Flush::Sync,
            segment_bytes: 1 << 30,
            pending_bytes_max: 64 << 20,
            retention: RetentionPolicy { age: Duration::from_secs(72 * 3600), bytes_max: None, disk_used_percent: 85 },
            disk_full_percent: 90,
            checkpoint_interval: Duration::from_secs(5),
            inflight_max: 100_000,
            waiting_max: 4096,
            dedup_window: Duration::from_secs(600),
        }
    }
}

/// A store group's replica, open for business.
pub struct Store {
    pub(crate) config: StoreConfig,
    pub(crate) env: Env,
    pub(crate) view: Arc<MetadataView>,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) queues: QueueTable,
    pub(crate) progress: ProgressTable,
    pub(crate) sealer: ReceiptSealer,
    pub(crate) disk: DiskGuard,
    /// Ids of messages that were appended lately. Locked before the log's tail.
    pub(crate) dedup: Mutex<DedupWindow>,
    /// Indexes of the sealed segments, oldest first.
    pub(crate) sealed: Mutex<VecDeque<Arc<SealedIndex>>>,
    /// The last checkpoint needs the log from here on.
    pub(crate) needed_from: AtomicU64,
    /// Cancelled when the store goes down: receives stop waiting, tasks end.
    pub(crate) stopping: CancellationToken,
    tasks: TaskTracker,
    _folder: DataFolder,
}

/// Why a store could not be opened. Nothing was changed that a later opening would miss.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(#[from] OpenErrorKind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenErrorKind {
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Log(#[from] LogOpenError),
    #[error(transparent)]
    Index(#[from] SealedIndexError),
    #[error(transparent)]
    Read(#[from] StoreError),
    #[error("the setting {name} is {value}, but must be {expected}")]
    Setting { name: &'static str, value: u64, expected: String },
}

impl Store {
    /// Opens the store in its folder: takes the lock, recovers, starts its tasks. Blocks while it reads.
    ///
    /// Must be called inside a tokio runtime; [`Store::shutdown`] ends what this starts.
    pub fn open(config: StoreConfig, env: Env, view: Arc<MetadataView>) -> Result<Arc<Store>, OpenError> {
        Store::try_open(config, env, view).map_err(OpenError)
    }

    fn try_open(config: StoreConfig, env: Env, view: Arc<MetadataView>) -> Result<Arc<Store>, OpenErrorKind> {
        let (min, max) = (StoreConfig::SEGMENT_BYTES_MIN, StoreConfig::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&config.segment_bytes) {
            let expected = format!("{min} to {max} bytes");
            return Err(OpenErrorKind::Setting { name: "segment_bytes", value: config.segment_bytes, expected });
        }
        let folder = DataFolder::open(&env, &config.dir)?;
        let Recovered { log, writer, queues, progress, dedup, sealed, needed_from } =
            recovery::recover(&config, &env, folder.epoch)?;
        let store = Arc::new(Store {
            sealer: ReceiptSealer::new(&folder.receipt_key),
            config,
            env,
            view,
            log,
            queues,
            progress,
            disk: DiskGuard::default(),
            dedup: Mutex::new(dedup),
            sealed: Mutex::new(sealed),
            needed_from: AtomicU64::new(needed_from.0),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _folder: folder,
        });
        store.spawn("writing", maintenance::write(store.log.clone(), writer, store.stopping.clone()));
        store.spawn("burying", maintenance::bury(store.clone()));
        store.spawn("forgetting", maintenance::forget(store.clone(), store.view.removals()));
        store.spawn("maintenance", maintenance::maintain(store.clone()));
        Ok(store)
    }

    /// Runs one of the store's tasks. None may go missing unnoticed: if it panics the store stops writing, and says so.
    fn spawn(self: &Arc<Store>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let log = self.log.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                log.fail(StoreError::WritesStopped(format!("the {name} task panicked")));
            }
        });
    }

    /// Why the store does not write any more, if so. It then has to be restarted.
    pub fn health(&self) -> Result<(), StoreError> {
        match self.log.refusal() {
            Some(stopped @ StoreError::WritesStopped(_)) => Err(stopped),
            _ => Ok(()),
        }
    }

    /// Ends the store: waiting receives return, what was taken is written, progress is saved. Calls made afterwards fail.
    pub async fn shutdown(self: &Arc<Store>) -> Result<(), StoreError> {
        // In this order: the write task writes a last time once it is told to stop.
        self.log.stop(StoreError::ShuttingDown);
        self.stopping.cancel();
        for shard in self.progress.list() {
            shard.wake_all();
        }
        self.tasks.close();
        self.tasks.wait().await;
        let result = maintenance::checkpoint(self).await;
        self.log.confirmed.close();
        result
    }

    /// Forgets groups' progress on topics, and lets those who wait for it find out.
    pub(crate) fn forget_shards(&self, gone: impl Fn(&Shard) -> bool) {
        for shard in self.progress.list().into_iter().filter(|shard| gone(shard)) {
            self.progress.remove(shard.group, shard.topic);
            if let Some(topic) = self.queues.get(shard.topic) {
                topic.detach(&shard);
            }
            shard.wake_all();
        }
    }

    /// The key under which a message is remembered, unless none is.
    pub(crate) fn dedup_key(&self, topic: TopicId, message_id: &str) -> Option<u64> {
        (!self.config.dedup_window.is_zero()).then(|| key_hash(topic, message_id))
    }

    /// Where the retained log begins and where it ends.
    pub fn log_range(&self) -> (LogOffset, LogOffset) {
        (self.log.segments.retained_from(), self.log.written_to())
    }
}
