//! The status at the top of every reply, for all reply types alike.

use gantry_proto::wire::v2;

/// A reply of the protocol: each has a status at its top.
pub(super) trait Reply: prost::Message + 'static {
    /// A reply with nothing but a status.
    fn of_status(status: v2::Status) -> Self;

    fn code(&self) -> i32;
}

macro_rules! replies {
    ($($reply:ident),* $(,)?) => {$(
        impl Reply for v2::$reply {
            fn of_status(status: v2::Status) -> Self {
                v2::$reply { status: Some(status), ..Default::default() }
            }

            fn code(&self) -> i32 {
                self.status.as_ref().map(|status| status.code).unwrap_or_default()
            }
        }
    )*};
}

// `Default` fills what other answers have besides their status.
#[allow(clippy::needless_update)]
mod with_status_field {
    use super::{Reply, v2};

    replies! {
        QueryRouteResponse,
        HeartbeatResponse,
        SendMessageResponse,
        QueryAssignmentResponse,
        AckMessageResponse,
        ForwardMessageToDeadLetterQueueResponse,
        UpdateOffsetResponse,
        GetOffsetResponse,
        QueryOffsetResponse,
        EndTransactionResponse,
        NotifyClientTerminationResponse,
        ChangeInvisibleDurationResponse,
        RecallMessageResponse,
        SyncLiteSubscriptionResponse,
    }
}

/// A stream with one element is answered like a unary call.
impl Reply for v2::PullMessageResponse {
    fn of_status(status: v2::Status) -> Self {
        v2::PullMessageResponse { content: Some(v2::pull_message_response::Content::Status(status)) }
    }

    fn code(&self) -> i32 {
        match &self.content {
            Some(v2::pull_message_response::Content::Status(status)) => status.code,
            _ => v2::Code::Ok as i32,
        }
    }
}
