//! What members say to each other: the kinds of calls, and openraft's calls as messages of `raft.proto`. Calls of services
//! that one member passes on to another are those of the services themselves.

use super::codec::{need, put_entry, put_log_id, put_vote, read_entry, read_log_id, read_vote};
use super::type_config::{AppendRequest, AppendResponse, TypeConfig, Vote, VoteRequest, VoteResponse};
use crate::codec::CodecError;
use gantry_proto::wire::controller::v1 as wire;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse};

/// Kinds of calls. Numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Append = 1,
    Vote = 2,
    PreVote = 3,
    Snapshot = 4,
    TransferLeader = 5,
    /// How far a member must have applied to know everything that is committed now.
    ReadIndex = 6,
    /// What a member's state was like, and which rules it knows.
    CompareStates = 7,
    // Calls of services, passed on by a member that does not lead. The one that they reach answers or says that it cannot:
    // none is passed on twice.
    Propose = 16,
    JoinStore = 17,
    RenewLease = 18,
    GiveUpLease = 19,
    ProxyAlive = 20,
    ClusterStatus = 21,
    ChangeControllers = 22,
}

impl Kind {
    const ALL: [Kind; 14] = [
        Kind::Append,
        Kind::Vote,
        Kind::PreVote,
        Kind::Snapshot,
        Kind::TransferLeader,
        Kind::ReadIndex,
        Kind::CompareStates,
        Kind::Propose,
        Kind::JoinStore,
        Kind::RenewLease,
        Kind::GiveUpLease,
        Kind::ProxyAlive,
        Kind::ClusterStatus,
        Kind::ChangeControllers,
    ];

    pub(crate) fn of(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

pub(super) fn put_append(request: &AppendRequest) -> wire::AppendEntries {
    wire::AppendEntries {
        vote: Some(put_vote(&request.vote)),
        prev: request.prev_log_id.as_ref().map(put_log_id),
        committed: request.leader_commit.as_ref().map(put_log_id),
        entries: request.entries.iter().map(put_entry).collect(),
    }
}

pub(super) fn read_append(message: wire::AppendEntries) -> Result<AppendRequest, CodecError> {
    Ok(AppendRequest {
        vote: read_vote(need(message.vote, "the vote of a leader")?),
        prev_log_id: message.prev.map(read_log_id),
        leader_commit: message.committed.map(read_log_id),
        entries: message.entries.into_iter().map(read_entry).collect::<Result<_, _>>()?,
    })
}

pub(super) fn put_appended(response: &AppendResponse) -> wire::AppendEntriesReply {
    use wire::append_entries_reply::{Matched, Result as Reply};
    let result = match response {
        AppendResponse::Success => Reply::Success(wire::Nothing {}),
        AppendResponse::PartialSuccess(id) => Reply::Partial(Matched { id: id.as_ref().map(put_log_id) }),
        AppendResponse::Conflict => Reply::Conflict(wire::Nothing {}),
        AppendResponse::HigherVote(vote) => Reply::HigherVote(put_vote(vote)),
    };
    wire::AppendEntriesReply { result: Some(result) }
}

pub(super) fn read_appended(message: wire::AppendEntriesReply) -> Result<AppendResponse, CodecError> {
    use wire::append_entries_reply::Result as Reply;
    Ok(match need(message.result, "a known answer to entries")? {
        Reply::Success(_) => AppendResponse::Success,
        Reply::Partial(matched) => AppendResponse::PartialSuccess(matched.id.map(read_log_id)),
        Reply::Conflict(_) => AppendResponse::Conflict,
        Reply::HigherVote(vote) => AppendResponse::HigherVote(read_vote(vote)),
    })
}

pub(super) fn put_vote_request(request: &VoteRequest) -> wire::VoteFor {
    wire::VoteFor {
        vote: Some(put_vote(&request.vote)),
        last: request.last_log_id.as_ref().map(put_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn read_vote_request(message: wire::VoteFor) -> Result<VoteRequest, CodecError> {
    let vote = read_vote(need(message.vote, "the vote of a candidate")?);
    let mut request = VoteRequest::new(vote, message.last.map(read_log_id));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(super) fn put_vote_response(response: &VoteResponse) -> wire::VoteForReply {
    wire::VoteForReply {
        vote: Some(put_vote(&response.vote)),
        last: response.last_log_id.as_ref().map(put_log_id),
        granted: response.vote_granted,
    }
}

pub(super) fn read_vote_response(message: wire::VoteForReply) -> Result<VoteResponse, CodecError> {
    let vote = read_vote(need(message.vote, "the vote of a member")?);
    Ok(VoteResponse::new(vote, message.last.map(read_log_id), message.granted))
}

/// None: more parts are awaited.
pub(super) fn put_installed(vote: Option<&Vote>) -> wire::InstallSnapshotReply {
    wire::InstallSnapshotReply { vote: vote.map(put_vote) }
}

pub(super) fn read_installed(message: wire::InstallSnapshotReply) -> Result<Option<Vote>, CodecError> {
    Ok(message.vote.map(read_vote))
}

pub(super) fn put_transfer(request: &TransferLeaderRequest<TypeConfig>) -> wire::TransferLeader {
    wire::TransferLeader {
        from: Some(put_vote(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(put_log_id),
    }
}

pub(super) fn read_transfer(message: wire::TransferLeader) -> Result<TransferLeaderRequest<TypeConfig>, CodecError> {
    let from = read_vote(need(message.from, "the vote of a leader")?);
    Ok(TransferLeaderRequest::new(from, message.to, message.last.map(read_log_id)))
}

pub(super) fn put_transferred(response: &TransferLeaderResponse<TypeConfig>) -> wire::TransferLeaderReply {
    use wire::transfer_leader_reply::{LogNotFlushed, Result as Reply, VoteChanged};
    let result = match response {
        Ok(()) => Reply::Done(wire::Nothing {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Reply::VoteChanged(VoteChanged { expected: Some(put_vote(expected)), actual: Some(put_vote(actual)) })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Reply::LogNotFlushed(LogNotFlushed {
            expected: expected.as_ref().map(put_log_id),
            actual: actual.as_ref().map(put_log_id),
        }),
    };
    wire::TransferLeaderReply { result: Some(result) }
}

pub(super) fn read_transferred(
    message: wire::TransferLeaderReply,
) -> Result<TransferLeaderResponse<TypeConfig>, CodecError> {
    use wire::transfer_leader_reply::Result as Reply;
    Ok(match need(message.result, "a known answer to a transfer")? {
        Reply::Done(_) => Ok(()),
        Reply::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: read_vote(need(changed.expected, "the expected vote")?),
            actual: read_vote(need(changed.actual, "the actual vote")?),
        }),
        Reply::LogNotFlushed(behind) => Err(TransferLeaderError::LogNotFlushed {
            expected: behind.expected.map(read_log_id),
            actual: behind.actual.map(read_log_id),
        }),
    })
}
