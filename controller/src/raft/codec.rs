//! Entries, votes and memberships as bytes: on disk and between members.
//!
//! | bytes | what |
//! |---|---|
//! | | a leader id: |
//! | 8 | term |
//! | 8 | member |
//! | | a log id: |
//! | 16 | leader id |
//! | 8 | index |
//! | | a vote: |
//! | 16 | leader id |
//! | 1 | committed: 0 or 1 |
//! | | a membership: |
//! | 4 | number of configurations: 1, or 2 while it changes |
//! | 4 + 8 × n each | the voters |
//! | 4 | number of members |
//! | 8 + 2 + n each | member and address |
//! | | an entry: |
//! | 1 | version: 1 |
//! | 24 | log id |
//! | 1 | kind: 0 blank, 1 commands, 2 membership |
//! | | commands: |
//! | 8 | time, milliseconds since the epoch |
//! | 4 | number of commands |
//! | 4 + n each | command |

use super::type_config::{Batch, Entry, LeaderId, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::codec::{
    CodecError, Reader, decode_command, encode_command, put_bool, put_bytes, put_list, put_option, put_text,
};
use gantry_proto::model::Timestamp;
use openraft::{BasicNode, EntryPayload};
use std::collections::{BTreeMap, BTreeSet};

const VERSION: u8 = 1;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(super) fn put_leader_id(out: &mut Vec<u8>, id: &LeaderId) {
    out.extend(id.term.to_le_bytes());
    out.extend(id.node_id.to_le_bytes());
}

pub(super) fn read_leader_id(reader: &mut Reader<'_>) -> Result<LeaderId, CodecError> {
    Ok(LeaderId { term: reader.u64()?, node_id: reader.u64()? })
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    put_leader_id(out, &id.leader_id);
    out.extend(id.index.to_le_bytes());
}

pub(super) fn read_log_id(reader: &mut Reader<'_>) -> Result<LogId, CodecError> {
    Ok(LogId { leader_id: read_leader_id(reader)?, index: reader.u64()? })
}

pub(super) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    put_leader_id(out, &vote.leader_id);
    put_bool(out, vote.committed);
}

pub(super) fn read_vote(reader: &mut Reader<'_>) -> Result<Vote, CodecError> {
    Ok(Vote { leader_id: read_leader_id(reader)?, committed: reader.bool()? })
}

pub(super) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    put_list(out, membership.get_joint_config().iter(), |out, voters| {
        put_list(out, voters.iter(), |out, id| out.extend(id.to_le_bytes()));
    });
    let nodes: Vec<_> = membership.nodes().collect();
    put_list(out, nodes.into_iter(), |out, (id, node)| {
        out.extend(id.to_le_bytes());
        put_text(out, &node.addr);
    });
}

pub(super) fn read_membership(reader: &mut Reader<'_>) -> Result<Membership, CodecError> {
    let configs = reader.list(|reader| Ok(reader.list(Reader::u64)?.into_iter().collect::<BTreeSet<_>>()))?;
    let nodes = reader.list(|reader| Ok((reader.u64()?, BasicNode::new(reader.text()?))))?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
    Membership::new(configs, nodes).map_err(|_| CodecError::Damaged("a membership does not hold together"))
}

pub(super) fn put_snapshot_meta(out: &mut Vec<u8>, meta: &SnapshotMeta) {
    put_option(out, meta.last_log_id.as_ref(), put_log_id);
    put_option(out, meta.last_membership.log_id().as_ref(), put_log_id);
    put_membership(out, meta.last_membership.membership());
}

pub(super) fn read_snapshot_meta(reader: &mut Reader<'_>) -> Result<SnapshotMeta, CodecError> {
    Ok(SnapshotMeta {
        last_log_id: reader.option(read_log_id)?,
        last_membership: StoredMembership::new(reader.option(read_log_id)?, read_membership(reader)?),
    })
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_log_id(&mut out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(batch) => {
            out.push(COMMANDS);
            out.extend(batch.at.as_millis().to_le_bytes());
            put_list(&mut out, batch.commands.iter(), |out, command| {
                let mut bytes = Vec::new();
                encode_command(&mut bytes, command);
                put_bytes(out, &bytes);
            });
        }
        EntryPayload::Membership(membership) => {
            out.push(MEMBERSHIP);
            put_membership(&mut out, membership);
        }
    }
    out
}

/// Reads one entry that fills `bytes`.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let log_id = read_log_id(&mut reader)?;
    let payload = match reader.u8()? {
        BLANK => EntryPayload::Blank,
        COMMANDS => EntryPayload::Normal(Batch {
            at: Timestamp::from_millis(reader.u64()?),
            commands: reader.list(|reader| decode_command(reader.bytes()?))?.into(),
        }),
        MEMBERSHIP => EntryPayload::Membership(read_membership(&mut reader)?),
        _ => return Err(CodecError::Damaged("an entry is of no known kind")),
    };
    reader.end()?;
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::some_commands;
    use proptest::prelude::*;

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
            (any::<u64>(), some_commands(0..9)).prop_map(|(at, commands)| {
                EntryPayload::Normal(Batch { at: Timestamp::from_millis(at), commands: commands.into() })
            }),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_it_was_written(entry in entry()) {
            prop_assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
        }

        #[test]
        fn a_snapshots_description_reads_back(last in prop::option::of(log_id()), at in prop::option::of(log_id()), members in membership()) {
            let meta = SnapshotMeta { last_log_id: last, last_membership: StoredMembership::new(at, members) };
            let mut bytes = Vec::new();
            put_snapshot_meta(&mut bytes, &meta);
            prop_assert_eq!(read_snapshot_meta(&mut Reader::new(&bytes)), Ok(meta));
        }

        #[test]
        fn damaged_entries_decode_without_a_panic(entry in entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode_entry(&entry);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_entry(&bytes);
            prop_assert!(decode_entry(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn an_empty_membership_reads_back() {
        let mut bytes = Vec::new();
        put_membership(&mut bytes, &Membership::default());
        assert_eq!(read_membership(&mut Reader::new(&bytes)), Ok(Membership::default()));
    }
}
