//! The cluster's members: calls of stores, proxies and operators to the controller.

use super::MetadataError;
use crate::model::{
    ClusterId, Epoch, FolderId, GroupSecret, KnownIds, LogOffset, MetadataVersion, PlaceId, ProcessId, ProxyId,
    StoreGroup, StoreGroupId, StoreGroupName, Timestamp,
};
use std::sync::Arc;
use std::time::Duration;

/// What the controller does for stores, proxies and operators. Any member of the controller takes the calls.
#[async_trait::async_trait]
pub trait MembershipService: Send + Sync + 'static {
    /// Makes the caller the leader of its store group, in a new epoch. [`MembershipError::Held`] while another process
    /// holds the store lease: try again later.
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError>;

    /// Extends the store lease that the caller holds, counted from when the call was made.
    async fn renew_store_lease(&self, request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError>;

    /// Gives the store lease back: the caller writes no more.
    async fn give_up_store_lease(&self, store_group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError>;

    /// Says that a proxy is alive. Returns within which time it must say so again.
    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError>;

    /// The state of the cluster as its leading controller sees it.
    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError>;

    /// Changes the controller's own members, one at a time, while it works.
    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError>;
}

/// A store that wants to lead its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinStoreRequest {
    pub store_group: StoreGroupName,
    pub folder: FolderId,
    /// The cluster that the folder belongs to, if it ever joined one.
    pub cluster: Option<ClusterId>,
    /// Where proxies reach it, `host:port`.
    pub address: Arc<str>,
    /// The last epoch in which the folder was written.
    pub last_epoch: Epoch,
    pub version: Arc<str>,
    /// Which opening of the folder this is. It need not wait for a store lease that it holds itself.
    pub process: ProcessId,
    /// Where it holds the folder's lock, if that is known. Nor need it wait for the store lease of an earlier process that
    /// held the lock there.
    pub place: Option<PlaceId>,
    /// `None`: of an older version.
    pub report: Option<StoreReport>,
}

/// What a store knows that the controller may not know any more, if one of them was put back to an earlier state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// The largest identities that it knows of: they must not be given again.
    pub known: KnownIds,
    /// Up to where its log is durable.
    pub durable_to: LogOffset,
    /// It may lead although its log was known to reach further: an operator decided so.
    pub accept_missing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGrant {
    pub cluster: ClusterId,
    /// The group that is led.
    pub store_group: StoreGroupId,
    pub epoch: Epoch,
    pub lease: StoreLease,
    /// The leadership before this one, whether it ever began or not. `None`: this is the first.
    pub previous: Option<PreviousLeader>,
    pub secret: GroupSecret,
}

/// Who led a store group, or was granted to lead it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousLeader {
    pub folder: FolderId,
    pub epoch: Epoch,
}

/// How long a store has the right to lead its group. (A lease alone is a delivery's.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLease {
    /// For this long from when the call was made, on the caller's monotonic clock. The controller waits a margin longer
    /// before it names another leader.
    For(Duration),
    /// Until the controller or a proxy says that there is a newer epoch: nobody else can lead, because no other replica is
    /// in sync. So a store group of one replica goes on while the controller is away.
    UntilSuperseded,
}

/// A leader that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewStoreLeaseRequest {
    pub store_group: StoreGroupId,
    pub epoch: Epoch,
    /// How far its log reaches, for operators.
    pub positions: StorePositions,
    /// It takes no messages, as the metadata have said since that version, and holds none.
    pub closed: Option<MetadataVersion>,
    /// `None`: of an older version.
    pub report: Option<StoreReport>,
}

/// Where a store's log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorePositions {
    /// First retained byte.
    pub retained_from: LogOffset,
    /// Confirmed up to here.
    pub confirmed_to: LogOffset,
    /// Given out up to here.
    pub appended_to: LogOffset,
}

/// A proxy that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAliveRequest {
    pub id: ProxyId,
    /// Where clients reach it, `host:port`.
    pub address: Arc<str>,
    pub version: Arc<str>,
    /// Clients connected to it.
    pub sessions: u32,
}

/// Why a member was not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MembershipError {
    /// The controller refuses. Asking again does not help.
    #[error("{0}")]
    Refused(String),
    /// Another process holds the store lease.
    #[error("store group {store_group} is led by another process, in epoch {epoch}, for up to {remaining:?} from now")]
    Held {
        store_group: StoreGroupName,
        /// The other's leadership.
        epoch: Epoch,
        /// After which time the store lease has ended.
        remaining: Duration,
    },
    /// The caller's leadership is over: it must not write any more.
    #[error("epoch {epoch} of store group {store_group} is over")]
    Superseded {
        store_group: StoreGroupId,
        /// The leadership that is over.
        epoch: Epoch,
    },
    /// No member could be asked, or none can decide now. The call may have taken effect.
    #[error("the controller cannot be asked: {0}")]
    Unavailable(String),
}

/// What an operator sees.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterStatus {
    pub cluster: Option<ClusterId>,
    /// The version of the metadata.
    pub version: crate::model::MetadataVersion,
    /// Members of the controller.
    pub controllers: Vec<ControllerStatus>,
    pub stores: Vec<StoreStatus>,
    pub proxies: Vec<ProxyStatus>,
}

/// One member of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerStatus {
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    pub leader: bool,
    /// Whether it votes; else it only learns.
    pub voter: bool,
    /// The last log entry that it is known to have.
    pub matched: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// What the metadata say.
    pub store_group: Arc<StoreGroup>,
    /// When its leader was last heard of. `None`: never, by the controller that leads now.
    pub heard: Option<Duration>,
    /// Since when its leader leads.
    pub leading_since: Option<Timestamp>,
    /// What it last said of its log.
    pub positions: StorePositions,
    pub version: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyStatus {
    /// What the metadata say.
    pub proxy: Arc<crate::model::ProxyMember>,
    /// When it was last heard of.
    pub heard: Option<Duration>,
    /// Clients connected to it.
    pub sessions: u32,
}

/// A change of the controller's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerChange {
    /// Adds a member: it learns first, and votes once it has caught up.
    Add {
        /// Its number, not used by another member before.
        id: u64,
        /// Where the others reach it, `host:port`.
        address: String,
    },
    /// Removes a member. Not the last one.
    Remove { id: u64 },
}
