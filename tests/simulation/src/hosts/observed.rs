//! Observers of a store: they pass every call on as it is, and record what the store answered and what it was granted.

use super::Process;
use crate::history::{Append, Confirmed, Lease, Moment, Pop, Renewal, Superseded, Uncounted};
use crate::note;
use crate::recorder::Recorder;
use gantry_link::StoreIdentity;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, ChangeInvisibleRequest, ClusterStatus, ControllerChange,
    DeadLetterRequest, HandleError, JoinStoreRequest, LeaseTerm, MembershipError, MembershipService, MetadataError,
    PopError, PopReply, PopRequest, ProxyAliveRequest, QueueStatus, ReleaseRequest, Remains, RenewLeaseRequest,
    RenewRequest, StoreError, StoreGrant, StoreService, TopicProgress,
};
use gantry_proto::model::{Epoch, FolderId, GroupId, ReceiptHandle, StoreGroupId, TopicId};
use gantry_store::StoreHost;
use std::sync::Arc;
use std::time::Duration;

/// A store, as its callers see it.
pub(super) struct ObservedStore {
    store: Arc<StoreHost>,
    process: Arc<str>,
    recorder: Recorder,
}

/// A receive under way: dropped before it was answered, nobody knows what became of what it took.
struct Receive<'a> {
    recorder: &'a Recorder,
    group: u32,
    topic: u32,
    answered: bool,
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        if !self.answered {
            uncounted(self.recorder, self.group, self.topic);
        }
    }
}

fn uncounted(recorder: &Recorder, group: u32, topic: u32) {
    let at = recorder.moment();
    recorder.history(|history| history.uncounted.push(Uncounted { group, topic, at }));
}

/// The process has heard that epochs before `by` are over. Whoever passes that on does it before anything else can run.
fn superseded(recorder: &Recorder, process: &Arc<str>, store_group: StoreGroupId, by: Epoch) {
    let (process, at) = (process.clone(), recorder.moment());
    recorder.history(|history| history.superseded.push(Superseded { process, store_group, by, at }));
}

impl ObservedStore {
    pub(super) fn new(store: Arc<StoreHost>, process: &Arc<str>, recorder: &Recorder) -> ObservedStore {
        ObservedStore { store, process: process.clone(), recorder: recorder.clone() }
    }
}

#[async_trait::async_trait]
impl StoreService for ObservedStore {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        let (topic, queue) = (request.topic, request.queue);
        let parse = |message: &gantry_proto::model::StoredMessage| {
            message.parse_head().map(|head| Arc::from(head.message_id)).unwrap_or_else(|_| "?".into())
        };
        let ids: Vec<Arc<str>> = request.messages.iter().map(parse).collect();
        let reply = self.store.append(request).await;
        match &reply {
            Ok(reply) => {
                for (id, place) in ids.into_iter().zip(&reply.appended) {
                    let (process, answered) = (self.process.clone(), self.recorder.moment());
                    let (store_group, epoch) = (self.store.store_group(), self.store.epoch());
                    note!(
                        self.recorder.trace,
                        &self.process,
                        "appended {id}: topic {topic}, asked for queue {queue}, is at offset {}, in epoch {epoch}",
                        place.queue_offset
                    );
                    let append = Append { process, store_group, epoch, place: place.log_offset, id, answered };
                    self.recorder.history(|history| history.appends.push(append));
                }
            }
            Err(error) => note!(self.recorder.trace, &self.process, "did not append {ids:?}: {error}"),
        }
        reply
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        let (group, topic) = (request.group.0, request.topic.0);
        let mut under_way = Receive { recorder: &self.recorder, group, topic, answered: false };
        let reply = self.store.pop(request).await;
        under_way.answered = reply.is_ok();
        if let Ok(reply) = &reply {
            for message in &reply.messages {
                let (queue, offset, attempt) = (message.queue.0, message.queue_offset.0, message.attempt);
                let (process, answered) = (self.process.clone(), self.recorder.moment());
                let position = (group, topic, queue, offset);
                note!(self.recorder.trace, &self.process, "handed out {position:?}, attempt {attempt}");
                self.recorder.history(|history| history.pops.push(Pop { process, position, attempt, answered }));
            }
        }
        reply
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        self.store.ack(request).await
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        if request.suspend {
            // Before and after: it may count from any instant in between.
            uncounted(&self.recorder, request.group.0, request.topic.0);
        }
        let (group, topic, suspend) = (request.group.0, request.topic.0, request.suspend);
        let changed = self.store.change_invisible(request).await;
        if suspend {
            uncounted(&self.recorder, group, topic);
        }
        changed
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.store.forward_to_dead_letter(request).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        let (began, owners, invisible) = (self.recorder.moment(), request.owners.clone(), request.invisible);
        let renewed = self.store.renew(request).await;
        if renewed.is_ok() {
            let (store_group, ended) = (self.store.store_group(), self.recorder.moment());
            let renewal = Renewal { store_group, owners, invisible, began, ended };
            self.recorder.history(|history| history.renewals.push(renewal));
        }
        renewed
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.store.release(request).await
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.store.queues(topic).await
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.store.progress(group).await
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.store.remains().await
    }
}

impl StoreIdentity for ObservedStore {
    fn group(&self) -> StoreGroupId {
        self.store.store_group()
    }

    fn folder(&self) -> FolderId {
        self.store.folder()
    }

    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn newer_epoch(&self, epoch: Epoch) {
        note!(self.recorder.trace, &self.process, "hears of epoch {epoch}");
        self.store.newer_epoch(epoch);
        superseded(&self.recorder, &self.process, self.group(), epoch);
    }
}

/// The controller, as a store sees it.
pub(super) struct ObservedMembership {
    service: Arc<dyn MembershipService>,
    process: Arc<str>,
    recorder: Recorder,
}

impl ObservedMembership {
    pub(super) fn new(service: Arc<dyn MembershipService>, process: &Process) -> ObservedMembership {
        let (process, recorder) = (process.name.clone(), process.site.recorder.clone());
        ObservedMembership { service, process, recorder }
    }

    fn leased(&self, store_group: StoreGroupId, epoch: Epoch, term: LeaseTerm, called: Moment, begins: bool) {
        let heard = self.recorder.moment();
        let until = match term {
            LeaseTerm::For(duration) => Some(called.at + duration),
            LeaseTerm::UntilSuperseded => None,
        };
        if begins {
            note!(self.recorder.trace, &self.process, "leads store group {store_group} in epoch {epoch}");
        }
        let process = self.process.clone();
        let lease = Lease { process, store_group, epoch, called, heard, until, begins };
        self.recorder.history(|history| history.leases.push(lease));
    }
}

#[async_trait::async_trait]
impl MembershipService for ObservedMembership {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        let called = self.recorder.moment();
        let granted = self.service.join_store(request).await;
        match &granted {
            Ok(grant) => self.leased(grant.group, grant.epoch, grant.lease, called, true),
            Err(error) => note!(self.recorder.trace, &self.process, "does not lead: {error}"),
        }
        granted
    }

    async fn renew_lease(&self, request: RenewLeaseRequest) -> Result<LeaseTerm, MembershipError> {
        let (store_group, epoch, to) = (request.group, request.epoch, request.positions.confirmed_to);
        let called = self.recorder.moment();
        self.recorder.history(|history| history.confirmed.push(Confirmed { store_group, to, at: called }));
        let renewed = self.service.renew_lease(request).await;
        match &renewed {
            Ok(term) => self.leased(store_group, epoch, *term, called, false),
            Err(error @ (MembershipError::Superseded { .. } | MembershipError::Held { .. })) => {
                note!(self.recorder.trace, &self.process, "epoch {epoch} is over: {error}");
                superseded(&self.recorder, &self.process, store_group, Epoch(epoch.0 + 1));
            }
            Err(error) => note!(self.recorder.trace, &self.process, "lease not renewed: {error}"),
        }
        renewed
    }

    async fn give_up_lease(&self, group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        self.recorder.history(|history| history.given_up.push((group, epoch)));
        self.service.give_up_lease(group, epoch).await
    }

    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        self.service.proxy_alive(request).await
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        self.service.cluster_status().await
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError> {
        self.service.change_controllers(change).await
    }
}
