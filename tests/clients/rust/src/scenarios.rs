//! The scenarios, each a function of its fixture; what they mean is in ../README.md.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fixture::{check, expect, ids, Fixture, Outcome, Problem, Sent, AWAIT, INVISIBLE};
use crate::tools;

const MIB: usize = 1 << 20;

pub const NAMES: [&str; 9] = [
    "send-receive-ack",
    "push-consume",
    "tag-filter",
    "redelivery",
    "change-invisible",
    "dead-letter",
    "push-retry",
    "large-body",
    "empty-poll",
];

pub async fn run(name: &str, fixture: &mut Fixture) -> Outcome {
    match name {
        "send-receive-ack" => send_receive_ack(fixture).await,
        "push-consume" | "push-retry" => Err(Problem::Skip("this client has no push consumer".into())),
        "tag-filter" => tag_filter(fixture).await,
        "redelivery" => redelivery(fixture).await,
        "change-invisible" => Err(Problem::Skip("this client cannot change an invisible duration".into())),
        "dead-letter" => dead_letter(fixture).await,
        "large-body" => large_body(fixture).await,
        "empty-poll" => empty_poll(fixture).await,
        "produce-until-stopped" => tools::produce_until_stopped(fixture).await,
        "consume-until-quiet" => tools::consume_until_quiet(fixture).await,
        _ => Err(Problem::Failure("unknown scenario".into())),
    }
}

async fn send_receive_ack(fixture: &mut Fixture) -> Outcome {
    let producer = fixture.producer().await?;
    let consumer = fixture.consumer("*", AWAIT).await?;
    let count = 20;
    let mut by_id = HashMap::new();
    for i in 0..count {
        let properties = [
            ("index", i.to_string().as_str()),
            ("unicode", "grüße, 世界 🚀"),
            ("empty", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let message = Sent {
            tag: Some("tag"),
            keys: vec![format!("key-{i}"), format!("other-key-{i}")],
            properties: properties.into(),
            ..Sent::new(format!("body {i}"))
        };
        let sent = fixture.send(&producer, message).await?;
        by_id.insert(sent.id.clone(), sent);
    }
    expect("number of different message ids", by_id.len(), count)?;
    for message in fixture.receive(&consumer, count, INVISIBLE).await? {
        let id = message.message_id();
        let sent = by_id
            .remove(id)
            .ok_or_else(|| Problem::Failure(format!("message id {id} is unknown or came twice")))?;
        sent.verify(&message, 1)?;
        expect("topic", message.topic(), &fixture.topic)?;
        consumer.ack(&message).await?;
    }
    fixture.expect_nothing(&consumer).await
}

async fn tag_filter(fixture: &mut Fixture) -> Outcome {
    let producer = fixture.producer().await?;
    let consumer = fixture.consumer("a || b", AWAIT).await?;
    let mut wanted = Vec::new();
    for i in 0..3 {
        for tag in [Some("a"), Some("b"), Some("c"), None] {
            let message = Sent {
                tag,
                ..Sent::new(format!("{tag:?} {i}"))
            };
            let sent = fixture.send(&producer, message).await?;
            if matches!(tag, Some("a" | "b")) {
                wanted.push(sent.id);
            }
        }
    }
    wanted.sort();
    let messages = fixture.receive(&consumer, wanted.len(), INVISIBLE).await?;
    expect("received ids", ids(&messages), wanted)?;
    for message in &messages {
        consumer.ack(message).await?;
    }
    fixture.expect_nothing(&consumer).await
}

async fn redelivery(fixture: &mut Fixture) -> Outcome {
    let producer = fixture.producer().await?;
    let consumer = fixture.consumer("*", AWAIT).await?;
    let sent = fixture.send(&producer, Sent::new("unacknowledged at first")).await?;
    let message = fixture.receive_one(&consumer, Duration::from_secs(10)).await?;
    sent.verify(&message, 1)?;
    let received = Instant::now();
    let again = fixture.receive_one(&consumer, INVISIBLE).await?;
    let waited = received.elapsed();
    sent.verify(&again, 2)?;
    check(waited >= Duration::from_millis(9500), || {
        format!("redelivered after {waited:.1?}, invisible for 10 s")
    })?;
    consumer.ack(&again).await?;
    fixture.expect_nothing(&consumer).await
}

async fn dead_letter(fixture: &mut Fixture) -> Outcome {
    let producer = fixture.producer().await?;
    let consumer = fixture.consumer("*", AWAIT).await?;
    let properties = HashMap::from([("kept".to_owned(), "yes".to_owned())]);
    let message = Sent {
        properties,
        ..Sent::new("never acknowledged")
    };
    let sent = fixture.send(&producer, message).await?;
    for attempt in [1, 2] {
        let message = fixture.receive_one(&consumer, Duration::from_secs(10)).await?;
        sent.verify(&message, attempt)?;
    }
    // This client cannot shorten the second delivery: wait until it is over.
    for _ in 0..4 {
        fixture.expect_nothing(&consumer).await?;
    }
    let dead_letters = format!("%DLQ%{}", fixture.group);
    let reader_group = format!("{}-reader", fixture.topic);
    let reader = fixture
        .consumer_of(dead_letters.clone(), reader_group, "*", AWAIT)
        .await?;
    let dead = fixture.receive_one(&reader, INVISIBLE).await?;
    expect("message id of the dead letter", dead.message_id(), &sent.id)?;
    expect("topic of the dead letter", dead.topic(), &dead_letters)?;
    expect(
        "property of the dead letter",
        dead.properties().get("kept"),
        Some(&"yes".to_owned()),
    )?;
    sent.verify_body(&dead)?;
    reader.ack(&dead).await?;
    fixture.expect_nothing(&reader).await?;
    fixture.expect_nothing(&consumer).await
}

async fn large_body(fixture: &mut Fixture) -> Outcome {
    let producer = fixture.producer().await?;
    let consumer = fixture.consumer("*", AWAIT).await?;
    for size in [MIB, MIB * 39 / 10] {
        let body: Vec<u8> = (0..=250).cycle().take(size).collect();
        let sent = fixture.send(&producer, Sent::new(body)).await?;
        let message = fixture.receive_one(&consumer, INVISIBLE).await?;
        sent.verify(&message, 1)?;
        consumer.ack(&message).await?;
    }
    Ok(())
}

async fn empty_poll(fixture: &mut Fixture) -> Outcome {
    let consumer = fixture.consumer("*", Duration::from_secs(5)).await?;
    let asked = Instant::now();
    fixture.expect_nothing(&consumer).await?;
    let waited = asked.elapsed();
    check((3.0..=10.0).contains(&waited.as_secs_f64()), || {
        format!("an empty receive took {waited:.1?}, asked to wait 5 s")
    })
}
