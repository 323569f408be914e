//! Answers to calls: what was done, or why not.

use super::{Malformed, Wire, nanos, required};
use crate::contract::{ClusterStatus, MembershipError, MetadataError, StoreGrant, StoreLease};
use crate::model::{MetadataOutcome, MetadataVersion};
use crate::wire::controller::v1 as wire;
use std::time::Duration;

impl Wire for Result<(MetadataVersion, MetadataOutcome), MetadataError> {
    type Message = wire::ProposeReply;

    fn to_wire(&self) -> wire::ProposeReply {
        use wire::propose_reply::{Done, Result as Reply};
        let result = match self {
            Ok((version, outcome)) => Reply::Done(Done { version: version.0, outcome: Some(outcome.to_wire()) }),
            Err(error) => Reply::Failure(error.to_wire()),
        };
        wire::ProposeReply { result: Some(result) }
    }

    fn from_wire(message: wire::ProposeReply) -> Result<Self, Malformed> {
        use wire::propose_reply::Result as Reply;
        match message.result.ok_or(Malformed("answer to a proposal"))? {
            Reply::Done(done) => {
                let outcome = required(done.outcome, "outcome of a metadata command")?;
                Ok(Ok((MetadataVersion(done.version), outcome)))
            }
            Reply::Failure(failure) => MetadataError::from_wire(failure).map(Err),
        }
    }
}

impl Wire for Result<StoreGrant, MembershipError> {
    type Message = wire::JoinStoreReply;

    fn to_wire(&self) -> wire::JoinStoreReply {
        use wire::join_store_reply::Result as Reply;
        let result = match self {
            Ok(grant) => Reply::Grant(grant.to_wire()),
            Err(error) => Reply::Failure(error.to_wire()),
        };
        wire::JoinStoreReply { result: Some(result) }
    }

    fn from_wire(message: wire::JoinStoreReply) -> Result<Self, Malformed> {
        use wire::join_store_reply::Result as Reply;
        match message.result.ok_or(Malformed("answer to a store"))? {
            Reply::Grant(grant) => StoreGrant::from_wire(grant).map(Ok),
            Reply::Failure(failure) => MembershipError::from_wire(failure).map(Err),
        }
    }
}

impl Wire for Result<StoreLease, MembershipError> {
    type Message = wire::RenewLeaseReply;

    fn to_wire(&self) -> wire::RenewLeaseReply {
        use wire::renew_lease_reply::Result as Reply;
        let result = match self {
            Ok(lease) => Reply::Lease(lease.to_wire()),
            Err(error) => Reply::Failure(error.to_wire()),
        };
        wire::RenewLeaseReply { result: Some(result) }
    }

    fn from_wire(message: wire::RenewLeaseReply) -> Result<Self, Malformed> {
        use wire::renew_lease_reply::Result as Reply;
        match message.result.ok_or(Malformed("answer to a lease"))? {
            Reply::Lease(lease) => StoreLease::from_wire(lease).map(Ok),
            Reply::Failure(failure) => MembershipError::from_wire(failure).map(Err),
        }
    }
}

impl Wire for Result<(), MembershipError> {
    type Message = wire::GiveUpLeaseReply;

    fn to_wire(&self) -> wire::GiveUpLeaseReply {
        wire::GiveUpLeaseReply { failure: self.as_ref().err().map(Wire::to_wire) }
    }

    fn from_wire(message: wire::GiveUpLeaseReply) -> Result<Self, Malformed> {
        message.failure.map(MembershipError::from_wire).transpose().map(|failure| failure.map_or(Ok(()), Err))
    }
}

impl Wire for Result<Duration, MembershipError> {
    type Message = wire::ProxyAliveReply;

    fn to_wire(&self) -> wire::ProxyAliveReply {
        use wire::proxy_alive_reply::Result as Reply;
        let result = match self {
            Ok(within) => Reply::AgainWithinNs(nanos(*within)),
            Err(error) => Reply::Failure(error.to_wire()),
        };
        wire::ProxyAliveReply { result: Some(result) }
    }

    fn from_wire(message: wire::ProxyAliveReply) -> Result<Self, Malformed> {
        use wire::proxy_alive_reply::Result as Reply;
        match message.result.ok_or(Malformed("answer to a proxy"))? {
            Reply::AgainWithinNs(within) => Ok(Ok(Duration::from_nanos(within))),
            Reply::Failure(failure) => MembershipError::from_wire(failure).map(Err),
        }
    }
}

impl Wire for Result<ClusterStatus, MetadataError> {
    type Message = wire::ClusterStatusReply;

    fn to_wire(&self) -> wire::ClusterStatusReply {
        use wire::cluster_status_reply::Result as Reply;
        let result = match self {
            Ok(status) => Reply::Status(status.to_wire()),
            Err(error) => Reply::Failure(error.to_wire()),
        };
        wire::ClusterStatusReply { result: Some(result) }
    }

    fn from_wire(message: wire::ClusterStatusReply) -> Result<Self, Malformed> {
        use wire::cluster_status_reply::Result as Reply;
        match message.result.ok_or(Malformed("status of a cluster"))? {
            Reply::Status(status) => ClusterStatus::from_wire(status).map(Ok),
            Reply::Failure(failure) => MetadataError::from_wire(failure).map(Err),
        }
    }
}

impl Wire for Result<(), MetadataError> {
    type Message = wire::ChangeControllersReply;

    fn to_wire(&self) -> wire::ChangeControllersReply {
        wire::ChangeControllersReply { failure: self.as_ref().err().map(Wire::to_wire) }
    }

    fn from_wire(message: wire::ChangeControllersReply) -> Result<Self, Malformed> {
        message.failure.map(MetadataError::from_wire).transpose().map(|failure| failure.map_or(Ok(()), Err))
    }
}
