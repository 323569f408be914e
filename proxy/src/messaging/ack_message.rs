//! AckMessage: deliveries are finished. One result per handle.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use super::request::{self, RequestLimits};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal, resource_name};
use gantry_proto::contract::HandleError;
use gantry_proto::model::{ConsumerGroup, ReceiptHandle, Topic};
use gantry_proto::wire::v2::{
    AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, Code, Resource, Status,
};
use std::sync::Arc;

pub(super) struct AckMessage;

impl UnaryRpc for AckMessage {
    const RPC: Rpc = Rpc::AckMessage;
    const LIMITS: RequestLimits = request::ACK_MESSAGE;
    type Request = AckMessageRequest;
    type Reply = AckMessageResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: AckMessageRequest,
    ) -> Result<AckMessageResponse, Refusal> {
        let place = delivery_place(messaging, request.topic.as_ref(), request.group.as_ref())?;
        if request.entries.is_empty() {
            return Err(Refusal::new(Code::BadRequest, "the acknowledgement names no message"));
        }
        // A client that acknowledges is alive, too.
        let session = messaging.sessions.touch(context).filter(|session| session.renews());
        let statuses = match place {
            Some(DeliveryPlace { topic, group }) => {
                let handles: Vec<&str> = request.entries.iter().map(|entry| entry.receipt_handle.as_str()).collect();
                let results = messaging.stores.ack(group.id, topic.id, &handles, context.deadline()).await;
                if let Some(session) = session {
                    let over: Vec<ReceiptHandle> = (handles.iter().zip(&results))
                        .filter(|(_, result)| !matches!(result, Err(HandleError::Store(_))))
                        .map(|(handle, _)| ReceiptHandle((*handle).to_owned()))
                        .collect();
                    session.are_over(&over);
                }
                results
                    .into_iter()
                    .map(|result| result.map_or_else(|e| Refusal::from(e).into_status(), |()| translate::ok()))
                    .collect()
            }
            None => vec![place_is_gone().into_status(); request.entries.len()],
        };
        Ok(reply(request.entries, statuses))
    }
}

/// The topic and the consumer group of a delivery.
pub(super) struct DeliveryPlace {
    pub(super) topic: Arc<Topic>,
    pub(super) group: Arc<ConsumerGroup>,
}

/// Where a delivery was made. `None`: the topic or the group is gone, and with it the delivery.
pub(super) fn delivery_place(
    messaging: &Messaging,
    topic: Option<&Resource>,
    group: Option<&Resource>,
) -> Result<Option<DeliveryPlace>, Refusal> {
    let topic = messaging.directory.topic(resource_name(topic)).map_err(|error| Refusal::illegal_topic(&error))?;
    let group = messaging.directory.group(resource_name(group)).map_err(|error| Refusal::illegal_group(&error))?;
    Ok(topic.zip(group).map(|(topic, group)| DeliveryPlace { topic, group }))
}

/// The delivery is gone for good. This code is the only one that stops a consumer from asking again.
pub(super) fn place_is_gone() -> Refusal {
    Refusal::new(Code::InvalidReceiptHandle, "the topic or the consumer group of this delivery does not exist")
}

/// One result per entry, in order. The status at the top is the one that all entries share; if they were refused, with the
/// code's name as its text, as the reference server says it. Why they were is in the entries.
fn reply(entries: Vec<AckMessageEntry>, statuses: Vec<Status>) -> AckMessageResponse {
    let results: Vec<AckMessageResultEntry> = (entries.into_iter().zip(statuses))
        .map(|(entry, status)| AckMessageResultEntry {
            message_id: entry.message_id,
            receipt_handle: entry.receipt_handle,
            status: Some(status),
        })
        .collect();
    let first = results.first().and_then(|result| result.status.clone()).unwrap_or_else(translate::ok);
    let all_alike = results.iter().all(|result| result.status.as_ref().is_some_and(|status| status.code == first.code));
    let top = if all_alike {
        match first.code() {
            Code::Ok => first,
            refused => translate::status(refused, refused.as_str_name()),
        }
    } else {
        translate::status(Code::MultipleResults, "some entries differ: see the status of each")
    };
    AckMessageResponse { status: Some(top), entries: results }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_status_is_what_the_entries_share() {
        let entry = |id: &str| AckMessageEntry { message_id: id.to_owned(), ..AckMessageEntry::default() };
        let gone = || place_is_gone().into_status();
        for (statuses, top) in [
            (vec![translate::ok(), translate::ok()], Code::Ok),
            (vec![gone(), gone()], Code::InvalidReceiptHandle),
            (vec![translate::ok(), gone()], Code::MultipleResults),
        ] {
            let reply = reply(vec![entry("a"), entry("b")], statuses.clone());
            let told = reply.status.unwrap();
            assert_eq!(told.code(), top);
            if top == Code::InvalidReceiptHandle {
                assert_eq!(told.message, "INVALID_RECEIPT_HANDLE");
            }
            let ids: Vec<_> = reply.entries.iter().map(|entry| entry.message_id.as_str()).collect();
            assert_eq!(ids, ["a", "b"]);
            let told: Vec<_> = reply.entries.into_iter().filter_map(|entry| entry.status).collect();
            assert_eq!(told, statuses);
        }
    }
}
