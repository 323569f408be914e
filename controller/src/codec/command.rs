//! A command. Stands alone: it carries its version.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | kind |
//! | | kind 1, create topic: |
//! | 2 + n | name |
//! | 1 | type |
//! | 4 | number of queues |
//! | | kind 2, alter topic: |
//! | 2 + n | name |
//! | 1 (+ 1) | type, if given |
//! | 1 (+ 4) | number of queues, if given |
//! | | kind 3, delete topic: |
//! | 2 + n | name |
//! | | kind 4, create group: |
//! | 2 + n | name |
//! | 1 | ordered delivery: 0 or 1 |
//! | 4 | maximum attempts |
//! | n | backoff policy |
//! | | kind 5, alter group: |
//! | 2 + n | name |
//! | 1 (+ 1) | ordered delivery, if given |
//! | 1 (+ 4) | maximum attempts, if given |
//! | 1 (+ n) | backoff policy, if given |
//! | | kind 6, delete group: |
//! | 2 + n | name |
//! | | kind 7, found: |
//! | 16 | cluster |
//! | | kind 8, join store: |
//! | 2 + n | store group |
//! | 16 | folder |
//! | 2 + n | address |
//! | 4 | last epoch |
//! | | kind 9, end lease: |
//! | 4 | store group |
//! | 4 | epoch |
//! | | kinds 10, 11 and 12, drain, activate and remove store group: |
//! | 2 + n | name |
//! | | kind 13, spread topics: |
//! | 1 (+ 2 + n) | after this topic, if given |
//! | 4 | limit |
//! | | kind 14, join proxy: |
//! | 16 | id |
//! | 2 + n | address |
//! | 2 + n | software |
//! | | kind 15, remove proxy: |
//! | 16 | id |

use super::CodecError;
use super::backoff::{put_backoff, read_backoff};
use super::fields::{Reader, put_bool, put_option, put_text};
use super::member::read_store_group_name;
use super::topic::{put_topic_type, read_group_name, read_topic_name, read_topic_type};
use gantry_proto::model::{ClusterId, Epoch, FolderId, MetadataCommand, ProxyId, StoreGroupId};

const VERSION: u8 = 1;

const CREATE_TOPIC: u8 = 1;
const ALTER_TOPIC: u8 = 2;
const DELETE_TOPIC: u8 = 3;
const CREATE_GROUP: u8 = 4;
const ALTER_GROUP: u8 = 5;
const DELETE_GROUP: u8 = 6;
const FOUND: u8 = 7;
const JOIN_STORE: u8 = 8;
const END_LEASE: u8 = 9;
const DRAIN_STORE_GROUP: u8 = 10;
const ACTIVATE_STORE_GROUP: u8 = 11;
const REMOVE_STORE_GROUP: u8 = 12;
const SPREAD_TOPICS: u8 = 13;
const JOIN_PROXY: u8 = 14;
const REMOVE_PROXY: u8 = 15;

/// Appends a command.
pub(crate) fn encode_command(out: &mut Vec<u8>, command: &MetadataCommand) {
    out.push(VERSION);
    match command {
        MetadataCommand::CreateTopic { name, topic_type, queue_count } => {
            out.push(CREATE_TOPIC);
            put_text(out, name.as_str());
            put_topic_type(out, *topic_type);
            out.extend(queue_count.to_le_bytes());
        }
        MetadataCommand::AlterTopic { name, topic_type, queue_count } => {
            out.push(ALTER_TOPIC);
            put_text(out, name.as_str());
            put_option(out, *topic_type, put_topic_type);
            put_option(out, *queue_count, |out, count| out.extend(count.to_le_bytes()));
        }
        MetadataCommand::DeleteTopic { name } => {
            out.push(DELETE_TOPIC);
            put_text(out, name.as_str());
        }
        MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff } => {
            out.push(CREATE_GROUP);
            put_text(out, name.as_str());
            put_bool(out, *fifo);
            out.extend(max_attempts.to_le_bytes());
            put_backoff(out, backoff);
        }
        MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff } => {
            out.push(ALTER_GROUP);
            put_text(out, name.as_str());
            put_option(out, *fifo, put_bool);
            put_option(out, *max_attempts, |out, attempts| out.extend(attempts.to_le_bytes()));
            put_option(out, backoff.as_ref(), put_backoff);
        }
        MetadataCommand::DeleteGroup { name } => {
            out.push(DELETE_GROUP);
            put_text(out, name.as_str());
        }
        MetadataCommand::Found { cluster } => {
            out.push(FOUND);
            out.extend(cluster.0);
        }
        MetadataCommand::JoinStore { group, folder, address, last_epoch } => {
            out.push(JOIN_STORE);
            put_text(out, group.as_str());
            out.extend(folder.0);
            put_text(out, address);
            out.extend(last_epoch.0.to_le_bytes());
        }
        MetadataCommand::EndLease { group, epoch } => {
            out.push(END_LEASE);
            out.extend(group.0.to_le_bytes());
            out.extend(epoch.0.to_le_bytes());
        }
        MetadataCommand::DrainStoreGroup { name } => {
            out.push(DRAIN_STORE_GROUP);
            put_text(out, name.as_str());
        }
        MetadataCommand::ActivateStoreGroup { name } => {
            out.push(ACTIVATE_STORE_GROUP);
            put_text(out, name.as_str());
        }
        MetadataCommand::RemoveStoreGroup { name } => {
            out.push(REMOVE_STORE_GROUP);
            put_text(out, name.as_str());
        }
        MetadataCommand::SpreadTopics { after, limit } => {
            out.push(SPREAD_TOPICS);
            put_option(out, after.as_ref(), |out, after| put_text(out, after.as_str()));
            out.extend(limit.to_le_bytes());
        }
        MetadataCommand::JoinProxy { id, address, version } => {
            out.push(JOIN_PROXY);
            out.extend(id.0);
            put_text(out, address);
            put_text(out, version);
        }
        MetadataCommand::RemoveProxy { id } => {
            out.push(REMOVE_PROXY);
            out.extend(id.0);
        }
    }
}

/// Reads one command that fills `bytes`.
pub(crate) fn decode_command(bytes: &[u8]) -> Result<MetadataCommand, CodecError> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let command = match reader.u8()? {
        CREATE_TOPIC => MetadataCommand::CreateTopic {
            name: read_topic_name(&mut reader)?,
            topic_type: read_topic_type(&mut reader)?,
            queue_count: reader.u32()?,
        },
        ALTER_TOPIC => MetadataCommand::AlterTopic {
            name: read_topic_name(&mut reader)?,
            topic_type: reader.option(read_topic_type)?,
            queue_count: reader.option(Reader::u32)?,
        },
        DELETE_TOPIC => MetadataCommand::DeleteTopic { name: read_topic_name(&mut reader)? },
        CREATE_GROUP => MetadataCommand::CreateGroup {
            name: read_group_name(&mut reader)?,
            fifo: reader.bool()?,
            max_attempts: reader.u32()?,
            backoff: read_backoff(&mut reader)?,
        },
        ALTER_GROUP => MetadataCommand::AlterGroup {
            name: read_group_name(&mut reader)?,
            fifo: reader.option(Reader::bool)?,
            max_attempts: reader.option(Reader::u32)?,
            backoff: reader.option(read_backoff)?,
        },
        DELETE_GROUP => MetadataCommand::DeleteGroup { name: read_group_name(&mut reader)? },
        FOUND => MetadataCommand::Found { cluster: ClusterId(reader.array()?) },
        JOIN_STORE => MetadataCommand::JoinStore {
            group: read_store_group_name(&mut reader)?,
            folder: FolderId(reader.array()?),
            address: reader.text()?.into(),
            last_epoch: Epoch(reader.u32()?),
        },
        END_LEASE => MetadataCommand::EndLease { group: StoreGroupId(reader.u32()?), epoch: Epoch(reader.u32()?) },
        DRAIN_STORE_GROUP => MetadataCommand::DrainStoreGroup { name: read_store_group_name(&mut reader)? },
        ACTIVATE_STORE_GROUP => MetadataCommand::ActivateStoreGroup { name: read_store_group_name(&mut reader)? },
        REMOVE_STORE_GROUP => MetadataCommand::RemoveStoreGroup { name: read_store_group_name(&mut reader)? },
        SPREAD_TOPICS => MetadataCommand::SpreadTopics { after: reader.option(read_topic_name)?, limit: reader.u32()? },
        JOIN_PROXY => MetadataCommand::JoinProxy {
            id: ProxyId(reader.array()?),
            address: reader.text()?.into(),
            version: reader.text()?.into(),
        },
        REMOVE_PROXY => MetadataCommand::RemoveProxy { id: ProxyId(reader.array()?) },
        _ => return Err(CodecError::Damaged("a command is of no known kind")),
    };
    reader.end()?;
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_command, create_topic};
    use proptest::prelude::*;

    fn encoded(command: &MetadataCommand) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        bytes
    }

    #[test]
    fn a_command_is_written_as_its_layout_says() {
        assert_eq!(encoded(&create_topic("ab", 7)), b"\x01\x01\x02\0ab\x01\x07\0\0\0");
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(decode_command(&[2, 1]), Err(CodecError::Newer { found: 2, known: 1 }));
        assert!(matches!(decode_command(&[1, 99]), Err(CodecError::Damaged(_))));
        assert!(matches!(decode_command(&[0, 0, 0]), Err(CodecError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn a_command_reads_back_as_it_was_written(command in any_command("[a-zA-Z0-9|_-]{1,120}")) {
            prop_assert_eq!(decode_command(&encoded(&command)), Ok(command));
        }

        #[test]
        fn cut_commands_are_damaged(command in any_command("[a-z]{1,9}"), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&command);
            prop_assert!(decode_command(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_command(&bytes);
        }
    }
}
