//! Where the tiers meet. A caller holds `Arc<dyn …>` and cannot tell an object in this process from one behind a
//! network.

mod metadata;
mod store;

pub use metadata::{MetadataError, MetadataEvent, MetadataService, MetadataStream, follow_metadata};
pub use store::{
    AckRequest, AppendError, AppendReply, AppendRequest, Appended, ChangeInvisibleRequest, DeadLetterRequest,
    HandleError, PopError, PopReply, PopRequest, PoppedMessage, QueueStatus, ReleaseRequest, RenewRequest, StoreError,
    StoreService, TopicProgress,
};
