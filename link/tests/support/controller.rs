//! A controller in memory: keeps topics by name, answers everything else with what it was given.

use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_proto::contract::*;
use gantry_proto::model::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

pub struct MemoryController {
    state: Arc<Mutex<State>>,
    version: watch::Sender<MetadataVersion>,
    /// Calls that began, of any kind.
    pub begun: AtomicUsize,
    /// Events that watchers were given.
    pub watched: Arc<AtomicUsize>,
    /// The next calls of the kind fail so.
    pub metadata_error: Mutex<Option<MetadataError>>,
    pub membership_error: Mutex<Option<MembershipError>>,
    /// Whose member it is.
    pub cluster: Mutex<Option<ClusterId>>,
    /// Calls never return.
    pub stuck: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<TopicName, Arc<Topic>>,
    /// By version, counted from 1.
    log: Vec<MetadataEvent>,
    /// Versions up to this one are in snapshots only.
    forgotten: u64,
}

impl Default for MemoryController {
    fn default() -> MemoryController {
        MemoryController {
            state: Arc::default(),
            version: watch::Sender::default(),
            begun: AtomicUsize::new(0),
            watched: Arc::default(),
            metadata_error: Mutex::default(),
            membership_error: Mutex::default(),
            cluster: Mutex::new(Some(super::CLUSTER)),
            stuck: false.into(),
        }
    }
}

impl MemoryController {
    /// Watchers that are behind get a snapshot from now on.
    pub fn forget_log(&self) {
        let mut state = self.state.lock();
        state.forgotten = state.log.len() as u64;
    }

    /// Adds topics in one version.
    pub fn add_topics(&self, topics: impl IntoIterator<Item = Topic>) -> MetadataVersion {
        let topics: Vec<_> = topics.into_iter().map(Arc::new).collect();
        self.state.lock().topics.extend(topics.iter().map(|topic| (topic.name.clone(), topic.clone())));
        self.change(topics.into_iter().map(MetadataChange::TopicUpsert).collect())
    }

    /// A version of these changes.
    pub fn change(&self, changes: Vec<MetadataChange>) -> MetadataVersion {
        let mut state = self.state.lock();
        let version = MetadataVersion(state.log.len() as u64 + 1);
        state.log.push(MetadataEvent { version, changes });
        self.version.send_replace(version);
        version
    }

    fn event_after(state: &State, after: MetadataVersion) -> Option<MetadataEvent> {
        let now = MetadataVersion(state.log.len() as u64);
        if after == now {
            return None;
        }
        if after.0 >= state.forgotten && after < now {
            return Some(state.log[after.0 as usize].clone());
        }
        let topics = state.topics.values().cloned().map(MetadataChange::TopicUpsert);
        Some(MetadataEvent { version: now, changes: std::iter::once(MetadataChange::Reset).chain(topics).collect() })
    }

    async fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn membership<T>(&self, answer: T) -> Result<T, MembershipError> {
        self.begin().await;
        self.membership_error.lock().take().map_or(Ok(answer), Err)
    }
}

#[async_trait::async_trait]
impl MetadataService for MemoryController {
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        self.begin().await;
        if let Some(error) = self.metadata_error.lock().take() {
            return Err(error);
        }
        let MetadataCommand::CreateTopic { name, topic_type, queue_count } = command else {
            return Ok((MetadataVersion(0), MetadataOutcome::Deleted));
        };
        if let Some(topic) = self.state.lock().topics.get(&name) {
            return Err(MetadataRefusal::TopicExists(topic.clone()).into());
        }
        let topic = Topic { topic_type, ..topic(name.as_str(), queue_count) };
        let version = self.add_topics([topic.clone()]);
        Ok((version, MetadataOutcome::Topic(Arc::new(topic))))
    }

    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        self.begin().await;
        if let Some(error) = self.metadata_error.lock().take() {
            return Err(error);
        }
        let (state, watched, changed) = (self.state.clone(), self.watched.clone(), self.version.subscribe());
        let stream = futures_util::stream::unfold((after, changed), move |(after, mut changed)| {
            let (state, watched) = (state.clone(), watched.clone());
            async move {
                loop {
                    let event = MemoryController::event_after(&state.lock(), after);
                    if let Some(event) = event {
                        watched.fetch_add(1, Ordering::SeqCst);
                        let version = event.version;
                        return Some((event, (version, changed)));
                    }
                    changed.wait_for(|now| *now != after).await.ok()?;
                }
            }
        });
        Ok(stream.boxed())
    }
}

#[async_trait::async_trait]
impl MembershipService for MemoryController {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        let cluster = request.cluster.unwrap_or(ClusterId([1; 16]));
        let epoch = Epoch(request.last_epoch.0 + 1);
        let lease = StoreLease::For(Duration::from_secs(3));
        self.membership(StoreGrant {
            cluster,
            store_group: StoreGroupId(4),
            epoch,
            lease,
            previous: None,
            secret: GroupSecret([3; 32]),
        })
        .await
    }

    async fn renew_store_lease(&self, _request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        self.membership(StoreLease::UntilSuperseded).await
    }

    async fn give_up_store_lease(&self, _group: StoreGroupId, _epoch: Epoch) -> Result<(), MembershipError> {
        self.membership(()).await
    }

    async fn proxy_alive(&self, _request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        self.membership(Duration::from_millis(1500)).await
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        self.begin().await;
        if let Some(error) = self.metadata_error.lock().take() {
            return Err(error);
        }
        let controllers =
            vec![ControllerStatus { id: 1, address: "a:1".to_owned(), leader: true, voter: true, matched: Some(5) }];
        let version = *self.version.borrow();
        Ok(ClusterStatus { cluster: None, version, controllers, stores: Vec::new(), proxies: Vec::new() })
    }

    async fn change_controllers(&self, _change: ControllerChange) -> Result<(), MetadataError> {
        self.begin().await;
        self.metadata_error.lock().take().map_or(Ok(()), Err)
    }
}

#[async_trait::async_trait]
impl ConsensusPeer for MemoryController {
    /// Kind 0 is refused; others are answered with their payload.
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError> {
        self.begin().await;
        match call.kind {
            0 => Err(ConsensusError::Refused("not that".to_owned())),
            _ => Ok(call.payload),
        }
    }

    fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock()
    }
}

pub fn topic(name: &str, queue_count: u32) -> Topic {
    Topic {
        id: TopicId(1),
        name: TopicName::parse(name).unwrap(),
        topic_type: TopicType::Normal,
        placement: Placement::spread(queue_count, &[StoreGroupId(1), StoreGroupId(2)], 0),
        dead_letter_of: None,
        created_at: Timestamp::from_millis(5),
    }
}

pub fn create(name: &str) -> MetadataCommand {
    let name = TopicName::parse(name).unwrap();
    MetadataCommand::CreateTopic { name, topic_type: TopicType::Normal, queue_count: 2 }
}

pub fn join() -> JoinStoreRequest {
    JoinStoreRequest {
        store_group: StoreGroupName::parse("store-1").unwrap(),
        folder: FolderId([2; 16]),
        cluster: None,
        address: "store:1".into(),
        last_epoch: Epoch(7),
        version: "1".into(),
        process: ProcessId([8; 16]),
        place: Some(PlaceId([9; 16])),
        report: Some(StoreReport { durable_to: LogOffset(5), ..StoreReport::default() }),
    }
}

pub fn renew() -> RenewStoreLeaseRequest {
    RenewStoreLeaseRequest {
        store_group: StoreGroupId(4),
        epoch: Epoch(8),
        positions: StorePositions::default(),
        closed: Some(MetadataVersion(41)),
        report: None,
    }
}

pub fn alive() -> ProxyAliveRequest {
    ProxyAliveRequest { id: ProxyId([3; 16]), address: "proxy:1".into(), version: "1".into(), sessions: 5 }
}
