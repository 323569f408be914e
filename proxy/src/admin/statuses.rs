//! Errors as gRPC statuses.

use gantry_proto::contract::{MetadataError, StoreError};
use gantry_proto::model::MetadataRefusal;
use tonic::Status;

pub(super) fn failed(error: MetadataError) -> Status {
    match error {
        MetadataError::Refused(refusal) => refused(&refusal),
        MetadataError::Unavailable(_) => Status::unavailable(error.to_string()),
        MetadataError::Unknown(_) => Status::unknown(error.to_string()),
    }
}

pub(super) fn refused(refusal: &MetadataRefusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        MetadataRefusal::TopicExists(_) | MetadataRefusal::GroupExists(_) => Status::already_exists(text),
        MetadataRefusal::TopicNotFound(_)
        | MetadataRefusal::GroupNotFound(_)
        | MetadataRefusal::StoreGroupNotFound(_) => Status::not_found(text),
        MetadataRefusal::QueuesShrink { .. }
        | MetadataRefusal::DerivedTopic(_)
        | MetadataRefusal::NoStoreGroup
        | MetadataRefusal::FolderOfOtherGroup { .. }
        | MetadataRefusal::OlderFolder { .. }
        | MetadataRefusal::StoreGroupNotClosed(_)
        | MetadataRefusal::OtherFolder { .. }
        | MetadataRefusal::LastStoreGroup(_)
        | MetadataRefusal::StoreGroupActive(_)
        | MetadataRefusal::Rules { .. } => Status::failed_precondition(text),
        MetadataRefusal::QueueCount { .. } | MetadataRefusal::MaxAttempts { .. } | MetadataRefusal::Backoff(_) => {
            Status::invalid_argument(text)
        }
    }
}

pub(super) fn store_failed(error: StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Busy(_)
        | StoreError::ShuttingDown
        | StoreError::NotLeader(_)
        | StoreError::Interrupted(_)
        | StoreError::Unreachable(_)
        | StoreError::NoLeader(_) => Status::unavailable(text),
        StoreError::DiskFull(_) | StoreError::WritesStopped(_) | StoreError::Unreadable(_) => Status::internal(text),
        StoreError::Unsupported(_) => Status::unimplemented(text),
    }
}

pub(super) fn unexpected_outcome() -> Status {
    Status::internal("the metadata service answered something else than was asked")
}
