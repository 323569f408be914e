//! A member of the controller at the called end.

use super::PAGE_BYTES;
use crate::transport::Draining;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use gantry_proto::contract::{
    ConsensusCall, ConsensusError, ConsensusPeer, ControllerChange, JoinStoreRequest, MembershipService, MetadataError,
    MetadataService, MetadataStream, ProxyAliveRequest, RenewStoreLeaseRequest,
};
use gantry_proto::convert::{Malformed, Wire};
use gantry_proto::model::{ClusterId, Epoch, MetadataChange, MetadataCommand, MetadataVersion, StoreGroupId};
use gantry_proto::wire::controller::v1 as wire;
use prost::Message as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub(crate) struct MetadataServer(pub(crate) Arc<dyn MetadataService>);
pub(crate) struct MembershipServer(pub(crate) Arc<dyn MembershipService>);
pub(crate) struct ConsensusServer(pub(crate) Arc<dyn ConsensusPeer>);

/// Nothing was carried out. Another member may be of a version that understands it.
fn invalid(malformed: Malformed) -> Status {
    Status::unimplemented(malformed.to_string())
}

#[tonic::async_trait]
impl wire::metadata_server::Metadata for MetadataServer {
    async fn propose(&self, request: Request<wire::ProposeRequest>) -> Result<Response<wire::ProposeReply>, Status> {
        let command = request.into_inner().command.ok_or(Malformed("command")).map_err(invalid)?;
        let command = MetadataCommand::from_wire(command).map_err(invalid)?;
        Ok(Response::new(self.0.propose(command).await.to_wire()))
    }

    type WatchStream = BoxStream<'static, Result<wire::WatchPage, Status>>;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let draining = request.extensions().get::<Draining>().map(|draining| draining.0.clone()).unwrap_or_default();
        let after = MetadataVersion(request.into_inner().after);
        let events = self.0.watch(after).await.map_err(|error| match error {
            MetadataError::Refused(refusal) => Status::failed_precondition(refusal.to_string()),
            unavailable => Status::unavailable(unavailable.to_string()),
        })?;
        Ok(Response::new(pages(events, draining)))
    }
}

/// The changes of a version that were not sent yet.
struct Rest {
    version: MetadataVersion,
    changes: std::vec::IntoIter<MetadataChange>,
}

/// Cuts events into pages. Each page is made when the connection can take it, so a slow watcher holds up nobody else.
fn pages(events: MetadataStream, draining: CancellationToken) -> BoxStream<'static, Result<wire::WatchPage, Status>> {
    let start: (_, Option<Rest>) = (events, None);
    let pages = stream::unfold(start, |(mut events, rest)| async move {
        let mut rest = match rest {
            Some(rest) => rest,
            None => {
                let event = events.next().await?;
                Rest { version: event.version, changes: event.changes.into_iter() }
            }
        };
        let page = page(&mut rest);
        let rest = (!page.last).then_some(rest);
        Some((Ok(page), (events, rest)))
    });
    pages.take_until(draining.cancelled_owned().boxed()).boxed()
}

fn page(rest: &mut Rest) -> wire::WatchPage {
    let (mut bytes, mut changes) = (0, Vec::new());
    while bytes < PAGE_BYTES {
        let Some(change) = rest.changes.next() else { break };
        let change = change.to_wire();
        bytes += change.encoded_len();
        changes.push(change);
    }
    wire::WatchPage { version: rest.version.0, changes, last: rest.changes.len() == 0 }
}

#[tonic::async_trait]
impl wire::membership_server::Membership for MembershipServer {
    async fn join_store(
        &self,
        request: Request<wire::JoinStoreRequest>,
    ) -> Result<Response<wire::JoinStoreReply>, Status> {
        let request = JoinStoreRequest::from_wire(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.0.join_store(request).await.to_wire()))
    }

    async fn renew_lease(
        &self,
        request: Request<wire::RenewLeaseRequest>,
    ) -> Result<Response<wire::RenewLeaseReply>, Status> {
        let request = RenewStoreLeaseRequest::from_wire(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.0.renew_store_lease(request).await.to_wire()))
    }

    async fn give_up_lease(
        &self,
        request: Request<wire::GiveUpLeaseRequest>,
    ) -> Result<Response<wire::GiveUpLeaseReply>, Status> {
        let wire::GiveUpLeaseRequest { group, epoch } = request.into_inner();
        Ok(Response::new(self.0.give_up_store_lease(StoreGroupId(group), Epoch(epoch)).await.to_wire()))
    }

    async fn proxy_alive(
        &self,
        request: Request<wire::ProxyAliveRequest>,
    ) -> Result<Response<wire::ProxyAliveReply>, Status> {
        let request = ProxyAliveRequest::from_wire(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.0.proxy_alive(request).await.to_wire()))
    }

    async fn cluster_status(
        &self,
        _request: Request<wire::ClusterStatusRequest>,
    ) -> Result<Response<wire::ClusterStatusReply>, Status> {
        Ok(Response::new(self.0.cluster_status().await.to_wire()))
    }

    async fn change_controllers(
        &self,
        request: Request<wire::ChangeControllersRequest>,
    ) -> Result<Response<wire::ChangeControllersReply>, Status> {
        let change = ControllerChange::from_wire(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.0.change_controllers(change).await.to_wire()))
    }
}

#[tonic::async_trait]
impl wire::consensus_server::Consensus for ConsensusServer {
    async fn call(&self, request: Request<wire::ConsensusRequest>) -> Result<Response<wire::ConsensusReply>, Status> {
        use wire::consensus_reply::Result as Reply;
        let wire::ConsensusRequest { kind, payload, target, cluster } = request.into_inner();
        let cluster = cluster.map(ClusterId::from_wire).transpose().map_err(invalid)?;
        let result = match self.0.answer(ConsensusCall { kind, target, cluster, payload }).await {
            Ok(payload) => Reply::Payload(payload),
            Err(ConsensusError::Refused(why)) => Reply::Refused(why),
            Err(ConsensusError::Unreachable(why)) => Reply::Unreachable(why),
            Err(ConsensusError::NotSent(why)) => Reply::NotTaken(why),
        };
        Ok(Response::new(wire::ConsensusReply { result: Some(result) }))
    }
}
