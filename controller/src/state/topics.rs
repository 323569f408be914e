//! What may happen to topics.

use super::spread::deal;
use super::{Decision, MetadataState};
use gantry_proto::model::{
    MetadataChange, MetadataOutcome, MetadataRefusal, Placement, Timestamp, Topic, TopicName, TopicType,
};
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
        self.check_queue_count(queue_count)?;
        let over = self.groups_for_queues()?;
        let mut counters = self.counters;
        let id = counters.next_topic();
        let topic = Arc::new(Topic {
            id,
            name: name.clone(),
            topic_type,
            // Beginning with different groups, topics of few queues are spread, too.
            placement: Placement::spread(queue_count, &over, id.0 as usize % over.len()),
            dead_letter_of: None,
            created_at: at,
        });
        let changes = vec![MetadataChange::TopicUpsert(topic.clone())];
        Ok(Decision { outcome: MetadataOutcome::Topic(topic), changes, counters, keeping: None })
    }

    pub(super) fn alter_topic(
        &self,
        name: &TopicName,
        topic_type: Option<TopicType>,
        queue_count: Option<u32>,
    ) -> Result<Decision, MetadataRefusal> {
        refuse_derived(name)?;
        let now = self.topic(name.as_str()).ok_or_else(|| MetadataRefusal::TopicNotFound(name.clone()))?;
        let mut topic = Topic { topic_type: topic_type.unwrap_or(now.topic_type), ..Topic::clone(now) };
        if let Some(asked) = queue_count {
            topic.placement = self.grown(now, asked)?;
        }
        let topic = Arc::new(topic);
        let changes = if topic == *now { Vec::new() } else { vec![MetadataChange::TopicUpsert(topic.clone())] };
        Ok(Decision { outcome: MetadataOutcome::Topic(topic), changes, counters: self.counters, keeping: None })
    }

    /// The placement with `asked` queues. Lanes stay: message groups stay where they are.
    fn grown(&self, topic: &Topic, asked: u32) -> Result<Placement, MetadataRefusal> {
        self.check_queue_count(asked)?;
        let Placement::Spread { store_groups: groups, message_group_queues: lanes } = &topic.placement else {
            return Err(MetadataRefusal::DerivedTopic(topic.name.clone()));
        };
        let now = groups.len() as u32;
        let Some(more) = asked.checked_sub(now) else {
            return Err(MetadataRefusal::QueuesShrink { name: topic.name.clone(), now, asked });
        };
        if more == 0 {
            return Ok(topic.placement.clone());
        }
        let mut groups = groups.to_vec();
        deal(&mut groups, &self.groups_for_queues()?, more as usize, topic.id.0 as usize);
        Ok(Placement::Spread { store_groups: groups.into(), message_group_queues: lanes.clone() })
    }

    pub(super) fn delete_topic(&self, name: &TopicName) -> Result<Decision, MetadataRefusal> {
        refuse_derived(name)?;
        let topic = self.topic(name.as_str()).ok_or_else(|| MetadataRefusal::TopicNotFound(name.clone()))?;
        let changes = vec![MetadataChange::TopicRemoved(topic.id)];
        Ok(Decision { outcome: MetadataOutcome::Deleted, changes, counters: self.counters, keeping: None })
    }
}

/// Derived topics come and go with their groups only.
fn refuse_derived(name: &TopicName) -> Result<(), MetadataRefusal> {
    if name.is_derived() { Err(MetadataRefusal::DerivedTopic(name.clone())) } else { Ok(()) }
}

impl MetadataState {
    fn check_queue_count(&self, asked: u32) -> Result<(), MetadataRefusal> {
        let max = self.rules().queue_count_max();
        if (1..=max).contains(&asked) { Ok(()) } else { Err(MetadataRefusal::QueueCount { asked, max }) }
    }
}
