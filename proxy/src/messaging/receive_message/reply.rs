//! The reply to a receive: a stream, and how its items become bytes. Deliveries are written from the stored bytes.

use crate::connection::ConnectionInfo;
use crate::messaging::Messaging;
use crate::metrics::DeliveryMeters;
use crate::session::RenewedAnswer;
use crate::translate::{DeliveryFrame, DeliveryShape, Refusal, ok, timestamp_to_wire};
use futures_util::Stream;
use gantry_proto::contract::PoppedMessage;
use gantry_proto::model::{ConsumerGroup, GroupId, Timestamp, Topic, TopicId};
use gantry_proto::wire::v2::receive_message_response::Content;
use gantry_proto::wire::v2::{Code, ReceiveMessageResponse, Resource, Status};
use prost::Message as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codec::{BufferSettings, EncodeBuf, Encoder};

/// A status, then messages, then the time. The status is always there; the time is, too, unless the call came without a
/// client id. The stream never waits: all its items are there when it begins.
pub(super) struct ReceiveReply {
    status: Option<Status>,
    deliveries: Option<Deliveries>,
    ends_with: Option<End>,
    code: i32,
}

enum End {
    At(Timestamp),
    /// The time when all messages were written.
    Now(Arc<Messaging>),
}

/// Messages on their way to a consumer. Dropping it hands those that were not sent back to their store.
pub(super) struct Deliveries {
    messaging: Arc<Messaging>,
    meters: Arc<DeliveryMeters>,
    group: GroupId,
    topic: TopicId,
    /// Where it is noted what the transport takes, if the leases are renewed for the client once it is known to have it.
    renewed: Option<RenewedAnswer>,
    shape: DeliveryShape,
    unsent: std::vec::IntoIter<PoppedMessage>,
}

pub(super) enum ReceiveItem {
    Status(Status),
    Delivery(DeliveryFrame),
    Time(Timestamp),
}

impl ReceiveReply {
    /// `now` is `None` for a call without a client id.
    pub(super) fn refused(refusal: Refusal, now: Option<Timestamp>) -> ReceiveReply {
        tracing::debug!(rpc = "ReceiveMessage", code = ?refusal.code, reason = %refusal.message, "refused");
        ReceiveReply::only(refusal.into_status(), now)
    }

    /// The wait is over and there was no message.
    pub(super) fn nothing(now: Timestamp) -> ReceiveReply {
        let status = Status { code: Code::MessageNotFound as i32, message: "no message at present".to_owned() };
        ReceiveReply::only(status, Some(now))
    }

    /// With messages; like [`ReceiveReply::nothing`] if there are none.
    pub(super) fn of(deliveries: Deliveries) -> ReceiveReply {
        if deliveries.unsent.len() == 0 {
            return ReceiveReply::nothing(deliveries.messaging.clock.now());
        }
        let ends_with = Some(End::Now(deliveries.messaging.clone()));
        ReceiveReply { status: Some(ok()), deliveries: Some(deliveries), ends_with, code: Code::Ok as i32 }
    }

    pub(super) fn code(&self) -> i32 {
        self.code
    }

    /// Bytes of the messages that are not sent.
    pub(super) fn bytes(&self) -> usize {
        let messages = self.deliveries.iter().flat_map(|deliveries| deliveries.unsent.as_slice());
        messages.map(|popped| popped.message.body.len()).sum()
    }

    fn only(status: Status, now: Option<Timestamp>) -> ReceiveReply {
        let code = status.code;
        ReceiveReply { status: Some(status), deliveries: None, ends_with: now.map(End::At), code }
    }

    fn next(&mut self) -> Option<ReceiveItem> {
        if let Some(status) = self.status.take() {
            return Some(ReceiveItem::Status(status));
        }
        if let Some(frame) = self.deliveries.as_mut().and_then(Deliveries::next) {
            return Some(ReceiveItem::Delivery(frame));
        }
        if let Some(answer) = self.deliveries.take().and_then(|mut deliveries| deliveries.renewed.take()) {
            answer.complete();
        }
        let now = match self.ends_with.take()? {
            End::At(time) => time,
            End::Now(messaging) => messaging.clock.now(),
        };
        Some(ReceiveItem::Time(now))
    }
}

impl Stream for ReceiveReply {
    type Item = Result<ReceiveItem, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.next().map(Ok))
    }
}

impl Deliveries {
    pub(super) fn new(
        messaging: Arc<Messaging>,
        topic: &Topic,
        group: &ConsumerGroup,
        named: &Resource,
        connection: &ConnectionInfo,
        renewed: Option<RenewedAnswer>,
        messages: Vec<PoppedMessage>,
    ) -> Deliveries {
        let meters =
            messaging.metrics.delivery_meters((topic.id, topic.name.as_str()), (group.id, group.name.as_str()));
        Deliveries {
            messaging,
            meters,
            group: group.id,
            topic: topic.id,
            renewed,
            shape: DeliveryShape::new(named, &connection.local_text),
            unsent: messages.into_iter(),
        }
    }

    fn next(&mut self) -> Option<DeliveryFrame> {
        for popped in self.unsent.by_ref() {
            let (queue, offset, body_bytes) = (popped.queue, popped.queue_offset, popped.message.body.len());
            let renewed = self.renewed.as_ref().map(|answer| (answer, popped.handle.clone()));
            match self.shape.frame(popped) {
                Ok(frame) => {
                    self.meters.delivered(body_bytes);
                    if let Some((answer, handle)) = renewed {
                        answer.handed_over(handle);
                    }
                    return Some(frame);
                }
                // Its delivery attempts run out, and it ends in the dead-letter topic, where an operator can find it.
                Err(error) => {
                    tracing::error!(topic = %self.topic, %queue, %offset, %error, "a stored message cannot be delivered");
                }
            }
        }
        None
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let handles = self.unsent.by_ref().map(|popped| popped.handle).collect();
        self.messaging.handback.unsent(self.group, self.topic, handles);
    }
}

/// Encodes replies from stored bytes.
pub(super) struct ReceiveEncoder;

impl Encoder for ReceiveEncoder {
    type Item = ReceiveItem;
    type Error = tonic::Status;

    fn encode(&mut self, item: ReceiveItem, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        let content = match item {
            ReceiveItem::Delivery(frame) => {
                buffer.reserve(frame.len());
                frame.encode(buffer);
                return Ok(());
            }
            ReceiveItem::Status(status) => Content::Status(status),
            ReceiveItem::Time(time) => Content::DeliveryTimestamp(timestamp_to_wire(time)),
        };
        ReceiveMessageResponse { content: Some(content) }
            .encode(buffer)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Messages are put together up to 32 KiB. While the client reads slowly, the others stay unsent.
        BufferSettings::new(1 << 10, 32 << 10)
    }
}
