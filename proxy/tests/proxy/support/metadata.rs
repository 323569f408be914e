//! A metadata service in memory that applies each change to one view at once.

use gantry_proto::contract::{MetadataError, MetadataService, MetadataStream};
use gantry_proto::model::{
    Group, GroupId, MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion, MetadataView,
    Timestamp, Topic, TopicId, TopicName, TopicType,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

pub(crate) struct FakeMetadata {
    pub(crate) view: Arc<MetadataView>,
    next_id: AtomicU32,
    /// Nobody answers.
    pub(crate) unavailable: AtomicBool,
    /// Commands that came in.
    pub(crate) proposals: AtomicUsize,
}

impl FakeMetadata {
    pub(crate) fn new(view: Arc<MetadataView>) -> FakeMetadata {
        FakeMetadata {
            view,
            next_id: AtomicU32::new(1),
            unavailable: AtomicBool::new(false),
            proposals: AtomicUsize::new(0),
        }
    }

    /// Puts a topic into the view.
    pub(crate) fn add_topic(&self, name: &str, topic_type: TopicType, queue_count: u32) -> Arc<Topic> {
        let topic = self.new_topic(TopicName::parse(name).unwrap(), topic_type, queue_count);
        self.apply(MetadataChange::TopicUpsert(topic.clone()));
        topic
    }

    fn new_topic(&self, name: TopicName, topic_type: TopicType, queue_count: u32) -> Arc<Topic> {
        let id = TopicId(self.next_id.fetch_add(1, Ordering::Relaxed));
        Arc::new(Topic { id, name, topic_type, queue_count, dead_letter_of: None, created_at: Timestamp::ZERO })
    }

    fn apply(&self, change: MetadataChange) -> MetadataVersion {
        let version = MetadataVersion(self.view.version().0 + 1);
        self.view.apply(version, &[change]);
        version
    }
}

#[async_trait::async_trait]
impl MetadataService for FakeMetadata {
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        self.proposals.fetch_add(1, Ordering::Relaxed);
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(MetadataError::Unavailable("no controller".to_owned()));
        }
        let view = &self.view;
        match command {
            MetadataCommand::CreateTopic { name, topic_type, queue_count } => {
                if let Some(topic) = view.topic(name.as_str()) {
                    return Err(MetadataRefusal::TopicExists(topic).into());
                }
                let topic = self.new_topic(name, topic_type, queue_count);
                Ok((self.apply(MetadataChange::TopicUpsert(topic.clone())), MetadataOutcome::Topic(topic)))
            }
            MetadataCommand::AlterTopic { name, topic_type, queue_count } => {
                let topic = view.topic(name.as_str()).ok_or(MetadataRefusal::TopicNotFound(name.clone()))?;
                let mut topic = Topic::clone(&topic);
                if let Some(asked) = queue_count.filter(|asked| *asked < topic.queue_count) {
                    return Err(MetadataRefusal::QueuesShrink { name, now: topic.queue_count, asked }.into());
                }
                topic.topic_type = topic_type.unwrap_or(topic.topic_type);
                topic.queue_count = queue_count.unwrap_or(topic.queue_count);
                let topic = Arc::new(topic);
                Ok((self.apply(MetadataChange::TopicUpsert(topic.clone())), MetadataOutcome::Topic(topic)))
            }
            MetadataCommand::DeleteTopic { name } => {
                let topic = view.topic(name.as_str()).ok_or(MetadataRefusal::TopicNotFound(name))?;
                Ok((self.apply(MetadataChange::TopicRemoved(topic.id)), MetadataOutcome::Deleted))
            }
            MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff } => {
                if let Some(group) = view.group(name.as_str()) {
                    return Err(MetadataRefusal::GroupExists(group).into());
                }
                let dead = self.new_topic(TopicName::dead_letter_of(&name), TopicType::Mixed, 1);
                self.apply(MetadataChange::TopicUpsert(dead.clone()));
                let id = GroupId(self.next_id.fetch_add(1, Ordering::Relaxed));
                let dead_letter_topic = dead.id;
                let created_at = Timestamp::ZERO;
                let group = Arc::new(Group { id, name, fifo, max_attempts, backoff, dead_letter_topic, created_at });
                Ok((self.apply(MetadataChange::GroupUpsert(group.clone())), MetadataOutcome::Group(group)))
            }
            MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff } => {
                let group = view.group(name.as_str()).ok_or(MetadataRefusal::GroupNotFound(name))?;
                let mut group = Group::clone(&group);
                group.fifo = fifo.unwrap_or(group.fifo);
                group.max_attempts = max_attempts.unwrap_or(group.max_attempts);
                group.backoff = backoff.unwrap_or(group.backoff);
                let group = Arc::new(group);
                Ok((self.apply(MetadataChange::GroupUpsert(group.clone())), MetadataOutcome::Group(group)))
            }
            MetadataCommand::DeleteGroup { name } => {
                let group = view.group(name.as_str()).ok_or(MetadataRefusal::GroupNotFound(name))?;
                Ok((self.apply(MetadataChange::GroupRemoved(group.id)), MetadataOutcome::Deleted))
            }
        }
    }

    async fn watch(&self, _: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        Ok(Box::pin(tokio_stream::pending()))
    }
}
