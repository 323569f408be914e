//! ChangeInvisibleDuration: a message becomes visible again at another time. With zero, at once: so a consumer asks for
//! its redelivery.

use super::Messaging;
use super::ack_message::{DeliveryPlace, delivery_place, place_is_gone};
use super::call::{RequestContext, UnaryRpc};
use super::receive_message::{invisible_too_large, invisible_too_small};
use crate::metrics::Rpc;
use crate::stores::Deadline;
use crate::translate::{self, Refusal};
use gantry_proto::model::{ReceiptHandle, limits};
use gantry_proto::wire::v2::{ChangeInvisibleDurationRequest, ChangeInvisibleDurationResponse};
use std::time::Duration;

pub(super) struct ChangeInvisibleDuration;

impl UnaryRpc for ChangeInvisibleDuration {
    const RPC: Rpc = Rpc::ChangeInvisibleDuration;
    type Request = ChangeInvisibleDurationRequest;
    type Reply = ChangeInvisibleDurationResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        mut request: ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, Refusal> {
        let old = std::mem::take(&mut request.receipt_handle);
        // Clients replace their handle by the reply's before they look at its status: a refusal returns the old handle.
        let handle = ReceiptHandle(old.clone());
        if let Some(session) = messaging.sessions.touch(context) {
            // Whatever becomes of the call: the consumer says for how long it wants to have the message.
            session.are_over([&handle]);
        }
        Ok(match change(messaging, request, handle, context.deadline()).await {
            Ok(new) => ChangeInvisibleDurationResponse { status: Some(translate::ok()), receipt_handle: new.0 },
            Err(refusal) => {
                ChangeInvisibleDurationResponse { status: Some(refusal.into_status()), receipt_handle: old }
            }
        })
    }
}

async fn change(
    messaging: &Messaging,
    request: ChangeInvisibleDurationRequest,
    handle: ReceiptHandle,
    deadline: Deadline,
) -> Result<ReceiptHandle, Refusal> {
    let place = delivery_place(messaging, request.topic.as_ref(), request.group.as_ref())?;
    let invisible = translate::duration(&request.invisible_duration.unwrap_or_default())
        .ok_or_else(|| invisible_too_small(Duration::ZERO))?;
    if invisible > limits::INVISIBLE_DURATION_MAX {
        return Err(invisible_too_large());
    }
    let DeliveryPlace { topic, group } = place.ok_or_else(place_is_gone)?;
    let suspend = request.suspend.unwrap_or(false);
    let stores = &messaging.stores;
    Ok(stores.change_invisible(group.id, topic.id, &handle, (invisible, suspend), deadline).await?)
}
