//! The contract [`StoreService`], and what its calls share. [`StoreHost`] answers each with the store that is open now; the
//! method of [`Store`] of the same name does it, in a file of its own.
//!
//! Every call that changes something follows the same line: find what it is about, decide under the shard's lock, put the
//! record into the log, apply it, unlock, wait until the log has confirmed it, make sure that the store still leads, answer.

mod ack;
mod append;
mod change_invisible;
mod dead_letter;
mod pop;
mod read;
mod renew;
mod status;

use crate::apply;
use crate::commit_log::record::{Origin, record_len};
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::delivery::{DeliveryRecord, DeliveryState, NotHeld, QueueReader};
use crate::given_up::Known;
use crate::host::StoreHost;
use crate::progress::Shard;
use crate::queue_index::{IndexEntry, Queue, QueuesById, TopicQueues};
use crate::receipt::{Receipt, ReceiptSealer};
use crate::store::Store;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, ChangeInvisibleRequest, DeadLetterRequest, HandleError,
    PopError, PopReply, PopRequest, QueueStatus, ReleaseRequest, Remains, RenewRequest, StoreError, StoreService,
    TopicProgress,
};
use gantry_proto::model::{GroupId, LogOffset, QueueId, QueueOffset, ReceiptHandle, Removed, Timestamp, TopicId};
use std::sync::Arc;

#[async_trait::async_trait]
impl StoreService for StoreHost {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.current()?.append(request).await
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        self.current()?.pop(request).await
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        self.current()?.ack(request).await
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        self.current()?.change_invisible(request).await
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.current()?.forward_to_dead_letter(request).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        self.current()?.renew(request).await
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.current()?.release(request).await
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.current()?.queues(topic).await
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.current()?.progress(group).await
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.current()?.remains().await
    }
}

/// What a topic's queues hold, as delivery sees it.
pub(crate) struct TopicReader {
    queues: Arc<QueuesById>,
}

impl TopicReader {
    pub(crate) fn new(topic: &TopicQueues) -> TopicReader {
        TopicReader { queues: topic.queues() }
    }

    fn queue(&self, queue: QueueId) -> Option<&Arc<Queue>> {
        self.queues.get(queue.0 as usize)?.as_ref()
    }
}

impl QueueReader for TopicReader {
    fn queue_count(&self) -> u32 {
        self.queues.len() as u32
    }

    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset) {
        self.queue(queue).map_or_else(Default::default, |queue| queue.range())
    }

    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        self.queue(queue).map_or(Ok(()), |queue| queue.scan(from, max, out))
    }
}

impl Store {
    /// Puts a change of a group's progress into the log and into its state. Returns what to wait for.
    pub(crate) fn record(
        &self,
        shard: &Shard,
        state: &mut DeliveryState,
        change: &DeliveryRecord,
    ) -> Result<(LogOffset, LogOffset), NoRoom> {
        check_open(shard)?;
        let mut body = Vec::with_capacity(128);
        change.encode(shard.group, shard.topic, &mut body);
        let _fail_on_panic = self.log.fail_on_panic();
        let mut appender = self.log.begin();
        appender.reserve(Purpose::Progress, record_len(&body))?;
        shard.will_change();
        let (at, _) = appender.push(change.kind(), Default::default(), |out| out.extend_from_slice(&body));
        let end = appender.end();
        drop(appender);
        apply::delivery(state, change, at);
        Ok((at, end))
    }

    /// The delivery that a handle stands for, if it is one of this group on this topic and this log holds it. Handles are
    /// opened here and nowhere else.
    fn open_receipt(
        &self,
        sealer: &ReceiptSealer,
        (group, topic): (GroupId, TopicId),
        handle: &ReceiptHandle,
    ) -> Result<Receipt, HandleError> {
        let receipt = sealer.open(handle).ok_or(HandleError::Malformed)?;
        if receipt.group != group || receipt.topic != topic {
            return Err(HandleError::Malformed);
        }
        // Its record was cut off, or this log was put back: what lies there now is another delivery.
        if !self.log.is_of_epoch(receipt.lease, receipt.epoch) {
            return Err(HandleError::Expired);
        }
        Ok(receipt)
    }

    /// The shard and the delivery that a handle stands for.
    pub(crate) fn open_handle(
        &self,
        group: GroupId,
        topic: TopicId,
        handle: &ReceiptHandle,
    ) -> Result<(Arc<Shard>, Receipt), HandleError> {
        let receipt = self.open_receipt(&*self.sealer()?, (group, topic), handle)?;
        let shard = self.progress.get(group, topic).ok_or(HandleError::Expired)?;
        Ok((shard, receipt))
    }

    /// How a delivery stands; its shard is locked. A finished one is only called finished while its first lease would have
    /// lasted: afterwards nobody can tell whether this consumer or a later one finished it.
    pub(crate) fn standing(&self, state: &DeliveryState, receipt: &Receipt, now: Timestamp) -> HandleState {
        match state.check(receipt.queue, receipt.queue_offset, receipt.lease, now) {
            Ok(()) => HandleState::Held,
            Err(NotHeld::Finished) if now < receipt.promised_until => {
                let Receipt { group, topic, queue, queue_offset, lease, .. } = *receipt;
                let origin = Origin { group, topic, queue, queue_offset };
                match self.given_up.lock().look_up(&origin, lease) {
                    Known::GivenUp => HandleState::GivenUp,
                    Known::Not => HandleState::Finished,
                    Known::OnlyFrom(at) => HandleState::FinishedSomehow(FinishedSomehow { lease, unknown_before: at }),
                }
            }
            Err(NotHeld::Finished | NotHeld::Expired) => HandleState::Expired,
        }
    }

    /// Sets messages aside that cannot be read back: says so once for each, and lets the group go on without them.
    pub(crate) fn set_aside(
        &self,
        shard: &Shard,
        state: &mut DeliveryState,
        damaged: Vec<(QueueId, QueueOffset, String)>,
    ) -> Result<(), NoRoom> {
        let entries = damaged.iter().map(|(queue, offset, _)| (*queue, *offset)).collect();
        self.record(shard, state, &DeliveryRecord::SetAside { entries })?;
        let names = (self.view.group_by_id(shard.group), self.view.topic_by_id(shard.topic));
        let group = names.0.map_or_else(|| shard.group.to_string(), |group| group.name.to_string());
        let topic = names.1.map_or_else(|| shard.topic.to_string(), |topic| topic.name.to_string());
        for (queue, offset, why) in &damaged {
            tracing::error!(
                group, topic, %queue, %offset, why,
                "a message is damaged: it is set aside for the group, neither delivered nor counted as consumed"
            );
        }
        metrics::counter!("gantry_messages_set_aside_total", "consumer_group" => group, "topic" => topic)
            .increment(damaged.len() as u64);
        Ok(())
    }

    /// Refuses what a newer controller describes in a way that this version cannot read: nobody can tell what may be done
    /// with it.
    fn check_understood(&self, identity: Removed) -> Result<(), StoreError> {
        if !self.view.not_understood(identity) {
            return Ok(());
        }
        let what = match identity {
            Removed::Topic(id) => format!("topic {id}"),
            Removed::Group(id) => format!("consumer group {id}"),
        };
        Err(StoreError::Unsupported(format!("{what} is described by a newer Gantry; upgrade the store")))
    }

    /// The reader of a topic that has queues here.
    pub(crate) fn reader(&self, topic: TopicId) -> Option<TopicReader> {
        self.queues.get(topic).map(|queues| TopicReader::new(&queues))
    }
}

/// What a handle's delivery has come to.
pub(crate) enum HandleState {
    /// The consumer holds it.
    Held,
    /// It was finished within the time that was promised: saying so again is true.
    Finished,
    /// The message is a dead letter.
    GivenUp,
    /// It was finished within the time that was promised, or the message is a dead letter: see
    /// [`Store::may_be_given_up`].
    FinishedSomehow(FinishedSomehow),
    /// It is over.
    Expired,
}

/// A message that is finished, and nobody remembers whether as a dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FinishedSomehow {
    /// A delivery of it.
    lease: LogOffset,
    /// All dead letters from there on are remembered, and it is none of them.
    unknown_before: LogOffset,
}

/// Nothing is recorded of a shard behind the record that ends it. Its lock is held.
fn check_open(shard: &Shard) -> Result<(), NoRoom> {
    if shard.is_closed() {
        return Err(NoRoom::Refused(StoreError::Busy("its topic or its consumer group was deleted".into())));
    }
    Ok(())
}
