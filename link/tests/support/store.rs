//! A store in memory: one queue of one topic, one group.

use gantry_link::StoreIdentity;
use gantry_proto::contract::*;
use gantry_proto::model::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

pub const TOPIC: TopicId = TopicId(7);
pub const GROUP: GroupId = GroupId(9);
pub const STORE_GROUP: StoreGroupId = StoreGroupId(3);
pub const FOLDER: FolderId = FolderId([3; 16]);

/// The store, as the metadata name it.
pub fn replica(address: &str) -> Replica {
    Replica { folder: FOLDER, address: address.into() }
}

#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    arrived: Notify,
    /// Calls that began, of any kind.
    pub begun: AtomicUsize,
    /// Pops that wait now.
    pub parked: AtomicUsize,
    /// The next calls of the kind fail so.
    pub append_error: Mutex<Option<AppendError>>,
    pub pop_error: Mutex<Option<PopError>>,
    pub handle_error: Mutex<Option<HandleError>>,
    pub store_error: Mutex<Option<StoreError>>,
    /// Appends wait for this many permits first.
    pub append_gate: Mutex<Option<std::sync::Arc<tokio::sync::Semaphore>>>,
    pub epoch: AtomicU32,
    /// Another one than [`FOLDER`].
    pub folder: Mutex<Option<FolderId>>,
    /// The newest epoch that a proxy told of.
    pub newer_epoch: AtomicU32,
}

#[derive(Default)]
struct State {
    appended: u64,
    visible: VecDeque<(u64, StoredMessage, u32)>,
    hidden: BTreeMap<String, (u64, StoredMessage, u32)>,
    deliveries: u64,
    renewed: Vec<ClientHash>,
    released: Vec<ClientHash>,
}

impl MemoryStore {
    pub fn visible(&self) -> usize {
        self.state.lock().visible.len()
    }

    pub fn hidden(&self) -> usize {
        self.state.lock().hidden.len()
    }

    pub fn appended(&self) -> u64 {
        self.state.lock().appended
    }

    pub fn living(&self) -> (Vec<ClientHash>, Vec<ClientHash>) {
        let state = self.state.lock();
        (state.renewed.clone(), state.released.clone())
    }

    fn take(&self, batch_max: u32) -> Vec<PoppedMessage> {
        let mut state = self.state.lock();
        let count = state.visible.len().min(batch_max as usize);
        let taken: Vec<_> = state.visible.drain(..count).collect();
        let mut popped = Vec::new();
        for (offset, message, attempt) in taken {
            state.deliveries += 1;
            let handle = ReceiptHandle::new(STORE_GROUP, &format!("{offset}-{}", state.deliveries));
            state.hidden.insert(handle.0.clone(), (offset, message.clone(), attempt + 1));
            popped.push(PoppedMessage {
                message,
                queue: QueueId(1),
                queue_offset: QueueOffset(offset),
                store_time: Timestamp::from_millis(1000 + offset),
                attempt: attempt + 1,
                handle,
            });
        }
        popped
    }

    fn finish(&self, handle: &ReceiptHandle) -> Result<(), HandleError> {
        if handle.parse().is_none() {
            return Err(HandleError::Malformed);
        }
        self.state.lock().hidden.remove(&handle.0).map(drop).ok_or(HandleError::Expired)
    }
}

/// Counts a pop for as long as it waits.
struct Parked<'a>(&'a AtomicUsize);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl StoreService for MemoryStore {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let gate = self.append_gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("it stays open").forget();
        }
        if let Some(error) = self.append_error.lock().take() {
            return Err(error);
        }
        if request.topic != TOPIC {
            return Err(AppendError::UnknownQueue(request.topic));
        }
        let mut state = self.state.lock();
        let appended = request.messages.into_iter().map(|message| {
            let offset = state.appended;
            state.appended += 1;
            state.visible.push_back((offset, message, 0));
            let store_time = Timestamp::from_millis(1000 + offset);
            Appended { queue_offset: QueueOffset(offset), log_offset: LogOffset(offset * 100), store_time }
        });
        let appended = appended.collect();
        drop(state);
        self.arrived.notify_waiters();
        Ok(AppendReply { appended })
    }

    async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.pop_error.lock().take() {
            return Err(error);
        }
        assert_eq!((request.topic, request.group), (TOPIC, GROUP));
        let until = Instant::now() + request.wait;
        self.parked.fetch_add(1, Ordering::SeqCst);
        let _parked = Parked(&self.parked);
        loop {
            let arrived = self.arrived.notified();
            let messages = self.take(request.batch_max);
            if !messages.is_empty() || tokio::time::timeout_at(until, arrived).await.is_err() {
                return Ok(PopReply { messages });
            }
        }
    }

    async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.store_error.lock().take() {
            return Err(error);
        }
        Ok(request.handles.iter().map(|handle| self.finish(handle)).collect())
    }

    async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.handle_error.lock().take() {
            return Err(error);
        }
        if request.handle.parse().is_none() {
            return Err(HandleError::Malformed);
        }
        let mut state = self.state.lock();
        let (offset, message, attempt) = state.hidden.remove(&request.handle.0).ok_or(HandleError::Expired)?;
        let changed = ReceiptHandle(format!("{}+", request.handle.0));
        if request.invisible.is_zero() {
            state.visible.push_back((offset, message, attempt - u32::from(request.suspend)));
            drop(state);
            self.arrived.notify_waiters();
        } else {
            state.hidden.insert(changed.0.clone(), (offset, message, attempt));
        }
        Ok(changed)
    }

    async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.handle_error.lock().take() {
            return Err(error);
        }
        self.finish(&request.handle)
    }

    async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.state.lock().renewed.extend(request.owners);
        self.store_error.lock().take().map_or(Ok(()), Err)
    }

    async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.state.lock().released.push(request.owner);
        self.store_error.lock().take().map_or(Ok(()), Err)
    }

    async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.store_error.lock().take() {
            return Err(error);
        }
        let max_offset = QueueOffset(if topic == TOPIC { self.appended() } else { 0 });
        Ok(vec![QueueStatus { queue: QueueId(1), min_offset: QueueOffset(0), max_offset }])
    }

    async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.store_error.lock().take() {
            return Err(error);
        }
        assert_eq!(group, GROUP);
        Ok(vec![TopicProgress {
            topic: TOPIC,
            ready: self.visible() as u64,
            inflight: self.hidden() as u64,
            damaged: 0,
        }])
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.store_error.lock().take() {
            return Err(error);
        }
        Ok(Remains { unfinished: (self.visible() + self.hidden()) as u64, unclaimed: 1 << 40 })
    }
}

impl StoreIdentity for MemoryStore {
    fn store_group(&self) -> StoreGroupId {
        STORE_GROUP
    }

    fn folder(&self) -> FolderId {
        self.folder.lock().unwrap_or(FOLDER)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn newer_epoch(&self, epoch: Epoch) {
        self.newer_epoch.fetch_max(epoch.0, Ordering::SeqCst);
    }
}

pub fn message(id: &str, body: &[u8]) -> StoredMessage {
    let head = MessageHead {
        message_id: id,
        tag: Some("t"),
        keys: Default::default(),
        message_group: None,
        dead_letter_origin: None,
        system_properties: b"s",
        user_properties: b"u",
        extensions: b"",
    };
    StoredMessage::new(&head, body.to_vec().into()).unwrap()
}

pub fn append(messages: Vec<StoredMessage>) -> AppendRequest {
    AppendRequest { topic: TOPIC, queue: QueueId(1), messages }
}

pub fn pop(batch_max: u32, wait: std::time::Duration) -> PopRequest {
    PopRequest {
        group: GROUP,
        topic: TOPIC,
        filter: FilterExpression::ALL,
        batch_max,
        bytes_max: u64::MAX,
        invisible: std::time::Duration::from_secs(30),
        owner: Some(ClientHash::of("client")),
        once_arrived: false,
        wait,
    }
}

pub fn ack(handles: Vec<ReceiptHandle>) -> AckRequest {
    AckRequest { group: GROUP, topic: TOPIC, handles }
}

pub fn change(handle: ReceiptHandle, invisible: std::time::Duration) -> ChangeInvisibleRequest {
    ChangeInvisibleRequest { group: GROUP, topic: TOPIC, handle, invisible, suspend: false }
}
