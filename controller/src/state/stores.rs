//! What may happen to store groups.

use super::{Decision, Keeping, MetadataState, NamedLeader};
use gantry_proto::model::{
    Epoch, FolderId, GroupSecret, MetadataChange, MetadataOutcome, MetadataRefusal, MetadataVersion, PlaceId,
    ProcessId, Replica, StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState, Timestamp,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A store that wants to lead.
#[derive(Clone, Copy)]
pub(super) struct Joining<'a> {
    pub(super) folder: FolderId,
    pub(super) address: &'a Arc<str>,
    pub(super) last_epoch: Epoch,
    pub(super) process: ProcessId,
    pub(super) place: Option<PlaceId>,
    /// For a group that is created.
    pub(super) secret: &'a GroupSecret,
}

impl MetadataState {
    /// A new leadership. Whether the one before has ended is for the caller to know: it depends on clocks.
    pub(super) fn join_store(
        &self,
        name: &StoreGroupName,
        joining: &Joining<'_>,
        at: Timestamp,
    ) -> Result<Decision, MetadataRefusal> {
        let Joining { folder, address, last_epoch, process, place, secret } = *joining;
        let owner = self.folders.get(&folder).and_then(|id| self.store_groups.get(id));
        if let Some(owner) = owner.filter(|owner| owner.name != *name) {
            return Err(MetadataRefusal::FolderOfOtherGroup { folder, store_group: owner.name.clone() });
        }
        let now = self.store_group_named(name);
        if let (Some(store_group), None) = (now, owner)
            && let Some(replica) = store_group.replicas.first()
        {
            let expected = replica.folder;
            return Err(MetadataRefusal::OtherFolder { store_group: name.clone(), expected, found: folder });
        }
        let kept = now.and_then(|store_group| self.keeping(store_group.id));
        if let Some(led) = kept.and_then(|kept| kept.led.get(&folder)).filter(|led| **led > last_epoch) {
            return Err(MetadataRefusal::OlderFolder {
                store_group: name.clone(),
                folder,
                led: *led,
                found: last_epoch,
            });
        }
        let mut counters = self.counters;
        let mut store_group = match now {
            Some(store_group) => StoreGroup::clone(store_group),
            None => StoreGroup {
                id: counters.next_store_group(),
                name: name.clone(),
                state: StoreGroupState::Active,
                replicas: Vec::new(),
                in_sync: vec![folder],
                leader: None,
                epoch: Epoch::default(),
                created_at: at,
            },
        };
        match store_group.replicas.iter_mut().find(|replica| replica.folder == folder) {
            Some(replica) => replica.address = address.clone(),
            None => store_group.replicas.push(Replica { folder, address: address.clone() }),
        }
        // The service turns away folders that claim to have seen the last epoch there is.
        store_group.epoch = Epoch(store_group.epoch.max(last_epoch).0.saturating_add(1));
        store_group.leader = Some(folder);
        // The new leader may have older metadata than the one that confirmed.
        if matches!(store_group.state, StoreGroupState::Closing(_) | StoreGroupState::Closed) {
            store_group.state = self.closing();
        }
        let last = NamedLeader { folder, epoch: store_group.epoch, process, place };
        let keeping = match kept {
            Some(kept) => Keeping { last, ..kept.clone() },
            None => Keeping { secret: secret.clone(), last, led: BTreeMap::new(), durable: None },
        };
        let keeping = Some((store_group.id, keeping));
        let store_group = Arc::new(store_group);
        let changes = vec![MetadataChange::StoreGroupUpsert(store_group.clone())];
        Ok(Decision { outcome: MetadataOutcome::StoreGroup(store_group), changes, counters, keeping })
    }

    /// The leader says that it leads in `epoch`: it is durable in its folder. Nothing if the epoch is over.
    pub(super) fn note_leading(&self, id: StoreGroupId, epoch: Epoch) -> Decision {
        let Some((store_group, kept)) = self.store_groups.get(&id).zip(self.keeping(id)) else {
            return self.decided(MetadataOutcome::Deleted, Vec::new());
        };
        let mut keeping = kept.clone();
        if kept.last.epoch == epoch {
            keeping.led.insert(kept.last.folder, epoch);
        }
        let outcome = MetadataOutcome::StoreGroup(store_group.clone());
        Decision { keeping: Some((id, keeping)), ..self.decided(outcome, Vec::new()) }
    }

    pub(super) fn end_lease(&self, id: StoreGroupId, epoch: Epoch) -> Decision {
        match self.store_groups.get(&id) {
            Some(now) if now.epoch == epoch => self.changed(now, StoreGroup { leader: None, ..StoreGroup::clone(now) }),
            Some(now) => self.decided(MetadataOutcome::StoreGroup(now.clone()), Vec::new()),
            None => self.decided(MetadataOutcome::Deleted, Vec::new()),
        }
    }

    pub(super) fn drain_store_group(&self, name: &StoreGroupName) -> Result<Decision, MetadataRefusal> {
        let now = self.found_store_group(name)?;
        let mut others = self.active_store_groups().filter(|id| *id != now.id);
        if now.state == StoreGroupState::Active && others.next().is_none() {
            return Err(MetadataRefusal::LastStoreGroup(name.clone()));
        }
        Ok(self.changed(now, StoreGroup { state: StoreGroupState::Draining, ..StoreGroup::clone(now) }))
    }

    pub(super) fn activate_store_group(&self, name: &StoreGroupName) -> Result<Decision, MetadataRefusal> {
        let now = self.found_store_group(name)?;
        Ok(self.changed(now, StoreGroup { state: StoreGroupState::Active, ..StoreGroup::clone(now) }))
    }

    /// From the next version on it takes no messages.
    pub(super) fn close_store_group(&self, name: &StoreGroupName) -> Result<Decision, MetadataRefusal> {
        let now = self.found_store_group(name)?;
        let state = match now.state {
            StoreGroupState::Active => return Err(MetadataRefusal::StoreGroupActive(name.clone())),
            StoreGroupState::Draining => self.closing(),
            StoreGroupState::Closing(_) | StoreGroupState::Closed => now.state,
        };
        Ok(self.changed(now, StoreGroup { state, ..StoreGroup::clone(now) }))
    }

    /// The leader of `epoch` has seen that the group is closing since that version. If it was opened meanwhile, or another
    /// leader may take messages who has not seen it, that says nothing.
    pub(super) fn note_closed(&self, id: StoreGroupId, epoch: Epoch, since: MetadataVersion) -> Decision {
        match self.store_groups.get(&id) {
            Some(now) if now.epoch == epoch && now.state == StoreGroupState::Closing(since) => {
                self.changed(now, StoreGroup { state: StoreGroupState::Closed, ..StoreGroup::clone(now) })
            }
            Some(now) => self.decided(MetadataOutcome::StoreGroup(now.clone()), Vec::new()),
            None => self.decided(MetadataOutcome::Deleted, Vec::new()),
        }
    }

    /// Closing since the version that this decision makes.
    fn closing(&self) -> StoreGroupState {
        StoreGroupState::Closing(MetadataVersion(self.version.0 + 1))
    }

    /// Its queues stay in the placements of topics: their numbers are never given to others.
    pub(super) fn remove_store_group(&self, name: &StoreGroupName, force: bool) -> Result<Decision, MetadataRefusal> {
        let now = self.found_store_group(name)?;
        match now.state {
            StoreGroupState::Active => Err(MetadataRefusal::StoreGroupActive(name.clone())),
            StoreGroupState::Draining | StoreGroupState::Closing(_) if !force => {
                Err(MetadataRefusal::StoreGroupNotClosed(name.clone()))
            }
            StoreGroupState::Draining | StoreGroupState::Closing(_) | StoreGroupState::Closed => {
                Ok(self.decided(MetadataOutcome::Deleted, vec![MetadataChange::StoreGroupRemoved(now.id)]))
            }
        }
    }

    /// The store groups that take new queues, in order.
    pub(super) fn active_store_groups(&self) -> impl Iterator<Item = StoreGroupId> {
        let active = |store_group: &&Arc<StoreGroup>| store_group.state == StoreGroupState::Active;
        self.store_groups.values().filter(active).map(|store_group| store_group.id)
    }

    fn found_store_group(&self, name: &StoreGroupName) -> Result<&Arc<StoreGroup>, MetadataRefusal> {
        self.store_group_named(name).ok_or_else(|| MetadataRefusal::StoreGroupNotFound(name.clone()))
    }

    fn changed(&self, now: &Arc<StoreGroup>, then: StoreGroup) -> Decision {
        let then = Arc::new(then);
        let changes = if then == *now { Vec::new() } else { vec![MetadataChange::StoreGroupUpsert(then.clone())] };
        self.decided(MetadataOutcome::StoreGroup(then), changes)
    }
}
