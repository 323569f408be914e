//! Carries openraft's calls over the [`ConsensusNetwork`] that the controller was given, and answers those of others.

use super::messages::{
    Kind, addressed, encode_append, encode_appended, encode_own_vote, encode_snapshot, encode_transfer,
    encode_transferred, encode_vote_request, encode_vote_response, read_append, read_appended, read_own_vote,
    read_snapshot, read_transfer, read_transferred, read_vote_request, read_vote_response, whole,
};
use super::state_machine::StateMachine;
use super::type_config::{AppendRequest, AppendResponse, SnapshotOf, TypeConfig, Vote, VoteRequest, VoteResponse};
use crate::codec::{CodecError, Reader};
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse};
use openraft::{BasicNode, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a state that is sent to another member in one message.
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// Makes a [`Peer`] of each other member.
pub(super) struct Peers {
    pub(super) network: Arc<dyn ConsensusNetwork>,
}

/// Another member, as openraft calls it.
pub(super) struct Peer {
    network: Arc<dyn ConsensusNetwork>,
    id: u64,
    address: String,
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.network.clone(), id: target, address: node.addr.clone() }
    }
}

impl Peer {
    async fn call<T>(
        &self,
        kind: Kind,
        message: Vec<u8>,
        timeout: Duration,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let call = ConsensusCall { kind: kind as u32, payload: addressed(self.id, &message) };
        match self.network.call(&self.address, call, timeout).await {
            Ok(answer) => whole(&answer, read).map_err(|error| NetworkError::from_string(error).into()),
            Err(error) => Err(Unreachable::from_string(error).into()),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<TypeConfig>> {
        self.call(Kind::Append, encode_append(&rpc), option.hard_ttl(), read_appended).await
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.call(Kind::Vote, encode_vote_request(&rpc), option.hard_ttl(), read_vote_response).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.call(Kind::PreVote, encode_vote_request(&rpc), option.hard_ttl(), read_vote_response).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        if snapshot.snapshot.len() > SNAPSHOT_BYTES_MAX {
            let reason = format!("a snapshot of {} bytes is too large to be sent", snapshot.snapshot.len());
            tracing::error!(reason, member = self.id, "the member cannot catch up");
            return Err(Unreachable::from_string(reason).into());
        }
        let message = encode_snapshot(&vote, &snapshot.meta, &snapshot.snapshot);
        let sent = self.call(Kind::Snapshot, message, option.hard_ttl(), read_own_vote);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            vote = sent => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::TransferLeader, encode_transfer(&req), option.hard_ttl(), read_transferred).await
    }
}

/// Answers a call of another member's openraft.
pub(super) async fn answer(
    raft: &Raft<TypeConfig, StateMachine>,
    kind: Kind,
    message: &[u8],
) -> Result<Vec<u8>, ConsensusError> {
    let damaged = |error: CodecError| ConsensusError::Refused(error.to_string());
    // openraft's errors here all mean that this member has stopped.
    match kind {
        Kind::Append => {
            let request = whole(message, read_append).map_err(damaged)?;
            raft.append_entries(request).await.map(|response| encode_appended(&response)).map_err(stopped)
        }
        Kind::Vote => {
            let request = whole(message, read_vote_request).map_err(damaged)?;
            raft.vote(request).await.map(|response| encode_vote_response(&response)).map_err(stopped)
        }
        Kind::PreVote => {
            let request = whole(message, read_vote_request).map_err(damaged)?;
            raft.pre_vote(request).await.map(|response| encode_vote_response(&response)).map_err(stopped)
        }
        Kind::Snapshot => {
            let (vote, meta, snapshot) = whole(message, read_snapshot).map_err(damaged)?;
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
            installed.map(|response| encode_own_vote(&response.vote)).map_err(stopped)
        }
        Kind::TransferLeader => {
            let request = whole(message, read_transfer).map_err(damaged)?;
            raft.handle_transfer_leader(request).await.map(|answer| encode_transferred(&answer)).map_err(stopped)
        }
        _ => Err(ConsensusError::Refused(format!("{kind:?} is no call of the consensus"))),
    }
}

fn stopped(error: impl ToString) -> ConsensusError {
    ConsensusError::Unreachable(error.to_string())
}
