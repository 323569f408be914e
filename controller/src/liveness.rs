//! Who is alive, and who may write: the leases that the leading member has granted.
//!
//! Kept in the memory of the member that leads, on its monotonic clock, which comes in as an argument: nothing here waits
//! or asks. A lease of a duration D runs on the store's clock from before its call was sent, and here until D and a margin
//! after it was answered; so it has ended there before it ends here, as long as the clocks' rates differ by less than the
//! margin in D.
//!
//! What must always hold:
//! - While a lease runs here, nobody else is let in. A lease that ended here is never extended: whoever held it joins
//!   again, in a new epoch.
//! - A member that begins to lead knows no leases: each leadership of a store that it finds counts as granted just then.
//!   Leases that an earlier leading member granted have ended when that one has: that member had most members confirm its
//!   leadership after the store's call was sent, so before this one was elected.
//! - Leases without an end ([`StoreLease::UntilSuperseded`]) belong to store groups in which nobody else could lead: the
//!   lock on the data folder keeps a second process away from it.

use gantry_proto::contract::{StoreLease, StorePositions};
use gantry_proto::model::{Epoch, LogOffset, ProxyId, StoreGroup, StoreGroupId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is noted durably how far a store's log reaches, at most, and for how much more of it.
const NOTED_EVERY: Duration = Duration::from_secs(60);
const NOTED_BYTES: u64 = 1 << 20;

/// How leases are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How long a store may write without hearing from the controller, where another replica could lead.
    pub duration: Duration,
    /// How much longer the controller waits: more than the clocks of two machines can run apart in that time.
    pub margin: Duration,
    /// How often stores and proxies say that they are there. Three times this without a word, and they count as gone.
    pub heartbeat_interval: Duration,
    /// The same as `duration` for store groups of which only one replica is in sync. None: it may write until there is a
    /// newer epoch, so it goes on while the controller is away.
    pub sole_replica_lease: Option<Duration>,
}

impl Default for LeaseSettings {
    fn default() -> LeaseSettings {
        LeaseSettings {
            duration: Duration::from_secs(3),
            margin: Duration::from_millis(500),
            heartbeat_interval: Duration::from_secs(1),
            sole_replica_lease: None,
        }
    }
}

impl LeaseSettings {
    /// Without a word for this long somebody counts as gone.
    pub fn heartbeat_timeout(&self) -> Duration {
        self.heartbeat_interval * 3
    }

    /// What the leader of a store group gets.
    fn term(&self, store_group: &StoreGroup) -> StoreLease {
        match self.sole_replica_lease {
            _ if store_group.in_sync.len() > 1 => StoreLease::For(self.duration),
            Some(duration) => StoreLease::For(duration),
            None => StoreLease::UntilSuperseded,
        }
    }
}

/// What the leading member knows of stores and proxies.
pub(crate) struct LeaseTable {
    settings: LeaseSettings,
    leases: BTreeMap<StoreGroupId, Lease>,
    proxies: BTreeMap<ProxyId, HeardProxy>,
}

/// The last leadership of a store group.
#[derive(Clone, Debug)]
struct Lease {
    epoch: Epoch,
    end: End,
    heard: HeardStore,
    /// When it was noted durably how far its log reaches.
    durable_noted: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Somebody may hold it until then.
    At(Instant),
    /// Somebody may hold it for ever.
    Never,
    /// Nobody holds it.
    Passed,
}

/// What the leader of a store group said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeardStore {
    /// When. None: nothing yet, to this member.
    pub(crate) at: Option<Instant>,
    pub(crate) leading_since: Option<Timestamp>,
    pub(crate) positions: StorePositions,
    pub(crate) version: Option<Arc<str>>,
    /// Up to where its log is durable, if it says that.
    pub(crate) durable_to: Option<LogOffset>,
}

/// What a proxy said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeardProxy {
    /// When, or when this member first knew of it.
    counted_from: Instant,
    pub(crate) at: Option<Instant>,
    pub(crate) sessions: u32,
}

impl LeaseTable {
    /// What is known when a leadership begins: nothing.
    pub(crate) fn new(settings: LeaseSettings) -> LeaseTable {
        LeaseTable { settings, leases: BTreeMap::new(), proxies: BTreeMap::new() }
    }

    /// Whether somebody new may lead the group; else how long to wait at most.
    pub(crate) fn admit(&mut self, store_group: &StoreGroup, now: Instant) -> Result<(), Duration> {
        if store_group.leader.is_none() {
            return Ok(());
        }
        let silence_max = self.settings.heartbeat_timeout();
        let lease = self.observed(store_group, now);
        match lease.end {
            End::Passed => Ok(()),
            End::At(end) if end <= now => {
                lease.end = End::Passed;
                Ok(())
            }
            End::At(end) => Err(end - now),
            End::Never => match lease.heard.at.map(|at| (at + silence_max).saturating_duration_since(now)) {
                Some(remaining) if !remaining.is_zero() => Err(remaining),
                _ => Ok(()),
            },
        }
    }

    /// Notes the leadership that the group now has, when its leader is about to be told.
    pub(crate) fn grant(
        &mut self,
        store_group: &StoreGroup,
        version: Arc<str>,
        at: Timestamp,
        now: Instant,
    ) -> StoreLease {
        let term = self.settings.term(store_group);
        let heard = HeardStore {
            at: Some(now),
            leading_since: Some(at),
            positions: StorePositions::default(),
            version: Some(version),
            durable_to: None,
        };
        let end = self.end(term, now);
        self.leases.insert(store_group.id, Lease { epoch: store_group.epoch, end, heard, durable_noted: None });
        term
    }

    /// Extends a lease when its holder is about to be told. None: it is over.
    pub(crate) fn renew(
        &mut self,
        store_group: &StoreGroup,
        epoch: Epoch,
        (positions, durable_to): (StorePositions, Option<LogOffset>),
        now: Instant,
    ) -> Option<StoreLease> {
        if store_group.epoch != epoch || store_group.leader.is_none() {
            return None;
        }
        let term = self.settings.term(store_group);
        let end = self.end(term, now);
        let lease = self.observed(store_group, now);
        match lease.end {
            End::At(passed) if passed <= now => lease.end = End::Passed,
            _ => {}
        }
        if lease.end == End::Passed {
            return None;
        }
        lease.end = end;
        lease.heard.at = Some(now);
        lease.heard.positions = positions;
        lease.heard.durable_to = durable_to;
        Some(term)
    }

    /// Its holder writes no more.
    pub(crate) fn give_up(&mut self, store_group: StoreGroupId, epoch: Epoch) {
        match self.leases.get_mut(&store_group) {
            Some(lease) if lease.epoch > epoch => {}
            Some(lease) if lease.epoch == epoch => lease.end = End::Passed,
            _ => {
                let (end, heard) = (End::Passed, HeardStore::default());
                self.leases.insert(store_group, Lease { epoch, end, heard, durable_noted: None });
            }
        }
    }

    /// Leaderships of the metadata that nobody holds any more.
    pub(crate) fn ended<'a>(
        &mut self,
        groups: impl Iterator<Item = &'a Arc<StoreGroup>>,
        now: Instant,
    ) -> Vec<(StoreGroupId, Epoch)> {
        let mut ended = Vec::new();
        for store_group in groups.filter(|store_group| store_group.leader.is_some()) {
            let lease = self.observed(store_group, now);
            // From here on it is not extended, though the metadata still say that it holds.
            if matches!(lease.end, End::At(end) if end <= now) {
                lease.end = End::Passed;
            }
            if lease.end == End::Passed {
                ended.push((store_group.id, store_group.epoch));
            }
        }
        ended
    }

    /// When the next lease ends, if nothing happens before.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let ends = self.leases.values().filter_map(|lease| match lease.end {
            End::At(end) => Some(end),
            End::Never | End::Passed => None,
        });
        ends.min()
    }

    /// Forgets store groups and proxies that are not part of the metadata any more.
    pub(crate) fn retain(&mut self, store_group: impl Fn(StoreGroupId) -> bool, proxy: impl Fn(ProxyId) -> bool) {
        self.leases.retain(|id, _| store_group(*id));
        self.proxies.retain(|id, _| proxy(*id));
    }

    /// What the leader of a group said last.
    pub(crate) fn heard_store(&self, store_group: &StoreGroup) -> HeardStore {
        let lease = self.leases.get(&store_group.id).filter(|lease| lease.epoch == store_group.epoch);
        lease.map(|lease| lease.heard.clone()).unwrap_or_default()
    }

    /// Up to where the leader of `epoch` has its log, if that should be noted durably now: `noted` is what the metadata say.
    /// The first of an epoch at once, `last` in any case, and else not often.
    pub(crate) fn durable_to_note(
        &mut self,
        store_group: StoreGroupId,
        epoch: Epoch,
        noted: Option<(Epoch, LogOffset)>,
        last: bool,
        now: Instant,
    ) -> Option<LogOffset> {
        let lease = self.leases.get_mut(&store_group).filter(|lease| lease.epoch == epoch)?;
        let to = lease.heard.durable_to?;
        let due = match noted.filter(|noted| noted.0 == epoch) {
            None => true,
            Some((_, noted)) if last => to > noted,
            Some((_, noted)) => {
                let lately = lease.durable_noted.is_some_and(|at| now.saturating_duration_since(at) < NOTED_EVERY);
                to.0.saturating_sub(noted.0) >= NOTED_BYTES && !lately
            }
        };
        if !due {
            return None;
        }
        lease.durable_noted = Some(now);
        Some(to)
    }

    /// Notes that a proxy is there.
    pub(crate) fn proxy_alive(&mut self, id: ProxyId, sessions: u32, now: Instant) {
        self.proxies.insert(id, HeardProxy { counted_from: now, at: Some(now), sessions });
    }

    /// Those of the proxies that are gone.
    pub(crate) fn gone_proxies(&mut self, known: impl Iterator<Item = ProxyId>, now: Instant) -> Vec<ProxyId> {
        let silence_max = self.settings.heartbeat_timeout();
        let mut gone = Vec::new();
        for id in known {
            let heard = self.proxies.entry(id).or_insert(HeardProxy { counted_from: now, at: None, sessions: 0 });
            if now.saturating_duration_since(heard.counted_from) >= silence_max {
                gone.push(id);
            }
        }
        gone
    }

    /// What a proxy said last.
    pub(crate) fn heard_proxy(&self, id: ProxyId) -> Option<HeardProxy> {
        self.proxies.get(&id).copied()
    }

    /// The lease of the group's present leadership. One that was not granted here counts as granted now: another member may
    /// have done it, or this one, and the answer is still on its way.
    fn observed(&mut self, store_group: &StoreGroup, now: Instant) -> &mut Lease {
        let (end, heard) = (self.end(self.settings.term(store_group), now), HeardStore::default());
        let granted = Lease { epoch: store_group.epoch, end, heard, durable_noted: None };
        let lease = self.leases.entry(store_group.id).or_insert_with(|| granted.clone());
        if lease.epoch < store_group.epoch {
            *lease = granted;
        }
        lease
    }

    fn end(&self, term: StoreLease, now: Instant) -> End {
        match term {
            StoreLease::For(duration) => End::At(now + duration + self.settings.margin),
            StoreLease::UntilSuperseded => End::Never,
        }
    }
}

#[cfg(test)]
mod tests;
