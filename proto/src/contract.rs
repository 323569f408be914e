//! Where the tiers meet. A caller holds `Arc<dyn …>` and cannot tell an object in this process from one behind a
//! network.

mod consensus;
mod membership;
mod metadata;
mod store;
mod stores;

pub use consensus::{ConsensusCall, ConsensusError, ConsensusNetwork, ConsensusPeer};
pub use membership::{
    ClusterStatus, ControllerChange, ControllerStatus, JoinStoreRequest, MembershipError, MembershipService,
    PreviousLeader, ProxyAliveRequest, ProxyStatus, RenewStoreLeaseRequest, StoreGrant, StoreLease, StorePositions,
    StoreReport, StoreStatus,
};
pub use metadata::{MetadataError, MetadataEvent, MetadataService, MetadataStream, follow_metadata};
pub use store::{
    AckRequest, AppendError, AppendReply, AppendRequest, Appended, ArrivedDeliveries, ChangeInvisibleRequest,
    DeadLetterRequest, HandleError, PopError, PopReply, PopRequest, PoppedMessage, QueueStatus, ReleaseRequest,
    Remains, RenewRequest, StoreError, StoreService, TopicProgress,
};
pub use stores::Stores;
