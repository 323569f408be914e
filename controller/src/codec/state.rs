//! A whole state. Stands alone: it carries its version.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | metadata version |
//! | 4 | last topic id given |
//! | 4 | last group id given |
//! | 4 | last store group id given |
//! | 1 (+ 16) | the cluster's identity, if it has one |
//! | 4 | number of store groups |
//! | n each | store group, by ascending id |
//! | 4 | number of topics |
//! | n each | topic, by ascending id |
//! | 4 | number of groups |
//! | n each | group, by ascending id |
//! | 4 | number of proxies |
//! | n each | proxy, by ascending id |

use super::CodecError;
use super::fields::{Reader, put_list, put_option};
use super::group::{put_group, read_group};
use super::member::{put_proxy, put_store_group, read_proxy, read_store_group};
use super::topic::{put_topic, read_topic};
use crate::state::{Counters, MetadataState, StateParts};
use gantry_proto::model::{ClusterId, GroupId, MetadataVersion, StoreGroupId, TopicId};
use std::sync::Arc;

const VERSION: u8 = 1;

/// A state as bytes. Equal states give equal bytes.
pub(crate) fn encode_state(state: &MetadataState) -> Vec<u8> {
    let parts = state.to_parts();
    let mut out = vec![VERSION];
    out.extend(parts.version.0.to_le_bytes());
    out.extend(parts.counters.last_topic.0.to_le_bytes());
    out.extend(parts.counters.last_group.0.to_le_bytes());
    out.extend(parts.counters.last_store_group.0.to_le_bytes());
    put_option(&mut out, parts.cluster, |out, cluster| out.extend(cluster.0));
    put_list(&mut out, parts.store_groups.iter(), |out, group| put_store_group(out, group));
    put_list(&mut out, parts.topics.iter(), |out, topic| put_topic(out, topic));
    put_list(&mut out, parts.groups.iter(), |out, group| put_group(out, group));
    put_list(&mut out, parts.proxies.iter(), |out, proxy| put_proxy(out, proxy));
    out
}

/// Reads one state that fills `bytes`.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<MetadataState, CodecError> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let parts = StateParts {
        version: MetadataVersion(reader.u64()?),
        counters: Counters {
            last_topic: TopicId(reader.u32()?),
            last_group: GroupId(reader.u32()?),
            last_store_group: StoreGroupId(reader.u32()?),
        },
        cluster: reader.option(|reader| reader.array().map(ClusterId))?,
        store_groups: reader.list(|reader| read_store_group(reader).map(Arc::new))?,
        topics: reader.list(|reader| read_topic(reader).map(Arc::new))?,
        groups: reader.list(|reader| read_group(reader).map(Arc::new))?,
        proxies: reader.list(|reader| read_proxy(reader).map(Arc::new))?,
    };
    reader.end()?;
    MetadataState::from_parts(parts).map_err(CodecError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create_group, create_topic, join_store, some_commands};
    use gantry_proto::model::Timestamp;
    use proptest::prelude::*;

    fn applied<'a>(commands: impl IntoIterator<Item = &'a gantry_proto::model::MetadataCommand>) -> MetadataState {
        let mut state = MetadataState::default();
        for (second, command) in commands.into_iter().enumerate() {
            let _ = state.apply(command, Timestamp::from_millis(second as u64 * 1000));
        }
        state
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(decode_state(&[9; 40]), Err(CodecError::Newer { found: 9, known: 1 }));
        assert!(matches!(decode_state(&[]), Err(CodecError::Damaged(_))));
    }

    #[test]
    fn parts_that_cannot_belong_together_are_damaged() {
        let state = applied(&[join_store("s", 1), create_topic("a", 1), create_group("g")]);
        let whole = || state.to_parts();
        assert_eq!(MetadataState::from_parts(whole()), Ok(state.clone()));
        let broken = [
            StateParts { counters: Counters::default(), ..whole() },
            StateParts { topics: [whole().topics, whole().topics].concat(), ..whole() },
            StateParts { topics: whole().topics[..1].to_vec(), ..whole() },
            StateParts { store_groups: [whole().store_groups, whole().store_groups].concat(), ..whole() },
        ];
        for parts in broken {
            assert!(MetadataState::from_parts(parts).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_state_reads_back_as_it_was_written(commands in some_commands(0..60)) {
            let state = applied(&commands);
            prop_assert_eq!(decode_state(&encode_state(&state)), Ok(state));
        }

        #[test]
        fn damaged_states_decode_without_a_panic(commands in some_commands(0..30), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode_state(&applied(&commands));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_state(&bytes);
            let _ = decode_state(&bytes[..at]);
        }
    }
}
