//! A store as a member of its cluster: it joins, renews its lease, and joins anew when the lease has ended.
//!
//! Owned by whoever opened the store: [`Member::join`] first, then [`Member::keep`] as a task beside it. What to do when is
//! decided in [`protocol`], which is pure; here it is done: calls are made, each bounded in time, and the store's tenure is
//! renewed, ended or begun accordingly.
//!
//! What must always hold: the store stops leading before another store may lead (its own clock sees to that, see
//! [`crate::tenure`]; nothing here has to be in time:
//! `no_schedule_of_failures_lets_the_store_lead_when_another_could`), and the lease is given up only after the last write
//! (`the_lease_is_given_up_after_the_last_write`).

mod protocol;

use crate::open_error::OpenError;
use crate::store::{Granted, Store};
use gantry_proto::contract::{
    JoinStoreRequest, MembershipError, MembershipService, RenewStoreLeaseRequest, StoreError, StoreLease,
};
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, StoreGroupId, StoreGroupName};
use protocol::{Note, Protocol, Step};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// What a store tells the controller of itself.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// The store group that it serves.
    pub store_group: StoreGroupName,
    /// Where proxies reach it, `host:port`.
    pub address: Arc<str>,
    pub version: Arc<str>,
}

/// A store's part in the cluster.
pub struct Member {
    service: Arc<dyn MembershipService>,
    env: Env,
    config: MemberConfig,
}

/// Why a store cannot be a member. It cannot help to go on: an operator has to do something.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The controller understood and refused.
    #[error("the controller does not take this store: {0}")]
    Refused(String),
    /// The folder belongs elsewhere.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// Its log failed before it led.
    #[error("{0}")]
    LogFailed(StoreError),
    /// A lease that is over as soon as it is held.
    #[error(
        "the controller grants leases of {lease:?}, too short for the store's margin of {margin:?}: make the leases longer \
         or the margin shorter"
    )]
    LeaseTooShort {
        /// What is granted.
        lease: Duration,
        /// How much earlier the store ends it.
        margin: Duration,
    },
}

/// Why a store is a member no more.
#[derive(Debug)]
pub enum Kept {
    /// It has stopped, and given its lease back.
    Stopped,
    /// Its log has failed. It answers no success any more; its lease is given back once nothing more is written, with
    /// [`Member::give_up`].
    LogFailed(StoreError),
}

/// Longest wait for the answer to a join: it changes metadata.
const JOIN_CALL_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the answer to the last report.
const LAST_REPORT_CALL_MAX: Duration = Duration::from_millis(500);
/// Longest wait for the answer when the lease is given up: the store goes down either way.
const GIVE_UP_CALL_MAX: Duration = Duration::from_secs(2);

impl Member {
    /// A store that is to belong to the cluster of `service`.
    pub fn new(service: Arc<dyn MembershipService>, env: Env, config: MemberConfig) -> Member {
        Member { service, env, config }
    }

    /// The store group that it serves.
    pub(crate) fn store_group(&self) -> &StoreGroupName {
        &self.config.store_group
    }

    /// Asks for the leadership of the group, for as long as it takes, and begins it. Fails when it cannot help to ask again.
    /// Cancel-safe; a leadership that was granted meanwhile ends by itself.
    pub async fn join(&self, store: &Arc<Store>) -> Result<Granted, MemberError> {
        store.check_group(&self.config.store_group)?;
        let mut protocol = Protocol::joining(Instant::now());
        loop {
            let joined = self.try_join(store, protocol.next_at()).await;
            if let Some(granted) = self.note_join(&mut protocol, joined)? {
                return Ok(granted);
            }
        }
    }

    /// Keeps the store a member until it has stopped, then gives the lease up; or until its log has failed. Fails when the
    /// store cannot stay a member. Whatever it returns, the tenure has ended then.
    pub async fn keep(&self, store: Arc<Store>, granted: Granted) -> Result<Kept, MemberError> {
        let group = granted.grant.store_group;
        let mut protocol = Protocol::leading(granted.grant.epoch, granted.grant.lease, granted.called_at);
        let kept = loop {
            let taken = match protocol.step() {
                Step::Renew(epoch) => tokio::select! {
                    biased;
                    () = store.stopped() => break Ok(Kept::Stopped),
                    failure = store.log_failed() => break Ok(Kept::LogFailed(failure)),
                    () = store.tenure_over() => {
                        protocol.tenure_over(Instant::now(), self.jitter());
                        Ok(())
                    }
                    renewed = self.renew(&store, (group, epoch), protocol.next_at(), protocol.call_limit()) => {
                        self.note_renewal(&store, &mut protocol, epoch, renewed)
                    }
                },
                Step::Join => tokio::select! {
                    biased;
                    () = store.stopping.cancelled() => {
                        store.stopped().await;
                        break Ok(Kept::Stopped);
                    }
                    failure = store.log_failed() => break Ok(Kept::LogFailed(failure)),
                    joined = self.try_join(&store, protocol.next_at()) => {
                        self.note_join(&mut protocol, joined).map(|_| ())
                    }
                },
            };
            if let Err(fatal) = taken {
                break Err(fatal);
            }
        };
        let epoch = store.epoch();
        let why = match &kept {
            Ok(Kept::LogFailed(failure)) => format!("its log failed: {failure}"),
            _ => "the store leaves its store group".to_owned(),
        };
        store.end_tenure(epoch, &why);
        if let Ok(Kept::Stopped) = kept {
            self.report_last(&store, (group, epoch)).await;
            self.give_up(group, epoch).await;
        }
        kept
    }

    /// Tells how far the log reaches after its last write, so that a folder with less is known as an older copy. If that
    /// cannot be told, what was told last holds.
    async fn report_last(&self, store: &Store, leadership: (StoreGroupId, Epoch)) {
        let (_, told) = self.renew(store, leadership, Instant::now(), LAST_REPORT_CALL_MAX).await;
        if let Err(error) = told {
            tracing::debug!(store_group = %self.config.store_group, %error, "the last position was not told");
        }
    }

    async fn renew(
        &self,
        store: &Store,
        (group, epoch): (StoreGroupId, Epoch),
        at: Instant,
        limit: Duration,
    ) -> (Instant, Renewal) {
        sleep_until(at).await;
        // The lease does not wait for a slow disk: the next renewal says it.
        let closed = timeout(limit / 4, store.closed()).await.unwrap_or_default();
        let called_at = Instant::now();
        let request = RenewStoreLeaseRequest {
            store_group: group,
            epoch,
            positions: store.positions(),
            closed,
            report: Some(store.report()),
        };
        (called_at, bounded(limit, self.service.renew_store_lease(request)).await)
    }

    fn note_renewal(
        &self,
        store: &Store,
        protocol: &mut Protocol,
        epoch: Epoch,
        (called_at, renewal): (Instant, Renewal),
    ) -> Result<(), MemberError> {
        match renewal {
            Ok(lease) => {
                check_margin(store, lease)?;
                // If it comes too late the tenure is over, which the next step finds out.
                let _ = store.renew_tenure(epoch, lease, called_at);
                self.say(protocol.renewed(lease, called_at));
            }
            Err(MembershipError::Superseded { .. } | MembershipError::Held { .. }) => {
                store.end_tenure(epoch, "the controller says that it is over");
                protocol.tenure_over(Instant::now(), self.jitter());
            }
            Err(MembershipError::Refused(reason)) => return Err(MemberError::Refused(reason)),
            Err(MembershipError::Unavailable(reason)) => {
                self.say(protocol.renewal_failed(called_at, Instant::now(), self.jitter(), &reason));
            }
        }
        Ok(())
    }

    /// Joins and begins the epoch that is granted.
    async fn try_join(&self, store: &Arc<Store>, at: Instant) -> Result<Granted, NotJoined> {
        sleep_until(at).await;
        // It would be granted one epoch after another, and begin none.
        store.health().map_err(MemberError::LogFailed).map_err(NotJoined::Fatal)?;
        let granted = self.call_join(store.introduction(&self.config)).await.map_err(NotJoined::Asked)?;
        check_margin(store, granted.grant.lease).map_err(NotJoined::Fatal)?;
        match store.lead(&granted).await {
            Ok(()) => Ok(granted),
            Err(error) if error.may_pass() => Err(NotJoined::Asked(MembershipError::Unavailable(error.to_string()))),
            Err(error) => Err(NotJoined::Fatal(error.into())),
        }
    }

    /// `None`: to be tried again.
    fn note_join(
        &self,
        protocol: &mut Protocol,
        joined: Result<Granted, NotJoined>,
    ) -> Result<Option<Granted>, MemberError> {
        match joined {
            Ok(granted) => {
                let (store_group, epoch, lease) = (&self.config.store_group, granted.grant.epoch, granted.grant.lease);
                tracing::info!(%store_group, %epoch, ?lease, "leads the store group");
                protocol.joined(epoch, lease, granted.called_at);
                Ok(Some(granted))
            }
            Err(NotJoined::Asked(MembershipError::Refused(reason))) => Err(MemberError::Refused(reason)),
            Err(NotJoined::Asked(error)) => {
                self.say(protocol.join_failed(&error, Instant::now(), self.jitter()));
                Ok(None)
            }
            Err(NotJoined::Fatal(error)) => Err(error),
        }
    }

    async fn call_join(&self, request: JoinStoreRequest) -> Result<Granted, MembershipError> {
        let called_at = Instant::now();
        let grant = bounded(JOIN_CALL_MAX, self.service.join_store(request)).await?;
        Ok(Granted { grant, name: self.config.store_group.clone(), called_at })
    }

    /// Nobody has to wait for the lease to end: the last write is done.
    pub async fn give_up(&self, group: StoreGroupId, epoch: Epoch) {
        match bounded(GIVE_UP_CALL_MAX, self.service.give_up_store_lease(group, epoch)).await {
            Ok(()) => {
                tracing::info!(store_group = %self.config.store_group, %epoch, "gave up the lease of the store group")
            }
            Err(error) => {
                tracing::info!(store_group = %self.config.store_group, %epoch, %error, "the lease ends by itself")
            }
        }
    }

    /// A part of a whole, different each time: those who lost the controller together must not come back together.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.env.random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn say(&self, note: Option<Note>) {
        let store_group = &self.config.store_group;
        match note {
            Some(Note::Waiting(reason)) => tracing::warn!(%store_group, reason, "waits to lead the store group"),
            Some(Note::Alone(reason)) => {
                tracing::warn!(%store_group, reason, "the lease cannot be renewed; the store goes on as long as it lasts");
            }
            Some(Note::Heard) => tracing::info!(%store_group, "the lease is renewed again"),
            None => {}
        }
    }
}

type Renewal = Result<StoreLease, MembershipError>;

/// Why a join came to nothing.
enum NotJoined {
    /// To be tried again, unless it was refused.
    Asked(MembershipError),
    Fatal(MemberError),
}

/// A call that is not answered in time is one of which nothing is known.
async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, MembershipError>>,
) -> Result<T, MembershipError> {
    let late = || MembershipError::Unavailable(format!("no answer within {limit:?}"));
    timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
}

/// A lease must be longer than what both sides take off and add.
fn check_margin(store: &Store, lease: StoreLease) -> Result<(), MemberError> {
    let margin = store.config.lease_margin;
    match lease {
        StoreLease::For(lease) if lease <= 2 * margin => Err(MemberError::LeaseTooShort { lease, margin }),
        _ => Ok(()),
    }
}
