use super::budget::Budget;
use super::calls::{Calls, Consumer};
use super::lane::Lane;
use super::wire::{self as codec, Failed, Malformed};
use super::{CALL_TIMEOUT, QUEUED_BYTES_OF_ALL_MAX};
use crate::local_peer::LocalPeer;
use crate::transport::Dialer;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, ChangeInvisibleRequest, DeadLetterRequest, HandleError,
    PopError, PopReply, PopRequest, QueueStatus, ReleaseRequest, Remains, RenewRequest, StoreError, StoreService,
    TopicProgress,
};
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, GroupId, ReceiptHandle, Replica, StoreGroupId, TopicId};
use gantry_proto::wire::store::v1 as wire;
use std::sync::Arc;
use std::time::Duration;
use wire::call::Call;
use wire::reply::Outcome;

/// The store at one address. Connects by itself, again and again, until it is dropped. Calls fail at once while it is
/// down; each is answered within 10 s, beyond what it asks the store to wait.
pub struct StoreLink {
    replica: Replica,
    appends: Lane,
    deliveries: Lane,
}

impl StoreLink {
    /// Begins to connect to the replica that leads `group`. Another group, folder or cluster that answers at its address is
    /// not spoken to. `epoch`: the newest that is known. Needs a tokio runtime around it.
    pub fn open(env: &Env, local: &LocalPeer, replica: Replica, group: StoreGroupId, epoch: Epoch) -> StoreLink {
        let budget = Budget::new(QUEUED_BYTES_OF_ALL_MAX);
        StoreLink::open_within(env, local, replica, group, epoch, &budget)
    }

    /// Likewise, as one of several links that share a budget.
    pub(super) fn open_within(
        env: &Env,
        local: &LocalPeer,
        replica: Replica,
        group: StoreGroupId,
        epoch: Epoch,
        budget: &Arc<Budget>,
    ) -> StoreLink {
        let dialer = Dialer::new(env, local);
        let lane = || Lane::open(env, dialer.clone(), (replica.clone(), group), epoch, budget.clone());
        StoreLink { appends: lane(), deliveries: lane(), replica }
    }

    /// Which store it is, and where.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether calls have a chance: false once an attempt to connect has failed, or takes longer than half a second.
    pub fn is_up(&self) -> bool {
        self.appends.calls.is_up() && self.deliveries.calls.is_up()
    }

    /// Why it is not up, once an attempt to connect has failed.
    pub fn trouble(&self) -> Option<String> {
        self.appends.calls.trouble().or_else(|| self.deliveries.calls.trouble())
    }

    /// Notes that the group is in `epoch`, and tells the store.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.appends.calls.set_epoch(epoch);
        self.deliveries.calls.set_epoch(epoch);
    }

    /// A call on the lane of deliveries that needs no more than the usual time.
    async fn deliver<T, E: Failed + From<StoreError>>(
        &self,
        call: Call,
        read: impl FnOnce(Outcome) -> Result<T, Malformed>,
    ) -> Result<T, E> {
        carry(&self.deliveries.calls, call, CALL_TIMEOUT, None, read).await
    }
}

async fn carry<T, E: Failed + From<StoreError>>(
    calls: &Arc<Calls>,
    call: Call,
    patience: Duration,
    consumer: Option<Consumer>,
    read: impl FnOnce(Outcome) -> Result<T, Malformed>,
) -> Result<T, E> {
    let pending = calls.submit(call, patience, consumer)?;
    match pending.answer(patience).await? {
        Outcome::Failure(failure) => Err(E::read(failure)),
        outcome => read(outcome).map_err(|malformed| StoreError::Unreachable(malformed.to_string()).into()),
    }
}

fn read_done(outcome: Outcome) -> Result<(), Malformed> {
    match outcome {
        Outcome::Done(wire::Done {}) => Ok(()),
        _ => Err(Malformed("answer")),
    }
}

fn read_handle(outcome: Outcome) -> Result<ReceiptHandle, Malformed> {
    match outcome {
        Outcome::ChangeInvisible(handle) => Ok(ReceiptHandle(handle)),
        _ => Err(Malformed("answer to a change of an invisible duration")),
    }
}

#[async_trait::async_trait]
impl StoreService for StoreLink {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        carry(&self.appends.calls, codec::append(request), CALL_TIMEOUT, None, codec::read_appended).await
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        let consumer = Consumer { group: request.group.0, topic: request.topic.0 };
        let patience = request.wait.saturating_add(CALL_TIMEOUT);
        carry(&self.deliveries.calls, codec::pop(request), patience, Some(consumer), codec::read_popped).await
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let asked = request.handles.len();
        self.deliver(codec::ack(request), |outcome| codec::read_acked(outcome, asked)).await
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        self.deliver(codec::change_invisible(request), read_handle).await
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.deliver(codec::dead_letter(request), read_done).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        self.deliver(codec::renew(&request), read_done).await
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.deliver(codec::release(&request), read_done).await
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.deliver(Call::Queues(wire::QueuesCall { topic: topic.0 }), codec::read_queues).await
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.deliver(Call::Progress(wire::ProgressCall { group: group.0 }), codec::read_progress).await
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.deliver(Call::Remains(wire::RemainsCall {}), codec::read_remains).await
    }
}
