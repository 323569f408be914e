//! What other members ask of this one. What they passed on is answered here or not at all.

use crate::codec::decode;
use crate::controller::Controller;
use crate::raft::Kind;
use bytes::Bytes;
use gantry_proto::contract::{
    ConsensusCall, ConsensusError, ConsensusPeer, ControllerChange, JoinStoreRequest, ProxyAliveRequest,
    RenewStoreLeaseRequest,
};
use gantry_proto::convert::{Wire, required};
use gantry_proto::model::{ClusterId, Epoch, MetadataCommand, StoreGroupId};
use gantry_proto::wire::controller::v1 as wire;
use prost::Message;

#[async_trait::async_trait]
impl ConsensusPeer for Controller {
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError> {
        let kind = self.core.node.accept(&call).await?;
        let message = &call.payload[..];
        let answer = match kind {
            Kind::Append
            | Kind::Vote
            | Kind::PreVote
            | Kind::Snapshot
            | Kind::TransferLeader
            | Kind::ReadIndex
            | Kind::CompareStates => self.core.node.answer(kind, message).await?,
            Kind::Propose => {
                let wire::ProposeRequest { command } = decode(message).map_err(newer)?;
                let command: MetadataCommand = required(command, "metadata command").map_err(newer)?;
                answered(self.propose_answered(command).await)
            }
            Kind::JoinStore => answered(self.join_here(&asked::<JoinStoreRequest>(message)?).await),
            Kind::RenewLease => answered(self.renew_here(&asked::<RenewStoreLeaseRequest>(message)?).await),
            Kind::GiveUpLease => {
                let wire::GiveUpLeaseRequest { group: store_group, epoch } = decode(message).map_err(newer)?;
                answered(self.give_up_here(StoreGroupId(store_group), Epoch(epoch)).await)
            }
            Kind::ProxyAlive => answered(self.proxy_alive_here(&asked::<ProxyAliveRequest>(message)?).await),
            Kind::ClusterStatus => answered(self.status_here().await),
            Kind::ChangeControllers => answered(self.change_here(&asked::<ControllerChange>(message)?).await),
        };
        Ok(answer.into())
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.core.feed.read(|state| state.cluster())
    }
}

fn asked<T: Wire<Message: Message + Default>>(message: &[u8]) -> Result<T, ConsensusError> {
    super::read(message).map_err(newer)
}

fn answered<T>(answer: T) -> Vec<u8>
where
    T: Wire<Message: Message>,
{
    answer.to_wire().encode_to_vec()
}

/// Nothing was done of what was not understood.
fn newer(error: impl ToString) -> ConsensusError {
    ConsensusError::Refused(error.to_string())
}
