//! The calls of [`StoreService`], one file each. Every call that changes something follows the same line: find what it
//! is about, decide under the shard's lock, put the record into the log, apply it, unlock, wait until the log has
//! confirmed it, make sure that the store still leads, answer.

mod ack;
mod append;
mod change_invisible;
mod dead_letter;
mod pop;
mod renew;
mod status;

use crate::commit_log::record::{RecordKind, record_len};
use crate::commit_log::segment::{ReadError, Record};
use crate::commit_log::tail::NoRoom;
use crate::delivery::{DeliveryRecord, DeliveryState, Over, QueueReader};
use crate::progress::Shard;
use crate::queue_index::{IndexEntry, Queue, QueuesById, TopicQueues};
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, ChangeInvisibleRequest, DeadLetterRequest, HandleError,
    PopError, PopReply, PopRequest, QueueStatus, ReleaseRequest, Remains, RenewRequest, StoreError, StoreService,
    TopicProgress,
};
use gantry_proto::model::{GroupId, LogOffset, MessageHead, QueueId, QueueOffset, ReceiptHandle, Timestamp, TopicId};
use std::sync::Arc;

#[async_trait::async_trait]
impl StoreService for Store {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.append_messages(request).await
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        self.pop_messages(request).await
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        self.ack_deliveries(request).await
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        self.change_delivery(request).await
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.bury_delivery(request).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        self.renew_leases(request).await
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.release_leases(request).await
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        Ok(self.queue_ranges(topic))
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.group_progress(group)
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.remaining_messages().await
    }
}

/// What a topic's queues hold, as delivery sees it.
pub(crate) struct TopicReader<'a> {
    store: &'a Store,
    queues: Arc<QueuesById>,
}

impl<'a> TopicReader<'a> {
    pub(crate) fn new(store: &'a Store, topic: &TopicQueues) -> TopicReader<'a> {
        TopicReader { store, queues: topic.queues() }
    }

    fn queue(&self, queue: QueueId) -> Option<&Arc<Queue>> {
        self.queues.get(queue.0 as usize)?.as_ref()
    }
}

impl QueueReader for TopicReader<'_> {
    fn queue_count(&self) -> u32 {
        self.queues.len() as u32
    }

    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset) {
        self.queue(queue).map_or_else(Default::default, |queue| queue.range())
    }

    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        self.queue(queue).map_or(Ok(()), |queue| queue.scan(from, max, out))
    }

    fn tag_matches(&self, entry: &IndexEntry, matches: &dyn Fn(Option<&str>) -> bool) -> Result<bool, StoreError> {
        let record = self.store.read(entry)?;
        let span = record.message_span().map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let head = MessageHead::parse(span.head(&record.bytes));
        head.map(|head| matches(head.tag)).map_err(|error| StoreError::Unreadable(error.to_string()))
    }
}

impl Store {
    /// The message that an index entry leads to.
    pub(crate) fn read(&self, entry: &IndexEntry) -> Result<Record, StoreError> {
        let unreadable = |error: ReadError| {
            tracing::error!(%error, "a message cannot be read back");
            StoreError::Unreadable(error.to_string())
        };
        if entry.is_damaged() {
            let why =
                format!("the record of queue offset {} is damaged, near {}", entry.queue_offset, entry.log_offset);
            return Err(StoreError::Unreadable(why));
        }
        let record = self.log.read(entry.log_offset, entry.len).map_err(unreadable)?;
        if record.header.queue_offset != entry.queue_offset {
            let found = record.header.queue_offset;
            let why = format!("log offset {} holds queue offset {found}, not {}", entry.log_offset, entry.queue_offset);
            tracing::error!(why, "a message cannot be read back");
            return Err(StoreError::Unreadable(why));
        }
        Ok(record)
    }

    /// Puts a change of a group's progress into the log and into its state. Returns what to wait for.
    pub(crate) fn record(
        &self,
        shard: &Shard,
        state: &mut DeliveryState,
        change: &DeliveryRecord,
    ) -> Result<(LogOffset, LogOffset), NoRoom> {
        let mut body = Vec::with_capacity(128);
        change.encode(shard.group, shard.topic, &mut body);
        let _whole = self.log.whole();
        let mut appender = self.log.begin();
        appender.reserve(record_len(&body))?;
        let (at, _) = appender.push(RecordKind::Delivery, Default::default(), |out| out.extend_from_slice(&body));
        let end = appender.end();
        drop(appender);
        state.apply(change, at);
        Ok((at, end))
    }

    /// The shard and the delivery that a handle stands for.
    pub(crate) fn open_handle(
        &self,
        group: GroupId,
        topic: TopicId,
        handle: &ReceiptHandle,
    ) -> Result<(Arc<Shard>, Receipt), HandleError> {
        let receipt = self.sealer()?.open(handle).ok_or(HandleError::Malformed)?;
        if receipt.group != group || receipt.topic != topic {
            return Err(HandleError::Malformed);
        }
        let shard = self.progress.get(group, topic).ok_or(HandleError::Expired)?;
        Ok((shard, receipt))
    }

    /// The reader of a topic that has queues here.
    pub(crate) fn reader(&self, topic: TopicId) -> Option<TopicReader<'_>> {
        self.queues.get(topic).map(|queues| TopicReader::new(self, &queues))
    }
}

/// What a handle's delivery has come to.
pub(crate) enum Standing {
    /// The consumer holds it.
    Held,
    /// It was finished within the time that was promised: saying so again is true.
    Finished,
    /// It is over.
    Expired,
}

/// How a delivery stands. A finished one is only called finished while its first lease would have lasted: afterwards
/// nobody can tell whether this consumer or a later one finished it.
pub(crate) fn standing(state: &DeliveryState, receipt: &Receipt, now: Timestamp) -> Standing {
    match state.check(receipt.queue, receipt.queue_offset, receipt.lease, now) {
        Ok(()) => Standing::Held,
        Err(Over::Finished) if now < receipt.promised_until => Standing::Finished,
        Err(Over::Finished | Over::Expired) => Standing::Expired,
    }
}

/// What a full tail means to a caller that changes progress.
pub(crate) fn no_room(no_room: NoRoom) -> StoreError {
    match no_room {
        NoRoom::Refused(error) => error,
        NoRoom::SegmentNotReady => StoreError::Busy("the next log segment is not ready".into()),
        NoRoom::TooLarge { bytes, max } => {
            StoreError::Busy(format!("{bytes} bytes of progress do not fit into one segment of {max}"))
        }
    }
}
