//! What a command did. Part of answers between members.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind |
//! | n | kind 1: topic |
//! | n | kind 2: group |
//! | | kind 3: deleted |
//! | 16 | kind 4: cluster |
//! | n | kind 5: store group |
//! | 4 | kind 6, spread: how many changed |
//! | 1 (+ 2 + n) | where the next page begins, if there is one |
//! | n | kind 7: proxy |

use super::CodecError;
use super::fields::{Reader, put_option, put_text};
use super::group::{put_group, read_group};
use super::member::{put_proxy, put_store_group, read_proxy, read_store_group};
use super::topic::{put_topic, read_topic, read_topic_name};
use gantry_proto::model::{ClusterId, MetadataOutcome};
use std::sync::Arc;

const TOPIC: u8 = 1;
const GROUP: u8 = 2;
const DELETED: u8 = 3;
const CLUSTER: u8 = 4;
const STORE_GROUP: u8 = 5;
const SPREAD: u8 = 6;
const PROXY: u8 = 7;

pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &MetadataOutcome) {
    match outcome {
        MetadataOutcome::Topic(topic) => {
            out.push(TOPIC);
            put_topic(out, topic);
        }
        MetadataOutcome::Group(group) => {
            out.push(GROUP);
            put_group(out, group);
        }
        MetadataOutcome::Deleted => out.push(DELETED),
        MetadataOutcome::Cluster(cluster) => {
            out.push(CLUSTER);
            out.extend(cluster.0);
        }
        MetadataOutcome::StoreGroup(group) => {
            out.push(STORE_GROUP);
            put_store_group(out, group);
        }
        MetadataOutcome::Spread { changed, next } => {
            out.push(SPREAD);
            out.extend(changed.to_le_bytes());
            put_option(out, next.as_ref(), |out, next| put_text(out, next.as_str()));
        }
        MetadataOutcome::Proxy(proxy) => {
            out.push(PROXY);
            put_proxy(out, proxy);
        }
    }
}

pub(crate) fn read_outcome(reader: &mut Reader<'_>) -> Result<MetadataOutcome, CodecError> {
    Ok(match reader.u8()? {
        TOPIC => MetadataOutcome::Topic(Arc::new(read_topic(reader)?)),
        GROUP => MetadataOutcome::Group(Arc::new(read_group(reader)?)),
        DELETED => MetadataOutcome::Deleted,
        CLUSTER => MetadataOutcome::Cluster(ClusterId(reader.array()?)),
        STORE_GROUP => MetadataOutcome::StoreGroup(Arc::new(read_store_group(reader)?)),
        SPREAD => MetadataOutcome::Spread { changed: reader.u32()?, next: reader.option(read_topic_name)? },
        PROXY => MetadataOutcome::Proxy(Arc::new(read_proxy(reader)?)),
        _ => return Err(CodecError::Damaged("an outcome is of no known kind")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MetadataState;
    use crate::testing::some_commands;
    use gantry_proto::model::Timestamp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_commands_do_reads_back_as_it_was_written(commands in some_commands(0..40)) {
            let mut state = MetadataState::default();
            for command in commands {
                if let Ok((outcome, _)) = state.apply(&command, Timestamp::from_millis(5)) {
                    let mut bytes = Vec::new();
                    put_outcome(&mut bytes, &outcome);
                    let mut reader = Reader::new(&bytes);
                    prop_assert_eq!(read_outcome(&mut reader), Ok(outcome));
                    prop_assert_eq!(reader.end(), Ok(()));
                }
            }
        }
    }
}
