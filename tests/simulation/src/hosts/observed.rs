//! Observers of a store: they pass every call on as it is, and record what the store answered and what it was granted.

use super::Process;
use crate::history::{
    Append, Arrival, Confirmed, EmptyReceive, Lease, LogState, LostReceive, Moment, Outcome, Place, Pop, Renewal,
    StoreState, Superseded, Touch, Wish,
};
use crate::note;
use crate::recorder::Recorder;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_link::StoreIdentity;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, ArrivedDeliveries, ChangeInvisibleRequest, ClusterStatus,
    ControllerChange, DeadLetterRequest, HandleError, JoinStoreRequest, MembershipError, MembershipService,
    MetadataError, PopError, PopReply, PopRequest, ProxyAliveRequest, QueueStatus, ReleaseRequest, Remains,
    RenewRequest, RenewStoreLeaseRequest, StoreError, StoreGrant, StoreLease, StoreService, TopicProgress,
};
use gantry_proto::model::{
    ClientHash, Epoch, FilterExpression, FolderId, GroupId, LogOffset, MetadataView, ReceiptHandle, StoreGroupId,
    StoreGroupState, TagFilter, TopicId,
};
use gantry_store::{Store, StoreHost};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// A store, as its callers see it.
pub(super) struct ObservedStore {
    store: Arc<StoreHost>,
    view: Arc<MetadataView>,
    process: Arc<str>,
    recorder: Recorder,
    /// Set once the process dies: what it still does then reaches nobody.
    dead: Arc<AtomicBool>,
}

/// A receive under way. Looks after each of its steps whether the log has grown: nobody else runs in between.
struct Receive<'a> {
    observed: &'a ObservedStore,
    call: Option<BoxFuture<'a, Result<PopReply, PopError>>>,
    group: GroupId,
    topic: TopicId,
    began: Moment,
    hidden: Duration,
    recorded: bool,
    took: u64,
}

impl Receive<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<PopReply, PopError>> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let (end, held) = (self.observed.log_end(), self.observed.held(self.group, self.topic));
        let polled = call.as_mut().poll(cx);
        if self.observed.log_end() != end {
            self.recorded = true;
            self.took += self.observed.held(self.group, self.topic).saturating_sub(held);
        }
        if let Poll::Ready(reply) = &polled {
            self.call = None;
            if reply.is_err() && self.recorded {
                self.lost(false);
            }
        }
        polled
    }

    /// What it took did not go anywhere.
    fn lost(&self, gave_back: bool) {
        let ObservedStore { store, process, recorder, .. } = self.observed;
        let alive = !self.observed.dead.load(Ordering::SeqCst);
        let able = alive && store.takes_messages().is_ok();
        let (group, topic) = (self.group.0, self.topic.0);
        note!(recorder.trace, process, "lost a receive of topic {topic} for group {group}, gave back: {gave_back}");
        let lost = LostReceive {
            process: process.clone(),
            store_group: store.store_group(),
            group,
            topic,
            began: self.began,
            at: recorder.moment(),
            hidden: self.hidden,
            took: self.took,
            able,
            gave_back: gave_back && alive,
        };
        recorder.history(|history| history.lost_receives.push(lost));
    }
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        if self.call.is_none() || !self.recorded {
            return;
        }
        let end = self.observed.log_end();
        self.call = None;
        self.lost(self.observed.log_end() != end);
    }
}

/// A renewal under way. It is recorded when it is answered, and when nobody waits for it any more: it may have been made.
struct Renewing<'a> {
    recorder: &'a Recorder,
    renewal: Renewal,
    arrivals: Vec<Arrival>,
}

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.renewal.ended = self.recorder.moment();
        let Renewal { ended, done, .. } = self.renewal;
        let arrivals = std::mem::take(&mut self.arrivals);
        self.recorder.history(|history| {
            history.renewals.push(self.renewal.clone());
            history.arrivals.extend(arrivals.into_iter().map(|arrival| Arrival { ended, done, ..arrival }));
        });
    }
}

/// The process has heard that epochs before `by` are over. Whoever passes that on does it before anything else can run.
fn superseded(recorder: &Recorder, process: &Arc<str>, store_group: StoreGroupId, by: Epoch) {
    let (process, at) = (process.clone(), recorder.moment());
    recorder.history(|history| history.superseded.push(Superseded { process, store_group, by, at }));
}

/// What an answer about a delivery leaves open.
fn outcome_of<T>(result: &Result<T, HandleError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(HandleError::Malformed | HandleError::Expired) => Outcome::Refused,
        Err(HandleError::Store(_)) => Outcome::Unknown,
    }
}

/// Reads what a store shows of its log.
pub(super) async fn log_of(store: &Store, view: &MetadataView, with_minima: bool) -> anyhow::Result<LogState> {
    let positions = store.positions();
    let damaged = store.damaged().into_iter().map(|range| range.from..range.to).collect();
    let mut minima = BTreeMap::new();
    let topics = if with_minima { view.topics_page("", "", usize::MAX) } else { Vec::new() };
    for topic in topics {
        for queue in store.queues(topic.id).await?.into_iter().filter(|queue| queue.min_offset.0 > 0) {
            minima.insert((topic.id.0, queue.queue.0), queue.min_offset.0);
        }
    }
    Ok(LogState { retained_from: positions.retained_from, appended_to: positions.appended_to, damaged, minima })
}

/// Reads a store's state, as its own calls describe it. None of these calls waits.
pub(super) async fn state_of(store: &Store, view: &MetadataView) -> anyhow::Result<StoreState> {
    let mut state = StoreState { queues: Default::default(), progress: Default::default() };
    for topic in view.topics_page("", "", usize::MAX) {
        for queue in store.queues(topic.id).await?.into_iter().filter(|queue| queue.max_offset.0 > 0) {
            state.queues.insert((topic.id.0, queue.queue.0), (queue.min_offset.0, queue.max_offset.0));
        }
    }
    for group in view.groups_page("", "", usize::MAX) {
        for of_topic in store.progress(group.id).await? {
            if (of_topic.ready, of_topic.inflight) != (0, 0) {
                state.progress.insert((group.id.0, of_topic.topic.0), (of_topic.ready, of_topic.inflight));
            }
        }
    }
    Ok(state)
}

impl ObservedStore {
    pub(super) fn new(store: Arc<StoreHost>, view: Arc<MetadataView>, process: &Process) -> ObservedStore {
        let (name, dead) = (process.name.clone(), process.dead.clone());
        let recorder = process.site.recorder.clone();
        let machine = process.machine.name.clone();
        recorder.history(|history| history.machines.insert(store.store_group(), machine));
        ObservedStore { store, view, process: name, recorder, dead }
    }

    fn log_end(&self) -> u64 {
        self.store.store().positions().appended_to.0
    }

    fn retained_from(&self) -> LogOffset {
        self.store.store().positions().retained_from
    }

    /// First offset of each queue of a topic, where something was removed.
    fn minima(&self, topic: TopicId) -> BTreeMap<u32, u64> {
        if self.retained_from() == LogOffset(0) {
            return BTreeMap::new();
        }
        let queues = self.store.queues(topic).now_or_never().and_then(Result::ok).unwrap_or_default();
        queues.into_iter().map(|queue| (queue.queue.0, queue.min_offset.0)).collect()
    }

    /// How many messages of a topic a consumer group holds.
    fn held(&self, group: GroupId, topic: TopicId) -> u64 {
        let progress = self.store.progress(group).now_or_never();
        let progress = progress.and_then(Result::ok).unwrap_or_default();
        progress.iter().find(|of| of.topic == topic).map_or(0, |of| of.inflight)
    }

    fn handed_out(
        &self,
        reply: &PopReply,
        (group, topic): (GroupId, TopicId),
        (began, invisible, owner): (Moment, Duration, Option<ClientHash>),
    ) {
        let group_name: Arc<str> = self.view.group_by_id(group).map_or("?".into(), |group| group.name.as_str().into());
        let topic_name: Arc<str> = self.view.topic_by_id(topic).map_or("?".into(), |topic| topic.name.as_str().into());
        let minima = self.minima(topic);
        for message in &reply.messages {
            let (queue, offset, attempt) = (message.queue.0, message.queue_offset.0, message.attempt);
            let id = message.message.parse_head().map_or("?".into(), |head| Arc::from(head.message_id));
            let position = (group.0, topic.0, queue, offset);
            note!(self.recorder.trace, &self.process, "handed out {position:?}, attempt {attempt}");
            let pop = Pop {
                process: self.process.clone(),
                store_group: self.store.store_group(),
                group: group_name.clone(),
                topic: topic_name.clone(),
                position,
                id,
                attempt,
                invisible,
                owner,
                minima: minima.clone(),
                began,
                answered: self.recorder.moment(),
            };
            self.recorder.history(|history| {
                history.handles.insert(message.handle.0.as_str().into(), (position, attempt));
                history.pops.push(pop);
            });
        }
    }

    /// Notes that somebody asks something of a delivery. `None`: nobody knows that handle.
    fn touches(&self, handle: &ReceiptHandle, wish: Wish) -> Option<usize> {
        let (store_group, began) = (self.store.store_group(), self.recorder.moment());
        self.recorder.history(|history| {
            let (position, attempt): (Place, u32) = *history.handles.get(handle.0.as_str())?;
            let outcome = Outcome::Unknown;
            history.touches.push(Touch { store_group, position, attempt, wish, began, ended: None, outcome });
            Some(history.touches.len() - 1)
        })
    }

    fn touched(&self, touch: Option<usize>, outcome: Outcome) {
        let ended = self.recorder.moment();
        self.recorder.history(|history| {
            if let Some(touch) = touch.and_then(|index| history.touches.get_mut(index)) {
                (touch.ended, touch.outcome) = (Some(ended), outcome);
            }
        });
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
        let store_group = self.store.store_group();
        // As it was when the store decided: it does so before it waits for anything.
        let drains = self.view.store_group(store_group).is_some_and(|group| group.state != StoreGroupState::Active);
        let while_drained =
            drains && self.view.topic_by_id(topic).is_some_and(|topic| self.view.has_active_queue(&topic));
        let mut call = self.store.append(request);
        // What it put into the log, and in which epoch: nobody else runs within one of its steps.
        let mut written = Vec::new();
        let mut retained_from = LogOffset(0);
        let reply = poll_fn(|cx| {
            let (from, epoch) = (self.log_end(), self.store.epoch());
            let polled = call.as_mut().poll(cx);
            // Once it has decided it only waits, and what it recognized is decided in its last step.
            if self.log_end() > from {
                retained_from = self.retained_from();
                written.push((from..self.log_end(), epoch));
            }
            polled
        })
        .await;
        if written.is_empty() {
            retained_from = self.retained_from();
        }
        drop(call);
        match &reply {
            Ok(reply) => {
                let starts: Vec<u64> = reply.appended.iter().map(|appended| appended.log_offset.0).collect();
                for (id, place) in ids.into_iter().zip(&reply.appended) {
                    let (process, answered) = (self.process.clone(), self.recorder.moment());
                    let epoch = self.store.epoch();
                    note!(
                        self.recorder.trace,
                        &self.process,
                        "appended {id}: topic {topic}, asked for queue {queue}, is at offset {}, in epoch {epoch}",
                        place.queue_offset
                    );
                    let (topic, offset, place) = (topic.0, place.queue_offset.0, place.log_offset);
                    let of_it = written.iter().find(|(range, _)| range.contains(&place.0));
                    let written_in = of_it.map_or(epoch, |(_, epoch)| *epoch);
                    // Up to the next message of the request, or all that is left of what it put there.
                    let end = of_it.map(|(range, _)| {
                        let next = starts.iter().filter(|start| **start > place.0 && range.contains(*start)).min();
                        LogOffset(*next.unwrap_or(&range.end))
                    });
                    let append = Append {
                        process,
                        store_group,
                        epoch,
                        written_in,
                        topic,
                        offset,
                        place,
                        end,
                        retained_from,
                        id,
                        while_drained,
                        answered,
                    };
                    self.recorder.history(|history| history.appends.push(append));
                }
            }
            Err(error) => note!(self.recorder.trace, &self.process, "did not append {ids:?}: {error}"),
        }
        reply
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        let (group, topic) = (request.group, request.topic);
        let (invisible, owner) = (request.invisible, request.owner);
        let unfiltered = matches!(request.filter, FilterExpression::Tag(TagFilter::All));
        // Also with an owner: what is lost on its way is not renewed.
        let (began, hidden) = (self.recorder.moment(), invisible);
        let call = Some(self.store.pop(request));
        let mut receive = Receive { observed: self, call, group, topic, began, hidden, recorded: false, took: 0 };
        let reply = poll_fn(|cx| receive.poll(cx)).await;
        match &reply {
            Ok(reply) if reply.messages.is_empty() => {
                let (process, store_group) = (self.process.clone(), self.store.store_group());
                let (group, topic, ended) = (group.0, topic.0, self.recorder.moment());
                let empty = EmptyReceive { process, store_group, group, topic, unfiltered, began, ended };
                self.recorder.history(|history| history.empty_receives.push(empty));
            }
            Ok(reply) => self.handed_out(reply, (group, topic), (began, invisible, owner)),
            Err(_) => {}
        }
        reply
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let touches: Vec<Option<usize>> =
            request.handles.iter().map(|handle| self.touches(handle, Wish::Acknowledge)).collect();
        let reply = self.store.ack(request).await;
        for (index, touch) in touches.into_iter().enumerate() {
            let result = reply.as_ref().ok().and_then(|results| results.get(index));
            self.touched(touch, result.map_or(Outcome::Unknown, outcome_of));
        }
        reply
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        let ChangeInvisibleRequest { invisible, suspend, .. } = request;
        let handle = request.handle.clone();
        let touch = self.touches(&handle, Wish::Hide { invisible, counted: !suspend });
        let changed = self.store.change_invisible(request).await;
        self.touched(touch, outcome_of(&changed));
        if let Ok(next) = &changed {
            self.recorder.history(|history| {
                if let Some(of) = history.handles.get(handle.0.as_str()).copied() {
                    history.handles.insert(next.0.as_str().into(), of);
                }
            });
        }
        changed
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        let touch = self.touches(&request.handle, Wish::Bury);
        let buried = self.store.forward_to_dead_letter(request).await;
        self.touched(touch, outcome_of(&buried));
        buried
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        let (began, owners, invisible) = (self.recorder.moment(), request.owners.clone(), request.invisible);
        let store_group = self.store.store_group();
        let renewal = Renewal { store_group, owners, invisible, began, ended: began, done: false };
        let mut arrivals = Vec::new();
        self.recorder.history(|history| {
            for ArrivedDeliveries { owner, handles, .. } in &request.arrived {
                let known = handles.iter().filter_map(|handle| history.handles.get(handle.0.as_str()));
                arrivals.extend(known.map(|(position, attempt)| Arrival {
                    store_group,
                    owner: *owner,
                    position: *position,
                    attempt: *attempt,
                    began,
                    ended: began,
                    done: false,
                }));
            }
        });
        for arrival in &arrivals {
            let Arrival { position, attempt, .. } = arrival;
            note!(self.recorder.trace, &self.process, "is told that {position:?} has arrived, attempt {attempt}");
        }
        let mut renewing = Renewing { recorder: &self.recorder, renewal, arrivals };
        let renewed = self.store.renew(request).await;
        renewing.renewal.done = renewed.is_ok();
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
    fn store_group(&self) -> StoreGroupId {
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
        superseded(&self.recorder, &self.process, self.store.store_group(), epoch);
    }
}

/// The controller, as a store sees it.
pub(super) struct ObservedMembership {
    service: Arc<dyn MembershipService>,
    /// Whether the store is of the version before, which reports nothing.
    older: bool,
    process: Arc<str>,
    recorder: Recorder,
}

impl ObservedMembership {
    pub(super) fn new(service: Arc<dyn MembershipService>, process: &Process) -> ObservedMembership {
        let (older, recorder, process) = (process.older, process.site.recorder.clone(), process.name.clone());
        ObservedMembership { service, older, process, recorder }
    }

    fn leased(&self, store_group: StoreGroupId, epoch: Epoch, term: StoreLease, called: Moment, begins: bool) {
        let heard = self.recorder.moment();
        let until = match term {
            StoreLease::For(duration) => Some(called.at + duration),
            StoreLease::UntilSuperseded => None,
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
    async fn join_store(&self, mut request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        request.report = request.report.filter(|_| !self.older);
        let called = self.recorder.moment();
        let granted = self.service.join_store(request).await;
        match &granted {
            Ok(grant) => self.leased(grant.store_group, grant.epoch, grant.lease, called, true),
            Err(error) => note!(self.recorder.trace, &self.process, "does not lead: {error}"),
        }
        granted
    }

    async fn renew_store_lease(&self, mut request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        request.report = request.report.filter(|_| !self.older);
        let (store_group, epoch, to) = (request.store_group, request.epoch, request.positions.confirmed_to);
        let called = self.recorder.moment();
        self.recorder.history(|history| history.confirmed.push(Confirmed { store_group, to, at: called }));
        let renewed = self.service.renew_store_lease(request).await;
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

    async fn give_up_store_lease(&self, group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        self.recorder.history(|history| history.given_up.push((group, epoch)));
        self.service.give_up_store_lease(group, epoch).await
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
