//! A producer's message on its way in: what the store must understand goes into the open, everything else is encoded
//! once, here, as consumers will get it.

use super::{Refusal, timestamp_to_wire};
use bytes::BufMut;
use gantry_proto::model::{MessageHead, StoredMessage, Timestamp};
use gantry_proto::wire::v2::{self, Encoding, MessageType, SystemProperties};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use smallvec::SmallVec;

/// A message ready to be stored.
#[derive(Debug)]
pub(crate) struct ProducedMessage {
    /// What the store keeps.
    pub(crate) stored: StoredMessage,
    /// The producer's id, told back in the answer.
    pub(crate) message_id: String,
}

/// What kind a message is: told by its content, because clients fill the field `message_type` by rules of their own.
pub(crate) fn effective_type(properties: &SystemProperties) -> MessageType {
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

impl ProducedMessage {
    /// Takes a validated message apart. `remote` stands in for a missing born host, `now` for a missing born time.
    pub(crate) fn from_wire(message: v2::Message, remote: &str, now: Timestamp) -> Result<ProducedMessage, Refusal> {
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

/// Entries of `Message.user_properties`, by key: a message that is sent again has the same bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_type_follows_the_content() {
        let properties = |change: fn(&mut SystemProperties)| {
            let mut properties =
                SystemProperties { message_type: MessageType::Normal as i32, ..SystemProperties::default() };
            change(&mut properties);
            properties
        };
        type Case = (fn(&mut SystemProperties), MessageType);
        let cases: [Case; 7] = [
            (|_| {}, MessageType::Normal),
            (|p| p.message_type = MessageType::Fifo as i32, MessageType::Normal),
            (|p| p.message_group = Some("g".to_owned()), MessageType::Fifo),
            (
                |p| {
                    p.message_group = Some("g".to_owned());
                    p.delivery_timestamp = Some(prost_types::Timestamp::default());
                },
                MessageType::Delay,
            ),
            (
                |p| {
                    p.message_type = MessageType::Transaction as i32;
                    p.delivery_timestamp = Some(prost_types::Timestamp::default());
                },
                MessageType::Transaction,
            ),
            (|p| p.priority = Some(0), MessageType::Priority),
            (|p| p.lite_topic = Some("l".to_owned()), MessageType::Lite),
        ];
        for (change, expected) in cases {
            assert_eq!(effective_type(&properties(change)), expected);
        }
    }

    #[test]
    fn missing_origin_and_encoding_are_filled_in() {
        let message = v2::Message {
            system_properties: Some(SystemProperties {
                message_id: "id".to_owned(),
                tag: Some(String::new()),
                keys: vec![String::new(), "k".to_owned()],
                // Never taken from a client.
                receipt_handle: Some("forged".to_owned()),
                queue_offset: Some(7),
                store_host: "forged".to_owned(),
                ..SystemProperties::default()
            }),
            body: bytes::Bytes::from_static(b"x"),
            ..v2::Message::default()
        };
        let produced = ProducedMessage::from_wire(message, "1.2.3.4:5", Timestamp::from_millis(1000)).unwrap();
        let head = produced.stored.parse_head().unwrap();
        assert_eq!((head.tag, head.keys.as_slice()), (None, &["k"][..]));
        let fixed = SystemProperties::decode(head.system_properties).unwrap();
        assert_eq!(
            fixed,
            SystemProperties {
                body_encoding: Encoding::Identity as i32,
                message_type: MessageType::Normal as i32,
                born_timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                born_host: "1.2.3.4:5".to_owned(),
                ..SystemProperties::default()
            }
        );
    }
}
