//! A producer's message on its way in: checked, then split into what the store must understand and everything else, which
//! is encoded once, here, as consumers will get it.

mod reserved_keys;
#[cfg(test)]
mod tests;

use super::{Refusal, duration_or_zero, timestamp_millis, timestamp_to_wire};
use bytes::BufMut;
use gantry_proto::model::{self, MessageHead, StoredMessage, Timestamp, Topic, limits};
use gantry_proto::wire::v2::{Code, Encoding, Message, MessageType, SystemProperties};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use reserved_keys::RESERVED_KEYS;
use smallvec::SmallVec;
use std::time::Duration;

/// The longest time that a producer may leave a transaction open.
const TRANSACTION_RECOVERY_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a lite topic's name.
const LITE_TOPIC_BYTES_MAX: usize = 64;

/// A message ready to be stored.
#[derive(Debug)]
pub(crate) struct ProducedMessage {
    /// What the store keeps.
    pub(crate) stored: StoredMessage,
    /// The producer's id, told back in the answer.
    pub(crate) message_id: String,
}

/// Checks every message of a request: the first mistake refuses the request. The order of the checks is part of the
/// behaviour: it decides which of several mistakes a client is told about. Delivery times are compared with `now`.
pub(crate) fn check_messages(
    messages: &[Message],
    now: Timestamp,
    delivery_delay_max: Duration,
) -> Result<(), Refusal> {
    let topic = messages.first().and_then(|message| message.topic.as_ref());
    let none = SystemProperties::default();
    for message in messages {
        if message.topic.as_ref() != topic {
            return refuse(Code::MessageCorrupted, "all messages of a request must have the same topic");
        }
        let properties = message.system_properties.as_ref().unwrap_or(&none);
        check_body(message)?;
        check_properties(message, properties)?;
        check_identity(properties)?;
        check_times(properties, now, delivery_delay_max)?;
        check_kinds(properties)?;
    }
    Ok(())
}

fn check_body(message: &Message) -> Result<(), Refusal> {
    if message.body.is_empty() {
        return refuse(Code::MessageBodyEmpty, "the message body is empty");
    }
    if message.body.len() > limits::BODY_BYTES_MAX {
        return refuse(
            Code::MessageBodyTooLarge,
            format!("the body has {} bytes, at most {} are allowed", message.body.len(), limits::BODY_BYTES_MAX),
        );
    }
    Ok(())
}

fn check_properties(message: &Message, properties: &SystemProperties) -> Result<(), Refusal> {
    let user = &message.user_properties;
    if user.len() > limits::USER_PROPERTIES_MAX {
        return refuse(
            Code::MessagePropertiesTooLarge,
            format!("the message has {} properties, at most {} are allowed", user.len(), limits::USER_PROPERTIES_MAX),
        );
    }
    for (key, value) in user {
        if RESERVED_KEYS.binary_search(&key.as_str()).is_ok() {
            return refuse(Code::IllegalMessagePropertyKey, format!("the property key {key} belongs to the system"));
        }
        if has_control(key) || has_control(value) {
            return refuse(
                Code::IllegalMessagePropertyKey,
                format!("the property {key:?} contains a control character in its key or value"),
            );
        }
    }
    let tag = properties.tag.as_deref().unwrap_or_default();
    if !tag.is_empty() && (tag.trim().is_empty() || tag.contains('|') || has_control(tag)) {
        return refuse(Code::IllegalMessageTag, "a tag must not be blank and not contain | or control characters");
    }
    for key in &properties.keys {
        if !key.is_empty() && (key.trim().is_empty() || has_control(key)) {
            return refuse(Code::IllegalMessageKey, "a key must not be blank and not contain control characters");
        }
    }
    let bytes = user.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        + tag.len()
        + properties.keys.iter().map(String::len).sum::<usize>();
    if bytes > limits::USER_PROPERTY_BYTES_MAX {
        return refuse(
            Code::MessagePropertiesTooLarge,
            format!(
                "properties, tag and keys take {bytes} bytes, at most {} are allowed",
                limits::USER_PROPERTY_BYTES_MAX
            ),
        );
    }
    Ok(())
}

fn check_identity(properties: &SystemProperties) -> Result<(), Refusal> {
    if properties.message_id.trim().is_empty() {
        return refuse(Code::IllegalMessageId, "the message id is blank");
    }
    if properties.message_id.len() > limits::MESSAGE_ID_BYTES_MAX {
        return refuse(
            Code::IllegalMessageId,
            format!("the message id is longer than {} bytes", limits::MESSAGE_ID_BYTES_MAX),
        );
    }
    Ok(())
}

fn check_times(properties: &SystemProperties, now: Timestamp, delivery_delay_max: Duration) -> Result<(), Refusal> {
    if properties.message_type() == MessageType::Transaction
        && let Some(recovery) = &properties.orphaned_transaction_recovery_duration
        && duration_or_zero(recovery) > TRANSACTION_RECOVERY_MAX
    {
        let max = TRANSACTION_RECOVERY_MAX.as_secs();
        return refuse(Code::BadRequest, format!("a transaction's recovery duration is at most {max} s"));
    }
    if let Some(delivery) = &properties.delivery_timestamp {
        let latest = i64::try_from(now.after(delivery_delay_max).as_millis()).unwrap_or(i64::MAX);
        if timestamp_millis(delivery).is_none_or(|millis| millis > latest) {
            let max = delivery_delay_max.as_secs();
            return refuse(Code::IllegalDeliveryTime, format!("the delivery time is more than {max} s ahead"));
        }
    }
    Ok(())
}

fn check_kinds(properties: &SystemProperties) -> Result<(), Refusal> {
    let group = properties.message_group.as_deref().unwrap_or_default();
    if !group.is_empty()
        && (group.trim().is_empty() || group.len() > limits::MESSAGE_GROUP_BYTES_MAX || has_control(group))
    {
        return refuse(
            Code::IllegalMessageGroup,
            format!(
                "a message group must not be blank, have at most {} bytes and no control characters",
                limits::MESSAGE_GROUP_BYTES_MAX
            ),
        );
    }
    if let Some(lite_topic) = &properties.lite_topic {
        let well_formed = !lite_topic.is_empty()
            && lite_topic.len() <= LITE_TOPIC_BYTES_MAX
            && lite_topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !well_formed {
            return refuse(Code::IllegalLiteTopic, "a lite topic has 1 to 64 letters, digits, _ and -");
        }
    }
    if properties.priority.is_some_and(|priority| priority < 0) {
        return refuse(Code::BadRequest, "a priority must not be negative");
    }
    Ok(())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn refuse(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Result<(), Refusal> {
    Err(Refusal::new(code, message))
}

/// Whether a topic of this type takes the message. Types whose guarantees this release does not give yet are refused
/// rather than delivered without them.
pub(crate) fn check_type(topic: &Topic, message: &Message) -> Result<(), Refusal> {
    let message_type = message.system_properties.as_ref().map_or(MessageType::Normal, effective_type);
    let known = match message_type {
        MessageType::Normal | MessageType::Unspecified => Some(model::MessageType::Normal),
        MessageType::Fifo => Some(model::MessageType::Fifo),
        MessageType::Delay => Some(model::MessageType::Delay),
        MessageType::Transaction => Some(model::MessageType::Transaction),
        MessageType::Priority | MessageType::Lite => None,
    };
    // Dead-letter topics take every type: their messages were sent to other topics.
    let accepted = topic.name.is_derived() || known.is_some_and(|known| topic.topic_type.accepts(known));
    if !accepted {
        return Err(Refusal::new(
            Code::MessagePropertyConflictWithType,
            format!(
                "topic {} is of type {:?} and does not take {} messages",
                topic.name,
                topic.topic_type,
                message_type.as_str_name()
            ),
        ));
    }
    match known {
        Some(known) if is_served(known) => Ok(()),
        _ => Err(Refusal::not_implemented(&format!("{} messages", message_type.as_str_name()))),
    }
}

/// Whether this release gives the guarantees of a message type.
pub(super) fn is_served(message_type: model::MessageType) -> bool {
    match message_type {
        model::MessageType::Normal => true,
        model::MessageType::Fifo | model::MessageType::Delay | model::MessageType::Transaction => false,
    }
}

impl ProducedMessage {
    /// Of a message that was checked. `remote` is the born host, and `now` the born time, of messages without.
    pub(crate) fn from_wire(message: Message, remote: &str, now: Timestamp) -> Result<ProducedMessage, Refusal> {
        let properties = message.system_properties.unwrap_or_default();
        let message_type = effective_type(&properties);
        let encoding = match properties.body_encoding() {
            Encoding::Gzip => Encoding::Gzip,
            // Some clients lose a whole batch when told "unspecified".
            Encoding::Identity | Encoding::Unspecified => Encoding::Identity,
        };
        let fixed = SystemProperties {
            body_encoding: encoding as i32,
            message_type: message_type as i32,
            born_timestamp: Some(properties.born_timestamp.unwrap_or_else(|| timestamp_to_wire(now))),
            born_host: if properties.born_host.trim().is_empty() { remote.to_owned() } else { properties.born_host },
            delivery_timestamp: properties.delivery_timestamp,
            trace_context: properties.trace_context,
            lite_topic: properties.lite_topic,
            priority: properties.priority,
            ..SystemProperties::default()
        };
        let head = MessageHead {
            message_id: &properties.message_id,
            tag: properties.tag.as_deref().filter(|tag| !tag.is_empty()),
            keys: properties.keys.iter().map(String::as_str).filter(|key| !key.is_empty()).collect(),
            message_group: properties.message_group.as_deref().filter(|group| !group.is_empty()),
            dead_letter_origin: None,
            system_properties: &fixed.encode_to_vec(),
            user_properties: &encode_user_properties(message.user_properties.iter()),
            extensions: &[],
        }
        .encode()?;
        let stored = StoredMessage { head, body: message.body };
        Ok(ProducedMessage { stored, message_id: properties.message_id })
    }
}

/// Entries of `Message.user_properties`, sorted by key, so that a message that is sent again has the same bytes.
fn encode_user_properties<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<u8> {
    const USER_PROPERTIES: u32 = 2;
    let text_len = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    let put_text = |out: &mut Vec<u8>, field: u32, text: &str| {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(text.len() as u64, out);
        out.put_slice(text.as_bytes());
    };
    let mut sorted: SmallVec<[(&String, &String); 16]> = entries.collect();
    sorted.sort_unstable();
    let mut out = Vec::with_capacity(sorted.iter().map(|(key, value)| key.len() + value.len() + 10).sum());
    for (key, value) in sorted {
        encode_key(USER_PROPERTIES, WireType::LengthDelimited, &mut out);
        encode_varint((text_len(key) + text_len(value)) as u64, &mut out);
        put_text(&mut out, 1, key);
        put_text(&mut out, 2, value);
    }
    out
}

/// A message's type. Told by its content, because clients fill the field `message_type` by rules of their own.
fn effective_type(properties: &SystemProperties) -> MessageType {
    if properties.message_type() == MessageType::Transaction {
        MessageType::Transaction
    } else if properties.delivery_timestamp.is_some() {
        MessageType::Delay
    } else if properties.message_group.as_deref().is_some_and(|group| !group.is_empty()) {
        MessageType::Fifo
    } else if properties.priority.is_some() {
        MessageType::Priority
    } else if properties.lite_topic.as_deref().is_some_and(|topic| !topic.is_empty()) {
        MessageType::Lite
    } else {
        MessageType::Normal
    }
}
