//! A metadata service in memory that applies each change to one view at once.

use super::store_group;
use gantry_proto::contract::{MetadataError, MetadataService, MetadataStream};
use gantry_proto::model::{
    ConsumerGroup, GroupId, MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion,
    MetadataView, Placement, QueueId, StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState, Timestamp, Topic,
    TopicId, TopicName, TopicType,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

pub(crate) struct FakeMetadata {
    pub(crate) view: Arc<MetadataView>,
    next_id: AtomicU32,
    /// Nobody answers.
    pub(crate) unavailable: AtomicBool,
    /// Nobody answers, and nobody says so.
    pub(crate) silent: AtomicBool,
    /// Commands that came in.
    pub(crate) proposals: AtomicUsize,
    /// Whether stores confirm that they are closed.
    pub(crate) closes: AtomicBool,
}

impl FakeMetadata {
    /// With one active store group.
    pub(crate) fn new(view: Arc<MetadataView>) -> FakeMetadata {
        let metadata = FakeMetadata {
            view,
            next_id: AtomicU32::new(1),
            unavailable: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            proposals: AtomicUsize::new(0),
            closes: AtomicBool::new(true),
        };
        metadata.set_store_group(StoreGroupId(1), StoreGroupState::Active);
        metadata
    }

    /// Puts a store group into the view.
    pub(crate) fn set_store_group(&self, id: StoreGroupId, state: StoreGroupState) {
        self.apply(MetadataChange::StoreGroupUpsert(store_group(id, state)));
    }

    fn active(&self) -> Vec<StoreGroupId> {
        let groups = self.view.store_groups();
        groups.iter().filter(|group| group.state == StoreGroupState::Active).map(|group| group.id).collect()
    }

    fn store_group_named(&self, name: &StoreGroupName) -> Result<Arc<StoreGroup>, MetadataError> {
        let found = self.view.store_groups().into_iter().find(|group| group.name == *name);
        found.ok_or_else(|| MetadataRefusal::StoreGroupNotFound(name.clone()).into())
    }

    /// Gives each topic of a page as many queues on each active group as it had at first, and moves lanes there.
    fn spread(&self, after: Option<TopicName>, limit: usize) -> (MetadataVersion, MetadataOutcome) {
        let after = after.as_ref().map_or("", TopicName::as_str);
        let mut page = self.view.topics_page("", after, limit + 1);
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|topic| topic.name.clone());
        let (mut changed, active) = (0, self.active());
        for topic in page {
            let Placement::Spread { store_groups: groups, message_group_queues: lanes } = &topic.placement else {
                continue;
            };
            let mut groups = groups.to_vec();
            for group in &active {
                if !groups.contains(group) {
                    groups.extend([*group; 2]);
                }
            }
            let fresh: Vec<QueueId> =
                (0..groups.len()).filter(|n| active.contains(&groups[*n])).map(|n| QueueId(n as u32)).collect();
            let stays = |queue: &QueueId| active.contains(&groups[queue.0 as usize]);
            let lanes =
                lanes.iter().enumerate().map(|(n, queue)| if stays(queue) { *queue } else { fresh[n % fresh.len()] });
            let placement = Placement::Spread { message_group_queues: lanes.collect(), store_groups: groups.into() };
            if placement != topic.placement {
                changed += 1;
                self.apply(MetadataChange::TopicUpsert(Arc::new(Topic { placement, ..Topic::clone(&topic) })));
            }
        }
        (self.view.version(), MetadataOutcome::Spread { changed, next })
    }

    /// Puts a topic into the view.
    pub(crate) fn add_topic(&self, name: &str, topic_type: TopicType, queue_count: u32) -> Arc<Topic> {
        let topic = self.new_topic(TopicName::parse(name).unwrap(), topic_type, queue_count);
        self.apply(MetadataChange::TopicUpsert(topic.clone()));
        topic
    }

    fn new_topic(&self, name: TopicName, topic_type: TopicType, queue_count: u32) -> Arc<Topic> {
        let id = TopicId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let placement = match name.is_derived() {
            true => Placement::EveryGroup,
            false => Placement::spread(queue_count, &self.active(), 0),
        };
        Arc::new(Topic { id, name, topic_type, placement, dead_letter_of: None, created_at: Timestamp::ZERO })
    }

    pub(crate) fn apply(&self, change: MetadataChange) -> MetadataVersion {
        let version = MetadataVersion(self.view.version().0 + 1);
        self.view.apply(version, &[change]);
        version
    }
}

#[async_trait::async_trait]
impl MetadataService for FakeMetadata {
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        self.proposals.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
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
                let now = topic.placement.queue_count(StoreGroupId(1));
                if let Some(asked) = queue_count.filter(|asked| *asked < now) {
                    return Err(MetadataRefusal::QueuesShrink { name, now, asked }.into());
                }
                topic.topic_type = topic_type.unwrap_or(topic.topic_type);
                topic.placement = Placement::spread(queue_count.unwrap_or(now), &self.active(), 0);
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
                let group =
                    Arc::new(ConsumerGroup { id, name, fifo, max_attempts, backoff, dead_letter_topic, created_at });
                Ok((self.apply(MetadataChange::GroupUpsert(group.clone())), MetadataOutcome::Group(group)))
            }
            MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff } => {
                let group = view.group(name.as_str()).ok_or(MetadataRefusal::GroupNotFound(name))?;
                let mut group = ConsumerGroup::clone(&group);
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
            MetadataCommand::DrainStoreGroup { name } => {
                let group = self.store_group_named(&name)?;
                if self.active() == [group.id] {
                    return Err(MetadataRefusal::LastStoreGroup(name).into());
                }
                self.set_store_group(group.id, StoreGroupState::Draining);
                Ok((self.view.version(), MetadataOutcome::StoreGroup(self.store_group_named(&name)?)))
            }
            MetadataCommand::ActivateStoreGroup { name } => {
                let group = self.store_group_named(&name)?;
                self.set_store_group(group.id, StoreGroupState::Active);
                Ok((self.view.version(), MetadataOutcome::StoreGroup(self.store_group_named(&name)?)))
            }
            MetadataCommand::CloseStoreGroup { name } => {
                let group = self.store_group_named(&name)?;
                // The store confirms at once, unless it is to be silent.
                let state = match self.closes.load(Ordering::Relaxed) {
                    true => StoreGroupState::Closed,
                    false => StoreGroupState::Closing(self.view.version()),
                };
                self.set_store_group(group.id, state);
                Ok((self.view.version(), MetadataOutcome::StoreGroup(self.store_group_named(&name)?)))
            }
            MetadataCommand::RemoveStoreGroup { name, force } => {
                let group = self.store_group_named(&name)?;
                if !force && group.state != StoreGroupState::Closed {
                    return Err(MetadataRefusal::StoreGroupNotClosed(name).into());
                }
                Ok((self.apply(MetadataChange::StoreGroupRemoved(group.id)), MetadataOutcome::Deleted))
            }
            MetadataCommand::SpreadTopics { after, limit } => Ok(self.spread(after, limit as usize)),
            MetadataCommand::InitCluster { .. }
            | MetadataCommand::JoinStore { .. }
            | MetadataCommand::NoteLeading { .. }
            | MetadataCommand::NoteClosed { .. }
            | MetadataCommand::NoteDurable { .. }
            | MetadataCommand::RaiseIds(_)
            | MetadataCommand::EndStoreLease { .. }
            | MetadataCommand::JoinProxy { .. }
            | MetadataCommand::RemoveProxy { .. }
            | MetadataCommand::RaiseRules { .. } => panic!("not for a proxy to ask"),
        }
    }

    async fn watch(&self, _: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        Ok(Box::pin(tokio_stream::pending()))
    }
}
