//! A whole state. Stands alone: it carries its version.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | metadata version |
//! | 4 | last topic id given |
//! | 4 | last group id given |
//! | 4 | number of topics |
//! | n each | topic, by ascending id |
//! | 4 | number of groups |
//! | n each | group, by ascending id |

use super::CodecError;
use super::fields::Reader;
use super::group::{put_group, read_group};
use super::topic::{put_topic, read_topic};
use crate::state::{Counters, MetadataState};
use gantry_proto::model::{GroupId, MetadataVersion, TopicId};

const VERSION: u8 = 1;

/// A state as bytes. Equal states give equal bytes.
pub(crate) fn encode_state(state: &MetadataState) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(state.version().0.to_le_bytes());
    out.extend(state.counters().last_topic.0.to_le_bytes());
    out.extend(state.counters().last_group.0.to_le_bytes());
    put_count(&mut out, state.topics().len());
    for topic in state.topics() {
        put_topic(&mut out, topic);
    }
    put_count(&mut out, state.groups().len());
    for group in state.groups() {
        put_group(&mut out, group);
    }
    out
}

/// Reads one state that fills `bytes`.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<MetadataState, CodecError> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let version = MetadataVersion(reader.u64()?);
    let counters = Counters { last_topic: TopicId(reader.u32()?), last_group: GroupId(reader.u32()?) };
    let topic_count = reader.u32()?;
    let topics = (0..topic_count).map(|_| read_topic(&mut reader)).collect::<Result<_, _>>()?;
    let group_count = reader.u32()?;
    let groups = (0..group_count).map(|_| read_group(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    MetadataState::from_parts(version, counters, topics, groups).map_err(CodecError::Damaged)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).expect("ids are 32 bits, so there are no more").to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create_group, create_topic, some_commands};
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
        let state = applied(&[create_topic("a", 1), create_group("g")]);
        let topics: Vec<_> = state.topics().map(|topic| (**topic).clone()).collect();
        let groups: Vec<_> = state.groups().map(|group| (**group).clone()).collect();
        let rebuilt = |topics, groups, counters| MetadataState::from_parts(state.version(), counters, topics, groups);
        let counters = state.counters();
        assert_eq!(rebuilt(topics.clone(), groups.clone(), counters), Ok(state.clone()));
        assert!(rebuilt(topics.clone(), groups.clone(), Counters::default()).is_err());
        assert!(rebuilt([topics.clone(), topics.clone()].concat(), groups.clone(), counters).is_err());
        assert!(rebuilt(topics[..1].to_vec(), groups, counters).is_err());
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
