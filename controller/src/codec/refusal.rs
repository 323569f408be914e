//! Why a command changed nothing. Part of answers between members, so that a refusal stays typed when it was forwarded.
//!
//! One byte for the kind, then the fields in the order of [`MetadataRefusal`].

use super::CodecError;
use super::fields::{Reader, put_text};
use super::group::{put_group, read_group};
use super::member::read_store_group_name;
use super::topic::{put_topic, read_group_name, read_topic, read_topic_name};
use gantry_proto::model::{FolderId, InvalidBackoff, MetadataRefusal};
use std::sync::Arc;

pub(crate) fn put_refusal(out: &mut Vec<u8>, refusal: &MetadataRefusal) {
    match refusal {
        MetadataRefusal::TopicExists(topic) => {
            out.push(1);
            put_topic(out, topic);
        }
        MetadataRefusal::GroupExists(group) => {
            out.push(2);
            put_group(out, group);
        }
        MetadataRefusal::TopicNotFound(name) => {
            out.push(3);
            put_text(out, name.as_str());
        }
        MetadataRefusal::GroupNotFound(name) => {
            out.push(4);
            put_text(out, name.as_str());
        }
        MetadataRefusal::QueuesShrink { name, now, asked } => {
            out.push(5);
            put_text(out, name.as_str());
            out.extend(now.to_le_bytes());
            out.extend(asked.to_le_bytes());
        }
        MetadataRefusal::QueueCount { asked, max } => {
            out.push(6);
            out.extend(asked.to_le_bytes());
            out.extend(max.to_le_bytes());
        }
        MetadataRefusal::MaxAttempts { asked, max } => {
            out.push(7);
            out.extend(asked.to_le_bytes());
            out.extend(max.to_le_bytes());
        }
        MetadataRefusal::DerivedTopic(name) => {
            out.push(8);
            put_text(out, name.as_str());
        }
        MetadataRefusal::Backoff(invalid) => {
            out.push(9);
            put_invalid_backoff(out, invalid);
        }
        MetadataRefusal::NoStoreGroup => out.push(10),
        MetadataRefusal::StoreGroupNotFound(name) => {
            out.push(11);
            put_text(out, name.as_str());
        }
        MetadataRefusal::FolderOfOtherGroup { folder, group } => {
            out.push(12);
            out.extend(folder.0);
            put_text(out, group.as_str());
        }
        MetadataRefusal::OtherFolder { group, expected, found } => {
            out.push(13);
            put_text(out, group.as_str());
            out.extend(expected.0);
            out.extend(found.0);
        }
        MetadataRefusal::LastStoreGroup(name) => {
            out.push(14);
            put_text(out, name.as_str());
        }
        MetadataRefusal::StoreGroupActive(name) => {
            out.push(15);
            put_text(out, name.as_str());
        }
    }
}

pub(crate) fn read_refusal(reader: &mut Reader<'_>) -> Result<MetadataRefusal, CodecError> {
    Ok(match reader.u8()? {
        1 => MetadataRefusal::TopicExists(Arc::new(read_topic(reader)?)),
        2 => MetadataRefusal::GroupExists(Arc::new(read_group(reader)?)),
        3 => MetadataRefusal::TopicNotFound(read_topic_name(reader)?),
        4 => MetadataRefusal::GroupNotFound(read_group_name(reader)?),
        5 => MetadataRefusal::QueuesShrink { name: read_topic_name(reader)?, now: reader.u32()?, asked: reader.u32()? },
        6 => MetadataRefusal::QueueCount { asked: reader.u32()?, max: reader.u32()? },
        7 => MetadataRefusal::MaxAttempts { asked: reader.u32()?, max: reader.u32()? },
        8 => MetadataRefusal::DerivedTopic(read_topic_name(reader)?),
        9 => MetadataRefusal::Backoff(read_invalid_backoff(reader)?),
        10 => MetadataRefusal::NoStoreGroup,
        11 => MetadataRefusal::StoreGroupNotFound(read_store_group_name(reader)?),
        12 => MetadataRefusal::FolderOfOtherGroup {
            folder: FolderId(reader.array()?),
            group: read_store_group_name(reader)?,
        },
        13 => MetadataRefusal::OtherFolder {
            group: read_store_group_name(reader)?,
            expected: FolderId(reader.array()?),
            found: FolderId(reader.array()?),
        },
        14 => MetadataRefusal::LastStoreGroup(read_store_group_name(reader)?),
        15 => MetadataRefusal::StoreGroupActive(read_store_group_name(reader)?),
        _ => return Err(CodecError::Damaged("a refusal is of no known kind")),
    })
}

fn put_invalid_backoff(out: &mut Vec<u8>, invalid: &InvalidBackoff) {
    match invalid {
        InvalidBackoff::Empty => out.push(1),
        InvalidBackoff::TooMany(count) => {
            out.push(2);
            out.extend((*count as u64).to_le_bytes());
        }
        InvalidBackoff::Multiplier => out.push(3),
        InvalidBackoff::InitialAboveMax => out.push(4),
    }
}

fn read_invalid_backoff(reader: &mut Reader<'_>) -> Result<InvalidBackoff, CodecError> {
    Ok(match reader.u8()? {
        1 => InvalidBackoff::Empty,
        2 => InvalidBackoff::TooMany(usize::try_from(reader.u64()?).unwrap_or(usize::MAX)),
        3 => InvalidBackoff::Multiplier,
        4 => InvalidBackoff::InitialAboveMax,
        _ => return Err(CodecError::Damaged("a reason against a backoff policy is of no known kind")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MetadataState;
    use crate::testing::some_commands;
    use gantry_proto::model::Timestamp;
    use proptest::prelude::*;

    fn check(refusal: MetadataRefusal) -> Result<(), TestCaseError> {
        let mut bytes = Vec::new();
        put_refusal(&mut bytes, &refusal);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(read_refusal(&mut reader), Ok(refusal));
        prop_assert_eq!(reader.end(), Ok(()));
        Ok(())
    }

    #[test]
    fn reasons_against_backoff_policies_read_back() {
        let reasons = [
            InvalidBackoff::Empty,
            InvalidBackoff::TooMany(65),
            InvalidBackoff::Multiplier,
            InvalidBackoff::InitialAboveMax,
        ];
        for reason in reasons {
            check(MetadataRefusal::Backoff(reason)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn refusals_read_back_as_they_were_written(commands in some_commands(0..60)) {
            let mut state = MetadataState::default();
            for command in commands {
                if let Err(refusal) = state.apply(&command, Timestamp::from_millis(5)) {
                    check(refusal)?;
                }
            }
        }
    }
}
