//! A consumer group. Part of states, versioned by them.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | id |
//! | 2 + n | name |
//! | 1 | ordered delivery: 0 or 1 |
//! | 4 | maximum attempts |
//! | n | backoff policy |
//! | 4 | id of the dead-letter topic |
//! | 8 | creation time, milliseconds since the epoch |

use super::CodecError;
use super::backoff::{put_backoff, read_backoff};
use super::fields::{Reader, put_bool, put_text};
use super::topic::read_group_name;
use gantry_proto::model::{Group, GroupId, Timestamp, TopicId};

pub(crate) fn put_group(out: &mut Vec<u8>, group: &Group) {
    out.extend(group.id.0.to_le_bytes());
    put_text(out, group.name.as_str());
    put_bool(out, group.fifo);
    out.extend(group.max_attempts.to_le_bytes());
    put_backoff(out, &group.backoff);
    out.extend(group.dead_letter_topic.0.to_le_bytes());
    out.extend(group.created_at.as_millis().to_le_bytes());
}

pub(crate) fn read_group(reader: &mut Reader<'_>) -> Result<Group, CodecError> {
    Ok(Group {
        id: GroupId(reader.u32()?),
        name: read_group_name(reader)?,
        fifo: reader.bool()?,
        max_attempts: reader.u32()?,
        backoff: read_backoff(reader)?,
        dead_letter_topic: TopicId(reader.u32()?),
        created_at: Timestamp::from_millis(reader.u64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_backoff, group_name};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_group_reads_back_as_it_was_written(
            id in any::<u32>(),
            name in "[a-z|_-]{1,120}",
            fifo in any::<bool>(),
            max_attempts in any::<u32>(),
            backoff in any_backoff(),
            topic in any::<u32>(),
            millis in any::<u64>(),
        ) {
            let group = Group {
                id: GroupId(id),
                name: group_name(&name),
                fifo,
                max_attempts,
                backoff,
                dead_letter_topic: TopicId(topic),
                created_at: Timestamp::from_millis(millis),
            };
            let mut bytes = Vec::new();
            put_group(&mut bytes, &group);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read_group(&mut reader), Ok(group));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
