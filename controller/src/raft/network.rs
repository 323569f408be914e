//! Carries openraft's calls over the [`ConsensusNetwork`] that the controller was given, and answers those of others.

use super::messages::{
    Kind, put_append, put_appended, put_installed, put_snapshot, put_transfer, put_transferred, put_vote_request,
    put_vote_response, read_append, read_appended, read_installed, read_snapshot, read_transfer, read_transferred,
    read_vote_request, read_vote_response,
};
use super::state_machine::StateMachine;
use super::type_config::{AppendRequest, AppendResponse, SnapshotOf, TypeConfig, Vote, VoteRequest, VoteResponse};
use crate::codec::{CodecError, decode};
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse};
use openraft::{BasicNode, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use prost::Message;
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
    async fn call<M: Message + Default, T>(
        &self,
        kind: Kind,
        message: impl Message,
        timeout: Duration,
        read: impl FnOnce(M) -> Result<T, CodecError>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let call = ConsensusCall { kind: kind as u32, target: self.id, payload: message.encode_to_vec().into() };
        match self.network.call(&self.address, call, timeout).await {
            Ok(answer) => decode(&answer).and_then(read).map_err(|error| NetworkError::from_string(error).into()),
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
        self.call(Kind::Append, put_append(&rpc), option.hard_ttl(), read_appended).await
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.call(Kind::Vote, put_vote_request(&rpc), option.hard_ttl(), read_vote_response).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        self.call(Kind::PreVote, put_vote_request(&rpc), option.hard_ttl(), read_vote_response).await
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
        let message = put_snapshot(&vote, &snapshot.meta, snapshot.snapshot);
        let sent = self.call(Kind::Snapshot, message, option.hard_ttl(), read_installed);
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
        self.call(Kind::TransferLeader, put_transfer(&req), option.hard_ttl(), read_transferred).await
    }
}

/// Answers a call of another member's openraft.
pub(super) async fn answer(
    raft: &Raft<TypeConfig, StateMachine>,
    kind: Kind,
    message: &[u8],
) -> Result<Vec<u8>, ConsensusError> {
    let newer = |error: CodecError| ConsensusError::Refused(error.to_string());
    // openraft's errors here all mean that this member has stopped.
    match kind {
        Kind::Append => {
            let request = decode(message).and_then(read_append).map_err(newer)?;
            raft.append_entries(request).await.map(|response| put_appended(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::Vote => {
            let request = decode(message).and_then(read_vote_request).map_err(newer)?;
            raft.vote(request).await.map(|response| put_vote_response(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::PreVote => {
            let request = decode(message).and_then(read_vote_request).map_err(newer)?;
            raft.pre_vote(request).await.map(|response| put_vote_response(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::Snapshot => {
            let (vote, meta, snapshot) = decode(message).and_then(read_snapshot).map_err(newer)?;
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
            installed.map(|response| put_installed(&response.vote).encode_to_vec()).map_err(stopped)
        }
        Kind::TransferLeader => {
            let request = decode(message).and_then(read_transfer).map_err(newer)?;
            raft.handle_transfer_leader(request)
                .await
                .map(|answer| put_transferred(&answer).encode_to_vec())
                .map_err(stopped)
        }
        _ => Err(ConsensusError::Refused(format!("{kind:?} is no call of the consensus"))),
    }
}

fn stopped(error: impl ToString) -> ConsensusError {
    ConsensusError::Unreachable(error.to_string())
}
