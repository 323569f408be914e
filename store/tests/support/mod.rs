//! A store on a fake machine, with one topic and one group.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bytes::Bytes;
use gantry_proto::contract::{
    AckRequest, AppendError, AppendRequest, Appended, HandleError, PopError, PopRequest, PoppedMessage,
    StoreService as _,
};
use gantry_proto::env::Env;
use gantry_proto::env::fake::{self, FakeClock, FakeFiles};
use gantry_proto::model::{
    BackoffPolicy, FilterExpression, Group, GroupId, GroupName, MessageHead, MetadataChange, MetadataVersion,
    MetadataView, QueueId, ReceiptHandle, StoredMessage, Timestamp, Topic, TopicId, TopicName, TopicType,
};
use gantry_store::{Flush, OpenError, Store, StoreConfig};
use std::sync::Arc;
use std::time::Duration;

pub const TOPIC: TopicId = TopicId(1);
pub const DEAD_LETTERS: TopicId = TopicId(2);
pub const GROUP: GroupId = GroupId(1);
pub const READER: GroupId = GroupId(2);
pub const QUEUES: u32 = 2;
pub const INVISIBLE: Duration = Duration::from_secs(30);

/// A machine that survives its stores.
pub struct Machine {
    pub env: Env,
    pub files: FakeFiles,
    pub clock: FakeClock,
    pub config: StoreConfig,
    pub view: Arc<MetadataView>,
}

impl Machine {
    pub fn new(seed: u64) -> Machine {
        let (env, files, clock) = fake::env(seed);
        clock.set(Timestamp::from_millis(1_800_000_000_000));
        let mut config = StoreConfig::new("/data/store".into());
        config.segment_bytes = StoreConfig::SEGMENT_BYTES_MIN;
        config.checkpoint_interval = Duration::ZERO;
        Machine { env, files, clock, config, view: metadata(3) }
    }

    pub fn with_flush(mut self, flush: Flush) -> Machine {
        self.config.flush = flush;
        self
    }

    pub fn open(&self) -> Result<Arc<Store>, OpenError> {
        Store::open(self.config.clone(), self.env.clone(), self.view.clone())
    }

    pub fn must_open(&self) -> Arc<Store> {
        self.open().unwrap_or_else(|error| panic!("the store must open: {error}"))
    }
}

/// One topic of two queues and a group that delivers at most `max_attempts` times.
pub fn metadata(max_attempts: u32) -> Arc<MetadataView> {
    let view = Arc::new(MetadataView::default());
    let topic = |id, name: &str, queue_count, dead_letter_of| {
        MetadataChange::TopicUpsert(Arc::new(Topic {
            id,
            name: TopicName::parse(name).unwrap(),
            topic_type: TopicType::Mixed,
            queue_count,
            dead_letter_of,
            created_at: Timestamp::ZERO,
        }))
    };
    let group = |id, name: &str| {
        MetadataChange::GroupUpsert(Arc::new(Group {
            id,
            name: GroupName::parse(name).unwrap(),
            fifo: false,
            max_attempts,
            backoff: BackoffPolicy::default(),
            dead_letter_topic: DEAD_LETTERS,
            created_at: Timestamp::ZERO,
        }))
    };
    let letters_of = GroupName::parse("workers").ok();
    view.apply(
        MetadataVersion(1),
        &[
            topic(TOPIC, "orders", QUEUES, None),
            topic(DEAD_LETTERS, "%DLQ%workers", 1, letters_of),
            group(GROUP, "workers"),
            group(READER, "readers"),
        ],
    );
    view
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
    };
    StoredMessage::new(&head, Bytes::copy_from_slice(text.as_bytes())).unwrap()
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
        invisible: INVISIBLE,
        owner: None,
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
