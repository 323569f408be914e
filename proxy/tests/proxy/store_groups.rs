//! Topics on two store groups, which go down and come back.

use crate::support::{
    Client, FIRST, FakeStore, Received, SECOND, Server, code, eventually, from_client, id_for_queue, message,
    query_route, receive, receive_request, resource, send,
};
use gantry_proto::contract::StoreError;
use gantry_proto::model::{
    MetadataChange, Placement, QueueId, StoreGroupState, StoredMessage, Topic, TopicId, TopicType,
};
use gantry_proto::wire::v2::{
    self, AckMessageEntry, AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest, Code, Permission,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A proxy, the stores of two groups, and a topic with two queues on each.
async fn two_groups() -> (Server, Arc<FakeStore>, Client, Arc<Topic>) {
    let server = Server::start().await;
    let second = server.add_store_group();
    let topic = server.metadata.add_topic("orders", TopicType::Mixed, 4);
    let client = server.client().await;
    (server, second, client, topic)
}

/// An id that begins on the first store group.
fn on_first(name: &str) -> String {
    id_for_queue(name, 0, 4)
}

fn count(store: &FakeStore, topic: TopicId) -> usize {
    store.stored(topic).len()
}

/// A message as the proxy stores it, taken from a store that is not under test.
async fn stored(id: &str) -> StoredMessage {
    let server = Server::start().await;
    let topic = server.metadata.add_topic("orders", TopicType::Mixed, 1);
    send(&mut server.client().await, vec![message("orders", id)]).await;
    server.store.stored(topic.id).remove(0)
}

async fn sent(client: &mut Client, id: &str) -> (Code, String) {
    let status = send(client, vec![message("orders", id)]).await.status.unwrap();
    (status.code(), status.message)
}

async fn sent_within(client: &mut Client, id: &str, timeout: Duration) -> (Code, String) {
    let mut request = from_client("producer", v2::SendMessageRequest { messages: vec![message("orders", id)] });
    request.set_timeout(timeout);
    let status = client.send_message(request).await.unwrap().into_inner().status.unwrap();
    (status.code(), status.message)
}

async fn receive_some(client: &mut Client, batch_size: i32, wait: Duration) -> Received {
    let request = v2::ReceiveMessageRequest {
        batch_size,
        long_polling_timeout: Some(wait.try_into().unwrap()),
        ..receive_request("orders", "group")
    };
    receive(client, from_client("c", request)).await
}

fn parked(client: &Client, wait: Duration) -> tokio::task::JoinHandle<Received> {
    let mut client = client.clone();
    tokio::spawn(async move { receive_some(&mut client, 32, wait).await })
}

async fn ack(client: &mut Client, handles: &[String], timeout: Duration) -> AckMessageResponse {
    let entry = |handle: &String| AckMessageEntry { receipt_handle: handle.clone(), ..AckMessageEntry::default() };
    let mut request = from_client(
        "c",
        AckMessageRequest {
            group: Some(resource("group")),
            topic: Some(resource("orders")),
            entries: handles.iter().map(entry).collect(),
        },
    );
    request.set_timeout(timeout);
    client.ack_message(request).await.unwrap().into_inner()
}

fn codes(reply: &AckMessageResponse) -> Vec<Code> {
    reply.entries.iter().map(|entry| code(entry.status.as_ref())).collect()
}

const SECOND_LONG: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn sends_go_around_both_groups_and_avoid_the_one_that_is_down() {
    let (server, second, mut client, topic) = two_groups().await;
    for n in 0..8 {
        assert_eq!(sent(&mut client, &n.to_string()).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (4, 4));
    server.stores.set_up(SECOND, false);
    for n in 8..12 {
        assert_eq!(sent(&mut client, &n.to_string()).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (8, 4));
    server.stores.set_up(SECOND, true);
    for n in 12..16 {
        assert_eq!(sent(&mut client, &n.to_string()).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (10, 6));
}

#[tokio::test]
async fn an_error_that_says_that_nothing_happened_sends_a_message_to_the_other_group() {
    let errors = [
        StoreError::Busy(String::new()),
        StoreError::DiskFull(String::new()),
        StoreError::WritesStopped(String::new()),
        StoreError::ShuttingDown,
        StoreError::NotLeader(String::new()),
        StoreError::NoLeader(String::new()),
    ];
    for error in errors {
        let (server, second, mut client, topic) = two_groups().await;
        server.store.fail_with(Some(error.clone()));
        for n in 0..2 {
            assert_eq!(sent(&mut client, &on_first(&n.to_string())).await.0, Code::Ok, "{error:?}");
        }
        assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (0, 2), "{error:?}");
        let asked = if matches!(error, StoreError::Busy(_)) { 2 } else { 1 };
        assert_eq!(server.store.seen().appends, asked, "{error:?}: nobody else runs into what is about the store");
    }
    let (server, second, mut client, topic) = two_groups().await;
    server.store.drain();
    for n in 0..2 {
        assert_eq!(sent(&mut client, &on_first(&n.to_string())).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (0, 2));
}

#[tokio::test]
async fn a_message_that_may_be_stored_stays_with_its_group_and_is_stored_once() {
    let (server, second, mut client, topic) = two_groups().await;
    server.store.lose_answers(2);
    let started = Instant::now();
    let reply = send(&mut client, vec![message("orders", &on_first("id"))]).await;
    assert_eq!(code(reply.status.as_ref()), Code::Ok);
    assert_eq!(reply.entries[0].offset, 0, "the first append's result");
    assert!(started.elapsed() >= Duration::from_millis(150), "after 50 ms and 100 ms");
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (1, 0));
    assert_eq!(server.store.seen().appends, 3);

    // It is gone before it answered, and back a moment later.
    server.store.lose_answers(1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(sent(&mut client, &id_for_queue("on the second", 1, 4)).await.0, Code::Ok);
    assert_eq!(count(&second, topic.id), 1);
    let sending = tokio::spawn({
        let mut client = client.clone();
        async move { sent(&mut client, &on_first("restarted")).await }
    });
    eventually("the store took it", || count(&server.store, topic.id) == 2).await;
    server.stores.set_up(FIRST, false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished());
    server.stores.set_up(FIRST, true);
    assert_eq!(sending.await.unwrap().0, Code::Ok);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (2, 1));
}

#[tokio::test]
async fn a_store_that_was_interrupted_may_have_stored_a_message_and_others_are_preferred() {
    let (server, second, mut client, topic) = two_groups().await;
    server.store.fail_with(Some(StoreError::Interrupted("10.0.0.1:9000 is fenced".to_owned())));
    let (code, why) = sent_within(&mut client, &on_first("unknown"), SECOND_LONG).await;
    assert_eq!(code, Code::ProxyTimeout);
    assert!(why.contains("store-1") && !why.contains("10.0.0"), "{why}");
    for n in 0..4 {
        assert_eq!(sent(&mut client, &n.to_string()).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (0, 4), "nobody else runs into it");
}

#[tokio::test]
async fn a_producer_that_was_told_that_nothing_is_known_finds_its_message_where_it_may_be() {
    let (server, second, mut client, topic) = two_groups().await;
    server.store.lose_answers(100);
    let id = on_first("doubtful");
    assert_eq!(sent_within(&mut client, &id, SECOND_LONG).await.0, Code::ProxyTimeout);
    // Its group is suspected and does not answer, and there is another one: the retry goes to its group all the same.
    server.stores.set_up(FIRST, false);
    assert_eq!(sent_within(&mut client, &id, SECOND_LONG).await.0, Code::ProxyTimeout);
    assert_eq!(sent(&mut client, &on_first("another")).await.0, Code::Ok);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (1, 1));
    server.store.lose_answers(0);
    server.stores.set_up(FIRST, true);
    assert_eq!(sent(&mut client, &id).await.0, Code::Ok);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (1, 1), "once");
}

#[tokio::test]
async fn when_all_groups_are_down_the_answer_says_so_and_when_one_comes_back_in_time_the_send_succeeds() {
    let (server, second, mut client, topic) = two_groups().await;
    server.stores.set_up(FIRST, false);
    server.stores.set_up(SECOND, false);
    let started = Instant::now();
    let (code, why) = sent_within(&mut client, "nowhere", SECOND_LONG).await;
    assert_eq!(code, Code::TooManyRequests);
    assert!(why.contains("store-1") && why.contains("store-2"), "{why}");
    assert!(started.elapsed() < SECOND_LONG);
    let sending = tokio::spawn({
        let mut client = client.clone();
        async move { sent(&mut client, "late").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stores.set_up(SECOND, true);
    assert_eq!(sending.await.unwrap().0, Code::Ok);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (0, 1));

    // Full disks do not get better within a call.
    server.stores.set_up(FIRST, true);
    for store in [&server.store, &second] {
        store.fail_with(Some(StoreError::DiskFull("/data".to_owned())));
    }
    let started = Instant::now();
    assert_eq!(sent(&mut client, "full").await.0, Code::InternalServerError);
    assert!(started.elapsed() < SECOND_LONG);
}

#[tokio::test]
async fn a_draining_group_gets_no_messages_unless_there_is_no_other_and_routes_do_not_change() {
    let (server, second, mut client, topic) = two_groups().await;
    server.metadata.set_store_group(SECOND, StoreGroupState::Draining);
    let permissions = |route: v2::QueryRouteResponse| -> Vec<(i32, Permission)> {
        route.message_queues.iter().map(|queue| (queue.id, queue.permission())).collect()
    };
    // Node uses queue 0 alone: whatever becomes of its store group, it is there.
    let all = [0, 1, 2, 3].map(|id| (id, Permission::ReadWrite));
    assert_eq!(permissions(query_route(&mut client, "orders").await), all);
    for n in 0..4 {
        assert_eq!(sent(&mut client, &n.to_string()).await.0, Code::Ok);
    }
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (4, 0));

    let change = |placement| MetadataChange::TopicUpsert(Arc::new(Topic { placement, ..Topic::clone(&topic) }));
    server.metadata.apply(change(Placement::spread(2, &[SECOND], 0)));
    assert_eq!(permissions(query_route(&mut client, "orders").await), all[..2]);
    assert_eq!(sent(&mut client, "no other").await.0, Code::Ok);
    assert_eq!(count(&second, topic.id), 1);
}

#[tokio::test]
async fn a_removed_group_takes_no_queue_from_the_route() {
    let (server, second, mut client, topic) = two_groups().await;
    let before = query_route(&mut client, "orders").await;
    server.metadata.apply(MetadataChange::StoreGroupRemoved(FIRST));
    assert_eq!(query_route(&mut client, "orders").await, before, "queue 0 was there");
    assert_eq!(sent(&mut client, "id").await.0, Code::Ok);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (0, 1));
}

#[tokio::test]
async fn a_full_group_waits_for_room_and_is_told_at_the_end() {
    let (server, second, mut client, topic) = two_groups().await;
    for store in [&server.store, &second] {
        store.set_full(true);
    }
    let started = Instant::now();
    let full = receive_some(&mut client, 1, SECOND_LONG).await;
    assert_eq!(full.code(), Code::TooManyRequests);
    assert!(full.status.unwrap().message.contains("in flight"));
    assert!(started.elapsed() >= SECOND_LONG && started.elapsed() < SECOND_LONG * 2, "{:?}", started.elapsed());
    assert!(server.store.seen().pops.len() < 10, "{}", server.store.seen().pops.len());

    // The other group has none: that the first one is full is told all the same.
    server.store.set_full(false);
    assert_eq!(receive_some(&mut client, 1, SECOND_LONG).await.code(), Code::TooManyRequests);
    second.put(topic.id, 1, stored("id").await);
    let receive = parked(&client, LONG);
    eventually("it waits", || server.store.seen().parked == 1).await;
    second.set_full(false);
    assert_eq!(receive.await.unwrap().shape, "smt", "there is room");
}

#[tokio::test]
async fn a_dead_letter_topic_has_a_queue_on_every_group() {
    let (_server, _second, mut client, _) = two_groups().await;
    receive_some(&mut client, 1, Duration::ZERO).await;
    let route = query_route(&mut client, "%DLQ%group").await;
    assert_eq!(route.message_queues.iter().map(|queue| queue.id).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_topic_without_a_store_group_is_not_there() {
    let (server, _, mut client, _) = two_groups().await;
    for group in [FIRST, SECOND] {
        server.metadata.apply(MetadataChange::StoreGroupRemoved(group));
    }
    assert_eq!(code(query_route(&mut client, "orders").await.status.as_ref()), Code::TopicNotFound);
    assert_eq!(sent_within(&mut client, "id", Duration::from_millis(500)).await.0, Code::Forbidden);
    let received = receive_some(&mut client, 1, Duration::from_millis(100)).await;
    assert_eq!(received.code(), Code::TooManyRequests);
}

#[tokio::test]
async fn receives_draw_from_the_groups_in_turn() {
    let (server, second, mut client, topic) = two_groups().await;
    for n in 0..8 {
        sent(&mut client, &n.to_string()).await;
    }
    let mut turns = Vec::new();
    for _ in 0..8 {
        let handle = receive_some(&mut client, 1, Duration::ZERO).await.handles().remove(0);
        turns.push(handle.split_once('.').unwrap().0.to_owned());
    }
    assert_eq!(turns, ["1", "2", "1", "2", "1", "2", "1", "2"]);
    assert_eq!(receive_some(&mut client, 1, Duration::ZERO).await.code(), Code::MessageNotFound);
    assert_eq!((count(&server.store, topic.id), count(&second, topic.id)), (4, 4));
}

#[tokio::test]
async fn a_waiting_receive_hears_of_an_arrival_on_any_group() {
    let (server, second, client, topic) = two_groups().await;
    for (store, group) in [(&second, SECOND), (&server.store, FIRST)] {
        let receive = parked(&client, LONG);
        eventually("both wait", || server.store.seen().parked == 1 && second.seen().parked == 1).await;
        store.put(topic.id, group.0 - 1, stored("late").await);
        assert_eq!(receive.await.unwrap().shape, "smt");
        eventually("none waits", || server.store.seen().parked == 0 && second.seen().parked == 0).await;
    }
}

#[tokio::test]
async fn messages_of_a_second_winner_come_back_at_once_and_uncounted() {
    let (server, second, mut client, topic) = two_groups().await;
    let receive = parked(&client, LONG);
    eventually("both wait", || server.store.seen().parked == 1 && second.seen().parked == 1).await;
    let (a, b) = (stored("a").await, stored("b").await);
    eventually("both wait still", || server.store.seen().parked == 1 && second.seen().parked == 1).await;
    server.store.put(topic.id, 0, a);
    second.put(topic.id, 1, b);
    let first = receive.await.unwrap();
    assert_eq!(first.shape, "smt", "one of them");
    let changes = || [server.store.seen().changes, second.seen().changes].concat();
    eventually("the other one is handed back", || changes() == [(Duration::ZERO, true)]).await;
    let other = receive_some(&mut client, 32, SECOND_LONG).await;
    assert_eq!(other.shape, "smt");
    assert_eq!(other.messages[0].system_properties.as_ref().unwrap().delivery_attempt, Some(1));
    let id = |received: &Received| received.messages[0].system_properties.as_ref().unwrap().message_id.clone();
    assert_ne!(id(&first), id(&other));
}

#[tokio::test]
async fn a_group_that_comes_back_while_a_receive_waits_is_asked_again() {
    let (server, second, mut client, topic) = two_groups().await;
    server.stores.set_up(SECOND, false);
    second.put(topic.id, 1, stored("waits").await);
    assert_eq!(receive_some(&mut client, 1, Duration::ZERO).await.code(), Code::MessageNotFound, "one group is up");
    let receive = parked(&client, LONG);
    eventually("the first waits", || server.store.seen().parked == 1).await;
    let started = Instant::now();
    server.stores.set_up(SECOND, true);
    assert_eq!(receive.await.unwrap().shape, "smt");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn when_all_groups_are_down_a_receive_is_an_error_and_not_an_empty_answer() {
    let (server, second, mut client, topic) = two_groups().await;
    server.stores.set_up(FIRST, false);
    server.stores.set_up(SECOND, false);
    for wait in [Duration::ZERO, Duration::from_millis(200)] {
        assert_eq!(receive_some(&mut client, 1, wait).await.code(), Code::TooManyRequests);
    }
    let receive = parked(&client, LONG);
    tokio::time::sleep(Duration::from_millis(100)).await;
    second.put(topic.id, 1, stored("waits").await);
    server.stores.set_up(SECOND, true);
    assert_eq!(receive.await.unwrap().shape, "smt");
}

#[tokio::test]
async fn a_topic_that_grows_onto_another_group_reaches_receives_that_wait() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = server.metadata.add_topic("orders", TopicType::Mixed, 1);
    let receive = parked(&client, LONG);
    eventually("it waits", || server.store.seen().parked == 1).await;
    let second = server.add_store_group();
    let placement =
        Placement::Spread { store_groups: [FIRST, SECOND].into(), message_group_queues: [QueueId(0)].into() };
    server.metadata.apply(MetadataChange::TopicUpsert(Arc::new(Topic { placement, ..Topic::clone(&topic) })));
    assert_eq!(sent(&mut client, "0").await.0, Code::Ok);
    assert_eq!(receive.await.unwrap().shape, "smt");
    let receive = parked(&client, LONG);
    assert_eq!(sent(&mut client, "1").await.0, Code::Ok);
    assert_eq!(count(&second, topic.id), 1);
    assert_eq!(receive.await.unwrap().shape, "smt");
}

#[tokio::test]
async fn a_batch_of_acknowledgements_is_split_by_group_and_answered_in_its_order() {
    let (server, second, mut client, _) = two_groups().await;
    for n in 0..4 {
        sent(&mut client, &n.to_string()).await;
    }
    let mut of_first = receive_some(&mut client, 32, Duration::ZERO).await.handles();
    let mut of_second = receive_some(&mut client, 32, Duration::ZERO).await.handles();
    assert_eq!((of_first.len(), of_second.len()), (2, 2));
    let handles = [
        of_second.remove(0),
        "nonsense".to_owned(),
        of_first.remove(0),
        "2.handle-999".to_owned(),
        of_second.remove(0),
    ];
    let reply = ack(&mut client, &handles, LONG).await;
    let told: Vec<&String> = reply.entries.iter().map(|entry| &entry.receipt_handle).collect();
    assert_eq!(told, handles.iter().collect::<Vec<_>>());
    use Code::{InvalidReceiptHandle, MultipleResults, Ok, TooManyRequests};
    assert_eq!(codes(&reply), [Ok, InvalidReceiptHandle, Ok, InvalidReceiptHandle, Ok]);
    assert_eq!(code(reply.status.as_ref()), MultipleResults);
    assert_eq!((server.store.seen().acks, second.seen().acks), (vec![1], vec![3]), "one call each");

    // A group that is down costs its own entries only, and those can be tried again.
    server.stores.set_up(SECOND, false);
    let handles = [of_first.remove(0), "2.handle-1".to_owned()];
    let started = Instant::now();
    let reply = ack(&mut client, &handles, SECOND_LONG).await;
    assert_eq!(codes(&reply), [Ok, TooManyRequests]);
    assert!(started.elapsed() < SECOND_LONG);
}

#[tokio::test]
async fn an_acknowledgement_waits_for_its_group_while_the_client_does() {
    let (server, second, mut client, _) = two_groups().await;
    for n in 0..2 {
        sent(&mut client, &n.to_string()).await;
    }
    receive_some(&mut client, 32, Duration::ZERO).await;
    let handle = receive_some(&mut client, 32, Duration::ZERO).await.handles();
    assert!(handle[0].starts_with("2."));
    server.stores.set_up(SECOND, false);
    let change = |client: &Client| {
        let (mut client, handle) = (client.clone(), handle[0].clone());
        tokio::spawn(async move {
            let request = ChangeInvisibleDurationRequest {
                group: Some(resource("group")),
                topic: Some(resource("orders")),
                receipt_handle: handle,
                invisible_duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                ..ChangeInvisibleDurationRequest::default()
            };
            client.change_invisible_duration(from_client("c", request)).await.unwrap().into_inner()
        })
    };
    let changing = change(&client);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stores.set_up(SECOND, true);
    let changed = changing.await.unwrap();
    assert_eq!(code(changed.status.as_ref()), Code::Ok);
    second.fail_with(Some(StoreError::NotLeader(String::new())));
    let acking = tokio::spawn({
        let mut client = client.clone();
        async move { ack(&mut client, &[changed.receipt_handle], LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    second.fail_with(None);
    assert_eq!(codes(&acking.await.unwrap()), [Code::Ok]);
}

#[tokio::test]
async fn handles_of_a_group_that_is_gone_are_over_and_those_of_one_to_come_are_waited_for() {
    let (server, _, mut client, _) = two_groups().await;
    server.metadata.apply(MetadataChange::StoreGroupRemoved(FIRST));
    receive_some(&mut client, 1, Duration::ZERO).await;
    let started = Instant::now();
    assert_eq!(codes(&ack(&mut client, &["1.handle-1".to_owned()], LONG).await), [Code::InvalidReceiptHandle]);
    assert!(started.elapsed() < SECOND_LONG, "at once");
    let reply = ack(&mut client, &["9.handle-1".to_owned()], SECOND_LONG).await;
    assert_eq!(codes(&reply), [Code::InvalidReceiptHandle], "in the end");
    assert!(started.elapsed() > Duration::from_millis(300));
}
