//! Why a command changed nothing.

use super::{Malformed, Wire};
use crate::model::{Epoch, FolderId, GroupName, InvalidBackoff, MetadataRefusal, StoreGroupName, TopicName};
use crate::wire::controller::v1 as wire;
use wire::metadata_refusal::backoff::Reason as BackoffReason;
use wire::metadata_refusal::{
    Backoff, Bound, FolderOfOtherGroup, OlderFolder, OtherFolder, QueuesShrink, Reason, Rules,
};

impl Wire for MetadataRefusal {
    type Message = wire::MetadataRefusal;

    fn to_wire(&self) -> wire::MetadataRefusal {
        let reason = match self {
            MetadataRefusal::TopicExists(topic) => Reason::TopicExists(topic.to_wire()),
            MetadataRefusal::GroupExists(group) => Reason::GroupExists(group.to_wire()),
            MetadataRefusal::TopicNotFound(name) => Reason::TopicNotFound(name.to_wire()),
            MetadataRefusal::GroupNotFound(name) => Reason::GroupNotFound(name.to_wire()),
            MetadataRefusal::QueuesShrink { name, now, asked } => {
                Reason::QueuesShrink(QueuesShrink { name: name.to_wire(), now: *now, asked: *asked })
            }
            MetadataRefusal::QueueCount { asked, max } => Reason::QueueCount(Bound { asked: *asked, max: *max }),
            MetadataRefusal::MaxAttempts { asked, max } => Reason::MaxAttempts(Bound { asked: *asked, max: *max }),
            MetadataRefusal::DerivedTopic(name) => Reason::DerivedTopic(name.to_wire()),
            MetadataRefusal::Backoff(invalid) => Reason::Backoff(invalid.to_wire()),
            MetadataRefusal::NoStoreGroup => Reason::NoStoreGroup(wire::Nothing {}),
            MetadataRefusal::StoreGroupNotFound(name) => Reason::StoreGroupNotFound(name.to_wire()),
            MetadataRefusal::FolderOfOtherGroup { folder, store_group: group } => {
                Reason::FolderOfOtherGroup(FolderOfOtherGroup { folder: folder.to_wire(), group: group.to_wire() })
            }
            MetadataRefusal::OtherFolder { store_group: group, expected, found } => Reason::OtherFolder(OtherFolder {
                group: group.to_wire(),
                expected: expected.to_wire(),
                found: found.to_wire(),
            }),
            MetadataRefusal::OlderFolder { store_group: group, folder, led, found } => {
                Reason::OlderFolder(OlderFolder {
                    group: group.to_wire(),
                    folder: folder.to_wire(),
                    led: led.0,
                    found: found.0,
                })
            }
            MetadataRefusal::LastStoreGroup(name) => Reason::LastStoreGroup(name.to_wire()),
            MetadataRefusal::StoreGroupNotClosed(name) => Reason::StoreGroupNotClosed(name.to_wire()),
            MetadataRefusal::StoreGroupActive(name) => Reason::StoreGroupActive(name.to_wire()),
            MetadataRefusal::Rules { now, asked } => Reason::Rules(Rules { now: *now, asked: *asked }),
        };
        wire::MetadataRefusal { reason: Some(reason) }
    }

    fn from_wire(message: wire::MetadataRefusal) -> Result<MetadataRefusal, Malformed> {
        Ok(match message.reason.ok_or(Malformed("refusal of a metadata command"))? {
            Reason::TopicExists(topic) => MetadataRefusal::TopicExists(Wire::from_wire(topic)?),
            Reason::GroupExists(group) => MetadataRefusal::GroupExists(Wire::from_wire(group)?),
            Reason::TopicNotFound(name) => MetadataRefusal::TopicNotFound(TopicName::from_wire(name)?),
            Reason::GroupNotFound(name) => MetadataRefusal::GroupNotFound(GroupName::from_wire(name)?),
            Reason::QueuesShrink(shrink) => MetadataRefusal::QueuesShrink {
                name: TopicName::from_wire(shrink.name)?,
                now: shrink.now,
                asked: shrink.asked,
            },
            Reason::QueueCount(Bound { asked, max }) => MetadataRefusal::QueueCount { asked, max },
            Reason::MaxAttempts(Bound { asked, max }) => MetadataRefusal::MaxAttempts { asked, max },
            Reason::DerivedTopic(name) => MetadataRefusal::DerivedTopic(TopicName::from_wire(name)?),
            Reason::Backoff(invalid) => MetadataRefusal::Backoff(InvalidBackoff::from_wire(invalid)?),
            Reason::NoStoreGroup(_) => MetadataRefusal::NoStoreGroup,
            Reason::StoreGroupNotFound(name) => MetadataRefusal::StoreGroupNotFound(StoreGroupName::from_wire(name)?),
            Reason::FolderOfOtherGroup(other) => MetadataRefusal::FolderOfOtherGroup {
                folder: FolderId::from_wire(other.folder)?,
                store_group: StoreGroupName::from_wire(other.group)?,
            },
            Reason::OtherFolder(other) => MetadataRefusal::OtherFolder {
                store_group: StoreGroupName::from_wire(other.group)?,
                expected: FolderId::from_wire(other.expected)?,
                found: FolderId::from_wire(other.found)?,
            },
            Reason::OlderFolder(older) => MetadataRefusal::OlderFolder {
                store_group: StoreGroupName::from_wire(older.group)?,
                folder: FolderId::from_wire(older.folder)?,
                led: Epoch(older.led),
                found: Epoch(older.found),
            },
            Reason::LastStoreGroup(name) => MetadataRefusal::LastStoreGroup(StoreGroupName::from_wire(name)?),
            Reason::StoreGroupNotClosed(name) => MetadataRefusal::StoreGroupNotClosed(StoreGroupName::from_wire(name)?),
            Reason::StoreGroupActive(name) => MetadataRefusal::StoreGroupActive(StoreGroupName::from_wire(name)?),
            Reason::Rules(Rules { now, asked }) => MetadataRefusal::Rules { now, asked },
        })
    }
}

impl Wire for InvalidBackoff {
    type Message = Backoff;

    fn to_wire(&self) -> Backoff {
        let reason = match self {
            InvalidBackoff::Empty => BackoffReason::Empty(wire::Nothing {}),
            InvalidBackoff::TooMany(count) => BackoffReason::TooMany(*count as u64),
            InvalidBackoff::Multiplier => BackoffReason::Multiplier(wire::Nothing {}),
            InvalidBackoff::InitialAboveMax => BackoffReason::InitialAboveMax(wire::Nothing {}),
        };
        Backoff { reason: Some(reason) }
    }

    fn from_wire(message: Backoff) -> Result<InvalidBackoff, Malformed> {
        Ok(match message.reason.ok_or(Malformed("refusal of a backoff policy"))? {
            BackoffReason::Empty(_) => InvalidBackoff::Empty,
            BackoffReason::TooMany(count) => InvalidBackoff::TooMany(count as usize),
            BackoffReason::Multiplier(_) => InvalidBackoff::Multiplier,
            BackoffReason::InitialAboveMax(_) => InvalidBackoff::InitialAboveMax,
        })
    }
}
