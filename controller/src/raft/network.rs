//! Carries openraft's calls over the [`ConsensusNetwork`] that the controller was given, and answers those of others.

use super::codec::{put_snapshot_meta, put_vote};
use super::disk::Disk;
use super::incoming::{Incoming, PART_BYTES, SNAPSHOT_BYTES_MAX, Taken};
use super::messages::{
    Kind, put_append, put_appended, put_installed, put_transfer, put_transferred, put_vote_request, put_vote_response,
    read_append, read_appended, read_installed, read_transfer, read_transferred, read_vote_request, read_vote_response,
};
use super::state_machine::StateMachine;
use super::type_config::{AppendRequest, AppendResponse, SnapshotOf, TypeConfig, Vote, VoteRequest, VoteResponse};
use crate::codec::{CodecError, decode};
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusNetwork};
use gantry_proto::wire::controller::v1 as wire;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse};
use openraft::{BasicNode, EntryPayload, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use prost::Message;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Makes a [`Peer`] of each other member.
pub(super) struct Peers {
    pub(super) network: Arc<dyn ConsensusNetwork>,
    /// Knows the cluster.
    pub(super) disk: Disk,
}

/// Another member, as openraft calls it.
pub(super) struct Peer {
    network: Arc<dyn ConsensusNetwork>,
    disk: Disk,
    id: u64,
    address: String,
}

/// Why a call of another member's openraft was not answered.
pub(super) enum Unanswered {
    /// It did not arrive as a call.
    NotUnderstood(CodecError),
    /// It is whole and says what this program does not know.
    Newer(CodecError),
    /// This member has stopped.
    Stopped(String),
    /// Not now.
    Declined(&'static str),
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.network.clone(), disk: self.disk.clone(), id: target, address: node.addr.clone() }
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
        let (kind, target, payload) = (kind as u32, self.id, message.encode_to_vec().into());
        let call = ConsensusCall { kind, target, cluster: self.disk.cluster(), payload };
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
        let (total, state) = (snapshot.snapshot.len() as u64, snapshot.snapshot);
        if total > SNAPSHOT_BYTES_MAX {
            let reason = format!("metadata of {total} bytes are more than the {SNAPSHOT_BYTES_MAX} that members send");
            tracing::error!(reason, member = self.id, "the member cannot catch up");
            return Err(Unreachable::from_string(reason).into());
        }
        let (vote, meta) = (Some(put_vote(&vote)), Some(put_snapshot_meta(&snapshot.meta)));
        let sending = async {
            let mut offset = 0;
            loop {
                let end = (offset + PART_BYTES).min(state.len());
                let (meta, part) = (meta.clone(), state.slice(offset..end));
                let message = wire::InstallSnapshot { vote, meta, part, offset: offset as u64, total };
                let answer = self.call(Kind::Snapshot, message, option.hard_ttl(), read_installed).await?;
                match answer {
                    Some(vote) => return Ok(SnapshotResponse::new(vote)),
                    None if end == state.len() => {
                        return Err(StreamingError::from(NetworkError::from_string("the snapshot is not installed")));
                    }
                    None => offset = end,
                }
            }
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = sending => sent,
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
    incoming: &Incoming,
    kind: Kind,
    message: &[u8],
    rules_max: u32,
) -> Result<Vec<u8>, Unanswered> {
    // openraft's errors here all mean that this member has stopped.
    match kind {
        Kind::Append => {
            let request = read_append(arrived(message)?).map_err(Unanswered::Newer)?;
            let newer = request.entries.iter().find_map(|entry| match &entry.payload {
                EntryPayload::Normal(batch) => batch.beyond(rules_max),
                _ => None,
            });
            if let Some(newer) = newer {
                return Err(Unanswered::Newer(newer));
            }
            raft.append_entries(request).await.map(|response| put_appended(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::Vote => {
            let request = read_vote_request(arrived(message)?).map_err(Unanswered::NotUnderstood)?;
            raft.vote(request).await.map(|response| put_vote_response(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::PreVote => {
            let request = read_vote_request(arrived(message)?).map_err(Unanswered::NotUnderstood)?;
            raft.pre_vote(request).await.map(|response| put_vote_response(&response).encode_to_vec()).map_err(stopped)
        }
        Kind::Snapshot => match incoming.take(arrived(message)?).map_err(Unanswered::Newer)? {
            Taken::Part => Ok(put_installed(None).encode_to_vec()),
            Taken::OutOfOrder => Err(Unanswered::Declined("the part does not follow those before it: begin anew")),
            Taken::Whole(vote, meta, snapshot) => {
                let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
                installed.map(|response| put_installed(Some(&response.vote)).encode_to_vec()).map_err(stopped)
            }
        },
        Kind::TransferLeader => {
            let request = read_transfer(arrived(message)?).map_err(Unanswered::NotUnderstood)?;
            let transferred = raft.handle_transfer_leader(request).await;
            transferred.map(|answer| put_transferred(&answer).encode_to_vec()).map_err(stopped)
        }
        _ => Err(Unanswered::Declined("this is no call of the consensus")),
    }
}

fn arrived<M: Message + Default>(message: &[u8]) -> Result<M, Unanswered> {
    decode(message).map_err(Unanswered::NotUnderstood)
}

fn stopped(error: impl ToString) -> Unanswered {
    Unanswered::Stopped(error.to_string())
}
