//! SendMessage: the messages of a request are checked, admitted and appended together to one queue. One result per message.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use super::request::{self, RequestLimits};
use crate::metrics::Rpc;
use crate::stores::{SendBatch, stable_hash};
use crate::translate::{self, ProducedMessage, Refusal, resource_name};
use gantry_proto::wire::v2::{Code, Message, SendMessageRequest, SendMessageResponse, SendResultEntry};

pub(super) struct SendMessage;

impl UnaryRpc for SendMessage {
    const RPC: Rpc = Rpc::SendMessage;
    const LIMITS: RequestLimits = request::SEND_MESSAGE;
    type Request = SendMessageRequest;
    type Reply = SendMessageResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Refusal> {
        let messages = request.messages;
        let first =
            messages.first().ok_or_else(|| Refusal::new(Code::MessageCorrupted, "the request has no message"))?;
        let name = resource_name(first.topic.as_ref());
        let found = messaging.directory.topic(name).map_err(|error| Refusal::illegal_topic(&error))?;
        let now = messaging.clock.now();
        translate::check_messages(&messages, now, messaging.config.delivery_delay_max)?;
        let topic = found.ok_or_else(|| Refusal::topic_not_found(name))?;
        for message in &messages {
            translate::check_type(&topic, message)?;
        }

        let message_group_hash = common_message_group(&messages).map(stable_hash);
        let mut stored = Vec::with_capacity(messages.len());
        let mut entries = Vec::with_capacity(messages.len());
        let mut sizes = smallvec::SmallVec::<[usize; 1]>::new();
        for message in messages {
            let produced = ProducedMessage::from_wire(message, &context.connection.remote, now)?;
            sizes.push(produced.stored.body.len());
            stored.push(produced.stored);
            entries.push(SendResultEntry { message_id: produced.message_id, ..SendResultEntry::default() });
        }
        let meters = messaging.metrics.send_meters(topic.id, topic.name.as_str());
        let id_hash = entries.first().map_or(0, |entry: &SendResultEntry| stable_hash(&entry.message_id));
        let batch = SendBatch { topic, message_group_hash, id_hash, messages: stored, deadline: context.deadline() };
        let reply = messaging.stores.append(batch).await?;
        meters.sent(sizes);
        for (entry, appended) in entries.iter_mut().zip(&reply.appended) {
            entry.status = Some(translate::ok());
            entry.offset = appended.queue_offset.0 as i64;
        }
        Ok(SendMessageResponse { status: Some(translate::ok()), entries })
    }
}

/// The message group that all messages share. They go to one queue together, so only a group that all of them have can
/// choose it.
fn common_message_group(messages: &[Message]) -> Option<&str> {
    let mut groups = messages.iter().map(|message| message.system_properties.as_ref()?.message_group.as_deref());
    let first = groups.next()??;
    (!first.is_empty() && groups.all(|group| group == Some(first))).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::wire::v2::SystemProperties;

    fn message(change: impl FnOnce(&mut SystemProperties)) -> Message {
        let mut properties = SystemProperties::default();
        change(&mut properties);
        Message { system_properties: Some(properties), ..Message::default() }
    }

    fn grouped(group: &str) -> Message {
        message(|properties| properties.message_group = Some(group.to_owned()))
    }

    #[test]
    fn only_a_group_that_all_messages_share_chooses_the_queue() {
        assert_eq!(common_message_group(&[grouped("a"), grouped("a")]), Some("a"));
        assert_eq!(common_message_group(&[grouped("a"), grouped("b")]), None);
        assert_eq!(common_message_group(&[grouped("a"), message(|_| {})]), None);
        assert_eq!(common_message_group(&[grouped("")]), None);
        assert_eq!(common_message_group(&[]), None);
    }
}
