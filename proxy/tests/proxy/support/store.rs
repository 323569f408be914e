//! A store in memory: enough of delivery to see what the proxy asks for and what it makes of the answers.

use gantry_proto::contract::{
    AckRequest, AppendError, AppendReply, AppendRequest, Appended, ArrivedDeliveries, ChangeInvisibleRequest,
    DeadLetterRequest, HandleError, PopError, PopReply, PopRequest, PoppedMessage, QueueStatus, ReleaseRequest,
    Remains, RenewRequest, StoreError, StoreService, TopicProgress,
};
use gantry_proto::model::{
    ClientHash, FilterExpression, GroupId, LogOffset, QueueId, QueueOffset, ReceiptHandle, StoreGroupId, StoredMessage,
    Timestamp, TopicId,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{Notify, watch};

pub(crate) const STORE_TIME: Timestamp = Timestamp::from_millis(1_700_000_000_123);

pub(crate) struct FakeStore {
    id: StoreGroupId,
    state: Mutex<State>,
    arrived: Notify,
    /// While true, appends wait.
    pub(crate) held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<(TopicId, QueueId), Vec<StoredMessage>>,
    /// Where messages are, by their ids.
    by_id: HashMap<(TopicId, String), Appended>,
    /// As many of the next appends take effect and are not answered.
    answers_lost: usize,
    remains: Remains,
    groups: HashMap<(GroupId, TopicId), Progress>,
    next_handle: u64,
    seen: Seen,
    failure: Option<StoreError>,
    draining: bool,
    full: bool,
}

#[derive(Default)]
struct Progress {
    next: HashMap<QueueId, usize>,
    inflight: HashMap<String, PoppedMessage>,
    returned: VecDeque<PoppedMessage>,
}

/// What the proxy asked for.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) pops: Vec<SeenPop>,
    pub(crate) changes: Vec<(Duration, bool)>,
    pub(crate) renewals: Vec<Vec<ClientHash>>,
    /// What reached which clients.
    pub(crate) arrived: Vec<ArrivedDeliveries>,
    pub(crate) releases: Vec<(ClientHash, Duration)>,
    pub(crate) dead_letters: usize,
    pub(crate) appends: usize,
    pub(crate) acks: Vec<usize>,
    /// Pops that wait now.
    pub(crate) parked: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenPop {
    pub(crate) filter: FilterExpression,
    pub(crate) batch_max: u32,
    pub(crate) invisible: Duration,
    pub(crate) owner: Option<ClientHash>,
    pub(crate) once_arrived: bool,
    pub(crate) wait: Duration,
}

impl FakeStore {
    pub(crate) fn of_group(id: StoreGroupId) -> FakeStore {
        FakeStore { id, state: Mutex::default(), arrived: Notify::new(), held: watch::Sender::default() }
    }

    /// As many of the next appends take effect and are not answered.
    pub(crate) fn lose_answers(&self, count: usize) {
        self.state.lock().unwrap().answers_lost = count;
    }

    /// Appends are refused: another queue takes them.
    pub(crate) fn drain(&self) {
        self.state.lock().unwrap().draining = true;
    }

    /// Whether groups hold as many messages as they may.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    pub(crate) fn set_remains(&self, remains: Remains) {
        self.state.lock().unwrap().remains = remains;
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state.lock().unwrap().seen.clone()
    }

    /// Every call fails with it from now on.
    pub(crate) fn fail_with(&self, error: Option<StoreError>) {
        self.state.lock().unwrap().failure = error;
    }

    pub(crate) fn queue_lengths(&self, topic: TopicId) -> Vec<(u32, usize)> {
        let state = self.state.lock().unwrap();
        let of_topic = state.queues.iter().filter(|((id, _), _)| *id == topic);
        of_topic.map(|((_, queue), messages)| (queue.0, messages.len())).collect()
    }

    pub(crate) fn stored(&self, topic: TopicId) -> Vec<StoredMessage> {
        let state = self.state.lock().unwrap();
        let of_topic = state.queues.iter().filter(|((id, _), _)| *id == topic);
        of_topic.flat_map(|(_, messages)| messages.clone()).collect()
    }

    /// Puts a message into a queue behind the proxy's back.
    pub(crate) fn put(&self, topic: TopicId, queue: u32, message: StoredMessage) {
        self.state.lock().unwrap().queues.entry((topic, QueueId(queue))).or_default().push(message);
        self.arrived.notify_waiters();
    }
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn take(&mut self, id: StoreGroupId, request: &PopRequest) -> Vec<PoppedMessage> {
        let mut taken = Vec::new();
        let progress = self.groups.entry((request.group, request.topic)).or_default();
        while taken.len() < request.batch_max as usize
            && let Some(again) = progress.returned.pop_front()
        {
            taken.push(again);
        }
        for ((topic, queue), messages) in &self.queues {
            if *topic != request.topic {
                continue;
            }
            let next = progress.next.entry(*queue).or_default();
            while taken.len() < request.batch_max as usize && *next < messages.len() {
                let message = messages[*next].clone();
                let matches = message.parse_head().is_ok_and(|head| request.filter.matches(head.tag));
                if matches || message.parse_head().is_err() {
                    taken.push(PoppedMessage {
                        message,
                        queue: *queue,
                        queue_offset: QueueOffset(*next as u64),
                        store_time: STORE_TIME,
                        attempt: 1,
                        handle: ReceiptHandle(String::new()),
                    });
                }
                *next += 1;
            }
        }
        for popped in &mut taken {
            self.next_handle += 1;
            popped.handle = ReceiptHandle::new(id, &format!("handle-{}", self.next_handle));
            progress.inflight.insert(popped.handle.0.clone(), popped.clone());
        }
        taken
    }

    fn inflight(
        &mut self,
        id: StoreGroupId,
        group: GroupId,
        topic: TopicId,
        handle: &ReceiptHandle,
    ) -> Result<(&mut Progress, PoppedMessage), HandleError> {
        self.check()?;
        if handle.parse().is_none_or(|(of, token)| of != id || !token.starts_with("handle-")) {
            return Err(HandleError::Malformed);
        }
        let progress = self.groups.entry((group, topic)).or_default();
        let popped = progress.inflight.remove(&handle.0).ok_or(HandleError::Expired)?;
        Ok((progress, popped))
    }
}

#[async_trait::async_trait]
impl StoreService for FakeStore {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        let mut state = self.state.lock().unwrap();
        state.seen.appends += 1;
        state.check()?;
        if state.draining {
            return Err(AppendError::Draining);
        }
        let mut append = |message: StoredMessage| {
            let id = (request.topic, message.parse_head().unwrap().message_id.to_owned());
            if let Some(before) = state.by_id.get(&id) {
                return *before;
            }
            let queue = state.queues.entry((request.topic, request.queue)).or_default();
            queue.push(message);
            let queue_offset = QueueOffset(queue.len() as u64 - 1);
            let appended = Appended { queue_offset, log_offset: LogOffset(0), store_time: STORE_TIME };
            state.by_id.insert(id, appended);
            appended
        };
        let appended = request.messages.into_iter().map(&mut append).collect();
        let lost = state.answers_lost > 0;
        state.answers_lost = state.answers_lost.saturating_sub(1);
        drop(state);
        self.arrived.notify_waiters();
        if lost {
            return Err(StoreError::Unreachable("10.0.0.9:9000 went away".to_owned()).into());
        }
        Ok(AppendReply { appended })
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        struct Parked<'a>(&'a FakeStore);
        impl Drop for Parked<'_> {
            fn drop(&mut self) {
                self.0.state.lock().unwrap().seen.parked -= 1;
            }
        }
        let deadline = tokio::time::Instant::now() + request.wait;
        {
            let mut state = self.state.lock().unwrap();
            state.check()?;
            state.seen.pops.push(SeenPop {
                filter: request.filter.clone(),
                batch_max: request.batch_max,
                invisible: request.invisible,
                owner: request.owner,
                once_arrived: request.once_arrived,
                wait: request.wait,
            });
            if state.full {
                return Err(PopError::InflightFull { inflight: 1 });
            }
            state.seen.parked += 1;
        }
        let _parked = Parked(self);
        loop {
            let arrived = self.arrived.notified();
            let messages = self.state.lock().unwrap().take(self.id, &request);
            if !messages.is_empty() || tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return Ok(PopReply { messages });
            }
        }
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let mut state = self.state.lock().unwrap();
        state.seen.acks.push(request.handles.len());
        state.check()?;
        let mut ack = |handle| state.inflight(self.id, request.group, request.topic, handle).map(|_| ());
        Ok(request.handles.iter().map(&mut ack).collect())
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        let mut state = self.state.lock().unwrap();
        state.seen.changes.push((request.invisible, request.suspend));
        let new = ReceiptHandle(format!("{}-changed", request.handle.0));
        let (progress, mut popped) = state.inflight(self.id, request.group, request.topic, &request.handle)?;
        if request.invisible.is_zero() {
            popped.attempt += u32::from(!request.suspend);
            progress.returned.push_back(popped);
        } else {
            progress.inflight.insert(new.0.clone(), popped);
        }
        drop(state);
        self.arrived.notify_waiters();
        Ok(new)
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        let mut state = self.state.lock().unwrap();
        state.inflight(self.id, request.group, request.topic, &request.handle)?;
        state.seen.dead_letters += 1;
        Ok(())
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        state.check()?;
        state.seen.arrived.extend(request.arrived);
        if !request.owners.is_empty() {
            state.seen.renewals.push(request.owners);
        }
        Ok(())
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.state.lock().unwrap().seen.releases.push((request.owner, request.invisible));
        Ok(())
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        let state = self.state.lock().unwrap();
        state.check()?;
        Ok(state.remains)
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.state.lock().unwrap().check()?;
        let status = |(queue, len): (u32, usize)| QueueStatus {
            queue: QueueId(queue),
            min_offset: QueueOffset(0),
            max_offset: QueueOffset(len as u64),
        };
        Ok(self.queue_lengths(topic).into_iter().map(status).collect())
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        let state = self.state.lock().unwrap();
        state.check()?;
        let of_group = state.groups.iter().filter(|((id, _), _)| *id == group);
        Ok(of_group
            .map(|((_, topic), progress)| TopicProgress {
                topic: *topic,
                ready: progress.returned.len() as u64,
                inflight: progress.inflight.len() as u64,
                damaged: 0,
            })
            .collect())
    }
}
