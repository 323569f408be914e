//! What may happen to topics.

use super::{Decision, MetadataState};
use gantry_proto::model::limits::QUEUE_COUNT_MAX;
use gantry_proto::model::{MetadataChange, MetadataOutcome, MetadataRefusal, Timestamp, Topic, TopicName, TopicType};
use std::sync::Arc;

impl MetadataState {
    pub(super) fn create_topic(
        &self,
        name: &TopicName,
        topic_type: TopicType,
        queue_count: u32,
        at: Timestamp,
    ) -> Result<Decision, MetadataRefusal> {
        refuse_derived(name)?;
        if let Some(topic) = self.topic(name.as_str()) {
            return Err(MetadataRefusal::TopicExists(topic.clone()));
        }
        check_queue_count(queue_count)?;
        let mut counters = self.counters;
        let topic = Arc::new(Topic {
            id: counters.next_topic(),
            name: name.clone(),
            topic_type,
            queue_count,
            dead_letter_of: None,
            created_at: at,
        });
        let changes = vec![MetadataChange::TopicUpsert(topic.clone())];
        Ok(Decision { outcome: MetadataOutcome::Topic(topic), changes, counters })
    }

    pub(super) fn alter_topic(
        &self,
        name: &TopicName,
        topic_type: Option<TopicType>,
        queue_count: Option<u32>,
    ) -> Result<Decision, MetadataRefusal> {
        refuse_derived(name)?;
        let now = self.topic(name.as_str()).ok_or_else(|| MetadataRefusal::TopicNotFound(name.clone()))?;
        let queue_count = queue_count.unwrap_or(now.queue_count);
        check_queue_count(queue_count)?;
        if queue_count < now.queue_count {
            let refusal =
                MetadataRefusal::QueuesShrink { name: name.clone(), now: now.queue_count, asked: queue_count };
            return Err(refusal);
        }
        let topic =
            Arc::new(Topic { topic_type: topic_type.unwrap_or(now.topic_type), queue_count, ..Topic::clone(now) });
        let changes = if topic == *now { Vec::new() } else { vec![MetadataChange::TopicUpsert(topic.clone())] };
        Ok(Decision { outcome: MetadataOutcome::Topic(topic), changes, counters: self.counters })
    }

    pub(super) fn delete_topic(&self, name: &TopicName) -> Result<Decision, MetadataRefusal> {
        refuse_derived(name)?;
        let topic = self.topic(name.as_str()).ok_or_else(|| MetadataRefusal::TopicNotFound(name.clone()))?;
        let changes = vec![MetadataChange::TopicRemoved(topic.id)];
        Ok(Decision { outcome: MetadataOutcome::Deleted, changes, counters: self.counters })
    }
}

/// Derived topics come and go with their groups only.
fn refuse_derived(name: &TopicName) -> Result<(), MetadataRefusal> {
    if name.is_derived() { Err(MetadataRefusal::DerivedTopic(name.clone())) } else { Ok(()) }
}

fn check_queue_count(asked: u32) -> Result<(), MetadataRefusal> {
    if (1..=QUEUE_COUNT_MAX).contains(&asked) {
        Ok(())
    } else {
        Err(MetadataRefusal::QueueCount { asked, max: QUEUE_COUNT_MAX })
    }
}
