//! Messages: appended to and delivered by the store that leads a store group.
//!
//! Every change is in the log, and as durable as the store's flush setting says, before its call returns success. An
//! error says whether the call may have taken effect.

use crate::model::{
    ClientHash, FilterExpression, GroupId, LogOffset, QueueId, QueueOffset, ReceiptHandle, StoredMessage, Timestamp,
    TopicId,
};
use std::time::Duration;

/// What a store does for proxies.
#[async_trait::async_trait]
pub trait StoreService: Send + Sync + 'static {
    /// Appends messages to one queue, contiguously: all or none. A message that was appended to the topic a short while
    /// ago (same id, same body) is not appended again: the reply says where it is. Dropping the future does not take the
    /// messages back.
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError>;

    /// Hands out messages to one consumer and hides them, waiting for some if there are none. Dropping the future
    /// before it returned makes what it had taken visible again.
    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError>;

    /// Finishes deliveries. One result per handle, in order.
    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError>;

    /// Sets when a delivered message becomes visible again. Returns the handle to use from then on.
    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError>;

    /// Moves a delivered message to its group's dead-letter topic.
    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError>;

    /// Extends the automatically renewed leases of living clients, all groups at once.
    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError>;

    /// Makes the automatically renewed deliveries of a client that is gone visible again soon.
    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError>;

    /// Where a topic's queues begin and end. Queues nobody has written to are 0..0.
    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError>;

    /// A group's position on every topic that it has consumed from.
    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError>;

    /// What would be lost if the store were removed now.
    async fn remains(&self) -> Result<Remains, StoreError>;
}

/// Messages for one queue.
#[derive(Debug)]
pub struct AppendRequest {
    pub topic: TopicId,
    /// Which queue of it.
    pub queue: QueueId,
    /// At least one.
    pub messages: Vec<StoredMessage>,
}

/// Where appended messages are, in the order of the request.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// One per message.
    pub appended: smallvec::SmallVec<[Appended; 1]>,
}

/// Where one message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position in the queue.
    pub queue_offset: QueueOffset,
    /// Position in the log.
    pub log_offset: LogOffset,
    /// When the store took it.
    pub store_time: Timestamp,
}

/// Why messages were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The store does not know the topic or the queue (yet), or the queue is not on it. Nothing was appended.
    #[error("topic {0} or its queue is not known to the store")]
    UnknownQueue(TopicId),
    /// The queue takes no more messages: its store group is being drained. Nothing was appended; another queue takes them.
    #[error("the queue takes no more messages: its store group is being drained")]
    Draining,
    /// Message larger than a record may be. Nothing was appended.
    #[error("the message takes {bytes} bytes, at most {max} are possible")]
    TooLarge { bytes: usize, max: usize },
    /// Another message with this id, but another body, was sent to the topic a short while ago. Nothing was appended.
    #[error("the message id {message_id} was used a short while ago for a message with another body")]
    IdReused { message_id: String },
    /// The store cannot take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug)]
pub struct PopRequest {
    pub group: GroupId,
    /// Of which topic, any queue.
    pub topic: TopicId,
    /// Which of its messages; others are skipped for the whole group.
    pub filter: FilterExpression,
    /// At most this many, at least 1.
    pub batch_max: u32,
    /// Bytes of messages after which no more are added. A message that is larger goes all the same.
    pub bytes_max: u64,
    /// How long they stay hidden.
    pub invisible: Duration,
    /// The client whose life extends the leases, for automatic renewal.
    pub owner: Option<ClientHash>,
    /// True: the owner's life extends the leases only of those deliveries that [`RenewRequest::arrived`] names. Nobody has
    /// the others, as far as is known: they become visible when `invisible` is over.
    pub once_arrived: bool,
    /// How long to wait when there is nothing. Zero: not at all.
    pub wait: Duration,
}

/// Messages handed out. Empty: the wait ended without any.
#[derive(Debug, Default)]
pub struct PopReply {
    /// At most as many as asked for.
    pub messages: Vec<PoppedMessage>,
}

#[derive(Clone, Debug)]
pub struct PoppedMessage {
    /// Head and body.
    pub message: StoredMessage,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
    /// When the store took it.
    pub store_time: Timestamp,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Token to finish or change this delivery.
    pub handle: ReceiptHandle,
}

/// Why nothing was handed out.
#[derive(Debug, thiserror::Error)]
pub enum PopError {
    /// The store does not know the topic (yet).
    #[error("topic {0} is not known to the store")]
    UnknownTopic(TopicId),
    /// The store does not know the group (yet).
    #[error("consumer group {0} is not known to the store")]
    UnknownGroup(GroupId),
    /// The group holds as many unacknowledged messages as it may.
    #[error("the group has {inflight} messages in flight, the most it may have: acknowledge some first")]
    InflightFull { inflight: usize },
    /// Too many receives wait already.
    #[error("{waiting} receives wait for this group and topic already")]
    PollingFull { waiting: usize },
    /// The store cannot serve.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finishes deliveries of one group and topic.
#[derive(Debug)]
pub struct AckRequest {
    /// The group that consumed.
    pub group: GroupId,
    /// The topic consumed from.
    pub topic: TopicId,
    /// Tokens of the deliveries.
    pub handles: Vec<ReceiptHandle>,
}

/// Changes one delivery's invisible duration.
#[derive(Debug)]
pub struct ChangeInvisibleRequest {
    /// The group that consumed.
    pub group: GroupId,
    /// The topic consumed from.
    pub topic: TopicId,
    /// Token of the delivery.
    pub handle: ReceiptHandle,
    /// From now. Zero: visible at once.
    pub invisible: Duration,
    /// True: the next delivery does not count as another attempt.
    pub suspend: bool,
}

/// Moves one delivery to the dead-letter topic.
#[derive(Debug)]
pub struct DeadLetterRequest {
    /// The group that consumed.
    pub group: GroupId,
    /// The topic consumed from.
    pub topic: TopicId,
    /// Token of the delivery.
    pub handle: ReceiptHandle,
}

/// Clients that are alive.
#[derive(Debug)]
pub struct RenewRequest {
    pub owners: Vec<ClientHash>,
    /// How long their deliveries stay hidden from now.
    pub invisible: Duration,
    /// Deliveries that are known to have reached their owners since the last call.
    pub arrived: Vec<ArrivedDeliveries>,
}

/// Deliveries to one client, of one group and topic, that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedDeliveries {
    pub owner: ClientHash,
    pub group: GroupId,
    pub topic: TopicId,
    /// As they were handed out. What is over by now, or was changed, stays as it is.
    pub handles: Vec<ReceiptHandle>,
}

/// A client that is gone.
#[derive(Debug)]
pub struct ReleaseRequest {
    pub owner: ClientHash,
    /// When its deliveries become visible, from now.
    pub invisible: Duration,
}

/// Why a handle was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandleError {
    /// Not issued by this store group, or for another consumer group or topic.
    #[error("the receipt handle is not valid here")]
    Malformed,
    /// The delivery is over: acknowledged, expired or delivered again. Repeating the call cannot help.
    #[error("the receipt handle's delivery is over")]
    Expired,
    /// The store cannot serve.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not serve at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// More bytes wait to be written than the store wants to hold. Nothing happened; try again a little later.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// No room on the disk. Nothing happened.
    #[error("the store's disk is full: {0}")]
    DiskFull(String),
    /// The store does not write any more until it is restarted. Nothing happened.
    #[error("the store stopped writing: {0}")]
    WritesStopped(String),
    /// Something that was written cannot be read back.
    #[error("the store cannot read its log: {0}")]
    Unreadable(String),
    /// The store is going down. Nothing happened.
    #[error("the store is shutting down")]
    ShuttingDown,
    /// The store does not lead its store group now: its store lease has ended, or another epoch has begun. Nothing happened.
    #[error("the store does not lead its group: {0}")]
    NotLeader(String),
    /// The store stopped leading, writing or running while the call was under way: it may have taken effect.
    #[error("the store was interrupted: {0}")]
    Interrupted(String),
    /// The store cannot be reached. The call may have taken effect.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
    /// Store and caller are of different versions, and one does not understand the other. Nothing happened.
    #[error("the store is of another version: {0}")]
    Unsupported(String),
    /// Nobody could be asked: the store group has no leader that is known to be alive. Nothing happened.
    #[error("no store can be asked: {0}")]
    NoLeader(String),
}

/// What a store still holds for consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Messages that some group which consumes their topic has not finished, each counted once for each such group.
    pub unfinished: u64,
    /// Messages of topics that no group consumes.
    pub unclaimed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    pub queue: QueueId,
    /// First offset that can be read.
    pub min_offset: QueueOffset,
    /// Next offset to be given.
    pub max_offset: QueueOffset,
}

/// A group's position on one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicProgress {
    pub topic: TopicId,
    /// Messages never delivered to the group yet.
    pub ready: u64,
    /// Messages delivered and not acknowledged, hidden or waiting for their next delivery.
    pub inflight: u64,
    /// Messages that could not be read back: not delivered any more, not consumed.
    pub damaged: u64,
}
