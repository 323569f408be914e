//! Who is woken, and that nobody sleeps on beside a message.

use super::*;
use crate::support::*;
use gantry_proto::contract::{AckRequest, AppendRequest, DeadLetterRequest};
use gantry_proto::model::{MetadataChange, MetadataVersion};
use std::pin::Pin;

const WAIT: Duration = Duration::from_secs(20);

fn waiting_pop(store: &Store) -> Pin<Box<impl Future<Output = Result<PopReply, PopError>>>> {
    let mut receive = Box::pin(store.pop(PopRequest { wait: WAIT, ..pop_request(1) }));
    assert!(poll_once(receive.as_mut()).is_none(), "there is nothing yet");
    receive
}

#[tokio::test(start_paused = true)]
async fn a_woken_receive_that_fails_leaves_its_wake_up_to_another() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let (mut first, second) = (waiting_pop(&store), waiting_pop(&store));
    send(&store, 0, "m").await.unwrap();
    // For a moment the group is not known.
    let group = machine.view.group_by_id(GROUP).unwrap();
    let version = |ahead| MetadataVersion(machine.view.version().0 + ahead);
    machine.view.apply(version(1), &[MetadataChange::GroupRemoved(GROUP)]);
    assert!(matches!(poll_once(first.as_mut()), Some(Err(PopError::UnknownGroup(_)))));
    machine.view.apply(version(1), &[MetadataChange::GroupUpsert(group)]);
    assert_eq!(second.await.unwrap().messages.len(), 1, "the other receive slept on");
    let _ = store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_woken_receive_that_goes_away_while_there_is_no_room_leaves_its_wake_up_to_another() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let (mut first, second) = (waiting_pop(&store), waiting_pop(&store));
    send(&store, 0, "m").await.unwrap();
    let end = store.log.end_segment_at(store.log.appended_to());
    assert!(poll_once(first.as_mut()).is_none(), "it waits for room");
    store.log.end_segment_at(end);
    drop(first);
    assert_eq!(second.await.unwrap().messages.len(), 1, "the other receive slept on");
    let _ = store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn room_for_more_messages_wakes_a_receive() {
    for finish in 0..2 {
        let mut machine = Machine::new(1);
        machine.config.inflight_max = 1;
        let store = machine.must_open();
        let (first, second) = (waiting_pop(&store), waiting_pop(&store));
        let messages = vec![message("one", None), message("two", None)];
        store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
        let held = first.await.unwrap().messages.remove(0);
        let refused = pop(&store, 1).await;
        assert!(matches!(refused, Err(PopError::InflightFull { inflight: 1 })), "{refused:?}");
        let (group, topic, handle) = (GROUP, TOPIC, held.handle.clone());
        if finish == 0 {
            store.ack(AckRequest { group, topic, handles: vec![handle] }).await.unwrap().remove(0).unwrap();
        } else {
            store.forward_to_dead_letter(DeadLetterRequest { group, topic, handle }).await.unwrap();
        }
        let woken = second.await.unwrap().messages;
        assert_eq!(woken.iter().map(body).collect::<Vec<_>>(), ["two"], "the other receive slept on");
        let _ = store.shutdown().await;
    }
}
