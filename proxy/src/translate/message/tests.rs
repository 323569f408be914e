use super::*;
use gantry_proto::model::{Placement, StoreGroupId, TopicId, TopicName, TopicType};
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
    check_messages(messages, Timestamp::from_millis(1_000_000), Duration::from_secs(100))
        .err()
        .map(|refusal| refusal.code)
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
            let same_field = [("tag blank", "tag with bar"), ("id blank", "id long"), ("group blank", "group long")];
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

fn with(change: impl FnOnce(&mut SystemProperties)) -> Message {
    let mut properties = SystemProperties::default();
    change(&mut properties);
    Message { system_properties: Some(properties), ..Message::default() }
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
    let normal = with(|_| {});
    let fifo = with(|p| p.message_group = Some("g".to_owned()));
    let delay = with(|p| p.delivery_timestamp = Some(prost_types::Timestamp::default()));
    let transaction = with(|p| p.message_type = MessageType::Transaction as i32);
    let priority = with(|p| p.priority = Some(1));
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
    let message = Message {
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
        ..Message::default()
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
