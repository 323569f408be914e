//! A stored message on its way to a consumer. It is stored as it was encoded when it was sent; here the fields of the
//! delivery are added. They go *inside* the one `system_properties` field: where there are two, some clients take the
//! second one instead of merging them.
//!
//! The body is hashed, because consumers check the digest, and copied once, into the transport's buffer.

use super::timestamp_to_wire;
use bytes::{BufMut, Bytes};
use gantry_proto::contract::PoppedMessage;
use gantry_proto::model::{MalformedMessage, MessageHead, StoredMessage};
use gantry_proto::wire::v2::{DigestType, Resource};
use md5::{Digest as _, Md5};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Field numbers of what is encoded by hand here. The test below decodes the result with the generated types.
mod field {
    pub(super) const RESPONSE_MESSAGE: u32 = 2;
    pub(super) const MESSAGE_TOPIC: u32 = 1;
    pub(super) const MESSAGE_SYSTEM_PROPERTIES: u32 = 3;
    pub(super) const MESSAGE_BODY: u32 = 4;
    pub(super) const TAG: u32 = 1;
    pub(super) const KEYS: u32 = 2;
    pub(super) const MESSAGE_ID: u32 = 3;
    pub(super) const BODY_DIGEST: u32 = 4;
    pub(super) const STORE_TIMESTAMP: u32 = 9;
    pub(super) const STORE_HOST: u32 = 10;
    pub(super) const RECEIPT_HANDLE: u32 = 12;
    pub(super) const QUEUE_ID: u32 = 13;
    pub(super) const QUEUE_OFFSET: u32 = 14;
    pub(super) const DELIVERY_ATTEMPT: u32 = 16;
    pub(super) const MESSAGE_GROUP: u32 = 17;
    pub(super) const DEAD_LETTER_QUEUE: u32 = 20;
}

/// What all messages of one reply share, and a scratch buffer to encode them.
pub(crate) struct DeliveryShape {
    /// `Message.topic`, encoded.
    topic: Vec<u8>,
    store_host: String,
    scratch: Vec<u8>,
}

/// One `ReceiveMessageResponse` that carries a message: everything before the body's bytes, and the body.
#[derive(Debug)]
pub(crate) struct DeliveryFrame {
    prefix: Vec<u8>,
    body: Bytes,
}

impl DeliveryShape {
    /// `topic` as the consumer named it, `store_host` as the consumer reaches it.
    pub(crate) fn new(topic: &Resource, store_host: &str) -> DeliveryShape {
        let mut encoded = Vec::with_capacity(topic.encoded_len() + 8);
        prost::encoding::message::encode(field::MESSAGE_TOPIC, topic, &mut encoded);
        DeliveryShape { topic: encoded, store_host: store_host.to_owned(), scratch: Vec::with_capacity(512) }
    }

    pub(crate) fn frame(&mut self, popped: PoppedMessage) -> Result<DeliveryFrame, MalformedMessage> {
        let StoredMessage { head, body } = popped.message;
        let head = MessageHead::parse(&head)?;
        let properties = &mut self.scratch;
        properties.clear();
        if let Some(tag) = head.tag {
            put_text(properties, field::TAG, tag);
        }
        for key in &head.keys {
            put_text(properties, field::KEYS, key);
        }
        put_text(properties, field::MESSAGE_ID, head.message_id);
        put_digest(properties, &body);
        let store_time = timestamp_to_wire(popped.store_time);
        prost::encoding::message::encode(field::STORE_TIMESTAMP, &store_time, properties);
        put_text(properties, field::STORE_HOST, &self.store_host);
        put_text(properties, field::RECEIPT_HANDLE, &popped.handle.0);
        put_number(properties, field::QUEUE_ID, u64::from(popped.queue.0));
        put_number(properties, field::QUEUE_OFFSET, popped.queue_offset.0);
        put_number(properties, field::DELIVERY_ATTEMPT, u64::from(popped.attempt.max(1)));
        if let Some(group) = head.message_group {
            put_text(properties, field::MESSAGE_GROUP, group);
        }
        if let Some(origin) = head.dead_letter_origin {
            let len = text_field_len(1, origin.topic) + text_field_len(2, origin.message_id);
            put_len(properties, field::DEAD_LETTER_QUEUE, len);
            put_text(properties, 1, origin.topic);
            put_text(properties, 2, origin.message_id);
        }
        let properties_len = properties.len() + head.system_properties.len();

        let body_len = body.len();
        let message_len = self.topic.len()
            + head.user_properties.len()
            + len_field_len(field::MESSAGE_SYSTEM_PROPERTIES, properties_len)
            + len_field_len(field::MESSAGE_BODY, body_len);
        let mut prefix = Vec::with_capacity(message_len - body_len + 16);
        put_len(&mut prefix, field::RESPONSE_MESSAGE, message_len);
        prefix.put_slice(&self.topic);
        prefix.put_slice(head.user_properties);
        put_len(&mut prefix, field::MESSAGE_SYSTEM_PROPERTIES, properties_len);
        prefix.put_slice(head.system_properties);
        prefix.put_slice(properties);
        put_len(&mut prefix, field::MESSAGE_BODY, body_len);
        Ok(DeliveryFrame { prefix, body })
    }
}

impl DeliveryFrame {
    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.body.len()
    }

    /// Writes it: the one copy of the body on its way out.
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.prefix);
        out.put_slice(&self.body);
    }
}

/// Clients compare upper-case hexadecimal digits, byte for byte.
fn put_digest(out: &mut Vec<u8>, body: &[u8]) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    const CHECKSUM_LEN: usize = 32;
    let digest: [u8; 16] = Md5::digest(body).into();
    put_len(out, field::BODY_DIGEST, 2 + 2 + CHECKSUM_LEN);
    put_number(out, 1, DigestType::Md5 as u64);
    put_len(out, 2, CHECKSUM_LEN);
    for byte in digest {
        out.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

fn put_text(out: &mut Vec<u8>, field: u32, text: &str) {
    put_len(out, field, text.len());
    out.put_slice(text.as_bytes());
}

fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(number, out);
}

fn text_field_len(field: u32, text: &str) -> usize {
    len_field_len(field, text.len())
}

fn len_field_len(field: u32, len: usize) -> usize {
    prost::encoding::key_len(field) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::ProducedMessage;
    use gantry_proto::model::{QueueId, QueueOffset, ReceiptHandle, Timestamp};
    use gantry_proto::wire::v2::receive_message_response::Content;
    use gantry_proto::wire::v2::{
        self, DeadLetterQueue, Digest, Encoding, MessageType, ReceiveMessageResponse, SystemProperties,
    };
    use proptest::prelude::*;
    use prost::encoding::decode_varint;
    use std::collections::HashMap;

    /// How often each field occurs at the top of a message without groups.
    fn occurrences(mut bytes: &[u8]) -> HashMap<u64, usize> {
        let mut seen = HashMap::new();
        while !bytes.is_empty() {
            let key = decode_varint(&mut bytes).unwrap();
            *seen.entry(key >> 3).or_default() += 1;
            match key & 7 {
                0 => drop(decode_varint(&mut bytes).unwrap()),
                2 => {
                    let len = decode_varint(&mut bytes).unwrap() as usize;
                    bytes = &bytes[len..];
                }
                other => panic!("wire type {other}"),
            }
        }
        seen
    }

    prop_compose! {
        fn sent_message()(
            properties in proptest::collection::hash_map("[a-z]{1,12}", ".{0,20}", 0..6),
            tag in proptest::option::of("[a-z]{1,9}"),
            keys in proptest::collection::vec("[a-z0-9 ]{1,9}", 0..6),
            message_id in "[0-9A-F]{34}",
            gzip in any::<bool>(),
            born in 0_i64..4_000_000_000,
            born_host in "[a-z]{1,12}",
            message_group in proptest::option::of("[a-z]{1,20}"),
            trace_context in proptest::option::of("[a-z]{1,20}"),
            body in proptest::collection::vec(any::<u8>(), 1..700),
        ) -> v2::Message {
            let encoding = if gzip { Encoding::Gzip } else { Encoding::Identity };
            let message_type = if message_group.is_some() { MessageType::Fifo } else { MessageType::Normal };
            v2::Message {
                topic: Some(Resource { resource_namespace: "ns".to_owned(), name: "orders".to_owned() }),
                user_properties: properties,
                system_properties: Some(SystemProperties {
                    tag,
                    keys,
                    message_id,
                    body_encoding: encoding as i32,
                    message_type: message_type as i32,
                    born_timestamp: Some(prost_types::Timestamp { seconds: born, nanos: 5_000_000 }),
                    born_host,
                    message_group,
                    trace_context,
                    ..SystemProperties::default()
                }),
                body: body.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_delivered_frame_is_the_message_sent_plus_the_fields_of_the_delivery(
            sent in sent_message(),
            queue in 0_u32..9,
            offset in any::<u32>(),
            attempt in 1_u32..40,
            handle in "[a-zA-Z0-9_-]{1,90}",
            dead in any::<bool>(),
        ) {
            let now = Timestamp::from_millis(1_700_000_000_123);
            let mut stored = ProducedMessage::from_wire(sent.clone(), "remote", now).unwrap().stored;
            if dead {
                stored = stored.into_dead_letter("origin").unwrap();
            }
            let popped = PoppedMessage {
                message: stored,
                queue: QueueId(queue),
                queue_offset: QueueOffset(u64::from(offset)),
                store_time: now,
                attempt,
                handle: ReceiptHandle(handle.clone()),
            };
            let topic = sent.topic.clone().unwrap();
            let frame = DeliveryShape::new(&topic, "10.0.0.1:8081").frame(popped).unwrap();
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), frame.len());

            let Some(Content::Message(delivered)) = ReceiveMessageResponse::decode(&bytes[..]).unwrap().content else {
                panic!("not a message");
            };
            let digest = Md5::digest(&sent.body).iter().map(|byte| format!("{byte:02X}")).collect::<String>();
            let mut expected = sent.clone();
            let properties = expected.system_properties.as_mut().unwrap();
            properties.body_digest = Some(Digest { r#type: DigestType::Md5 as i32, checksum: digest });
            properties.store_timestamp = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 });
            properties.store_host = "10.0.0.1:8081".to_owned();
            properties.receipt_handle = Some(handle);
            properties.queue_id = queue as i32;
            properties.queue_offset = Some(i64::from(offset));
            properties.delivery_attempt = Some(attempt as i32);
            properties.dead_letter_queue = dead.then(|| DeadLetterQueue {
                topic: "origin".to_owned(),
                message_id: properties.message_id.clone(),
            });
            prop_assert_eq!(&delivered, &expected);

            let mut inner = &bytes[..];
            decode_varint(&mut inner).unwrap();
            decode_varint(&mut inner).unwrap();
            prop_assert_eq!(occurrences(inner)[&3], 1, "one system_properties field");
        }
    }
}
