//! What a message must look like. Checked for every message of a request, in this order; the first failure refuses the
//! request. The order is part of the behaviour: it decides which of several mistakes a client is told about.

use crate::translate::{self, Refusal};
use gantry_proto::model::{Timestamp, limits};
use gantry_proto::wire::v2::{Code, Message, MessageType, SystemProperties};
use std::time::Duration;

/// The longest time that a producer may leave a transaction open.
const TRANSACTION_RECOVERY_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a lite topic's name.
const LITE_TOPIC_BYTES_MAX: usize = 64;

/// Names that the system uses for properties of its own, sorted.
const RESERVED_KEYS: [&str; 53] = [
    "1ST_POP_TIME",
    "ARRIVE_TIME",
    "BORN_TIMESTAMP",
    "BUYER_ID",
    "CLUSTER",
    "CONSUME_START_TIME",
    "CORRECTION_FLAG",
    "CORRELATION_ID",
    "DELAY",
    "DLQ_ORIGIN_MESSAGE_ID",
    "DLQ_ORIGIN_TOPIC",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INNER_MULTI_QUEUE_OFFSET",
    "INSTANCE_ID",
    "KEYS",
    "MAX_OFFSET",
    "MAX_RECONSUME_TIMES",
    "MIN_OFFSET",
    "MQ2_FLAG",
    "MSG_REGION",
    "MSG_TYPE",
    "ORIGIN_MESSAGE_ID",
    "PGROUP",
    "POP_CK",
    "POP_CK_OFFSET",
    "PUSH_REPLY_TIME",
    "REAL_QID",
    "REAL_TOPIC",
    "RECONSUME_TIME",
    "REPLY_TO_CLIENT",
    "RETRY_TOPIC",
    "TAGS",
    "TIMER_DELAY_LEVEL",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DEQUEUE_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_OUT_MS",
    "TIMER_ROLL_TIMES",
    "TRACE_ON",
    "TRANSFER_FLAG",
    "TRAN_MSG",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "TTL",
    "UNIQ_KEY",
    "WAIT",
    "_SYS_MSG_PRIORITY_",
    "__BORNHOST",
    "__CRC32#",
    "__SHARDINGKEY",
];

/// Checks all messages. `now` judges delivery times.
pub(super) fn check(messages: &[Message], now: Timestamp, delivery_delay_max: Duration) -> Result<(), Refusal> {
    let topic = messages.first().and_then(|message| message.topic.as_ref());
    let nothing = SystemProperties::default();
    for message in messages {
        if message.topic.as_ref() != topic {
            return refuse(Code::MessageCorrupted, "all messages of a request must have the same topic");
        }
        let properties = message.system_properties.as_ref().unwrap_or(&nothing);
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
        && translate::duration_or_zero(recovery) > TRANSACTION_RECOVERY_MAX
    {
        let max = TRANSACTION_RECOVERY_MAX.as_secs();
        return refuse(Code::BadRequest, format!("a transaction's recovery duration is at most {max} s"));
    }
    if let Some(delivery) = &properties.delivery_timestamp {
        let latest = i64::try_from(now.after(delivery_delay_max).as_millis()).unwrap_or(i64::MAX);
        if translate::timestamp_millis(delivery).is_none_or(|millis| millis > latest) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::wire::v2::Resource;

    fn message() -> Message {
        Message {
            topic: Some(Resource { resource_namespace: String::new(), name: "orders".to_owned() }),
            system_properties: Some(SystemProperties { message_id: "id".to_owned(), ..SystemProperties::default() }),
            body: bytes::Bytes::from_static(b"body"),
            ..Message::default()
        }
    }

    fn verdict(messages: &[Message]) -> Option<Code> {
        check(messages, Timestamp::from_millis(1_000_000), Duration::from_secs(100)).err().map(|refusal| refusal.code)
    }

    fn properties(message: &mut Message) -> &mut SystemProperties {
        message.system_properties.get_or_insert_default()
    }

    fn user(message: &mut Message, key: &str, value: &str) {
        message.user_properties.insert(key.to_owned(), value.to_owned());
    }

    #[test]
    fn reserved_keys_are_sorted() {
        assert!(RESERVED_KEYS.is_sorted());
    }

    type Mistake = (&'static str, fn(&mut Message), Code);

    /// Each mistake with its code, in the order of the checks.
    fn mistakes() -> Vec<Mistake> {
        vec![
            ("topic", |m| m.topic = None, Code::MessageCorrupted),
            ("body empty", |m| m.body.clear(), Code::MessageBodyEmpty),
            ("body large", |m| m.body = vec![0; (4 << 20) + 1].into(), Code::MessageBodyTooLarge),
            (
                "too many properties",
                |m| (0..129).for_each(|n| user(m, &n.to_string(), "")),
                Code::MessagePropertiesTooLarge,
            ),
            ("reserved key", |m| user(m, "UNIQ_KEY", "x"), Code::IllegalMessagePropertyKey),
            ("control in key", |m| user(m, "a\u{85}", "x"), Code::IllegalMessagePropertyKey),
            ("control in value", |m| user(m, "a", "\n"), Code::IllegalMessagePropertyKey),
            ("tag blank", |m| properties(m).tag = Some(" ".to_owned()), Code::IllegalMessageTag),
            ("tag with bar", |m| properties(m).tag = Some("a|b".to_owned()), Code::IllegalMessageTag),
            ("key blank", |m| properties(m).keys = vec![String::new(), "\t".to_owned()], Code::IllegalMessageKey),
            ("properties large", |m| user(m, "big", &"x".repeat(16 << 10)), Code::MessagePropertiesTooLarge),
            ("id blank", |m| properties(m).message_id = " ".to_owned(), Code::IllegalMessageId),
            ("id long", |m| properties(m).message_id = "x".repeat(256), Code::IllegalMessageId),
            (
                "transaction too long",
                |m| {
                    properties(m).message_type = MessageType::Transaction as i32;
                    properties(m).orphaned_transaction_recovery_duration =
                        Some(prost_types::Duration { seconds: 3601, nanos: 0 });
                },
                Code::BadRequest,
            ),
            (
                "delivery too far",
                |m| properties(m).delivery_timestamp = Some(prost_types::Timestamp { seconds: 1101, nanos: 0 }),
                Code::IllegalDeliveryTime,
            ),
            ("group blank", |m| properties(m).message_group = Some(" ".to_owned()), Code::IllegalMessageGroup),
            ("group long", |m| properties(m).message_group = Some("x".repeat(64)), Code::IllegalMessageGroup),
            ("lite topic", |m| properties(m).lite_topic = Some("a.b".to_owned()), Code::IllegalLiteTopic),
            ("priority", |m| properties(m).priority = Some(-1), Code::BadRequest),
        ]
    }

    #[test]
    fn each_mistake_has_its_code_in_every_message_of_a_batch() {
        for (what, make, code) in mistakes() {
            let mut wrong = message();
            make(&mut wrong);
            assert_eq!(verdict(&[message(), wrong]), Some(code), "{what}");
        }
    }

    #[test]
    fn of_two_mistakes_the_earlier_check_speaks() {
        let mistakes = mistakes();
        for (index, (first, make_first, code)) in mistakes.iter().enumerate().skip(1) {
            for (second, make_second, _) in &mistakes[index + 1..] {
                let mut wrong = message();
                make_first(&mut wrong);
                make_second(&mut wrong);
                // These two touch the same field: the second replaces the first.
                let same_field =
                    [("tag blank", "tag with bar"), ("id blank", "id long"), ("group blank", "group long")];
                if *first == "body empty" && *second == "body large" || same_field.contains(&(first, second)) {
                    continue;
                }
                // Checked per property, in whichever order the map has them: both are the same code.
                assert_eq!(verdict(&[wrong]), Some(*code), "{first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_just_allowed_passes() {
        let mut fine = message();
        fine.body = vec![0; 4 << 20].into();
        user(&mut fine, "", "");
        properties(&mut fine).tag = Some(String::new());
        properties(&mut fine).keys = vec![String::new()];
        properties(&mut fine).message_group = Some("x".repeat(63));
        properties(&mut fine).delivery_timestamp = Some(prost_types::Timestamp { seconds: -5, nanos: 0 });
        assert_eq!(verdict(&[fine.clone(), fine]), None);
    }
}
