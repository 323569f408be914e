//! A topic. Part of states, versioned by them; its type is part of commands too.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | id |
//! | 2 + n | name |
//! | 1 | type: 1 normal, 2 FIFO, 3 delay, 4 transaction, 5 mixed |
//! | n | placement |
//! | 1 (+ 2 + n) | the group whose dead letters it holds, if any |
//! | 8 | creation time, milliseconds since the epoch |

use super::CodecError;
use super::fields::{Reader, put_option, put_text};
use super::placement::{put_placement, read_placement};
use gantry_proto::model::{GroupName, Timestamp, Topic, TopicId, TopicName, TopicType};

pub(crate) fn put_topic(out: &mut Vec<u8>, topic: &Topic) {
    out.extend(topic.id.0.to_le_bytes());
    put_text(out, topic.name.as_str());
    put_topic_type(out, topic.topic_type);
    put_placement(out, &topic.placement);
    put_option(out, topic.dead_letter_of.as_ref(), |out, group| put_text(out, group.as_str()));
    out.extend(topic.created_at.as_millis().to_le_bytes());
}

pub(crate) fn read_topic(reader: &mut Reader<'_>) -> Result<Topic, CodecError> {
    Ok(Topic {
        id: TopicId(reader.u32()?),
        name: read_topic_name(reader)?,
        topic_type: read_topic_type(reader)?,
        placement: read_placement(reader)?,
        dead_letter_of: reader.option(read_group_name)?,
        created_at: Timestamp::from_millis(reader.u64()?),
    })
}

pub(super) fn put_topic_type(out: &mut Vec<u8>, topic_type: TopicType) {
    out.push(match topic_type {
        TopicType::Normal => 1,
        TopicType::Fifo => 2,
        TopicType::Delay => 3,
        TopicType::Transaction => 4,
        TopicType::Mixed => 5,
    });
}

pub(super) fn read_topic_type(reader: &mut Reader<'_>) -> Result<TopicType, CodecError> {
    match reader.u8()? {
        1 => Ok(TopicType::Normal),
        2 => Ok(TopicType::Fifo),
        3 => Ok(TopicType::Delay),
        4 => Ok(TopicType::Transaction),
        5 => Ok(TopicType::Mixed),
        _ => Err(CodecError::Damaged("a topic is of no known type")),
    }
}

pub(super) fn read_topic_name(reader: &mut Reader<'_>) -> Result<TopicName, CodecError> {
    TopicName::parse(reader.text()?).map_err(|_| CodecError::Damaged("a topic's name is not a name"))
}

pub(super) fn read_group_name(reader: &mut Reader<'_>) -> Result<GroupName, CodecError> {
    GroupName::parse(reader.text()?).map_err(|_| CodecError::Damaged("a group's name is not a name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::model::{Placement, StoreGroupId};

    #[test]
    fn a_topic_is_written_as_its_layout_says() {
        let topic = Topic {
            id: TopicId(0x0102_0304),
            name: TopicName::parse("%DLQ%g").unwrap(),
            topic_type: TopicType::Mixed,
            placement: Placement::spread(2, &[StoreGroupId(3), StoreGroupId(4)], 1),
            dead_letter_of: Some(GroupName::parse("g").unwrap()),
            created_at: Timestamp::from_millis(1000),
        };
        let mut bytes = Vec::new();
        put_topic(&mut bytes, &topic);
        let head = b"\x04\x03\x02\x01\x06\0%DLQ%g\x05";
        let placement = b"\x01\x02\0\0\0\x04\0\0\0\x03\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0";
        let tail = b"\x01\x01\0g\xe8\x03\0\0\0\0\0\0";
        assert_eq!(bytes, [&head[..], placement, tail].concat());
        assert_eq!(read_topic(&mut Reader::new(&bytes)), Ok(topic));
    }
}
