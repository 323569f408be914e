//! ReceiveMessage and what consumers do with their deliveries.

use crate::support::{
    Client, Received, Server, code, connect, consumer_settings, eventually, from_client, message, query_route, receive,
    receive_request, resource, send,
};
use gantry_proto::model::{ClientHash, FilterExpression, StoredMessage, TopicType, limits};
use gantry_proto::wire::v2::{
    self, AckMessageEntry, AckMessageRequest, ChangeInvisibleDurationRequest, ClientType, Code, DigestType, Encoding,
    FilterType, Resource,
};
use std::time::Duration;
use tokio::time::Instant;

async fn server_with_messages(count: usize) -> (Server, Client) {
    let server = Server::start().await;
    let mut client = server.client().await;
    server.metadata.add_topic("orders", TopicType::Mixed, 1);
    for n in 0..count {
        send(&mut client, vec![message("orders", &format!("id-{n}"))]).await;
    }
    (server, client)
}

async fn pop(client: &mut Client) -> Received {
    receive(client, from_client("c", receive_request("orders", "group"))).await
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn an_answer_is_status_messages_time_and_every_field_is_there() {
    let (server, mut client) = server_with_messages(2).await;
    let mut request = receive_request("orders", "group");
    let named = Resource { resource_namespace: "ns".to_owned(), name: "orders".to_owned() };
    request.message_queue.as_mut().unwrap().topic = Some(named.clone());
    let received = receive(&mut client, from_client("c", request)).await;
    assert_eq!((received.shape.as_str(), received.code()), ("smmt", Code::Ok));
    let first = &received.messages[0];
    assert_eq!(first.topic, Some(named), "as the consumer named it");
    assert_eq!(first.body, "body of id-0");
    let properties = first.system_properties.as_ref().unwrap();
    assert_eq!(properties.message_id, "id-0");
    let digest = properties.body_digest.as_ref().unwrap();
    // printf 'body of id-0' | md5sum
    assert_eq!((digest.r#type(), digest.checksum.as_str()), (DigestType::Md5, "DB4DEA20C1A6A8EE0F16FE69D5475A0E"));
    assert_eq!(properties.body_encoding(), Encoding::Identity);
    assert_eq!(properties.message_type(), v2::MessageType::Normal);
    assert_eq!(properties.born_host, "producer");
    assert_eq!(properties.born_timestamp, Some(prost_types::Timestamp { seconds: 1, nanos: 2_000_000 }));
    let stored_at = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 };
    assert_eq!(properties.store_timestamp, Some(stored_at));
    assert_eq!(properties.store_host, server.address.to_string());
    assert_eq!(properties.delivery_attempt, Some(1));
    assert_eq!((properties.queue_id, properties.queue_offset), (0, Some(0)));
    assert!(properties.receipt_handle.is_some());
    assert_eq!(received.messages[1].system_properties.as_ref().unwrap().queue_offset, Some(1));
}

#[tokio::test]
async fn nothing_is_a_status_and_a_time() {
    let (_server, mut client) = server_with_messages(0).await;
    let received = pop(&mut client).await;
    assert_eq!((received.shape.as_str(), received.code()), ("st", Code::MessageNotFound));
}

#[tokio::test]
async fn mistakes_are_a_status_and_a_time() {
    let (_server, mut client) = server_with_messages(1).await;
    let sql = v2::FilterExpression { r#type: FilterType::Sql as i32, expression: "a > 1".to_owned() };
    let no_tag = v2::FilterExpression { r#type: FilterType::Tag as i32, expression: "||".to_owned() };
    let base = || receive_request("orders", "group");
    let cases = [
        (receive_request("a b", "group"), Code::IllegalTopic),
        (receive_request("orders", " "), Code::IllegalConsumerGroup),
        (receive_request("nowhere", "group"), Code::TopicNotFound),
        (v2::ReceiveMessageRequest { invisible_duration: None, ..base() }, Code::IllegalInvisibleTime),
        (v2::ReceiveMessageRequest { invisible_duration: seconds(0), ..base() }, Code::IllegalInvisibleTime),
        (
            v2::ReceiveMessageRequest { invisible_duration: seconds(12 * 3600 + 1), ..base() },
            Code::IllegalInvisibleTime,
        ),
        (v2::ReceiveMessageRequest { filter_expression: Some(no_tag), ..base() }, Code::IllegalFilterExpression),
        (v2::ReceiveMessageRequest { filter_expression: Some(sql), ..base() }, Code::NotImplemented),
    ];
    for (request, expected) in cases {
        let received = receive(&mut client, from_client("c", request.clone())).await;
        assert_eq!((received.shape.as_str(), received.code()), ("st", expected), "{request:?}");
    }
    let strict = Server::start_with(|config, _| config.auto_create_groups = false).await;
    let mut client = strict.client().await;
    query_route(&mut client, "orders").await;
    assert_eq!(pop(&mut client).await.code(), Code::ConsumerGroupNotFound);
}

/// Counted from the arrival of the call, so a little less is left when the store is asked.
#[track_caller]
fn about(wait: Duration, millis: u64) {
    let asked = Duration::from_millis(millis);
    assert!(wait <= asked && wait > asked / 4, "{wait:?} instead of {asked:?}");
}

#[tokio::test]
async fn what_the_store_is_asked_follows_from_request_settings_and_deadline() {
    let (server, mut client) = server_with_messages(0).await;
    let tags = v2::FilterExpression { r#type: FilterType::Tag as i32, expression: "a||b".to_owned() };
    let simple = v2::ReceiveMessageRequest {
        batch_size: 500,
        invisible_duration: seconds(60),
        filter_expression: Some(tags),
        long_polling_timeout: Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 }),
        ..receive_request("orders", "group")
    };
    receive(&mut client, from_client("c", simple)).await;
    let push = v2::ReceiveMessageRequest {
        batch_size: -1,
        invisible_duration: None,
        auto_renew: true,
        long_polling_timeout: None,
        ..receive_request("orders", "group")
    };
    // No settings came yet, and no waiting time is given: the deadline tells it.
    let mut request = from_client("push", push);
    request.set_timeout(Duration::from_millis(3_600));
    receive(&mut client, request).await;
    let pops = server.store.seen().pops;
    assert_eq!(pops[0].batch_max, 32);
    assert_eq!(pops[0].invisible, Duration::from_secs(60));
    assert_eq!(pops[0].owner, None);
    about(pops[0].wait, 500);
    assert_eq!(pops[0].filter, FilterExpression::parse_tag("a || b").unwrap());
    assert_eq!(pops[1].batch_max, 1);
    assert_eq!(pops[1].invisible, limits::AUTO_RENEW_LEASE);
    assert_eq!((pops[1].owner, pops[1].once_arrived), (Some(ClientHash::of("push")), true));
    about(pops[1].wait, 600);
    assert_eq!(pops[1].filter, FilterExpression::ALL);
}

#[tokio::test]
async fn the_settings_tell_the_wait_that_a_request_leaves_out() {
    let (server, mut client) = server_with_messages(0).await;
    let mut settings = consumer_settings(ClientType::SimpleConsumer, "group");
    if let Some(v2::settings::PubSub::Subscription(subscription)) = &mut settings.pub_sub {
        subscription.long_polling_timeout = Some(prost_types::Duration { seconds: 0, nanos: 700_000_000 });
    }
    let _telemetry = connect(&mut client, "go", settings).await;
    let request = v2::ReceiveMessageRequest { long_polling_timeout: None, ..receive_request("orders", "group") };
    receive(&mut client, from_client("go", request)).await;
    about(server.store.seen().pops[0].wait, 700);
}

#[tokio::test]
async fn a_parked_receive_is_woken_by_an_arrival_and_answers_before_its_deadline() {
    let (_server, mut client) = server_with_messages(0).await;
    let request = v2::ReceiveMessageRequest { long_polling_timeout: seconds(10), ..receive_request("orders", "group") };
    let parked = tokio::spawn({
        let (mut client, request) = (client.clone(), request.clone());
        async move { receive(&mut client, from_client("c", request)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    send(&mut client, vec![message("orders", "late")]).await;
    assert_eq!(parked.await.unwrap().shape, "smt");

    // Rust's client: deadline and waiting time are the same.
    let started = Instant::now();
    let request = v2::ReceiveMessageRequest { long_polling_timeout: seconds(1), ..request };
    let mut request = from_client("c", request);
    request.set_timeout(Duration::from_secs(1));
    assert_eq!(receive(&mut client, request).await.code(), Code::MessageNotFound);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_group_that_cannot_be_made_in_time_leaves_the_receive_its_deadline() {
    let (server, mut client) = server_with_messages(0).await;
    server.metadata.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let request = v2::ReceiveMessageRequest { long_polling_timeout: seconds(1), ..receive_request("orders", "new") };
    let mut request = from_client("c", request);
    request.set_timeout(Duration::from_secs(1));
    assert_eq!(receive(&mut client, request).await.code(), Code::ProxyTimeout);
}

#[tokio::test]
async fn a_client_that_cancels_while_it_waits_takes_nothing() {
    let (server, mut client) = server_with_messages(0).await;
    let request = v2::ReceiveMessageRequest { long_polling_timeout: seconds(10), ..receive_request("orders", "group") };
    let parked = tokio::spawn({
        let mut client = client.clone();
        async move { receive(&mut client, from_client("c", request)).await }
    });
    eventually("the receive is parked", || server.store.seen().parked == 1).await;
    parked.abort();
    eventually("the receive is gone", || server.store.seen().parked == 0).await;
    send(&mut client, vec![message("orders", "id")]).await;
    assert_eq!(pop(&mut client).await.shape, "smt");
}

#[tokio::test]
async fn messages_that_the_transport_did_not_take_come_back_at_once_and_uncounted() {
    let (server, mut client) = server_with_messages(0).await;
    for n in 0..8 {
        let mut large = message("orders", &n.to_string());
        large.body = vec![n; 1 << 20].into();
        send(&mut client, vec![large]).await;
    }
    // Its own connection with a small window, and it reads nothing but the beginning.
    let mut leaver = server.client().await;
    let request = from_client("c", receive_request("orders", "group"));
    let mut stream = leaver.receive_message(request).await.unwrap().into_inner();
    let status = stream.message().await.unwrap();
    assert!(status.is_some());
    drop(stream);
    drop(leaver);
    eventually("unsent messages are given back", || server.store.seen().changes.len() >= 4).await;
    assert!(server.store.seen().changes.iter().all(|change| *change == (Duration::ZERO, true)));
    let again = pop(&mut client).await;
    assert!(again.messages.len() >= 4, "{}", again.shape);
    for message in &again.messages {
        assert_eq!(message.system_properties.as_ref().unwrap().delivery_attempt, Some(1));
    }
}

#[tokio::test]
async fn a_damaged_message_does_not_spoil_the_others() {
    let (server, mut client) = server_with_messages(1).await;
    let topic = server.metadata.view.topic("orders").unwrap();
    let damaged = StoredMessage { head: bytes::Bytes::from_static(b"?"), body: bytes::Bytes::from_static(b"?") };
    server.store.put(topic.id, 0, damaged);
    send(&mut client, vec![message("orders", "after")]).await;
    let received = pop(&mut client).await;
    assert_eq!((received.shape.as_str(), received.code()), ("smmt", Code::Ok));
}

#[tokio::test]
async fn acknowledgements_are_answered_one_by_one() {
    let (_server, mut client) = server_with_messages(2).await;
    let handles = pop(&mut client).await.handles();
    let ack = async |client: &mut Client, topic: &str, handles: &[&str]| {
        let entry = |handle: &&str| AckMessageEntry {
            message_id: format!("of {handle}"),
            receipt_handle: (*handle).to_owned(),
            lite_topic: None,
        };
        let request = AckMessageRequest {
            group: Some(resource("group")),
            topic: Some(resource(topic)),
            entries: handles.iter().map(entry).collect(),
        };
        let reply = client.ack_message(from_client("c", request)).await.unwrap().into_inner();
        let entries: Vec<_> = reply
            .entries
            .iter()
            .map(|entry| {
                assert_eq!(entry.message_id, format!("of {}", entry.receipt_handle));
                (entry.receipt_handle.clone(), code(entry.status.as_ref()))
            })
            .collect();
        (code(reply.status.as_ref()), entries)
    };
    use Code::{InvalidReceiptHandle, MultipleResults, Ok};
    let (top, entries) = ack(&mut client, "orders", &[&handles[0], "nonsense"]).await;
    assert_eq!(top, MultipleResults);
    assert_eq!(entries, [(handles[0].clone(), Ok), ("nonsense".to_owned(), InvalidReceiptHandle)]);
    assert_eq!(ack(&mut client, "orders", &[&handles[1]]).await.0, Ok);
    assert_eq!(ack(&mut client, "orders", &[&handles[1]]).await.0, InvalidReceiptHandle, "its delivery is over");
    assert_eq!(ack(&mut client, "deleted", &["handle-1"]).await.0, InvalidReceiptHandle, "will never be valid again");
    assert_eq!(ack(&mut client, "orders", &[]).await.0, Code::BadRequest);
}

#[tokio::test]
async fn a_changed_invisible_duration_has_a_new_handle_and_a_failure_keeps_the_old_one() {
    let (_server, mut client) = server_with_messages(1).await;
    let handle = pop(&mut client).await.handles().remove(0);
    let change = async |client: &mut Client, topic: &str, handle: &str, duration| {
        let request = ChangeInvisibleDurationRequest {
            group: Some(resource("group")),
            topic: Some(resource(topic)),
            receipt_handle: handle.to_owned(),
            invisible_duration: duration,
            ..ChangeInvisibleDurationRequest::default()
        };
        let reply = client.change_invisible_duration(from_client("c", request)).await.unwrap().into_inner();
        (code(reply.status.as_ref()), reply.receipt_handle)
    };
    let old = |handle: &str, code| (code, handle.to_owned());
    for (topic, handle, duration, code) in [
        ("orders", "nonsense", seconds(1), Code::InvalidReceiptHandle),
        ("deleted", "handle-1", seconds(1), Code::InvalidReceiptHandle),
        ("a b", "handle-1", seconds(1), Code::IllegalTopic),
        ("orders", "handle-1", seconds(-1), Code::IllegalInvisibleTime),
        ("orders", "handle-1", seconds(12 * 3600 + 1), Code::IllegalInvisibleTime),
    ] {
        assert_eq!(change(&mut client, topic, handle, duration).await, old(handle, code));
    }
    let (status, new) = change(&mut client, "orders", &handle, seconds(60)).await;
    assert_eq!(status, Code::Ok);
    assert_ne!(new, handle);
    assert_eq!(change(&mut client, "orders", &handle, seconds(60)).await, old(&handle, Code::InvalidReceiptHandle));
    assert_eq!(change(&mut client, "orders", &new, seconds(0)).await.0, Code::Ok, "zero: visible now");
    let again = pop(&mut client).await;
    assert_eq!(again.messages[0].system_properties.as_ref().unwrap().delivery_attempt, Some(2));
}

#[tokio::test]
async fn a_consumer_can_give_up_on_a_message() {
    let (server, mut client) = server_with_messages(1).await;
    let handle = pop(&mut client).await.handles().remove(0);
    let forward = async |client: &mut Client, handle: &str| {
        let request = v2::ForwardMessageToDeadLetterQueueRequest {
            group: Some(resource("group")),
            topic: Some(resource("orders")),
            receipt_handle: handle.to_owned(),
            ..v2::ForwardMessageToDeadLetterQueueRequest::default()
        };
        let reply = client.forward_message_to_dead_letter_queue(from_client("c", request)).await.unwrap();
        code(reply.into_inner().status.as_ref())
    };
    assert_eq!(forward(&mut client, &handle).await, Code::Ok);
    assert_eq!(server.store.seen().dead_letters, 1);
    assert_eq!(forward(&mut client, &handle).await, Code::Ok, "it is over: nothing is left to give up");
    assert_eq!(server.store.seen().dead_letters, 1);
    // C++ sends no handle at all.
    assert_eq!(forward(&mut client, "").await, Code::InvalidReceiptHandle);
}
