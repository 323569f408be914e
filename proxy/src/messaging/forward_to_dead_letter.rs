//! ForwardMessageToDeadLetterQueue: a consumer gives a message up.
//!
//! If its delivery is over there is nothing left to give up: the server delivers the message again or has buried it, or it
//! was acknowledged. That is success: Java and Python repeat the call until they hear it.

use super::Messaging;
use super::ack_message::{DeliveryPlace, delivery_place, place_is_gone};
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::contract::HandleError;
use gantry_proto::model::ReceiptHandle;
use gantry_proto::wire::v2::{ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse};

pub(super) struct ForwardMessageToDeadLetterQueue;

impl UnaryRpc for ForwardMessageToDeadLetterQueue {
    const RPC: Rpc = Rpc::ForwardMessageToDeadLetterQueue;
    type Request = ForwardMessageToDeadLetterQueueRequest;
    type Reply = ForwardMessageToDeadLetterQueueResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, Refusal> {
        let DeliveryPlace { topic, group } =
            delivery_place(messaging, request.topic.as_ref(), request.group.as_ref())?.ok_or_else(place_is_gone)?;
        let handle = ReceiptHandle(request.receipt_handle);
        let session = messaging.sessions.touch(context);
        match messaging.stores.forward_to_dead_letter(group.id, topic.id, &handle, context.deadline()).await {
            Ok(()) | Err(HandleError::Expired) => {
                if let Some(session) = session {
                    session.are_over([&handle]);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(ForwardMessageToDeadLetterQueueResponse { status: Some(translate::ok()) })
    }
}
