//! The types that openraft works with here.

use crate::codec::CodecError;
use crate::feed::Applied;
use bytes::Bytes;
use gantry_proto::model::{MetadataCommand, Timestamp};
use openraft::BasicNode;
use openraft::type_config::alias;
use openraft_rt::deterministic_rng::DeterministicRng;
use std::fmt;
use std::sync::Arc;

/// Tokio, with randomness that a seed determines: the one that was given when the node was opened. openraft draws election
/// timeouts from it, in tasks that it spawns when a node is made.
pub(crate) type Runtime = DeterministicRng<openraft::TokioRuntime>;

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Applied>,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = Runtime,
);

pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type LeaderId = alias::LeaderIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// The state as bytes, with what it stands for.
pub(crate) type SnapshotOf = alias::SnapshotOf<TypeConfig, Bytes>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;

/// Commands that share an entry of the log, and the time at which they are carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) at: Timestamp,
    pub(crate) commands: Arc<[MetadataCommand]>,
    /// The rules that whoever carries them out must know.
    pub(crate) rules: u32,
}

impl Batch {
    pub(crate) fn new(at: Timestamp, commands: impl Into<Arc<[MetadataCommand]>>) -> Batch {
        let commands = commands.into();
        let rules = commands.iter().map(MetadataCommand::rules).max().unwrap_or_default();
        Batch { at, commands, rules }
    }

    /// Why a member that knows rules up to `known` must not carry this out, if so.
    pub(crate) fn beyond(&self, known: u32) -> Option<CodecError> {
        let rules = self.rules;
        (rules > known).then(|| CodecError::Newer(format!("commands of rules {rules}, this one knows {known}")))
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands at {}", self.commands.len(), self.at)
    }
}
