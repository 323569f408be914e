//! What a push consumer was sent is renewed only once it is known to have it.

use crate::support::{
    Client, Received, Server, code, connect, consumer_settings, eventually, from_client, message, query_route, receive,
    receive_request, resource, send,
};
use gantry_proto::contract::StoreError;
use gantry_proto::model::ClientHash;
use gantry_proto::wire::v2::{self, AckMessageEntry, AckMessageRequest, ClientType, Code, HeartbeatRequest};
use std::time::Duration;

/// More than a call and an answer that cross can be apart.
const LATER: Duration = Duration::from_millis(1300);

async fn server() -> (Server, Client) {
    let server = Server::start_with(|config, _| config.renew_interval = Duration::from_millis(50)).await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    (server, client)
}

async fn receive_some(client: &mut Client, id: &str) -> Received {
    let request = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    receive(client, from_client(id, request)).await
}

async fn heartbeat(client: &mut Client, id: &str) {
    let request = HeartbeatRequest { group: Some(resource("group")), client_type: ClientType::PushConsumer as i32 };
    let reply = client.heartbeat(from_client(id, request)).await.unwrap().into_inner();
    assert_eq!(code(reply.status.as_ref()), Code::Ok);
}

async fn ack(client: &mut Client, id: &str, handle: &str) -> Code {
    let entry = AckMessageEntry { receipt_handle: handle.to_owned(), ..AckMessageEntry::default() };
    let (group, topic) = (Some(resource("group")), Some(resource("orders")));
    let request = AckMessageRequest { group, topic, entries: vec![entry] };
    code(client.ack_message(from_client(id, request)).await.unwrap().into_inner().status.as_ref())
}

/// The handles that a store was told to have arrived, and whose.
fn told(server: &Server) -> Vec<(ClientHash, String)> {
    let arrived = server.store.seen().arrived;
    let of = |one: &gantry_proto::contract::ArrivedDeliveries| {
        let owner = one.owner;
        one.handles.iter().map(move |handle| (owner, handle.0.clone())).collect::<Vec<_>>()
    };
    arrived.iter().flat_map(of).collect()
}

/// Some renewals later.
async fn some_rounds(server: &Server) {
    let before = server.store.seen().renewals.len();
    eventually("renewals", || server.store.seen().renewals.len() > before + 3).await;
}

#[tokio::test]
async fn a_later_call_on_the_same_connection_says_so_and_only_of_what_is_not_finished() {
    let (server, mut client) = server().await;
    for id in ["a", "b"] {
        send(&mut client, vec![message("orders", id)]).await;
    }
    let handles = receive_some(&mut client, "push").await.handles();
    // A call that may have crossed the answer, another client's on the same connection, and one on another connection.
    heartbeat(&mut client, "push").await;
    tokio::time::sleep(LATER).await;
    heartbeat(&mut client, "somebody else").await;
    heartbeat(&mut server.client().await, "push").await;
    some_rounds(&server).await;
    assert_eq!(told(&server), [], "the answer may be lost");
    assert_eq!(ack(&mut client, "push", &handles[0]).await, Code::Ok);
    eventually("the store is told", || !told(&server).is_empty()).await;
    some_rounds(&server).await;
    assert_eq!(told(&server), [(ClientHash::of("push"), handles[1].clone())], "once, and not of what is finished");
}

#[tokio::test]
async fn whoever_asks_again_at_once_has_the_answer_unless_it_had_given_up() {
    let (server, mut client) = server().await;
    send(&mut client, vec![message("orders", "a")]).await;
    let handles = receive_some(&mut client, "push").await.handles();
    assert_eq!(receive_some(&mut client, "push").await.code(), Code::MessageNotFound);
    let first = (ClientHash::of("push"), handles[0].clone());
    eventually("the store is told", || told(&server) == [first.clone()]).await;

    // The next answer comes when its client does not want it any more, as far as anybody knows.
    send(&mut client, vec![message("orders", "b")]).await;
    let request = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    let mut request = from_client("push", request);
    request.set_timeout(LATER);
    assert_eq!(receive(&mut client, request).await.shape, "smt");
    tokio::time::sleep(LATER).await;
    receive_some(&mut client, "push").await;
    heartbeat(&mut client, "push").await;
    some_rounds(&server).await;
    assert_eq!(told(&server), [first]);
}

#[tokio::test]
async fn what_was_lost_with_its_connection_is_never_said_to_have_arrived_although_its_client_comes_back() {
    let (server, mut client) = server().await;
    let mut settings = server.client().await;
    let _stream = connect(&mut settings, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    let parked = tokio::spawn(async move {
        let request = v2::ReceiveMessageRequest {
            auto_renew: true,
            long_polling_timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            ..receive_request("orders", "group")
        };
        receive(&mut client, from_client("push", request)).await
    });
    eventually("the receive is parked", || server.store.seen().parked == 1).await;
    send(&mut settings, vec![message("orders", "id")]).await;
    // As if the answer had not come: the client knows nothing of it, and goes on under its id on another connection.
    parked.await.unwrap();
    tokio::time::sleep(LATER).await;
    for _ in 0..3 {
        heartbeat(&mut settings, "push").await;
        some_rounds(&server).await;
    }
    assert_eq!(told(&server), []);
    assert!(server.store.seen().renewals.iter().all(|owners| *owners == [ClientHash::of("push")]), "it lives");
}

#[tokio::test]
async fn a_store_that_cannot_be_told_is_told_again() {
    let (server, mut client) = server().await;
    send(&mut client, vec![message("orders", "id")]).await;
    let handles = receive_some(&mut client, "push").await.handles();
    server.store.fail_with(Some(StoreError::Busy(String::new())));
    tokio::time::sleep(LATER).await;
    heartbeat(&mut client, "push").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(told(&server), []);
    server.store.fail_with(None);
    eventually("the store is told", || told(&server) == [(ClientHash::of("push"), handles[0].clone())]).await;
}

#[tokio::test]
async fn a_delivery_that_its_consumer_changed_is_not_renewed() {
    let (server, mut client) = server().await;
    send(&mut client, vec![message("orders", "id")]).await;
    let handle = receive_some(&mut client, "push").await.handles().remove(0);
    let request = v2::ChangeInvisibleDurationRequest {
        group: Some(resource("group")),
        topic: Some(resource("orders")),
        receipt_handle: handle,
        invisible_duration: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..v2::ChangeInvisibleDurationRequest::default()
    };
    client.change_invisible_duration(from_client("push", request)).await.unwrap();
    tokio::time::sleep(LATER).await;
    heartbeat(&mut client, "push").await;
    some_rounds(&server).await;
    assert_eq!(told(&server), []);
}
