//! Errors become client codes here, and nowhere else. Codes were chosen by what they make clients do:
//!
//! - `TOO_MANY_REQUESTS`: nothing happened; senders wait by their backoff policy, receivers 20 ms, then try again.
//! - `INVALID_RECEIPT_HANDLE`: the only code that stops a push consumer from repeating an acknowledgement for ever.
//! - `PROXY_TIMEOUT`: the call may have taken effect; it was repeated without success.
//! - `INTERNAL_SERVER_ERROR`: trying again soon will not help.

use gantry_proto::contract::{AppendError, HandleError, MetadataError, PopError, StoreError};
use gantry_proto::model::{InvalidFilter, InvalidName, MalformedMessage, MetadataRefusal};
use gantry_proto::wire::v2::{self, Code};
use std::borrow::Cow;

/// Why a call is not carried out, as the client is told.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    pub(crate) fn not_implemented(what: &str) -> Refusal {
        Refusal::new(Code::NotImplemented, format!("this server does not support {what} yet"))
    }

    pub(crate) fn topic_not_found(name: &str) -> Refusal {
        Refusal::new(Code::TopicNotFound, format!("topic {name} does not exist"))
    }

    pub(crate) fn group_not_found(name: &str) -> Refusal {
        Refusal::new(Code::ConsumerGroupNotFound, format!("consumer group {name} does not exist"))
    }

    pub(crate) fn illegal_topic(error: &InvalidName) -> Refusal {
        Refusal::new(Code::IllegalTopic, format!("topic: {error}"))
    }

    pub(crate) fn illegal_group(error: &InvalidName) -> Refusal {
        Refusal::new(Code::IllegalConsumerGroup, format!("consumer group: {error}"))
    }

    pub(crate) fn into_status(self) -> v2::Status {
        status(self.code, self.message)
    }
}

/// Success. Without a text, which nobody reads.
pub(crate) fn ok() -> v2::Status {
    v2::Status { code: Code::Ok as i32, message: String::new() }
}

pub(crate) fn status(code: Code, message: impl Into<String>) -> v2::Status {
    v2::Status { code: code as i32, message: message.into() }
}

/// What clients are told of an error. They are never told a store's address: which store it was is for the log.
fn told(error: &StoreError) -> Cow<'static, str> {
    match error {
        StoreError::NotLeader(_) => "the store does not lead its group now".into(),
        StoreError::Interrupted(_) => "the store was interrupted".into(),
        StoreError::Unreachable(_) => "the store does not answer".into(),
        error => error.to_string().into(),
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let code = match &error {
            StoreError::Busy(_) => Code::TooManyRequests,
            // Nothing happened, and a moment later another replica or the restarted store answers: clients shall back off
            // instead of retrying at once.
            StoreError::ShuttingDown | StoreError::NoLeader(_) | StoreError::NotLeader(_) => Code::TooManyRequests,
            StoreError::Interrupted(_) | StoreError::Unreachable(_) => Code::ProxyTimeout,
            StoreError::DiskFull(_) | StoreError::WritesStopped(_) | StoreError::Unreadable(_) => {
                Code::InternalServerError
            }
            StoreError::Unsupported(_) => Code::Unsupported,
        };
        Refusal::new(code, told(&error))
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        match error {
            // The topic was in the watched metadata a moment ago: either the store has not seen it yet, or it was just
            // deleted and the next attempt will find it gone.
            AppendError::UnknownQueue(_) | AppendError::Draining => {
                Refusal::new(Code::TooManyRequests, error.to_string())
            }
            AppendError::TooLarge { .. } => Refusal::new(Code::MessageBodyTooLarge, error.to_string()),
            AppendError::IdReused { .. } => Refusal::new(Code::IllegalMessageId, error.to_string()),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl From<PopError> for Refusal {
    fn from(error: PopError) -> Refusal {
        match error {
            // As for appends: the store lags behind the metadata that we saw.
            PopError::UnknownTopic(_) | PopError::UnknownGroup(_) => {
                Refusal::new(Code::TooManyRequests, error.to_string())
            }
            PopError::InflightFull { .. } | PopError::PollingFull { .. } => {
                Refusal::new(Code::TooManyRequests, error.to_string())
            }
            PopError::Store(error) => error.into(),
        }
    }
}

impl From<HandleError> for Refusal {
    fn from(error: HandleError) -> Refusal {
        match error {
            HandleError::Malformed | HandleError::Expired => {
                Refusal::new(Code::InvalidReceiptHandle, error.to_string())
            }
            HandleError::Store(error) => error.into(),
        }
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Refusal {
        match error {
            MetadataError::Refused(refusal) => metadata_refusal(&refusal),
            MetadataError::Unavailable(_) => Refusal::new(Code::InternalServerError, error.to_string()),
            MetadataError::Unknown(_) => Refusal::new(Code::ProxyTimeout, error.to_string()),
        }
    }
}

/// The controller refused a change that the proxy asked for on a client's behalf.
fn metadata_refusal(refusal: &MetadataRefusal) -> Refusal {
    let code = match refusal {
        MetadataRefusal::TopicNotFound(_) => Code::TopicNotFound,
        MetadataRefusal::GroupNotFound(_) => Code::ConsumerGroupNotFound,
        MetadataRefusal::DerivedTopic(_) => Code::IllegalTopic,
        MetadataRefusal::TopicExists(_)
        | MetadataRefusal::GroupExists(_)
        | MetadataRefusal::QueuesShrink { .. }
        | MetadataRefusal::QueueCount { .. }
        | MetadataRefusal::MaxAttempts { .. }
        | MetadataRefusal::Backoff(_)
        | MetadataRefusal::NoStoreGroup
        | MetadataRefusal::StoreGroupNotFound(_)
        | MetadataRefusal::FolderOfOtherGroup { .. }
        | MetadataRefusal::OlderFolder { .. }
        | MetadataRefusal::StoreGroupNotClosed(_)
        | MetadataRefusal::OtherFolder { .. }
        | MetadataRefusal::LastStoreGroup(_)
        | MetadataRefusal::StoreGroupActive(_)
        | MetadataRefusal::Rules { .. } => Code::InternalServerError,
    };
    Refusal::new(code, refusal.to_string())
}

impl From<InvalidFilter> for Refusal {
    fn from(error: InvalidFilter) -> Refusal {
        Refusal::new(Code::IllegalFilterExpression, error.to_string())
    }
}

impl From<MalformedMessage> for Refusal {
    fn from(error: MalformedMessage) -> Refusal {
        let code = match error {
            MalformedMessage::TooLarge(_) => Code::MessagePropertiesTooLarge,
            MalformedMessage::Newer { .. } | MalformedMessage::Damaged => Code::InternalServerError,
        };
        Refusal::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::model::TopicId;

    #[test]
    fn each_error_has_the_code_that_makes_clients_do_the_right_thing() {
        let busy = || StoreError::Busy(String::new());
        let cases: Vec<(Refusal, Code)> = vec![
            (busy().into(), Code::TooManyRequests),
            (StoreError::ShuttingDown.into(), Code::TooManyRequests),
            (StoreError::NoLeader(String::new()).into(), Code::TooManyRequests),
            (StoreError::NotLeader(String::new()).into(), Code::TooManyRequests),
            (StoreError::Interrupted(String::new()).into(), Code::ProxyTimeout),
            (StoreError::Unreachable(String::new()).into(), Code::ProxyTimeout),
            (AppendError::Draining.into(), Code::TooManyRequests),
            (StoreError::DiskFull(String::new()).into(), Code::InternalServerError),
            (StoreError::WritesStopped(String::new()).into(), Code::InternalServerError),
            (StoreError::Unreadable(String::new()).into(), Code::InternalServerError),
            (StoreError::Unsupported(String::new()).into(), Code::Unsupported),
            (AppendError::UnknownQueue(TopicId(1)).into(), Code::TooManyRequests),
            (AppendError::TooLarge { bytes: 2, max: 1 }.into(), Code::MessageBodyTooLarge),
            (AppendError::IdReused { message_id: String::new() }.into(), Code::IllegalMessageId),
            (AppendError::Store(busy()).into(), Code::TooManyRequests),
            (PopError::InflightFull { inflight: 1 }.into(), Code::TooManyRequests),
            (PopError::PollingFull { waiting: 1 }.into(), Code::TooManyRequests),
            (HandleError::Malformed.into(), Code::InvalidReceiptHandle),
            (HandleError::Expired.into(), Code::InvalidReceiptHandle),
            (HandleError::Store(busy()).into(), Code::TooManyRequests),
            (MetadataError::Unavailable(String::new()).into(), Code::InternalServerError),
            (MetadataError::Unknown(String::new()).into(), Code::ProxyTimeout),
            (MalformedMessage::TooLarge(1).into(), Code::MessagePropertiesTooLarge),
        ];
        for (refusal, code) in cases {
            assert_eq!(refusal.code, code, "{refusal:?}");
            assert!(!refusal.message.is_empty());
        }
    }
}
