//! SendMessage, and the RPCs of later releases.

use crate::support::{Client, Server, code, from_client, id_for_queue, message, query_route, resource, send};
use gantry_proto::contract::StoreError;
use gantry_proto::model::TopicType;
use gantry_proto::wire::v2::{self, Code, MessageType, Resource, SystemProperties};
use prost::Message as _;
use std::time::Duration;

#[tokio::test]
async fn each_message_of_a_batch_has_its_entry_in_request_order() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let reply = send(&mut client, vec![message("orders", "aB-1"), message("orders", "Ab-1")]).await;
    assert_eq!(code(reply.status.as_ref()), Code::Ok);
    let entries: Vec<_> =
        reply.entries.iter().map(|e| (e.message_id.as_str(), e.offset, code(e.status.as_ref()))).collect();
    assert_eq!(entries, [("aB-1", 0, Code::Ok), ("Ab-1", 1, Code::Ok)]);
    let topic = server.metadata.view.topic("orders").unwrap();
    let lengths = server.store.queue_lengths(topic.id);
    assert_eq!(lengths.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [2], "one append to one queue");
}

#[tokio::test]
async fn messages_are_spread_over_the_queues_by_their_ids() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = server.metadata.add_topic("orders", TopicType::Normal, 3);
    for n in 0..60 {
        send(&mut client, vec![message("orders", &format!("01{n:030}"))]).await;
    }
    let lengths = server.store.queue_lengths(topic.id);
    assert!(lengths.len() == 3 && lengths.iter().all(|(_, length)| (10..31).contains(length)), "{lengths:?}");
    send(&mut client, vec![message("orders", &id_for_queue("id", 2, 3))]).await;
    assert_eq!(server.store.queue_lengths(topic.id)[2].1, lengths[2].1 + 1, "where its id says");
}

#[tokio::test]
async fn what_consumers_need_is_stored_and_what_clients_may_not_set_is_not() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = server.metadata.add_topic("orders", TopicType::Normal, 1);
    let mut sent = message("orders", "id");
    let properties = sent.system_properties.as_mut().unwrap();
    properties.born_host = String::new();
    properties.receipt_handle = Some("forged".to_owned());
    properties.delivery_attempt = Some(-77);
    properties.queue_id = 5;
    assert_eq!(code(send(&mut client, vec![sent]).await.status.as_ref()), Code::Ok);
    let stored = &server.store.stored(topic.id)[0];
    let head = stored.parse_head().unwrap();
    let fixed = SystemProperties::decode(head.system_properties).unwrap();
    assert!(fixed.born_host.starts_with("127.0.0.1:"), "the address stands in: {}", fixed.born_host);
    assert_eq!(fixed.message_type(), MessageType::Normal);
    assert_eq!((fixed.receipt_handle, fixed.delivery_attempt, fixed.queue_id), (None, None, 0));
}

#[tokio::test]
async fn refusals_have_their_codes_and_nothing_is_stored() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let normal = server.metadata.add_topic("orders", TopicType::Normal, 1);
    let mixed = server.metadata.add_topic("mixed", TopicType::Mixed, 1);
    let with = |topic: &str, change: fn(&mut v2::Message)| {
        let mut message = message(topic, "id");
        change(&mut message);
        vec![message]
    };
    let fifo: fn(&mut v2::Message) = |m| m.system_properties.as_mut().unwrap().message_group = Some("g".to_owned());
    let delay: fn(&mut v2::Message) =
        |m| m.system_properties.as_mut().unwrap().delivery_timestamp = Some(prost_types::Timestamp::default());
    let in_namespace = |m: &mut v2::Message| {
        m.topic = Some(Resource { resource_namespace: "other".to_owned(), name: "orders".to_owned() });
    };
    let cases: Vec<(&str, Vec<v2::Message>, Code)> = vec![
        ("no message", vec![], Code::MessageCorrupted),
        ("illegal topic", with("a b", |_| {}), Code::IllegalTopic),
        ("unknown topic", with("nowhere", |_| {}), Code::TopicNotFound),
        ("a mistake in a message to an unknown topic", with("nowhere", |m| m.body.clear()), Code::MessageBodyEmpty),
        ("no system properties", with("orders", |m| m.system_properties = None), Code::IllegalMessageId),
        (
            "two namespaces",
            with("orders", |_| {}).into_iter().chain(with("orders", in_namespace)).collect(),
            Code::MessageCorrupted,
        ),
        (
            "the second one is wrong",
            with("orders", |_| {}).into_iter().chain(with("orders", fifo)).collect(),
            Code::MessagePropertyConflictWithType,
        ),
        ("fifo to normal", with("orders", fifo), Code::MessagePropertyConflictWithType),
        ("fifo to mixed", with("mixed", fifo), Code::NotImplemented),
        ("delay to mixed", with("mixed", delay), Code::NotImplemented),
    ];
    for (what, messages, expected) in cases {
        let reply = send(&mut client, messages).await;
        assert_eq!(code(reply.status.as_ref()), expected, "{what}");
        assert!(reply.entries.is_empty(), "{what}");
    }
    assert!(server.store.stored(normal.id).is_empty() && server.store.stored(mixed.id).is_empty());
}

#[tokio::test]
async fn an_empty_body_has_a_code_that_the_rust_client_of_the_registry_can_read() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    for (language, version, expected) in [
        ("RUST", "5.0.0", Code::MessageCorrupted),
        ("RUST", "5.1.0", Code::MessageBodyEmpty),
        ("JAVA", "5.0.0", Code::MessageBodyEmpty),
    ] {
        let mut empty = message("orders", "id");
        empty.body.clear();
        let mut request = from_client("producer", v2::SendMessageRequest { messages: vec![empty] });
        request.metadata_mut().insert("x-mq-language", language.parse().unwrap());
        request.metadata_mut().insert("x-mq-client-version", version.parse().unwrap());
        let reply = client.send_message(request).await.unwrap().into_inner();
        assert_eq!(code(reply.status.as_ref()), expected, "{language} {version}");
    }
}

#[tokio::test]
async fn store_errors_travel_as_codes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    for (error, expected) in [
        (StoreError::Busy("queue".to_owned()), Code::TooManyRequests),
        (StoreError::ShuttingDown, Code::TooManyRequests),
        (StoreError::DiskFull("/data".to_owned()), Code::InternalServerError),
        (StoreError::WritesStopped("fsync".to_owned()), Code::InternalServerError),
    ] {
        server.store.fail_with(Some(error));
        let reply = send(&mut client, vec![message("orders", "id")]).await;
        assert_eq!(code(reply.status.as_ref()), expected);
    }
}

#[tokio::test]
async fn sends_over_the_budget_of_memory_are_refused_quickly() {
    let server = Server::start_with(|config, _| {
        config.memory_max = 6 << 20;
        config.memory_per_peer_percent = 100;
    })
    .await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    server.store.held.send_replace(true);
    let mut large = message("orders", "large");
    large.body = vec![7; 4 << 20].into();
    let waiting = tokio::spawn({
        let (mut client, large) = (client.clone(), large.clone());
        async move { send(&mut client, vec![large]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = send(&mut client, vec![large]).await;
    assert_eq!(code(refused.status.as_ref()), Code::TooManyRequests);
    assert!(refused.status.unwrap().message.contains("clients hold"));
    let small = send(&mut client, vec![message("orders", "small")]);
    assert!(tokio::time::timeout(Duration::from_millis(200), small).await.is_err(), "let in, and waits for the store");
    server.store.held.send_replace(false);
    assert_eq!(code(waiting.await.unwrap().status.as_ref()), Code::Ok);
}

#[tokio::test]
async fn calls_without_a_client_id_are_told_so_in_the_answer() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let route = client.query_route(v2::QueryRouteRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(route.status.as_ref()), Code::ClientIdRequired);
    let sent = client.send_message(v2::SendMessageRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(sent.status.as_ref()), Code::ClientIdRequired);
    let mut stream = client.receive_message(v2::ReceiveMessageRequest::default()).await.unwrap().into_inner();
    let only = stream.message().await.unwrap().unwrap().content;
    let Some(v2::receive_message_response::Content::Status(status)) = only else { panic!("{only:?}") };
    assert_eq!(status.code(), Code::ClientIdRequired);
    assert_eq!(stream.message().await.unwrap(), None, "one element and the end");
}

#[tokio::test]
async fn every_other_answer_has_a_status_and_later_rpcs_say_so() {
    let server = Server::start().await;
    let mut client = server.client().await;
    macro_rules! status_of {
        ($rpc:ident, $request:ident) => {{
            let reply = client.$rpc(from_client("c", v2::$request::default())).await.unwrap().into_inner();
            code(reply.status.as_ref())
        }};
    }
    assert_eq!(status_of!(end_transaction, EndTransactionRequest), Code::NotImplemented);
    assert_eq!(status_of!(recall_message, RecallMessageRequest), Code::NotImplemented);
    assert_eq!(status_of!(update_offset, UpdateOffsetRequest), Code::NotImplemented);
    assert_eq!(status_of!(get_offset, GetOffsetRequest), Code::NotImplemented);
    assert_eq!(status_of!(query_offset, QueryOffsetRequest), Code::NotImplemented);
    assert_eq!(status_of!(sync_lite_subscription, SyncLiteSubscriptionRequest), Code::NotImplemented);
    assert_eq!(status_of!(query_assignment, QueryAssignmentRequest), Code::IllegalTopic);
    assert_eq!(status_of!(ack_message, AckMessageRequest), Code::IllegalTopic);
    assert_eq!(status_of!(change_invisible_duration, ChangeInvisibleDurationRequest), Code::IllegalTopic);
    let forward = status_of!(forward_message_to_dead_letter_queue, ForwardMessageToDeadLetterQueueRequest);
    assert_eq!(forward, Code::IllegalTopic);
    pull_is_not_implemented(&mut client).await;
}

async fn pull_is_not_implemented(client: &mut Client) {
    let request = v2::PullMessageRequest { group: Some(resource("g")), ..v2::PullMessageRequest::default() };
    let mut stream = client.pull_message(from_client("c", request)).await.unwrap().into_inner();
    let only = stream.message().await.unwrap().unwrap().content;
    let Some(v2::pull_message_response::Content::Status(status)) = only else { panic!("{only:?}") };
    assert_eq!(status.code(), Code::NotImplemented);
    assert_eq!(stream.message().await.unwrap(), None);
}
