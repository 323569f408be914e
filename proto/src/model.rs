//! The domain: names, positions, topics, groups, messages. No I/O, no clock, no protocol.

mod backoff;
mod cluster;
mod consumer_group;
mod filter;
mod host_port;
mod ids;
pub mod limits;
mod message;
mod metadata;
mod name;
mod placement;
mod receipt_handle;
mod time;
mod topic;

pub use backoff::{BackoffPolicy, InvalidBackoff};
pub use cluster::{
    ClusterId, FolderId, GroupSecret, PlaceId, ProcessId, ProxyId, ProxyMember, Replica, StoreGroup, StoreGroupName,
    StoreGroupState,
};
pub use consumer_group::ConsumerGroup;
pub use filter::{FilterExpression, InvalidFilter, Tag, TagFilter, tag_hash};
pub use host_port::HostPort;
pub use ids::{ClientHash, Epoch, GroupId, LogOffset, QueueId, QueueOffset, StoreGroupId, TopicId, fnv1a};
pub use message::{DeadLetterOrigin, MalformedMessage, MessageHead, StoredMessage};
pub use metadata::{
    KnownIds, LostIds, MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion,
    MetadataView, Removal, Removed, ViewUpdate,
};
pub use name::{GroupName, InvalidName, TopicName};
pub use placement::Placement;
pub use receipt_handle::ReceiptHandle;
pub use time::Timestamp;
pub use topic::{MessageType, Topic, TopicType};
