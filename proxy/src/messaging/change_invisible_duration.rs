//! ChangeInvisibleDuration: a message becomes visible again at another time. With zero, at once: so a consumer asks for
//! its redelivery.

use super::Messaging;
use super::ack_message::{DeliveryPlace, delivery_place, place_is_gone};
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::stores::Deadline;
use crate::translate::{self, Refusal};
use gantry_proto::model::{ReceiptHandle, limits};
use gantry_proto::wire::v2::{ChangeInvisibleDurationRequest, ChangeInvisibleDurationResponse, Code};

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
        Ok(match change(messaging, request, ReceiptHandle(old.clone()), context.deadline()).await {
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
        .filter(|invisible| *invisible <= limits::INVISIBLE_DURATION_MAX)
        .ok_or_else(|| {
            let max = limits::INVISIBLE_DURATION_MAX.as_secs();
            Refusal::new(Code::IllegalInvisibleTime, format!("the invisible duration must be 0 to {max} s"))
        })?;
    let DeliveryPlace { topic, group } = place.ok_or_else(place_is_gone)?;
    let suspend = request.suspend.unwrap_or(false);
    let stores = &messaging.stores;
    Ok(stores.change_invisible(group.id, topic.id, &handle, (invisible, suspend), deadline).await?)
}
