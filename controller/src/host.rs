//! A member that is kept running: opened, and opened anew when its disk has failed.
//!
//! Owned by whoever runs the process; serves calls as the controller that is open now. After a failed write or sync nothing
//! is known about what the disk holds. So the member stops: it votes, decides and answers no more. Its file is closed, and
//! opened again at growing intervals, for as long as it takes: a disk that was full or stalled may be well again.
//!
//! That is as safe as a restart of the process, because it is the same: nothing is carried over in memory, least of all what
//! was written and not known to be synced. All that the file holds is written and synced once more before anything of it is
//! believed (see `make_durable`), and leases are not remembered by who begins to lead.
//!
//! Where opening again cannot help (what it reads is damaged, or older than what it acknowledged, or was written by a newer
//! version; a file of it was removed, moved or replaced; or its metadata differ from the others') the host ends with the reason and what to do.
//!
//! What must always hold: the one that failed writes no more when the next one is opened, and nobody is told of success in
//! between.

use crate::config::ControllerConfig;
use crate::controller::{Controller, Failed};
use crate::open_error::OpenError;
use bytes::Bytes;
use gantry_proto::contract::{
    ClusterStatus, ConsensusCall, ConsensusError, ConsensusNetwork, ConsensusPeer, ControllerChange, JoinStoreRequest,
    MembershipError, MembershipService, MetadataError, MetadataService, MetadataStream, ProxyAliveRequest,
    RenewStoreLeaseRequest, StoreGrant, StoreLease,
};
use gantry_proto::env::Env;
use gantry_proto::model::{ClusterId, Epoch, MetadataCommand, MetadataOutcome, MetadataVersion, StoreGroupId};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often somebody looks whether the member can go on.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Waits before it is opened again: the first, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// One that worked this long without a failure is well again: the next failure counts as the first.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// A member that outlives failures of its disk.
pub struct ControllerHost {
    config: ControllerConfig,
    env: Env,
    network: Arc<dyn ConsensusNetwork>,
    now: RwLock<Now>,
    /// True when the process goes down.
    stopping: watch::Sender<bool>,
}

/// The member as it is now.
struct Now {
    controller: Arc<Controller>,
    /// Why no call is passed on to it, if so.
    reopening: Option<String>,
}

impl ControllerHost {
    /// Opens the member: see [`Controller::open`].
    pub async fn open(
        config: ControllerConfig,
        env: Env,
        network: Arc<dyn ConsensusNetwork>,
    ) -> Result<ControllerHost, OpenError> {
        let controller = Arc::new(Controller::open(config.clone(), env.clone(), network.clone()).await?);
        let now = RwLock::new(Now { controller, reopening: None });
        Ok(ControllerHost { config, env, network, now, stopping: watch::Sender::new(false) })
    }

    /// Opens the member anew whenever its disk has failed. Ends after [`ControllerHost::shutdown`], or when it cannot go on.
    pub async fn keep(&self) -> Result<(), Failed> {
        let mut wait = BACKOFF_MIN;
        loop {
            let (controller, works_from) = (self.controller(), Instant::now());
            let failed = tokio::select! {
                biased;
                () = self.stopped() => return Ok(()),
                failed = failure_of(&controller) => failed,
            };
            if !failed.may_pass() {
                return Err(failed);
            }
            if works_from.elapsed() >= WELL_AFTER {
                wait = BACKOFF_MIN;
            }
            if !self.reopen(&controller, &failed, &mut wait).await? {
                return Ok(());
            }
        }
    }

    /// Whether it serves now; else why not.
    pub fn serves(&self) -> Result<(), String> {
        self.current()?.health().map_err(|failed| failed.to_string())
    }

    /// Ends the member: see [`Controller::shutdown`].
    pub async fn shutdown(&self) {
        self.stopping.send_replace(true);
        self.controller().shutdown().await;
    }

    fn controller(&self) -> Arc<Controller> {
        self.now.read().controller.clone()
    }

    /// The member that calls are for.
    fn current(&self) -> Result<Arc<Controller>, String> {
        let now = self.now.read();
        match &now.reopening {
            None => Ok(now.controller.clone()),
            Some(why) => Err(why.clone()),
        }
    }

    async fn stopped(&self) {
        // The sender lives in `self`, so the wait cannot end for any other reason.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// From a member that failed to one that works. False: the process goes down.
    async fn reopen(&self, failed: &Controller, why: &Failed, wait: &mut Duration) -> Result<bool, Failed> {
        tracing::error!(member = self.config.id, "{why}; it is opened again by itself once that works");
        self.now.write().reopening = Some(format!("{why}; it is being opened again"));
        // When it returns, nothing more is written and the folder is free.
        failed.shutdown().await;
        for attempt in 1_u64.. {
            tokio::select! {
                biased;
                () = self.stopped() => return Ok(false),
                () = sleep(*wait) => *wait = (*wait * 2).min(BACKOFF_MAX),
            }
            let config = ControllerConfig { must_exist: true, ..self.config.clone() };
            match Controller::open(config, self.env.clone(), self.network.clone()).await {
                Ok(controller) => {
                    tracing::info!(
                        member = self.config.id,
                        attempt,
                        "this member of the controller was opened again and goes on"
                    );
                    let controller = Arc::new(controller);
                    *self.now.write() = Now { controller: controller.clone(), reopening: None };
                    // Whoever stops it from now on finds it there; who did before did not.
                    if *self.stopping.borrow() {
                        controller.shutdown().await;
                    }
                    return Ok(true);
                }
                Err(error) if error.may_pass() => {
                    tracing::error!(member = self.config.id, attempt, %error, "the controller cannot be used again yet");
                    self.now.write().reopening = Some(format!("{why}; opening it again failed: {error}"));
                }
                Err(error) => return Err(Failed::for_good(error)),
            }
        }
        Ok(false)
    }
}

/// Waits until it cannot go on.
async fn failure_of(controller: &Controller) -> Failed {
    loop {
        sleep(HEALTH_INTERVAL).await;
        if let Err(failed) = controller.health() {
            return failed;
        }
    }
}

#[async_trait::async_trait]
impl MetadataService for ControllerHost {
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        self.current().map_err(MetadataError::Unavailable)?.propose(command).await
    }

    /// Ends when the member fails: whoever watches goes on at another one, or here when it is open again.
    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        self.current().map_err(MetadataError::Unavailable)?.watch(after).await
    }
}

#[async_trait::async_trait]
impl MembershipService for ControllerHost {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        self.current().map_err(MembershipError::Unavailable)?.join_store(request).await
    }

    async fn renew_store_lease(&self, request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        self.current().map_err(MembershipError::Unavailable)?.renew_store_lease(request).await
    }

    async fn give_up_store_lease(&self, store_group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        self.current().map_err(MembershipError::Unavailable)?.give_up_store_lease(store_group, epoch).await
    }

    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        self.current().map_err(MembershipError::Unavailable)?.proxy_alive(request).await
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        self.current().map_err(MetadataError::Unavailable)?.cluster_status().await
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError> {
        self.current().map_err(MetadataError::Unavailable)?.change_controllers(change).await
    }
}

#[async_trait::async_trait]
impl ConsensusPeer for ControllerHost {
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError> {
        self.current().map_err(ConsensusError::NotSent)?.answer(call).await
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.controller().cluster()
    }
}

#[cfg(test)]
mod tests;
