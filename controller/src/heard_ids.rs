//! Which stores have said what identities they know: before all have, a controller that was put back to an earlier state might
//! give one of them again.
//!
//! A store says it when it joins and with each renewal, and then none of them is given again ([`MetadataCommand::RaiseIds`]).
//! What a process was told stays told: a controller is put back only under another process. So whoever begins to lead waits
//! with the first creation until every store group that it knows has been heard, which takes a heartbeat. One that is
//! away is waited for no longer than [`HeardIds::look`] is told to; but if others have shown meanwhile that the controller was
//! put back, nothing is created without it.
//!
//! What is not covered: a store that stays away for longer when nobody else knows of a lost history, and one whose group was
//! added in it.
//!
//! [`MetadataCommand::RaiseIds`]: gantry_proto::model::MetadataCommand::RaiseIds

use gantry_proto::model::{StoreGroup, StoreGroupId, StoreGroupName};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What this process was told.
#[derive(Debug, Default)]
pub(crate) struct HeardIds {
    told: BTreeSet<StoreGroupId>,
    /// A store knew of more than the metadata did.
    was_put_back: bool,
    /// Since when somebody is waited for.
    waiting_since: Option<Instant>,
}

/// Whether an identity may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Giving {
    Yes,
    /// Not before that time, unless all are heard.
    NotYet(Instant),
    /// Not before these are heard.
    Not(Vec<StoreGroupName>),
}

impl HeardIds {
    /// The store of that group has said what it knows, and none of it is given again.
    pub(crate) fn told(&mut self, group: StoreGroupId) {
        self.told.insert(group);
    }

    /// A store knew of more than the metadata did.
    pub(crate) fn put_back(&mut self) {
        self.was_put_back = true;
    }

    /// Whether an identity may be given now, where these are all store groups, and one that is not heard is waited for for so
    /// long.
    pub(crate) fn look<'a>(
        &mut self,
        groups: impl Iterator<Item = &'a Arc<StoreGroup>>,
        patience: Duration,
        now: Instant,
    ) -> Giving {
        let silent: Vec<StoreGroupName> =
            groups.filter(|group| !self.told.contains(&group.id)).map(|group| group.name.clone()).collect();
        if silent.is_empty() {
            return Giving::Yes;
        }
        let until = *self.waiting_since.get_or_insert(now) + patience;
        match (now < until, self.was_put_back) {
            (true, _) => Giving::NotYet(until),
            (false, true) => Giving::Not(silent),
            (false, false) => Giving::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MetadataState;
    use crate::testing::join_store;
    use gantry_proto::model::Timestamp;

    const PATIENCE: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn every_store_group_is_waited_for_but_not_for_ever_unless_history_was_lost() {
        let mut state = MetadataState::default();
        for (name, folder) in [("a", 1), ("b", 2)] {
            state.apply(&join_store(name, folder), Timestamp::ZERO).unwrap();
        }
        let ids: Vec<StoreGroupId> = state.store_groups().map(|group| group.id).collect();
        let begun = Instant::now();
        for put_back in [false, true] {
            let mut heard = HeardIds::default();
            let look = |heard: &mut HeardIds, at| heard.look(state.store_groups(), PATIENCE, begun + at);
            assert_eq!(heard.look([].into_iter(), PATIENCE, begun), Giving::Yes, "there is none");
            assert_eq!(look(&mut heard, Duration::ZERO), Giving::NotYet(begun + PATIENCE));
            heard.told(ids[0]);
            if put_back {
                heard.put_back();
            }
            assert_eq!(look(&mut heard, PATIENCE - Duration::from_millis(1)), Giving::NotYet(begun + PATIENCE));
            let after = if put_back { Giving::Not(vec![StoreGroupName::parse("b").unwrap()]) } else { Giving::Yes };
            assert_eq!(look(&mut heard, PATIENCE), after);
            heard.told(ids[1]);
            assert_eq!(look(&mut heard, PATIENCE), Giving::Yes);
            assert_eq!(look(&mut heard, Duration::ZERO), Giving::Yes, "what was told stays told");
        }
    }
}
