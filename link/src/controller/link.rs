use super::REPLY_BYTES_MAX;
use super::watch::watch;
use crate::local_peer::LocalPeer;
use crate::transport::{CallFailure, Channel, Dialer, Peer, Retry};
use gantry_proto::contract::{
    ClusterStatus, ControllerChange, JoinStoreRequest, MembershipError, MembershipService, MetadataError,
    MetadataService, MetadataStream, ProxyAliveRequest, RenewStoreLeaseRequest, StoreGrant, StoreLease,
};
use gantry_proto::convert::Wire;
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, MetadataCommand, MetadataOutcome, MetadataVersion, StoreGroupId};
use gantry_proto::wire::controller::v1 as wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Response, Status};
use wire::membership_client::MembershipClient;
use wire::metadata_client::MetadataClient;

/// How long a call may take.
#[derive(Clone, Copy)]
struct Patience {
    /// At one member.
    one: Duration,
    /// At all of them together.
    all: Duration,
}

/// For calls that the leading member answers from memory. Store leases depend on them: another member is asked soon.
const QUICK: Patience = Patience { one: Duration::from_secs(1), all: Duration::from_secs(3) };
/// For calls that the members must agree on.
const DECISION: Patience = Patience { one: Duration::from_secs(5), all: Duration::from_secs(10) };
/// For a new member, which has to catch up first.
const MEMBER_CHANGE: Patience = Patience { one: Duration::from_secs(60), all: Duration::from_secs(60) };

/// The controller, at the addresses of its members.
pub struct ControllerLink {
    members: Arc<Members>,
    env: Env,
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

/// The controller's members. One is used until it fails.
pub(super) struct Members {
    peers: Vec<Arc<Peer>>,
    pub(super) local: LocalPeer,
    /// Counts how often the next member was taken.
    used: AtomicUsize,
}

impl Members {
    /// The member in use, and a number for [`Members::leave`].
    pub(super) fn current(&self) -> (usize, &Arc<Peer>) {
        let used = self.used.load(Ordering::Relaxed);
        (used, &self.peers[used % self.peers.len()])
    }

    /// Goes on to the next member, unless that was done already.
    pub(super) fn leave(&self, used: usize) {
        let _ = self.used.compare_exchange(used, used.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// An error of the controller's contracts, as the link has to tell what is known about the call.
trait CallError: Sized {
    /// `Some` if the member cannot decide now, so that another member is asked; true if it is certain that nothing happened.
    fn undecided(&self) -> Option<bool>;
    /// No member could be asked.
    fn not_asked(why: String) -> Self;
    /// The answer was lost: the call may have been carried out.
    fn unknown(why: String) -> Self;
}

impl CallError for MetadataError {
    fn undecided(&self) -> Option<bool> {
        match self {
            MetadataError::Refused(_) => None,
            MetadataError::Unavailable(_) => Some(true),
            MetadataError::Unknown(_) => Some(false),
        }
    }

    fn not_asked(why: String) -> MetadataError {
        MetadataError::Unavailable(why)
    }

    fn unknown(why: String) -> MetadataError {
        MetadataError::Unknown(why)
    }
}

impl CallError for MembershipError {
    fn undecided(&self) -> Option<bool> {
        matches!(self, MembershipError::Unavailable(_)).then_some(false)
    }

    fn not_asked(why: String) -> MembershipError {
        MembershipError::Unavailable(why)
    }

    fn unknown(why: String) -> MembershipError {
        MembershipError::Unavailable(why)
    }
}

impl ControllerLink {
    /// A link to the members at `addresses` (`host:port`), of which there is at least one. Connects when it is used. Needs a
    /// tokio runtime around its calls.
    pub fn new(env: &Env, local: &LocalPeer, addresses: &[String]) -> ControllerLink {
        assert!(!addresses.is_empty(), "the configuration names a controller");
        let dialer = Dialer::new(env, local);
        let peers = addresses.iter().map(|address| Peer::new(address, dialer.clone())).collect();
        let closed = CancellationToken::new();
        ControllerLink {
            members: Arc::new(Members { peers, used: AtomicUsize::new(0), local: local.clone() }),
            env: env.clone(),
            _close_on_drop: closed.clone().drop_guard(),
            closed,
        }
    }

    /// Asks the member in use, then the others: for as long as it is certain that nothing happened, or if the call is
    /// `repeatable`, which means that twice has the same effect as once.
    async fn ask<R, T, E: CallError, F>(
        &self,
        patience: Patience,
        repeatable: bool,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, E>
    where
        Result<T, E>: Wire<Message = R>,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + patience.all;
        let mut error = None;
        for _ in 0..self.members.peers.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (used, member) = self.members.current();
            let (failed, nothing_happened) = match member.call(patience.one.min(left), &call).await {
                Ok(reply) => match <Result<T, E>>::from_wire(reply) {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(failed)) => match failed.undecided() {
                        None => return Err(failed),
                        Some(nothing_happened) => (failed, nothing_happened),
                    },
                    Err(malformed) => (E::unknown(malformed.to_string()), false),
                },
                Err(CallFailure::NotSent(why)) => (E::not_asked(why), true),
                Err(CallFailure::Unknown(why)) => (E::unknown(why), false),
            };
            self.members.leave(used);
            if !nothing_happened && !repeatable {
                return Err(failed);
            }
            error = Some(failed);
        }
        Err(error.unwrap_or_else(|| E::not_asked("no time is left".to_owned())))
    }
}

fn metadata(channel: Channel) -> MetadataClient<Channel> {
    let origin = channel.origin();
    MetadataClient::with_origin(channel, origin).max_decoding_message_size(REPLY_BYTES_MAX)
}

fn membership(channel: Channel) -> MembershipClient<Channel> {
    let origin = channel.origin();
    MembershipClient::with_origin(channel, origin).max_decoding_message_size(REPLY_BYTES_MAX)
}

#[async_trait::async_trait]
impl MetadataService for ControllerLink {
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        let request = wire::ProposeRequest { command: Some(command.to_wire()) };
        let call = |channel| {
            let request = request.clone();
            async move { metadata(channel).propose(request).await }
        };
        self.ask(DECISION, false, call).await
    }

    /// Never fails: while no member answers, the stream yields nothing.
    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        Ok(watch(self.members.clone(), Retry::new(&self.env), after, self.closed.clone()))
    }
}

#[async_trait::async_trait]
impl MembershipService for ControllerLink {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        let request = request.to_wire();
        let call = |channel| {
            let request = request.clone();
            async move { membership(channel).join_store(request).await }
        };
        self.ask(DECISION, false, call).await
    }

    async fn renew_store_lease(&self, request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        let request = request.to_wire();
        let call = |channel| async move { membership(channel).renew_lease(request).await };
        self.ask(QUICK, true, call).await
    }

    async fn give_up_store_lease(&self, group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        let request = wire::GiveUpLeaseRequest { group: group.0, epoch: epoch.0 };
        let call = |channel| async move { membership(channel).give_up_lease(request).await };
        self.ask(QUICK, true, call).await
    }

    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        let request = request.to_wire();
        let call = |channel| {
            let request = request.clone();
            async move { membership(channel).proxy_alive(request).await }
        };
        self.ask(QUICK, true, call).await
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        let call = |channel| async move { membership(channel).cluster_status(wire::ClusterStatusRequest {}).await };
        self.ask(DECISION, true, call).await
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError> {
        let request = change.to_wire();
        let call = |channel| {
            let request = request.clone();
            async move { membership(channel).change_controllers(request).await }
        };
        self.ask(MEMBER_CHANGE, false, call).await
    }
}
