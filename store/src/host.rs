//! A store that is kept running: opened, made a member, and opened anew when its log has failed.
//!
//! Owned by whoever runs the process; serves calls as the store that is open now. After a failed write or flush nothing is
//! known about the end of the log, and only recovery can go on. So the store gives its lease back at once, lets its folder
//! go, and is opened again, at growing intervals: a disk that was full or stalled may be well again. Where opening it again
//! cannot help (what it reads is damaged, or was written by a newer version; or it was tried [`REOPENINGS_MAX`] times), the
//! host ends with the reason, and with it the process: an operator has to look.
//!
//! What must always hold: the lease is given back only when the failed store writes no more
//! (`the_lease_is_given_up_after_the_last_write`), and nobody is told of success in between
//! (`nothing_is_answered_after_a_failed_flush_until_the_store_is_reopened`).

use crate::config::StoreConfig;
use crate::data_folder::StoreFolder;
use crate::membership::{Kept, Member, MemberError};
use crate::open_error::OpenError;
use crate::store::{Granted, Store};
use gantry_proto::contract::StoreError;
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, FolderId, MetadataView, StoreGroupId};
use parking_lot::RwLock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A store that outlives failures of its log.
pub struct StoreHost {
    config: StoreConfig,
    env: Env,
    view: Arc<MetadataView>,
    dir: PathBuf,
    member: Member,
    store_group: StoreGroupId,
    folder: FolderId,
    now: RwLock<Now>,
    /// Cancelled when the process goes down.
    stopping: CancellationToken,
}

/// The store as it is now.
struct Now {
    store: Arc<Store>,
    /// Why no call is passed on to it, if so.
    reopening: Option<String>,
}

/// Why a store does not run, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its folder cannot be opened.
    #[error("cannot open the store: {0}")]
    Open(#[from] OpenError),
    /// It cannot be a member of the cluster.
    #[error("cannot join the cluster: {0}")]
    Member(#[from] MemberError),
    /// Its log failed, and opening it anew did not help.
    #[error(
        "the store's log failed ({failure}), and after {attempts} attempts it cannot be used again: {last}. See what the \
         system says of the disk (dmesg, free space), mend it, and start the store again; nothing that was acknowledged was \
         given up"
    )]
    Failed {
        /// What happened first.
        failure: String,
        /// How often it was opened again.
        attempts: u32,
        /// What came of it the last time.
        last: String,
    },
}

/// How often a failed store is opened again before it is given up.
pub const REOPENINGS_MAX: u32 = 10;
/// Waits before that: the first, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A store that led this long without a failure is well again: the next failure counts as the first.
const WELL_AFTER: Duration = Duration::from_secs(60);

impl StoreHost {
    /// Locks the folder, recovers and joins. Fails where an operator has to do something; else it waits.
    pub async fn start(
        config: StoreConfig,
        env: Env,
        view: Arc<MetadataView>,
        dir: PathBuf,
        member: Member,
    ) -> Result<(Arc<StoreHost>, Granted), HostError> {
        let store = open(&config, &env, &view, &dir, &member).await?;
        let granted = member.join(&store).await?;
        let stopping = CancellationToken::new();
        let (store_group, folder) = (granted.grant.store_group, store.folder());
        let now = RwLock::new(Now { store, reopening: None });
        Ok((Arc::new(StoreHost { config, env, view, dir, member, store_group, folder, now, stopping }), granted))
    }

    /// Keeps the store a member, and opens it anew when its log has failed. Ends after [`StoreHost::shutdown`], or when the
    /// store cannot go on.
    pub async fn keep(&self, granted: Granted) -> Result<(), HostError> {
        let (mut granted, mut failures) = (granted, 0);
        loop {
            let (store, led_from) = (self.store(), Instant::now());
            match self.member.keep(store.clone(), granted).await? {
                Kept::Stopped => return Ok(()),
                Kept::LogFailed(failure) => {
                    if led_from.elapsed() >= WELL_AFTER {
                        failures = 0;
                    }
                    match self.reopen(&store, &failure.to_string(), &mut failures).await? {
                        Some(again) => granted = again,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// Ends the store: see [`Store::shutdown`].
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.stopping.cancel();
        self.store().shutdown().await
    }

    /// The store that is open now.
    pub fn store(&self) -> Arc<Store> {
        self.now.read().store.clone()
    }

    /// The store group that it belongs to.
    pub fn store_group(&self) -> StoreGroupId {
        self.store_group
    }

    pub fn folder(&self) -> FolderId {
        self.folder
    }

    pub fn epoch(&self) -> Epoch {
        self.store().epoch()
    }

    pub fn newer_epoch(&self, epoch: Epoch) {
        self.store().newer_epoch(epoch);
    }

    /// Whether it takes messages now; else why not.
    pub fn takes_messages(&self) -> Result<(), StoreError> {
        self.current()?.takes_messages()
    }

    /// The store that calls are for. An error while it is opened again.
    pub(crate) fn current(&self) -> Result<Arc<Store>, StoreError> {
        let now = self.now.read();
        match &now.reopening {
            None => Ok(now.store.clone()),
            Some(why) => Err(StoreError::NotLeader(why.clone())),
        }
    }

    /// From a store whose log has failed to one that leads. `None`: the process goes down.
    async fn reopen(
        &self,
        failed: &Arc<Store>,
        failure: &str,
        failures: &mut u32,
    ) -> Result<Option<Granted>, HostError> {
        tracing::error!(
            store_group = %self.store_group, failure,
            "the store's log failed: its lease is given back, and it is opened again, which recovers what was acknowledged"
        );
        self.now.write().reopening = Some(format!("its log failed ({failure}) and it is being opened again"));
        // What it still says is that it failed; but when it returns, nothing more is written.
        let _ = failed.shutdown().await;
        self.member.give_up(self.store_group, failed.epoch()).await;
        failed.let_go();
        let mut last = failure.to_owned();
        loop {
            if *failures >= REOPENINGS_MAX {
                return Err(HostError::Failed { failure: failure.to_owned(), attempts: *failures, last });
            }
            let wait = (BACKOFF_MIN * (1 << (*failures).min(16))).min(BACKOFF_MAX);
            *failures += 1;
            if self.stopping.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(None);
            }
            let reopening = format!("its log failed ({failure}); opening it again, attempt {failures}");
            self.now.write().reopening = Some(reopening);
            match self.open_and_join().await {
                Ok(joined) => return Ok(joined),
                Err(HostError::Open(error)) if !error.may_pass() => return Err(error.into()),
                Err(HostError::Member(error)) if !matches!(error, MemberError::LogFailed(_)) => {
                    return Err(error.into());
                }
                Err(error) => {
                    last = error.to_string();
                    tracing::error!(store_group = %self.store_group, attempt = *failures, error = last, "the store cannot be used again yet");
                }
            }
        }
    }

    /// One attempt. `None`: the process goes down.
    async fn open_and_join(&self) -> Result<Option<Granted>, HostError> {
        let store = open(&self.config, &self.env, &self.view, &self.dir, &self.member).await?;
        let joined = self.stopping.run_until_cancelled(self.member.join(&store)).await;
        match joined {
            Some(Ok(granted)) => {
                tracing::info!(store_group = %self.store_group, epoch = %granted.grant.epoch, "the store was opened again and goes on");
                *self.now.write() = Now { store: store.clone(), reopening: None };
                // A shutdown from now on finds this store; one that came before did not.
                if self.stopping.is_cancelled() {
                    let _ = store.shutdown().await;
                }
                Ok(Some(granted))
            }
            stopped => {
                let _ = store.shutdown().await;
                store.let_go();
                stopped.map_or(Ok(None), |joined| joined.map(Some)).map_err(HostError::Member)
            }
        }
    }
}

/// Opens the store, which then does not lead.
async fn open(
    config: &StoreConfig,
    env: &Env,
    view: &Arc<MetadataView>,
    dir: &Path,
    member: &Member,
) -> Result<Arc<Store>, OpenError> {
    let folder = {
        let (env, dir, store_group) = (env.clone(), dir.to_owned(), member.store_group().clone());
        move || StoreFolder::open(&env, &dir).and_then(|folder| folder.check_group(&store_group).map(|()| folder))
    };
    let panicked = |panicked| OpenError::panicked(&panicked);
    let folder = env.run_blocking(folder).await.map_err(panicked)??;
    let opening = {
        let (config, env, view) = (config.clone(), env.clone(), view.clone());
        // Opening starts tasks, which belong to the runtime that runs this.
        let runtime = tokio::runtime::Handle::current();
        move || {
            let _entered = runtime.enter();
            Store::open(config, env, view, folder)
        }
    };
    env.run_blocking(opening).await.map_err(panicked)?
}
