//! What a state is told that was put back to an earlier one (restored from a backup, while stores and proxies went on): which
//! identities were given since, and how far logs reached.
//!
//! What must always hold: an identity that anybody knows is not given again; and one that was given by the lost history
//! never looks as if it had been removed, because what a store keeps under it would be dropped.

use super::{Counters, Decision, MetadataState, Rules};
use gantry_proto::model::{
    Epoch, KnownIds, LogOffset, LostIds, MetadataChange, MetadataOutcome, MetadataRefusal, StoreGroupId,
};
use std::ops::RangeInclusive;
use std::sync::Arc;

impl MetadataState {
    /// The last identities that were given, or are not given any more.
    pub(crate) fn given(&self) -> KnownIds {
        let Counters { last_topic: topic, last_group: group, last_store_group: store_group, .. } = self.counters;
        KnownIds { topic, group, store_group }
    }

    /// Gives none of these identities any more.
    pub(super) fn raise_ids(&self, known: KnownIds) -> Result<Decision, MetadataRefusal> {
        self.check_rules(Rules::PutBack)?;
        let (now, known) = (self.given(), known.max(self.given()));
        let counters = Counters {
            last_topic: known.topic,
            last_group: known.group,
            last_store_group: known.store_group,
            ..self.counters
        };
        let mut lost = self.lost.as_deref().cloned().unwrap_or_default();
        add_lost(&mut lost.topics, now.topic.0, known.topic.0);
        add_lost(&mut lost.groups, now.group.0, known.group.0);
        let lost = Some(lost).filter(|lost| *lost != LostIds::default()).map(Arc::new);
        let given = MetadataChange::Given { last_topic: known.topic, last_group: known.group, lost };
        let changes = if known == now { Vec::new() } else { vec![given] };
        Ok(Decision { outcome: MetadataOutcome::Ids(known), changes, counters, keeping: None })
    }

    /// The leader of `epoch` says that its log is durable up to there. What an earlier leadership said does not count any
    /// more: if this one could begin with less, somebody allowed it.
    pub(super) fn note_durable(
        &self,
        id: StoreGroupId,
        epoch: Epoch,
        to: LogOffset,
    ) -> Result<Decision, MetadataRefusal> {
        self.check_rules(Rules::PutBack)?;
        let Some((store_group, kept)) = self.store_groups.get(&id).zip(self.keeping(id)) else {
            return Ok(self.decided(MetadataOutcome::Deleted, Vec::new()));
        };
        let mut keeping = kept.clone();
        if kept.last.epoch == epoch {
            let before = kept.durable.filter(|durable| durable.0 == epoch).map(|durable| durable.1);
            keeping.durable = Some((epoch, to.max(before.unwrap_or_default())));
        }
        let outcome = MetadataOutcome::StoreGroup(store_group.clone());
        Ok(Decision { keeping: Some((id, keeping)), ..self.decided(outcome, Vec::new()) })
    }

    fn check_rules(&self, needed: Rules) -> Result<(), MetadataRefusal> {
        let (now, asked) = (self.rules().number(), needed.number());
        if self.rules() >= needed { Ok(()) } else { Err(MetadataRefusal::Rules { now, asked }) }
    }
}

/// What comes after `now` up to `known` was given by a history that is lost.
fn add_lost(lost: &mut Vec<RangeInclusive<u32>>, now: u32, known: u32) {
    if known <= now {
        return;
    }
    match lost.last_mut() {
        // Nothing was given in between.
        Some(last) if *last.end() == now => *last = *last.start()..=known,
        _ => lost.push(now + 1..=known),
    }
}
