//! The store service at the proxy's end: each call becomes a protocol message on one of three connections.

use super::budget::Budget;
use super::calls::Consumer;
use super::connection::StoreConnection;
use super::wire::{self as codec, Malformed};
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
use wire::call::Call;
use wire::reply::Outcome;

/// The store at one address. Connects by itself, again and again, until it is dropped. While there is no connection, calls
/// fail at once. Each call is answered within 10 s, in addition to how long it asks the store to wait.
pub struct StoreLink {
    replica: Replica,
    appends: StoreConnection,
    deliveries: StoreConnection,
    /// Acknowledgements, changed durations, renewals, releases, and operators' questions.
    control: StoreConnection,
}

impl StoreLink {
    /// Begins to connect to the replica that leads `store_group`. If another store group, folder or cluster answers at its
    /// address, no call is made. `epoch`: the newest that is known. Needs a tokio runtime around it.
    pub fn open(env: &Env, local: &LocalPeer, replica: Replica, store_group: StoreGroupId, epoch: Epoch) -> StoreLink {
        let budget = Budget::new(QUEUED_BYTES_OF_ALL_MAX);
        StoreLink::open_within(env, local, replica, store_group, epoch, &budget)
    }

    /// Likewise, as one of several links that share a budget.
    pub(super) fn open_within(
        env: &Env,
        local: &LocalPeer,
        replica: Replica,
        store_group: StoreGroupId,
        epoch: Epoch,
        budget: &Arc<Budget>,
    ) -> StoreLink {
        let dialer = Dialer::new(env, local);
        let connect =
            || StoreConnection::open(env, dialer.clone(), (replica.clone(), store_group), epoch, budget.clone());
        StoreLink { appends: connect(), deliveries: connect(), control: connect(), replica }
    }

    /// Which store it is, and where.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether there is a connection, or may be one in a moment: false once an attempt to connect has failed or has taken
    /// half a second.
    pub fn is_up(&self) -> bool {
        self.connections().iter().all(|connection| connection.calls.is_up())
    }

    /// Why there is no connection, once an attempt to connect has failed.
    pub fn trouble(&self) -> Option<String> {
        self.connections().iter().find_map(|connection| connection.calls.trouble())
    }

    /// Notes that the store group is in `epoch`, and tells the store.
    pub fn set_epoch(&self, epoch: Epoch) {
        for connection in self.connections() {
            connection.calls.set_epoch(epoch);
        }
    }

    fn connections(&self) -> [&StoreConnection; 3] {
        [&self.appends, &self.deliveries, &self.control]
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
        self.appends.calls.call(codec::append(request), CALL_TIMEOUT, None, codec::read_appended).await
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        let consumer = Consumer { group: request.group.0, topic: request.topic.0 };
        let patience = request.wait.saturating_add(CALL_TIMEOUT);
        self.deliveries.calls.call(codec::pop(request), patience, Some(consumer), codec::read_popped).await
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let asked = request.handles.len();
        self.control
            .calls
            .call(codec::ack(request), CALL_TIMEOUT, None, |outcome| codec::read_acked(outcome, asked))
            .await
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        self.control.calls.call(codec::change_invisible(request), CALL_TIMEOUT, None, read_handle).await
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.control.calls.call(codec::dead_letter(request), CALL_TIMEOUT, None, read_done).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        self.control.calls.call(codec::renew(&request), CALL_TIMEOUT, None, read_done).await
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.control.calls.call(codec::release(&request), CALL_TIMEOUT, None, read_done).await
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.control
            .calls
            .call(Call::Queues(wire::QueuesCall { topic: topic.0 }), CALL_TIMEOUT, None, codec::read_queues)
            .await
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.control
            .calls
            .call(Call::Progress(wire::ProgressCall { group: group.0 }), CALL_TIMEOUT, None, codec::read_progress)
            .await
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.control.calls.call(Call::Remains(wire::RemainsCall {}), CALL_TIMEOUT, None, codec::read_remains).await
    }
}
