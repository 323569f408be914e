//! The store: what it is made of, how it is opened and how it ends. The calls themselves are in [`crate::service`].

use crate::checkpoint::Checkpoints;
use crate::commit_log::CommitLog;
use crate::commit_log::damage::DamagedRange;
use crate::commit_log::record::key_hash;
use crate::config::StoreConfig;
use crate::data_folder::StoreFolder;
use crate::dedup::DedupWindow;
use crate::disk::DiskGuard;
use crate::draining::Draining;
use crate::given_up::GivenUp;
use crate::maintenance;
use crate::membership::MemberConfig;
use crate::open_error::{OpenError, OpenErrorKind};
use crate::progress::ProgressTable;
use crate::queue_index::QueueTable;
use crate::rebuild::{self, Rebuilt};
use crate::receipt::ReceiptSealer;
use crate::saving;
use crate::tenure::Tenure;
use futures_util::FutureExt as _;
use gantry_proto::contract::{
    JoinStoreRequest, Remains, StoreError, StoreGrant, StoreLease, StorePositions, StoreReport,
};
use gantry_proto::env::Env;
use gantry_proto::model::{
    Epoch, FolderId, KnownIds, LogOffset, MetadataVersion, MetadataView, StoreGroupId, StoreGroupName, TopicId,
};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A leadership as the store received it: what the controller answers a join with, and [`Store::lead`] wants.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What the controller granted.
    pub grant: StoreGrant,
    /// The name of the store group that was asked for.
    pub name: StoreGroupName,
    /// When the call was made that brought it: a timed lease counts from then.
    pub called_at: Instant,
}

/// A store group's replica. It leads, or it answers that it does not.
pub struct Store {
    pub(crate) config: StoreConfig,
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    /// The store group that it belongs to, once it has joined one.
    home: OnceLock<StoreGroupId>,
    pub(crate) view: Arc<MetadataView>,
    pub(crate) draining: Draining,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) queues: QueueTable,
    pub(crate) progress: ProgressTable,
    /// Makes receipt handles; there once the store has led.
    sealer: RwLock<Option<Arc<ReceiptSealer>>>,
    pub(crate) disk: DiskGuard,
    /// Ids of messages that were appended lately. Locked before the log's tail.
    pub(crate) dedup: Mutex<DedupWindow>,
    /// Which messages became dead letters lately.
    pub(crate) given_up: Mutex<GivenUp>,
    /// Recovery may need the log from here on.
    pub(crate) needed_from: AtomicU64,
    /// Topics that lost messages which some group may still hold: see [`crate::expiry`].
    pub(crate) untrimmed: Mutex<BTreeSet<TopicId>>,
    /// Wakes whoever lets groups forget them.
    pub(crate) segment_removed: Notify,
    /// Wakes whoever saves checkpoints: older ones keep segments that are to go.
    pub(crate) log_is_pinned: Notify,
    /// Shards that asked for gauges of their own.
    pub(crate) series: AtomicUsize,
    /// Held by whoever saves one, from the first look at what changed until it is written: see [`saving`].
    pub(crate) checkpoints: Arc<tokio::sync::Mutex<Checkpoints>>,
    /// Held while a removal is put into the log and applied.
    pub(crate) removing: tokio::sync::Mutex<()>,
    /// Cancelled when the store goes down: receives stop waiting, tasks end.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when nothing will be written any more.
    stopped: CancellationToken,
    tasks: TaskTracker,
    pub(crate) folder: Mutex<StoreFolder>,
}

impl Store {
    /// Opens the store in its folder: recovers, and starts the store's tasks. Blocks while it reads.
    ///
    /// It needs nobody's leave, and puts nothing into the log: until [`Store::lead`], everything that would change or
    /// deliver is answered with [`StoreError::NotLeader`]. Must be called inside a tokio runtime; [`Store::shutdown`] ends
    /// what this starts.
    pub fn open(
        config: StoreConfig,
        env: Env,
        view: Arc<MetadataView>,
        folder: StoreFolder,
    ) -> Result<Arc<Store>, OpenError> {
        Store::try_open(config, env, view, folder).map_err(OpenError::from)
    }

    fn try_open(
        config: StoreConfig,
        env: Env,
        view: Arc<MetadataView>,
        folder: StoreFolder,
    ) -> Result<Arc<Store>, OpenErrorKind> {
        config.check()?;
        let last_epoch = folder.last_epoch();
        let tenure = Arc::new(Tenure::new(last_epoch, config.lease_margin));
        let Rebuilt { log, writer, queues, progress, dedup, given_up, checkpoints, lacks_checkpoint } =
            rebuild::rebuild(&config, &env, &folder, tenure)?;
        let home = OnceLock::new();
        if let Some((group, _)) = folder.store_group() {
            let _ = home.set(group);
        }
        // It may have ended before it was recorded what groups lost.
        let untrimmed = Mutex::new(progress.list().iter().map(|shard| shard.topic).collect());
        let store = Arc::new(Store {
            sealer: RwLock::default(),
            config,
            env,
            dir: folder.dir().to_owned(),
            home,
            view,
            draining: Draining::default(),
            log,
            queues,
            progress,
            disk: DiskGuard::default(),
            dedup: Mutex::new(dedup),
            given_up: Mutex::new(given_up),
            needed_from: AtomicU64::new(checkpoints.needed_from().0),
            checkpoints: Arc::new(tokio::sync::Mutex::new(checkpoints)),
            segment_removed: Notify::new(),
            log_is_pinned: Notify::new(),
            untrimmed,
            series: AtomicUsize::new(0),
            removing: tokio::sync::Mutex::default(),
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            folder: Mutex::new(folder),
        });
        if lacks_checkpoint {
            // An operator accepted that. Should there be none at the next start, it was lost.
            saving::save_first(&store).map_err(OpenErrorKind::Rebuild)?;
        }
        maintenance::start(&store, writer, last_epoch);
        Ok(store)
    }

    /// Leads from now on, in the epoch that was granted, with the log as it is. Records that were put into it before stay
    /// what they are, and so do deliveries, leases and attempts. An epoch before is over with this call; it is an error if
    /// this one is not greater than any that the folder has seen.
    ///
    /// The epoch is durable in the folder before its first record can be in the log; with the first epoch of all, so is the
    /// group that the folder belongs to.
    ///
    /// Sound while nobody else has led the group in between: the grant names who led before, and where that was another
    /// folder, it is an error.
    pub async fn lead(self: &Arc<Store>, granted: &Granted) -> Result<(), OpenError> {
        self.log.tenure.end(self.epoch(), "it joins its store group anew");
        let log_epoch = self.log.epoch();
        let durable = {
            let (store, granted) = (self.clone(), granted.clone());
            let begin = move || store.folder.lock().begin(&granted.grant, &granted.name, log_epoch);
            self.env.run_blocking(begin).await
        };
        let panicked = |panicked| StoreError::WritesStopped(format!("beginning an epoch: {panicked}"));
        durable.map_err(panicked).map_err(OpenErrorKind::Lead)?.map_err(OpenErrorKind::Folder)?;
        let StoreGrant { cluster, store_group: group, epoch, lease, .. } = granted.grant;
        self.log.belongs_to(cluster, group);
        // The folder holds every later grant to the same group.
        let _ = self.home.set(group);
        *self.sealer.write() = Some(Arc::new(ReceiptSealer::new(group, &granted.grant.secret)));
        Ok(self.log.begin_epoch(epoch, lease, granted.called_at).map_err(OpenErrorKind::Lead)?)
    }

    /// The store group that it belongs to, once it has joined one.
    pub fn store_group(&self) -> Option<StoreGroupId> {
        self.home.get().copied()
    }

    /// The store group that it belongs to. Who never joined one cannot say anything about its queues.
    pub(crate) fn home(&self) -> Result<StoreGroupId, StoreError> {
        self.store_group().ok_or_else(|| StoreError::NotLeader("it has not joined its store group yet".into()))
    }

    /// Makes and opens receipt handles.
    pub(crate) fn sealer(&self) -> Result<Arc<ReceiptSealer>, StoreError> {
        self.sealer.read().clone().ok_or_else(|| StoreError::NotLeader("it has not led its store group yet".into()))
    }

    /// The epoch that began last, be it over or not; before the first, the last one of the folder.
    pub fn epoch(&self) -> Epoch {
        self.log.tenure.epoch()
    }

    /// Whether the store leads its store group now. [`StoreError::NotLeader`] says why not.
    pub fn leads(&self) -> Result<(), StoreError> {
        self.log.tenure.check()
    }

    /// Extends the tenure of `epoch` by a lease that was asked for at `called_at`. [`StoreError::NotLeader`] if that tenure
    /// is over: it does not come back.
    pub fn renew_tenure(&self, epoch: Epoch, lease: StoreLease, called_at: Instant) -> Result<(), StoreError> {
        self.log.tenure.renew(epoch, lease, called_at)
    }

    /// Ends the tenure of `epoch`, if it lasts: no success is answered any more.
    pub fn end_tenure(&self, epoch: Epoch, reason: &str) {
        self.log.tenure.end(epoch, reason);
    }

    /// A peer knows of `epoch`. If it is later than the store's own, somebody else leads the group or is about to: the
    /// store's tenure is over.
    pub fn newer_epoch(&self, epoch: Epoch) {
        self.log.tenure.hear(epoch);
    }

    /// Waits until the tenure is over. Returns at once while there is none. Cancel-safe.
    pub async fn tenure_over(&self) {
        self.log.tenure.over().await;
    }

    /// Waits until [`Store::shutdown`] has written the last that it writes. Cancel-safe.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// What a member of the cluster says of itself when it joins.
    pub(crate) fn introduction(&self, config: &MemberConfig) -> JoinStoreRequest {
        let folder = self.folder.lock();
        let (process, place) = folder.process();
        JoinStoreRequest {
            store_group: config.store_group.clone(),
            folder: folder.id(),
            cluster: folder.cluster(),
            address: config.address.clone(),
            // The folder should know every epoch that wrote; but it may have been put together from parts.
            last_epoch: folder.last_epoch().max(self.log.epoch()),
            version: config.version.clone(),
            process,
            place,
            report: Some(StoreReport {
                known: self.known_ids(),
                durable_to: self.log.flushed_to(),
                accept_missing: self.config.accept_missing_log,
            }),
        }
    }

    /// What a member of the cluster says of itself when it renews its lease.
    pub(crate) fn report(&self) -> StoreReport {
        StoreReport { known: self.known_ids(), durable_to: self.log.flushed_to(), accept_missing: false }
    }

    /// The largest identities that it knows of: those that the metadata ever named while it ran, and those under which it
    /// keeps something.
    fn known_ids(&self) -> KnownIds {
        let kept = KnownIds {
            topic: self.queues.last_topic(),
            group: self.progress.last_group(),
            store_group: self.store_group().unwrap_or_default(),
        };
        kept.max(self.view.known_ids())
    }

    /// If its store group is closing: since when, once it takes no messages and holds none, durably.
    pub(crate) async fn closed(&self) -> Option<MetadataVersion> {
        let since = self.draining.follow(&self.view, self.store_group()?)?;
        // It waits for all that is in the log. What became a dead letter while it was counted is found the second time.
        for _ in 0..2 {
            if self.remains().await.ok()? != Remains::default() {
                return None;
            }
        }
        Some(since)
    }

    pub fn folder(&self) -> FolderId {
        self.folder.lock().id()
    }

    /// Whether it may serve the store group of that name.
    pub(crate) fn check_group(&self, name: &StoreGroupName) -> Result<(), OpenError> {
        self.folder.lock().check_group(name)
    }

    /// Which parts of the log cannot be read, by place.
    pub fn damaged(&self) -> Vec<DamagedRange> {
        self.log.damage.list()
    }

    /// Where the log begins and ends.
    pub fn positions(&self) -> StorePositions {
        StorePositions {
            retained_from: self.log.segments.retained_from(),
            confirmed_to: self.log.confirmed.get(),
            appended_to: self.log.appended_to(),
        }
    }

    /// Runs one of the store's tasks. None may go missing unnoticed: if it panics the store stops writing, and says so.
    pub(crate) fn spawn(self: &Arc<Store>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
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

    /// Whether it takes messages and acknowledgements now; else why not.
    pub fn takes_messages(&self) -> Result<(), StoreError> {
        self.health()?;
        self.leads()?;
        self.log.has_room()?;
        self.disk.admit()
    }

    /// Waits until the log has failed: why the store does not write any more. Cancel-safe.
    pub(crate) async fn log_failed(&self) -> StoreError {
        self.log.failed.cancelled().await;
        self.log.refusal().unwrap_or(StoreError::ShuttingDown)
    }

    /// Gives the folder's lock back, after [`Store::shutdown`]: another store may be opened there.
    pub(crate) fn let_go(&self) {
        self.folder.lock().unlock();
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
        // A failed log may not hold what the progress speaks of.
        let result = match self.health() {
            Ok(()) => saving::checkpoint(self).await,
            Err(failed) => Err(failed),
        };
        self.log.close_watermarks();
        self.stopped.cancel();
        result
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
