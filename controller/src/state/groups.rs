//! What may happen to consumer groups, and with them to their dead-letter topics.

use super::{Decision, MetadataState};
use gantry_proto::model::{
    BackoffPolicy, ConsumerGroup, GroupName, MetadataChange, MetadataOutcome, MetadataRefusal, Placement, Timestamp,
    Topic, TopicName, TopicType,
};
use std::sync::Arc;

impl MetadataState {
    pub(super) fn create_group(
        &self,
        name: &GroupName,
        fifo: bool,
        max_attempts: u32,
        backoff: &BackoffPolicy,
        at: Timestamp,
    ) -> Result<Decision, MetadataRefusal> {
        if let Some(group) = self.group(name.as_str()) {
            return Err(MetadataRefusal::GroupExists(group.clone()));
        }
        self.check_max_attempts(max_attempts)?;
        self.check_backoff(backoff)?;
        let mut counters = self.counters;
        let dead_letters = Arc::new(Topic {
            id: counters.next_topic(),
            name: TopicName::dead_letter_of(name),
            topic_type: TopicType::Normal,
            // Dead letters are few and read by people and redrive tools: one queue on each store group keeps them in order.
            placement: Placement::EveryGroup,
            dead_letter_of: Some(name.clone()),
            created_at: at,
        });
        let group = Arc::new(ConsumerGroup {
            id: counters.next_group(),
            name: name.clone(),
            fifo,
            max_attempts,
            backoff: backoff.clone(),
            dead_letter_topic: dead_letters.id,
            created_at: at,
        });
        // The topic first: whoever knows the group can find where its dead letters go.
        let changes = vec![MetadataChange::TopicUpsert(dead_letters), MetadataChange::GroupUpsert(group.clone())];
        Ok(Decision { outcome: MetadataOutcome::Group(group), changes, counters, keeping: None })
    }

    pub(super) fn alter_group(
        &self,
        name: &GroupName,
        fifo: Option<bool>,
        max_attempts: Option<u32>,
        backoff: Option<&BackoffPolicy>,
    ) -> Result<Decision, MetadataRefusal> {
        let now = self.group(name.as_str()).ok_or_else(|| MetadataRefusal::GroupNotFound(name.clone()))?;
        let group = Arc::new(ConsumerGroup {
            fifo: fifo.unwrap_or(now.fifo),
            max_attempts: max_attempts.unwrap_or(now.max_attempts),
            backoff: backoff.unwrap_or(&now.backoff).clone(),
            ..ConsumerGroup::clone(now)
        });
        self.check_max_attempts(group.max_attempts)?;
        self.check_backoff(&group.backoff)?;
        let changes = if group == *now { Vec::new() } else { vec![MetadataChange::GroupUpsert(group.clone())] };
        Ok(Decision { outcome: MetadataOutcome::Group(group), changes, counters: self.counters, keeping: None })
    }

    pub(super) fn delete_group(&self, name: &GroupName) -> Result<Decision, MetadataRefusal> {
        let group = self.group(name.as_str()).ok_or_else(|| MetadataRefusal::GroupNotFound(name.clone()))?;
        let changes =
            vec![MetadataChange::GroupRemoved(group.id), MetadataChange::TopicRemoved(group.dead_letter_topic)];
        Ok(Decision { outcome: MetadataOutcome::Deleted, changes, counters: self.counters, keeping: None })
    }
}

impl MetadataState {
    fn check_max_attempts(&self, asked: u32) -> Result<(), MetadataRefusal> {
        let max = self.rules().max_attempts_max();
        if (1..=max).contains(&asked) { Ok(()) } else { Err(MetadataRefusal::MaxAttempts { asked, max }) }
    }

    fn check_backoff(&self, asked: &BackoffPolicy) -> Result<(), MetadataRefusal> {
        let rules = self.rules();
        Ok(asked.validate(rules.backoff_levels_max(), rules.backoff_multiplier_max())?)
    }
}
