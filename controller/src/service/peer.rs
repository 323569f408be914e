//! What other members ask of this one.

use crate::controller::Controller;
use crate::raft::Kind;
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusPeer};

#[async_trait::async_trait]
impl ConsensusPeer for Controller {
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError> {
        let (kind, message) = self.core.node.accept(&call)?;
        let answer = match kind {
            Kind::Append | Kind::Vote | Kind::PreVote | Kind::Snapshot | Kind::TransferLeader | Kind::ReadIndex => {
                self.core.node.answer(kind, &message).await?
            }
            Kind::Propose => self.answer_propose(&message).await?,
            Kind::JoinStore
            | Kind::RenewLease
            | Kind::GiveUpLease
            | Kind::ProxyAlive
            | Kind::ClusterStatus
            | Kind::ChangeControllers => self.answer_membership(kind, &message).await?,
        };
        Ok(answer.into())
    }
}
