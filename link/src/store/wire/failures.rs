use gantry_proto::contract::{AppendError, HandleError, PopError, StoreError};
use gantry_proto::model::{GroupId, TopicId};
use gantry_proto::wire::store::v1 as wire;
use wire::failure::Kind;

/// An error of a store call, as a protocol message and back.
pub(crate) trait AsFailure: Into<WireFailure> {
    fn from_failure(failure: wire::Failure) -> Self;
}

/// A failure as it travels.
pub(crate) struct WireFailure(pub(crate) wire::Failure);

impl WireFailure {
    fn new(kind: Kind) -> WireFailure {
        let nothing_happened = !matches!(kind, Kind::Unreadable | Kind::Interrupted | Kind::Unreachable);
        WireFailure(wire::Failure { kind: kind.into(), nothing_happened, ..wire::Failure::default() })
    }

    fn text(kind: Kind, text: String) -> WireFailure {
        WireFailure(wire::Failure { text, ..WireFailure::new(kind).0 })
    }

    fn number(kind: Kind, number: u64) -> WireFailure {
        WireFailure(wire::Failure { number, ..WireFailure::new(kind).0 })
    }
}

impl From<StoreError> for WireFailure {
    fn from(error: StoreError) -> WireFailure {
        match error {
            StoreError::Busy(text) => WireFailure::text(Kind::Busy, text),
            StoreError::DiskFull(text) => WireFailure::text(Kind::DiskFull, text),
            StoreError::WritesStopped(text) => WireFailure::text(Kind::WritesStopped, text),
            StoreError::Unreadable(text) => WireFailure::text(Kind::Unreadable, text),
            StoreError::ShuttingDown => WireFailure::new(Kind::ShuttingDown),
            StoreError::NotLeader(text) => WireFailure::text(Kind::NotLeader, text),
            StoreError::Interrupted(text) => WireFailure::text(Kind::Interrupted, text),
            StoreError::Unreachable(text) => WireFailure::text(Kind::Unreachable, text),
            StoreError::NoLeader(text) => WireFailure::text(Kind::NoLeader, text),
            StoreError::Unsupported(text) => WireFailure::text(Kind::Unsupported, text),
        }
    }
}

impl AsFailure for StoreError {
    fn from_failure(failure: wire::Failure) -> StoreError {
        let kind = failure.kind();
        match kind {
            Kind::Busy => StoreError::Busy(failure.text),
            Kind::DiskFull => StoreError::DiskFull(failure.text),
            Kind::WritesStopped => StoreError::WritesStopped(failure.text),
            Kind::Unreadable => StoreError::Unreadable(failure.text),
            Kind::ShuttingDown => StoreError::ShuttingDown,
            Kind::NotLeader => StoreError::NotLeader(failure.text),
            Kind::Interrupted => StoreError::Interrupted(failure.text),
            Kind::Unreachable => StoreError::Unreachable(failure.text),
            Kind::NoLeader => StoreError::NoLeader(failure.text),
            Kind::Unsupported => StoreError::Unsupported(failure.text),
            // Of a newer version, or of another call.
            _ => {
                let why = format!("it failed in a way that is not known here: kind {}, {}", failure.kind, failure.text);
                match failure.nothing_happened {
                    true => StoreError::Unsupported(why),
                    false => StoreError::Unreachable(why),
                }
            }
        }
    }
}

impl From<AppendError> for WireFailure {
    fn from(error: AppendError) -> WireFailure {
        match error {
            AppendError::UnknownQueue(topic) => WireFailure::number(Kind::UnknownQueue, topic.0.into()),
            AppendError::Draining => WireFailure::new(Kind::Draining),
            AppendError::TooLarge { bytes, max } => {
                let (number, bound) = (bytes as u64, max as u64);
                WireFailure(wire::Failure { number, bound, ..WireFailure::new(Kind::TooLarge).0 })
            }
            AppendError::IdReused { message_id } => WireFailure::text(Kind::IdReused, message_id),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl AsFailure for AppendError {
    fn from_failure(failure: wire::Failure) -> AppendError {
        match failure.kind() {
            Kind::UnknownQueue => AppendError::UnknownQueue(TopicId(failure.number as u32)),
            Kind::Draining => AppendError::Draining,
            Kind::TooLarge => AppendError::TooLarge { bytes: failure.number as usize, max: failure.bound as usize },
            Kind::IdReused => AppendError::IdReused { message_id: failure.text },
            _ => AppendError::Store(StoreError::from_failure(failure)),
        }
    }
}

impl From<PopError> for WireFailure {
    fn from(error: PopError) -> WireFailure {
        match error {
            PopError::UnknownTopic(topic) => WireFailure::number(Kind::UnknownTopic, topic.0.into()),
            PopError::UnknownGroup(group) => WireFailure::number(Kind::UnknownGroup, group.0.into()),
            PopError::InflightFull { inflight } => WireFailure::number(Kind::InflightFull, inflight as u64),
            PopError::PollingFull { waiting } => WireFailure::number(Kind::PollingFull, waiting as u64),
            PopError::Store(error) => error.into(),
        }
    }
}

impl AsFailure for PopError {
    fn from_failure(failure: wire::Failure) -> PopError {
        match failure.kind() {
            Kind::UnknownTopic => PopError::UnknownTopic(TopicId(failure.number as u32)),
            Kind::UnknownGroup => PopError::UnknownGroup(GroupId(failure.number as u32)),
            Kind::InflightFull => PopError::InflightFull { inflight: failure.number as usize },
            Kind::PollingFull => PopError::PollingFull { waiting: failure.number as usize },
            _ => PopError::Store(StoreError::from_failure(failure)),
        }
    }
}

impl From<HandleError> for WireFailure {
    fn from(error: HandleError) -> WireFailure {
        match error {
            HandleError::Malformed => WireFailure::new(Kind::MalformedHandle),
            HandleError::Expired => WireFailure::new(Kind::ExpiredHandle),
            HandleError::Store(error) => error.into(),
        }
    }
}

impl AsFailure for HandleError {
    fn from_failure(failure: wire::Failure) -> HandleError {
        match failure.kind() {
            Kind::MalformedHandle => HandleError::Malformed,
            Kind::ExpiredHandle => HandleError::Expired,
            _ => HandleError::Store(StoreError::from_failure(failure)),
        }
    }
}
