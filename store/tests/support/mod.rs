//! A store on a fake machine, with one topic and one group.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendRequest, Appended, HandleError, PopError, PopRequest, PoppedMessage, StoreGrant,
    StoreLease,
};
use gantry_proto::env::fake::{self, FakeClock, FakeFiles};
use gantry_proto::env::{Env, WorkPanicked, Workers};
use gantry_proto::model::{
    BackoffPolicy, ClusterId, ConsumerGroup, Epoch, FilterExpression, GroupId, GroupName, GroupSecret, MessageHead,
    MetadataChange, MetadataVersion, MetadataView, Placement, QueueId, ReceiptHandle, StoreGroup, StoreGroupId,
    StoreGroupName, StoreGroupState, StoredMessage, Timestamp, Topic, TopicId, TopicName, TopicType,
};
use gantry_store::{Flush, Granted, OpenError, Store, StoreConfig, StoreFolder};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The store group under test. Not the first, so that its dead letters are not in queue 0.
pub const HERE: StoreGroupId = StoreGroupId(2);
pub const ELSEWHERE: StoreGroupId = StoreGroupId(5);
pub const TOPIC: TopicId = TopicId(1);
pub const DEAD_LETTERS: TopicId = TopicId(2);
pub const GROUP: GroupId = GroupId(1);
pub const READER: GroupId = GroupId(2);
pub const FIRST_TOPIC: TopicId = TopicId(100);
pub const FIRST_GROUP: GroupId = GroupId(100);
pub const QUEUES: u32 = 2;
pub const INVISIBLE: Duration = Duration::from_secs(30);

/// A machine that survives its stores.
pub struct Machine {
    pub env: Env,
    pub files: FakeFiles,
    pub clock: FakeClock,
    pub dir: PathBuf,
    pub config: StoreConfig,
    pub view: Arc<MetadataView>,
}

impl Machine {
    pub fn new(seed: u64) -> Machine {
        let (env, files, clock) = fake::env(seed);
        clock.set(Timestamp::from_millis(1_800_000_000_000));
        let config = StoreConfig {
            segment_bytes: StoreConfig::SEGMENT_BYTES_MIN,
            checkpoint_interval: Duration::ZERO,
            ..StoreConfig::default()
        };
        Machine { env, files, clock, dir: "/data/store".into(), config, view: metadata(3) }
    }

    pub fn with_flush(mut self, flush: Flush) -> Machine {
        self.config.flush = flush;
        self
    }

    /// Waits until each full segment has its index. How many there are.
    pub async fn all_indexed(&self) -> usize {
        let indexed = async {
            loop {
                let names = self.env.files.list(&self.dir.join("commit-log")).unwrap();
                let count = |extension| names.iter().filter(|entry| entry.name.ends_with(extension)).count();
                if count(".index") + 1 >= count(".log") {
                    return count(".index");
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), indexed).await.expect("full segments get their indexes")
    }

    /// Opens the store and lets it lead in the next epoch.
    pub fn open(&self) -> Result<Arc<Store>, OpenError> {
        let folder = self.open_folder()?;
        let epoch = folder.last_epoch().0 + 1;
        self.open_with(folder, &granted(epoch, StoreLease::UntilSuperseded))
    }

    pub fn open_folder(&self) -> Result<StoreFolder, OpenError> {
        StoreFolder::open(&self.env, &self.dir)
    }

    pub fn open_with(&self, folder: StoreFolder, granted: &Granted) -> Result<Arc<Store>, OpenError> {
        let store = self.open_only(folder)?;
        // A fake machine's workers are done at once.
        store.lead(granted).now_or_never().expect("nobody has to be waited for")?;
        Ok(store)
    }

    /// Opens the store, which then does not lead.
    pub fn open_only(&self, folder: StoreFolder) -> Result<Arc<Store>, OpenError> {
        Store::open(self.config.clone(), self.env.clone(), self.view.clone(), folder)
    }

    /// Lets the metadata say that the store groups are in these states; those that are not named are not there.
    pub fn set_store_groups(&self, states: &[(StoreGroupId, StoreGroupState)]) {
        let version = MetadataVersion(self.view.version().0 + 1);
        let groups = states.iter().map(|(id, state)| MetadataChange::StoreGroupUpsert(store_group(*id, *state)));
        self.view.apply(version, &groups.collect::<Vec<_>>());
    }

    /// Adds topics of one queue, from [`FIRST_TOPIC`] on, and groups whose dead letters are their own, from
    /// [`FIRST_GROUP`] on.
    pub fn add_topics_and_groups(&self, topics: u32, groups: u32) {
        let version = MetadataVersion(self.view.version().0 + 1);
        let mut changes = Vec::new();
        for number in 0..topics {
            let placement = Placement::spread(1, &[HERE], 0);
            changes.push(topic(TopicId(FIRST_TOPIC.0 + number), &format!("topic-{number}"), placement, None));
        }
        for number in 0..groups {
            let (id, name) = (GroupId(FIRST_GROUP.0 + number), format!("group-{number}"));
            let letters = TopicId(FIRST_TOPIC.0 + topics + number);
            let letters_of = GroupName::parse(&name).ok();
            changes.push(topic(letters, &format!("%DLQ%{name}"), Placement::EveryGroup, letters_of));
            changes.push(group(id, &name, 3, letters));
        }
        self.view.apply(version, &changes);
    }

    /// Replaces the placement of [`TOPIC`].
    pub fn place(&self, groups: &[StoreGroupId]) {
        let version = MetadataVersion(self.view.version().0 + 1);
        let lanes = (0..groups.len() as u32).map(QueueId).collect();
        let placement = Placement::Spread { store_groups: groups.into(), message_group_queues: lanes };
        self.view.apply(version, &[topic(TOPIC, "orders", placement, None)]);
    }

    pub fn must_open(&self) -> Arc<Store> {
        self.open().unwrap_or_else(|error| panic!("the store must open: {error}"))
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Workers that do nothing while they are held, and what they are given then.
#[derive(Default)]
pub struct HeldWorkers {
    held: AtomicBool,
    works: Mutex<Vec<(Work, oneshot::Sender<()>)>>,
}

impl Workers for HeldWorkers {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), WorkPanicked>> {
        let (done, wait) = oneshot::channel();
        if self.held.load(Ordering::SeqCst) {
            self.works.lock().push((work, done));
        } else {
            work();
            let _ = done.send(());
        }
        async move { wait.await.map_err(|_| WorkPanicked) }.boxed()
    }
}

impl HeldWorkers {
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// Does what they were given. Returns how much that was.
    pub fn work(&self) -> usize {
        let works = std::mem::take(&mut *self.works.lock());
        let count = works.len();
        for (work, done) in works {
            work();
            let _ = done.send(());
        }
        count
    }
}

/// One topic of two queues and a group that delivers at most `max_attempts` times.
pub fn metadata(max_attempts: u32) -> Arc<MetadataView> {
    let view = Arc::new(MetadataView::default());
    let letters_of = GroupName::parse("workers").ok();
    view.apply(
        MetadataVersion(1),
        &[
            MetadataChange::StoreGroupUpsert(store_group(HERE, StoreGroupState::Active)),
            topic(TOPIC, "orders", Placement::spread(QUEUES, &[HERE], 0), None),
            topic(DEAD_LETTERS, "%DLQ%workers", Placement::EveryGroup, letters_of),
            group(GROUP, "workers", max_attempts, DEAD_LETTERS),
            group(READER, "readers", max_attempts, DEAD_LETTERS),
        ],
    );
    view
}

fn topic(id: TopicId, name: &str, placement: Placement, dead_letter_of: Option<GroupName>) -> MetadataChange {
    MetadataChange::TopicUpsert(Arc::new(Topic {
        id,
        name: TopicName::parse(name).unwrap(),
        topic_type: TopicType::Mixed,
        placement,
        dead_letter_of,
        created_at: Timestamp::ZERO,
    }))
}

fn group(id: GroupId, name: &str, max_attempts: u32, dead_letter_topic: TopicId) -> MetadataChange {
    MetadataChange::GroupUpsert(Arc::new(ConsumerGroup {
        id,
        name: GroupName::parse(name).unwrap(),
        fifo: false,
        max_attempts,
        backoff: BackoffPolicy::default(),
        dead_letter_topic,
        created_at: Timestamp::ZERO,
    }))
}

fn store_group(id: StoreGroupId, state: StoreGroupState) -> Arc<StoreGroup> {
    Arc::new(StoreGroup {
        id,
        name: StoreGroupName::parse(&format!("store-{id}")).unwrap(),
        state,
        replicas: Vec::new(),
        in_sync: Vec::new(),
        leader: None,
        epoch: Epoch(1),
        created_at: Timestamp::ZERO,
    })
}

/// The leadership of [`HERE`], asked for now.
pub fn granted(epoch: u32, lease: StoreLease) -> Granted {
    let (epoch, secret) = (Epoch(epoch), GroupSecret([7; 32]));
    let grant = StoreGrant { cluster: ClusterId([1; 16]), store_group: HERE, epoch, lease, previous: None, secret };
    Granted { grant, name: StoreGroupName::parse("store-2").unwrap(), called_at: Instant::now() }
}

/// A message whose id and body say `text`.
pub fn message(text: &str, tag: Option<&str>) -> StoredMessage {
    let head = MessageHead {
        message_id: text,
        tag,
        keys: Default::default(),
        message_group: None,
        dead_letter_origin: None,
        system_properties: b"system",
        user_properties: b"user",
        extensions: b"",
    };
    StoredMessage::new(&head, Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// Polls it once, for nobody who would be woken.
pub fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

pub fn body(popped: &PoppedMessage) -> String {
    String::from_utf8(popped.message.body.to_vec()).unwrap()
}

/// Sends a message whose id and body differ.
pub async fn send_with_id(store: &Store, queue: u32, id: &str, body: &str) -> Result<Appended, AppendError> {
    let mut message = message(id, None);
    message.body = Bytes::copy_from_slice(body.as_bytes());
    let reply = store.append(AppendRequest { topic: TOPIC, queue: QueueId(queue), messages: vec![message] }).await?;
    Ok(reply.appended[0])
}

pub async fn send(store: &Store, queue: u32, text: &str) -> Result<Appended, AppendError> {
    let messages = vec![message(text, Some("t"))];
    let reply = store.append(AppendRequest { topic: TOPIC, queue: QueueId(queue), messages }).await?;
    Ok(reply.appended[0])
}

pub fn pop_request(batch_max: u32) -> PopRequest {
    PopRequest {
        group: GROUP,
        topic: TOPIC,
        filter: FilterExpression::ALL,
        batch_max,
        bytes_max: u64::MAX,
        invisible: INVISIBLE,
        owner: None,
        once_arrived: false,
        wait: Duration::ZERO,
    }
}

pub async fn pop(store: &Store, batch_max: u32) -> Result<Vec<PoppedMessage>, PopError> {
    Ok(store.pop(pop_request(batch_max)).await?.messages)
}

/// Everything that can be delivered now.
pub async fn pop_all(store: &Store) -> Vec<PoppedMessage> {
    let mut all = Vec::new();
    loop {
        let popped = pop(store, 32).await.unwrap();
        if popped.is_empty() {
            return all;
        }
        all.extend(popped);
    }
}

pub async fn ack(store: &Store, handle: &ReceiptHandle) -> Result<(), HandleError> {
    let request = AckRequest { group: GROUP, topic: TOPIC, handles: vec![handle.clone()] };
    store.ack(request).await?.remove(0)
}
