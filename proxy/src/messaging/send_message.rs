//! A producer's messages go to the store: validate → admit → choose the queue → append → answer, one entry per message.

mod validation;

use super::Messaging;
use super::unary::Unary;
use crate::context::RequestContext;
use crate::metrics::Rpc;
use crate::stores::{Sending, stable_hash};
use crate::translate::{self, ProducedMessage, Refusal, resource_name};
use gantry_proto::model::{MessageType, Topic};
use gantry_proto::wire::v2::{self, Code, Message, SendMessageRequest, SendMessageResponse, SendResultEntry};

pub(super) struct SendMessage;

impl Unary for SendMessage {
    const RPC: Rpc = Rpc::SendMessage;
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
        validation::check(&messages, now, messaging.config.delivery_delay_max)?;
        let topic = found.ok_or_else(|| Refusal::topic_not_found(name))?;
        for message in &messages {
            check_type(&topic, message)?;
        }
        let bytes = messages.iter().map(|message| message.body.len()).sum();
        let _permit = messaging.inflight.admit(bytes)?;

        let paths = messaging.stores.paths(&topic);
        let lane = common_group(&messages).map(stable_hash);
        let mut stored = Vec::with_capacity(messages.len());
        let mut entries = Vec::with_capacity(messages.len());
        let mut sizes = smallvec::SmallVec::<[usize; 1]>::new();
        for message in messages {
            let produced = ProducedMessage::from_wire(message, &context.connection.remote, now)?;
            sizes.push(produced.stored.body.len());
            stored.push(produced.stored);
            entries.push(SendResultEntry { message_id: produced.message_id, ..SendResultEntry::default() });
        }
        let meters = paths.meters(&topic, &messaging.metrics);
        let id_hash = entries.first().map_or(0, |entry: &SendResultEntry| stable_hash(&entry.message_id));
        let sending = Sending { topic, lane, id_hash, messages: stored, deadline: context.deadline() };
        let reply = messaging.stores.append(&paths, sending).await?;
        meters.sent(sizes);
        for (entry, appended) in entries.iter_mut().zip(&reply.appended) {
            entry.status = Some(translate::ok());
            entry.offset = appended.queue_offset.0 as i64;
        }
        Ok(SendMessageResponse { status: Some(translate::ok()), entries })
    }
}

/// The message group that all messages share. They are stored together, so only then their order means something.
fn common_group(messages: &[Message]) -> Option<&str> {
    let mut groups = messages.iter().map(|message| message.system_properties.as_ref()?.message_group.as_deref());
    let first = groups.next()??;
    (!first.is_empty() && groups.all(|group| group == Some(first))).then_some(first)
}

/// A topic takes what its type says. Kinds whose guarantees this release does not give yet are refused rather than
/// delivered without them.
fn check_type(topic: &Topic, message: &Message) -> Result<(), Refusal> {
    let kind = message.system_properties.as_ref().map_or(v2::MessageType::Normal, translate::effective_type);
    let known = match kind {
        v2::MessageType::Normal | v2::MessageType::Unspecified => Some(MessageType::Normal),
        v2::MessageType::Fifo => Some(MessageType::Fifo),
        v2::MessageType::Delay => Some(MessageType::Delay),
        v2::MessageType::Transaction => Some(MessageType::Transaction),
        v2::MessageType::Priority | v2::MessageType::Lite => None,
    };
    // Dead-letter topics take everything: their messages were of any kind before.
    let accepted = topic.name.is_derived() || known.is_some_and(|known| topic.topic_type.accepts(known));
    if !accepted {
        return Err(Refusal::new(
            Code::MessagePropertyConflictWithType,
            format!(
                "topic {} is of type {:?} and does not take {} messages",
                topic.name,
                topic.topic_type,
                kind.as_str_name()
            ),
        ));
    }
    match known {
        Some(MessageType::Normal) => Ok(()),
        _ => Err(Refusal::not_implemented(&format!("{} messages", kind.as_str_name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::model::{Placement, StoreGroupId, Timestamp, TopicId, TopicName, TopicType};
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
        assert_eq!(common_group(&[grouped("a"), grouped("a")]), Some("a"));
        assert_eq!(common_group(&[grouped("a"), grouped("b")]), None);
        assert_eq!(common_group(&[grouped("a"), message(|_| {})]), None);
        assert_eq!(common_group(&[grouped("")]), None);
        assert_eq!(common_group(&[]), None);
    }

    #[test]
    fn what_the_topic_does_not_take_is_a_conflict_and_what_we_cannot_do_is_said() {
        let topic = |name: &str, topic_type| Topic {
            id: TopicId(1),
            name: TopicName::parse(name).unwrap(),
            topic_type,
            placement: Placement::spread(8, &[StoreGroupId(1)], 0),
            dead_letter_of: None,
            created_at: Timestamp::ZERO,
        };
        let conflict = Err(Code::MessagePropertyConflictWithType);
        let later = Err(Code::NotImplemented);
        let normal = message(|_| {});
        let fifo = grouped("g");
        let delay = message(|p| p.delivery_timestamp = Some(prost_types::Timestamp::default()));
        let transaction = message(|p| p.message_type = v2::MessageType::Transaction as i32);
        let priority = message(|p| p.priority = Some(1));
        for (topic, message, expected) in [
            (topic("t", TopicType::Normal), &normal, Ok(())),
            (topic("t", TopicType::Mixed), &normal, Ok(())),
            (topic("t", TopicType::Fifo), &normal, conflict),
            (topic("t", TopicType::Normal), &fifo, conflict),
            (topic("t", TopicType::Fifo), &fifo, later),
            (topic("t", TopicType::Mixed), &delay, later),
            (topic("t", TopicType::Delay), &delay, later),
            (topic("t", TopicType::Fifo), &delay, conflict),
            (topic("t", TopicType::Mixed), &transaction, later),
            (topic("t", TopicType::Mixed), &priority, conflict),
            (topic("%DLQ%g", TopicType::Normal), &normal, Ok(())),
            (topic("%DLQ%g", TopicType::Normal), &fifo, later),
        ] {
            assert_eq!(check_type(&topic, message).map_err(|r| r.code), expected, "{topic:?} {message:?}");
        }
    }
}
