//! Calls of stores, proxies and operators, and what they are answered.

use super::{Malformed, Wire, nanos, required};
use crate::contract::{
    ClusterStatus, ControllerChange, ControllerStatus, JoinStoreRequest, MembershipError, PreviousLeader,
    ProxyAliveRequest, ProxyStatus, RenewStoreLeaseRequest, StoreGrant, StoreLease, StorePositions, StoreReport,
    StoreStatus,
};
use crate::model::{
    ClusterId, Epoch, FolderId, GroupId, GroupSecret, KnownIds, LogOffset, MetadataVersion, PlaceId, ProcessId,
    ProxyId, StoreGroupId, StoreGroupName, Timestamp, TopicId,
};
use crate::wire::controller::v1 as wire;
use std::time::Duration;

impl Wire for JoinStoreRequest {
    type Message = wire::JoinStoreRequest;

    fn to_wire(&self) -> wire::JoinStoreRequest {
        wire::JoinStoreRequest {
            group: self.store_group.to_wire(),
            folder: self.folder.to_wire(),
            cluster: self.cluster.as_ref().map(Wire::to_wire),
            address: self.address.to_string(),
            last_epoch: self.last_epoch.0,
            version: self.version.to_string(),
            process: self.process.to_wire(),
            place: self.place.as_ref().map(Wire::to_wire),
            report: self.report.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::JoinStoreRequest) -> Result<JoinStoreRequest, Malformed> {
        Ok(JoinStoreRequest {
            store_group: StoreGroupName::from_wire(message.group)?,
            folder: FolderId::from_wire(message.folder)?,
            cluster: message.cluster.map(ClusterId::from_wire).transpose()?,
            address: message.address.into(),
            last_epoch: Epoch(message.last_epoch),
            version: message.version.into(),
            process: ProcessId::from_wire(message.process)?,
            place: message.place.map(PlaceId::from_wire).transpose()?,
            report: message.report.map(StoreReport::from_wire).transpose()?,
        })
    }
}

impl Wire for KnownIds {
    type Message = wire::KnownIds;

    fn to_wire(&self) -> wire::KnownIds {
        wire::KnownIds { topic: self.topic.0, group: self.group.0, store_group: self.store_group.0 }
    }

    fn from_wire(message: wire::KnownIds) -> Result<KnownIds, Malformed> {
        let wire::KnownIds { topic, group, store_group } = message;
        Ok(KnownIds { topic: TopicId(topic), group: GroupId(group), store_group: StoreGroupId(store_group) })
    }
}

impl Wire for StoreReport {
    type Message = wire::StoreReport;

    fn to_wire(&self) -> wire::StoreReport {
        wire::StoreReport {
            known: Some(self.known.to_wire()),
            durable_to: self.durable_to.0,
            accept_missing: self.accept_missing,
        }
    }

    fn from_wire(message: wire::StoreReport) -> Result<StoreReport, Malformed> {
        Ok(StoreReport {
            known: required(message.known, "identities that a store knows")?,
            durable_to: LogOffset(message.durable_to),
            accept_missing: message.accept_missing,
        })
    }
}

impl Wire for StoreLease {
    type Message = wire::LeaseTerm;

    fn to_wire(&self) -> wire::LeaseTerm {
        use wire::lease_term::Term;
        let term = match self {
            StoreLease::For(duration) => Term::ForNs(nanos(*duration)),
            StoreLease::UntilSuperseded => Term::UntilSuperseded(wire::Nothing {}),
        };
        wire::LeaseTerm { term: Some(term) }
    }

    fn from_wire(message: wire::LeaseTerm) -> Result<StoreLease, Malformed> {
        use wire::lease_term::Term;
        Ok(match message.term.ok_or(Malformed("term of a lease"))? {
            Term::ForNs(nanos) => StoreLease::For(Duration::from_nanos(nanos)),
            Term::UntilSuperseded(_) => StoreLease::UntilSuperseded,
        })
    }
}

impl Wire for StoreGrant {
    type Message = wire::StoreGrant;

    fn to_wire(&self) -> wire::StoreGrant {
        wire::StoreGrant {
            cluster: self.cluster.to_wire(),
            group: self.store_group.0,
            epoch: self.epoch.0,
            lease: Some(self.lease.to_wire()),
            previous: self.previous.as_ref().map(Wire::to_wire),
            secret: self.secret.to_wire(),
        }
    }

    fn from_wire(message: wire::StoreGrant) -> Result<StoreGrant, Malformed> {
        Ok(StoreGrant {
            cluster: ClusterId::from_wire(message.cluster)?,
            store_group: StoreGroupId(message.group),
            epoch: Epoch(message.epoch),
            lease: required(message.lease, "lease of a store")?,
            previous: message.previous.map(PreviousLeader::from_wire).transpose()?,
            secret: GroupSecret::from_wire(message.secret)?,
        })
    }
}

impl Wire for PreviousLeader {
    type Message = wire::PreviousLeader;

    fn to_wire(&self) -> wire::PreviousLeader {
        wire::PreviousLeader { folder: self.folder.to_wire(), epoch: self.epoch.0 }
    }

    fn from_wire(message: wire::PreviousLeader) -> Result<PreviousLeader, Malformed> {
        Ok(PreviousLeader { folder: FolderId::from_wire(message.folder)?, epoch: Epoch(message.epoch) })
    }
}

impl Wire for StorePositions {
    type Message = wire::StorePositions;

    fn to_wire(&self) -> wire::StorePositions {
        wire::StorePositions {
            retained_from: self.retained_from.0,
            confirmed_to: self.confirmed_to.0,
            appended_to: self.appended_to.0,
        }
    }

    fn from_wire(message: wire::StorePositions) -> Result<StorePositions, Malformed> {
        Ok(StorePositions {
            retained_from: LogOffset(message.retained_from),
            confirmed_to: LogOffset(message.confirmed_to),
            appended_to: LogOffset(message.appended_to),
        })
    }
}

impl Wire for RenewStoreLeaseRequest {
    type Message = wire::RenewLeaseRequest;

    fn to_wire(&self) -> wire::RenewLeaseRequest {
        let positions = Some(self.positions.to_wire());
        wire::RenewLeaseRequest {
            group: self.store_group.0,
            epoch: self.epoch.0,
            positions,
            closed: self.closed.map(|since| since.0),
            report: self.report.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::RenewLeaseRequest) -> Result<RenewStoreLeaseRequest, Malformed> {
        let positions = required(message.positions, "positions of a store")?;
        Ok(RenewStoreLeaseRequest {
            store_group: StoreGroupId(message.group),
            epoch: Epoch(message.epoch),
            positions,
            closed: message.closed.map(MetadataVersion),
            report: message.report.map(StoreReport::from_wire).transpose()?,
        })
    }
}

impl Wire for ProxyAliveRequest {
    type Message = wire::ProxyAliveRequest;

    fn to_wire(&self) -> wire::ProxyAliveRequest {
        wire::ProxyAliveRequest {
            id: self.id.to_wire(),
            address: self.address.to_string(),
            version: self.version.to_string(),
            sessions: self.sessions,
        }
    }

    fn from_wire(message: wire::ProxyAliveRequest) -> Result<ProxyAliveRequest, Malformed> {
        Ok(ProxyAliveRequest {
            id: ProxyId::from_wire(message.id)?,
            address: message.address.into(),
            version: message.version.into(),
            sessions: message.sessions,
        })
    }
}

impl Wire for MembershipError {
    type Message = wire::MembershipFailure;

    fn to_wire(&self) -> wire::MembershipFailure {
        use wire::membership_failure::{Held, Reason, Superseded};
        let reason = match self {
            MembershipError::Refused(why) => Reason::Refused(why.clone()),
            MembershipError::Held { store_group: group, epoch, remaining } => {
                Reason::Held(Held { group: group.to_wire(), epoch: epoch.0, remaining_ns: nanos(*remaining) })
            }
            MembershipError::Superseded { store_group: group, epoch } => {
                Reason::Superseded(Superseded { group: group.0, epoch: epoch.0 })
            }
            MembershipError::Unavailable(why) => Reason::Unavailable(why.clone()),
        };
        wire::MembershipFailure { reason: Some(reason) }
    }

    fn from_wire(message: wire::MembershipFailure) -> Result<MembershipError, Malformed> {
        use wire::membership_failure::Reason;
        Ok(match message.reason.ok_or(Malformed("failure of a member's call"))? {
            Reason::Refused(why) => MembershipError::Refused(why),
            Reason::Held(held) => MembershipError::Held {
                store_group: StoreGroupName::from_wire(held.group)?,
                epoch: Epoch(held.epoch),
                remaining: Duration::from_nanos(held.remaining_ns),
            },
            Reason::Superseded(over) => {
                MembershipError::Superseded { store_group: StoreGroupId(over.group), epoch: Epoch(over.epoch) }
            }
            Reason::Unavailable(why) => MembershipError::Unavailable(why),
        })
    }
}

impl Wire for ControllerStatus {
    type Message = wire::ControllerStatus;

    fn to_wire(&self) -> wire::ControllerStatus {
        wire::ControllerStatus {
            id: self.id,
            address: self.address.clone(),
            leader: self.leader,
            voter: self.voter,
            matched: self.matched,
        }
    }

    fn from_wire(message: wire::ControllerStatus) -> Result<ControllerStatus, Malformed> {
        let wire::ControllerStatus { id, address, leader, voter, matched } = message;
        Ok(ControllerStatus { id, address, leader, voter, matched })
    }
}

impl Wire for StoreStatus {
    type Message = wire::StoreStatus;

    fn to_wire(&self) -> wire::StoreStatus {
        wire::StoreStatus {
            group: Some(self.store_group.to_wire()),
            heard_ns: self.heard.map(nanos),
            leading_since_ms: self.leading_since.map(Timestamp::as_millis),
            positions: Some(self.positions.to_wire()),
            version: self.version.to_string(),
        }
    }

    fn from_wire(message: wire::StoreStatus) -> Result<StoreStatus, Malformed> {
        Ok(StoreStatus {
            store_group: required(message.group, "store group of a status")?,
            heard: message.heard_ns.map(Duration::from_nanos),
            leading_since: message.leading_since_ms.map(Timestamp::from_millis),
            positions: required(message.positions, "positions of a store")?,
            version: message.version.into(),
        })
    }
}

impl Wire for ProxyStatus {
    type Message = wire::ProxyStatus;

    fn to_wire(&self) -> wire::ProxyStatus {
        let heard_ns = self.heard.map(nanos);
        wire::ProxyStatus { proxy: Some(self.proxy.to_wire()), heard_ns, sessions: self.sessions }
    }

    fn from_wire(message: wire::ProxyStatus) -> Result<ProxyStatus, Malformed> {
        Ok(ProxyStatus {
            proxy: required(message.proxy, "proxy of a status")?,
            heard: message.heard_ns.map(Duration::from_nanos),
            sessions: message.sessions,
        })
    }
}

impl Wire for ClusterStatus {
    type Message = wire::ClusterStatus;

    fn to_wire(&self) -> wire::ClusterStatus {
        wire::ClusterStatus {
            cluster: self.cluster.as_ref().map(Wire::to_wire),
            version: self.version.0,
            controllers: self.controllers.iter().map(Wire::to_wire).collect(),
            stores: self.stores.iter().map(Wire::to_wire).collect(),
            proxies: self.proxies.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: wire::ClusterStatus) -> Result<ClusterStatus, Malformed> {
        Ok(ClusterStatus {
            cluster: message.cluster.map(ClusterId::from_wire).transpose()?,
            version: MetadataVersion(message.version),
            controllers: message.controllers.into_iter().map(Wire::from_wire).collect::<Result<_, _>>()?,
            stores: message.stores.into_iter().map(Wire::from_wire).collect::<Result<_, _>>()?,
            proxies: message.proxies.into_iter().map(Wire::from_wire).collect::<Result<_, _>>()?,
        })
    }
}

impl Wire for ControllerChange {
    type Message = wire::ChangeControllersRequest;

    fn to_wire(&self) -> wire::ChangeControllersRequest {
        use wire::change_controllers_request::{Add, Change};
        let change = match self {
            ControllerChange::Add { id, address } => Change::Add(Add { id: *id, address: address.clone() }),
            ControllerChange::Remove { id } => Change::Remove(*id),
        };
        wire::ChangeControllersRequest { change: Some(change) }
    }

    fn from_wire(message: wire::ChangeControllersRequest) -> Result<ControllerChange, Malformed> {
        use wire::change_controllers_request::{Add, Change};
        Ok(match message.change.ok_or(Malformed("change of the controllers"))? {
            Change::Add(Add { id, address }) => ControllerChange::Add { id, address },
            Change::Remove(id) => ControllerChange::Remove { id },
        })
    }
}
