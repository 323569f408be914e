//! A store serves the queues that are placed on its group, and says what it still holds.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendError, HandleError, PopRequest, QueueStatus, Remains};
use gantry_proto::model::{QueueId, ReceiptHandle, StoreGroupState};
use std::time::Duration;
use support::*;

#[tokio::test]
async fn queues_on_other_store_groups_are_not_known_here() {
    let machine = Machine::new(1);
    machine.place(&[ELSEWHERE, HERE, ELSEWHERE, HERE]);
    let store = machine.must_open();
    for elsewhere in [0, 2, 4] {
        assert!(matches!(send(&store, elsewhere, "lost").await, Err(AppendError::UnknownQueue(TOPIC))));
    }
    assert_eq!(send(&store, 3, "kept").await.unwrap().queue_offset.0, 0);
    let ids = |queues: Vec<QueueStatus>| queues.iter().map(|queue| queue.queue.0).collect::<Vec<_>>();
    assert_eq!(ids(store.queues(TOPIC).await.unwrap()), [1, 3]);
    // It grows onto this group and others.
    machine.place(&[ELSEWHERE, HERE, ELSEWHERE, HERE, ELSEWHERE, HERE]);
    send(&store, 5, "kept, too").await.unwrap();
    assert!(send(&store, 4, "lost").await.is_err());
    assert_eq!(pop_all(&store).await.len(), 2);
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    let store = machine.must_open();
    assert_eq!(ids(store.queues(TOPIC).await.unwrap()), [1, 3, 5]);
    assert!(matches!(send(&store, 2, "lost").await, Err(AppendError::UnknownQueue(TOPIC))));
    assert_eq!(send(&store, 5, "third").await.unwrap().queue_offset.0, 1);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_draining_group_takes_messages_only_of_topics_that_have_nowhere_else_to_go() {
    use StoreGroupState::{Active, Draining};
    let machine = Machine::new(1);
    let store = machine.must_open();
    let refused = async |text: &str| matches!(send(&store, 0, text).await, Err(AppendError::Draining));
    machine.set_store_groups(&[(HERE, Draining), (ELSEWHERE, Active)]);
    assert!(!refused("nowhere else").await);
    // Only the topic changes, no store group does.
    machine.place(&[HERE, HERE, ELSEWHERE]);
    assert!(refused("there is another queue now").await);
    machine.set_store_groups(&[(ELSEWHERE, Draining)]);
    assert!(!refused("which is being drained, too").await);
    machine.set_store_groups(&[(ELSEWHERE, Active)]);
    assert!(refused("and was taken into use again").await);
    machine.set_store_groups(&[(HERE, Active)]);
    assert!(!refused("as this one").await);
    machine.set_store_groups(&[(HERE, Draining)]);
    assert_eq!(pop_all(&store).await.len(), 3, "consumers empty it");
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn dead_letters_stay_on_the_store_group_that_gave_them_up_even_while_it_is_drained() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "poison").await.unwrap();
    machine.set_store_groups(&[(HERE, StoreGroupState::Draining), (ELSEWHERE, StoreGroupState::Active)]);
    for _ in 0..3 {
        assert_eq!(pop(&store, 1).await.unwrap().len(), 1);
        machine.clock.advance(INVISIBLE);
    }
    let request = PopRequest { group: READER, topic: DEAD_LETTERS, wait: Duration::from_secs(5), ..pop_request(1) };
    let letter = store.pop(request).await.unwrap().messages.remove(0);
    assert_eq!((letter.queue, body(&letter)), (QueueId(HERE.0 - 1), "poison".into()));
    assert_eq!(store.queues(DEAD_LETTERS).await.unwrap().len(), 1);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handle_names_its_store_group_and_does_not_open_for_another() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "one").await.unwrap();
    let popped = pop(&store, 1).await.unwrap().remove(0);
    let (group, token) = popped.handle.parse().unwrap();
    assert_eq!(group, HERE);
    let moved = ReceiptHandle::new(ELSEWHERE, token);
    assert!(matches!(ack(&store, &moved).await, Err(HandleError::Malformed)));
    ack(&store, &popped.handle).await.unwrap();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_remains_is_counted_for_each_group_that_has_not_finished_it() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    assert_eq!(store.remains().await.unwrap(), Remains::default());
    for number in 0..6 {
        send(&store, number % QUEUES, &format!("m{number}")).await.unwrap();
    }
    assert_eq!(store.remains().await.unwrap(), Remains { unfinished: 0, unclaimed: 6 });
    let held = pop(&store, 2).await.unwrap();
    assert_eq!(store.remains().await.unwrap(), Remains { unfinished: 6, unclaimed: 0 });
    let reader = PopRequest { group: READER, ..pop_request(1) };
    store.pop(reader).await.unwrap();
    assert_eq!(store.remains().await.unwrap(), Remains { unfinished: 12, unclaimed: 0 });
    ack(&store, &held[0].handle).await.unwrap();
    assert_eq!(store.remains().await.unwrap(), Remains { unfinished: 11, unclaimed: 0 });
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    let store = machine.must_open();
    assert_eq!(store.remains().await.unwrap(), Remains { unfinished: 11, unclaimed: 0 });
    store.shutdown().await.unwrap();
}
