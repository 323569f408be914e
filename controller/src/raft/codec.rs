//! Entries, votes and memberships as messages of `raft.proto`, on disk and between members: what openraft's types look like
//! to serde is nowhere written down.

use super::type_config::{Batch, Entry, LeaderId, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::codec::CodecError;
use gantry_proto::convert::Wire as _;
use gantry_proto::model::{MetadataCommand, Timestamp};
use gantry_proto::wire::controller::v1 as wire;
use openraft::{BasicNode, EntryPayload};
use std::collections::{BTreeMap, BTreeSet};
use wire::controller_membership::{Member, Voters};
use wire::log_entry::{Commands, Payload};

/// What must be there, though the protocol cannot say so.
pub(super) fn need<T>(part: Option<T>, what: &'static str) -> Result<T, CodecError> {
    part.ok_or_else(|| CodecError::Newer(format!("without {what}")))
}

pub(super) fn put_log_id(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, member: id.leader_id.node_id, index: id.index }
}

pub(super) fn read_log_id(id: wire::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.member }, index: id.index }
}

pub(super) fn put_vote(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, member: vote.leader_id.node_id, committed: vote.committed }
}

pub(super) fn read_vote(vote: wire::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, node_id: vote.member }, committed: vote.committed }
}

pub(super) fn put_membership(membership: &Membership) -> wire::ControllerMembership {
    let configs = membership.get_joint_config().iter();
    let members = membership.nodes().map(|(id, node)| Member { id: *id, address: node.addr.clone() });
    wire::ControllerMembership {
        configs: configs.map(|voters| Voters { ids: voters.iter().copied().collect() }).collect(),
        members: members.collect(),
    }
}

pub(super) fn read_membership(membership: wire::ControllerMembership) -> Result<Membership, CodecError> {
    let wire::ControllerMembership { configs, members } = membership;
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    let configs: Vec<BTreeSet<u64>> = configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<_, _> = members.into_iter().map(|member| (member.id, BasicNode::new(member.address))).collect();
    Membership::new(configs, nodes).map_err(|_| CodecError::newer("a membership that does not hold together"))
}

pub(super) fn put_snapshot_meta(meta: &SnapshotMeta) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(put_log_id),
        membership_at: meta.last_membership.log_id().as_ref().map(put_log_id),
        membership: Some(put_membership(meta.last_membership.membership())),
    }
}

pub(super) fn read_snapshot_meta(meta: wire::SnapshotMeta) -> Result<SnapshotMeta, CodecError> {
    let membership = read_membership(need(meta.membership, "the membership of a snapshot")?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(read_log_id),
        last_membership: StoredMembership::new(meta.membership_at.map(read_log_id), membership),
    })
}

pub(super) fn put_entry(entry: &Entry) -> wire::LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(wire::Nothing {}),
        EntryPayload::Normal(batch) => {
            let commands = batch.commands.iter().map(MetadataCommand::to_wire).collect();
            Payload::Commands(Commands { at_ms: batch.at.as_millis(), commands })
        }
        EntryPayload::Membership(membership) => Payload::Membership(put_membership(membership)),
    };
    wire::LogEntry { id: Some(put_log_id(&entry.log_id)), payload: Some(payload) }
}

pub(super) fn read_entry(entry: wire::LogEntry) -> Result<Entry, CodecError> {
    let log_id = read_log_id(need(entry.id, "the id of an entry")?);
    let payload = match need(entry.payload, "an entry of a known kind")? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Commands(Commands { at_ms, commands }) => {
            let rules = commands.iter().map(|command| command.rules.max(1)).max().unwrap_or_default();
            let commands: Vec<_> = commands.into_iter().map(MetadataCommand::from_wire).collect::<Result<_, _>>()?;
            EntryPayload::Normal(Batch { at: Timestamp::from_millis(at_ms), commands: commands.into(), rules })
        }
        Payload::Membership(membership) => EntryPayload::Membership(read_membership(membership)?),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, seal, unseal};
    use crate::testing::some_commands;
    use proptest::prelude::*;
    use prost::Message as _;

    fn log_id() -> impl Strategy<Value = LogId> {
        any::<(u64, u64, u64)>()
            .prop_map(|(term, node_id, index)| LogId { leader_id: LeaderId { term, node_id }, index })
    }

    fn membership() -> impl Strategy<Value = Membership> {
        (prop::collection::btree_set(0..9u64, 1..5), prop::collection::btree_set(0..9u64, 0..3)).prop_map(
            |(voters, learners)| {
                let members = voters.iter().chain(&learners);
                let nodes: BTreeMap<_, _> = members.map(|id| (*id, BasicNode::new(format!("host-{id}:7")))).collect();
                Membership::new(vec![voters], nodes).unwrap()
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            (any::<u64>(), some_commands(0..9))
                .prop_map(|(at, commands)| { EntryPayload::Normal(Batch::new(Timestamp::from_millis(at), commands)) }),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_it_was_written(entry in entry()) {
            let again = read_entry(unseal(&seal(&put_entry(&entry))).unwrap());
            prop_assert_eq!(again, Ok(entry));
        }

        #[test]
        fn a_vote_reads_back_as_it_was_given(id in log_id(), committed: bool) {
            let vote = Vote { leader_id: id.leader_id, committed };
            prop_assert_eq!(read_vote(unseal(&seal(&put_vote(&vote))).unwrap()), vote);
        }

        #[test]
        fn a_snapshots_description_reads_back(last in prop::option::of(log_id()), at in prop::option::of(log_id()), members in membership()) {
            let meta = SnapshotMeta { last_log_id: last, last_membership: StoredMembership::new(at, members) };
            prop_assert_eq!(read_snapshot_meta(unseal(&seal(&put_snapshot_meta(&meta))).unwrap()), Ok(meta));
        }

        #[test]
        fn changed_entries_are_read_without_a_panic(entry in entry(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = put_entry(&entry).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes).and_then(read_entry);
            let _ = decode(&bytes[..at]).and_then(read_entry);
        }
    }

    #[test]
    fn an_empty_membership_reads_back() {
        assert_eq!(read_membership(put_membership(&Membership::default())), Ok(Membership::default()));
    }

    #[test]
    fn kinds_and_rules_that_are_not_known_are_newer() {
        let id = Some(wire::LogId::default());
        let of = |command| {
            let commands = Commands { at_ms: 0, commands: vec![command] };
            read_entry(wire::LogEntry { id, payload: Some(Payload::Commands(commands)) })
        };
        let is_newer = |read: Result<Entry, CodecError>| matches!(read, Err(CodecError::Newer(_)));
        assert!(is_newer(read_entry(wire::LogEntry { id, payload: None })));
        assert!(is_newer(of(wire::MetadataCommand::default())));
        let command = Some(wire::metadata_command::Command::DeleteTopic("a".to_owned()));
        let entry = of(wire::MetadataCommand { command, rules: 2 }).unwrap();
        let EntryPayload::Normal(batch) = entry.payload else { panic!("{entry:?}") };
        assert!(batch.beyond(2).is_none());
        assert!(matches!(batch.beyond(1), Some(CodecError::Newer(_))));
    }
}
