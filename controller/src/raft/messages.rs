//! What members say to each other: kinds of calls, and the consensus's own calls as bytes. Calls of services are encoded
//! beside the services.
//!
//! Each call begins with 8 bytes for the member that it is meant for: who listens at an address may have changed.

use super::codec::{
    decode_entry, encode_entry, put_log_id, put_snapshot_meta, put_vote, read_log_id, read_snapshot_meta, read_vote,
};
use super::type_config::{
    AppendRequest, AppendResponse, LogId, SnapshotMeta, TypeConfig, Vote, VoteRequest, VoteResponse,
};
use crate::codec::{CodecError, Reader, put_bool, put_bytes, put_list, put_option};
use bytes::Bytes;
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
    Propose = 16,
    JoinStore = 17,
    RenewLease = 18,
    GiveUpLease = 19,
    ProxyAlive = 20,
    ClusterStatus = 21,
    ChangeControllers = 22,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::Append,
        Kind::Vote,
        Kind::PreVote,
        Kind::Snapshot,
        Kind::TransferLeader,
        Kind::ReadIndex,
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

/// Names the member that a call is meant for.
pub(super) fn addressed(target: u64, message: &[u8]) -> Bytes {
    [&target.to_le_bytes()[..], message].concat().into()
}

/// The member that a call is meant for, and what it says.
pub(super) fn unaddressed(payload: &Bytes) -> Option<(u64, Bytes)> {
    let target = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    Some((target, payload.slice(8..)))
}

/// Decodes a message that fills `bytes`.
pub(crate) fn whole<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    let mut reader = Reader::new(bytes);
    let message = read(&mut reader)?;
    reader.end()?;
    Ok(message)
}

pub(super) fn encode_append(request: &AppendRequest) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &request.vote);
    put_option(&mut out, request.prev_log_id.as_ref(), put_log_id);
    put_option(&mut out, request.leader_commit.as_ref(), put_log_id);
    put_list(&mut out, request.entries.iter(), |out, entry| put_bytes(out, &encode_entry(entry)));
    out
}

pub(super) fn read_append(reader: &mut Reader<'_>) -> Result<AppendRequest, CodecError> {
    Ok(AppendRequest {
        vote: read_vote(reader)?,
        prev_log_id: reader.option(read_log_id)?,
        leader_commit: reader.option(read_log_id)?,
        entries: reader.list(|reader| decode_entry(reader.bytes()?))?,
    })
}

pub(super) fn encode_appended(response: &AppendResponse) -> Vec<u8> {
    let mut out = Vec::new();
    match response {
        AppendResponse::Success => out.push(1),
        AppendResponse::PartialSuccess(matched) => {
            out.push(2);
            put_option(&mut out, matched.as_ref(), put_log_id);
        }
        AppendResponse::Conflict => out.push(3),
        AppendResponse::HigherVote(vote) => {
            out.push(4);
            put_vote(&mut out, vote);
        }
    }
    out
}

pub(super) fn read_appended(reader: &mut Reader<'_>) -> Result<AppendResponse, CodecError> {
    Ok(match reader.u8()? {
        1 => AppendResponse::Success,
        2 => AppendResponse::PartialSuccess(reader.option(read_log_id)?),
        3 => AppendResponse::Conflict,
        4 => AppendResponse::HigherVote(read_vote(reader)?),
        _ => return Err(CodecError::Damaged("an answer to entries is of no known kind")),
    })
}

pub(super) fn encode_vote_request(request: &VoteRequest) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &request.vote);
    put_option(&mut out, request.last_log_id.as_ref(), put_log_id);
    put_bool(&mut out, request.leadership_transfer);
    out
}

pub(super) fn read_vote_request(reader: &mut Reader<'_>) -> Result<VoteRequest, CodecError> {
    let mut request = VoteRequest::new(read_vote(reader)?, reader.option(read_log_id)?);
    request.leadership_transfer = reader.bool()?;
    Ok(request)
}

pub(super) fn encode_vote_response(response: &VoteResponse) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &response.vote);
    put_option(&mut out, response.last_log_id.as_ref(), put_log_id);
    put_bool(&mut out, response.vote_granted);
    out
}

pub(super) fn read_vote_response(reader: &mut Reader<'_>) -> Result<VoteResponse, CodecError> {
    let (vote, last) = (read_vote(reader)?, reader.option(read_log_id)?);
    Ok(VoteResponse::new(vote, last, reader.bool()?))
}

pub(super) fn encode_snapshot(vote: &Vote, meta: &SnapshotMeta, state: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(state.len() + 256);
    put_vote(&mut out, vote);
    put_snapshot_meta(&mut out, meta);
    put_bytes(&mut out, state);
    out
}

pub(super) fn read_snapshot(reader: &mut Reader<'_>) -> Result<(Vote, SnapshotMeta, Bytes), CodecError> {
    Ok((read_vote(reader)?, read_snapshot_meta(reader)?, Bytes::copy_from_slice(reader.bytes()?)))
}

pub(super) fn encode_own_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, vote);
    out
}

pub(super) fn read_own_vote(reader: &mut Reader<'_>) -> Result<Vote, CodecError> {
    read_vote(reader)
}

pub(super) fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, request.from_leader());
    out.extend(request.to_node_id().to_le_bytes());
    put_option(&mut out, request.last_log_id(), put_log_id);
    out
}

pub(super) fn read_transfer(reader: &mut Reader<'_>) -> Result<TransferLeaderRequest<TypeConfig>, CodecError> {
    Ok(TransferLeaderRequest::new(read_vote(reader)?, reader.u64()?, reader.option(read_log_id)?))
}

pub(super) fn encode_transferred(response: &TransferLeaderResponse<TypeConfig>) -> Vec<u8> {
    let mut out = Vec::new();
    match response {
        Ok(()) => out.push(1),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.push(2);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.push(3);
            put_option(&mut out, expected.as_ref(), put_log_id);
            put_option(&mut out, actual.as_ref(), put_log_id);
        }
    }
    out
}

pub(super) fn read_transferred(reader: &mut Reader<'_>) -> Result<TransferLeaderResponse<TypeConfig>, CodecError> {
    Ok(match reader.u8()? {
        1 => Ok(()),
        2 => Err(TransferLeaderError::VoteChanged { expected: read_vote(reader)?, actual: read_vote(reader)? }),
        3 => Err(TransferLeaderError::LogNotFlushed {
            expected: reader.option(read_log_id)?,
            actual: reader.option(read_log_id)?,
        }),
        _ => return Err(CodecError::Damaged("an answer to a transfer is of no known kind")),
    })
}

/// The answer to [`Kind::ReadIndex`]. None: the one that was asked does not lead.
pub(super) fn encode_read_index(index: Option<&LogId>) -> Vec<u8> {
    let mut out = Vec::new();
    put_option(&mut out, index, put_log_id);
    out
}

pub(super) fn read_read_index(reader: &mut Reader<'_>) -> Result<Option<LogId>, CodecError> {
    reader.option(read_log_id)
}
