//! Receiving, waiting, renewing, giving back and giving up, through the store's own interface.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::FutureExt as _;
use gantry_proto::contract::{
    AppendRequest, ArrivedDeliveries, ChangeInvisibleRequest, DeadLetterRequest, HandleError, PopError, PopRequest,
    PoppedMessage, ReleaseRequest, RenewRequest,
};
use gantry_proto::model::limits::AUTO_RENEW_LEASE;
use gantry_proto::model::{ClientHash, FilterExpression, QueueId, ReceiptHandle, StoredMessage, Timestamp, TopicId};
use gantry_store::Store;
use std::sync::Arc;
use std::time::Duration;
use support::*;

const SECOND: Duration = Duration::from_secs(1);

async fn change(store: &Store, message: &PoppedMessage, invisible: Duration, suspend: bool) -> Result<(), HandleError> {
    let request =
        ChangeInvisibleRequest { group: GROUP, topic: TOPIC, handle: message.handle.clone(), invisible, suspend };
    store.change_invisible(request).await.map(|_| ())
}

async fn read_dead_letters(store: &Store) -> Vec<StoredMessage> {
    let request = PopRequest { group: READER, topic: DEAD_LETTERS, wait: 5 * SECOND, ..pop_request(32) };
    store.pop(request).await.unwrap().messages.into_iter().map(|popped| popped.message).collect()
}

async fn end(store: Arc<Store>) {
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_waiting_receive_wakes_when_a_message_arrives() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let receive = {
        let store = store.clone();
        tokio::spawn(async move { store.pop(PopRequest { wait: 20 * SECOND, ..pop_request(8) }).await })
    };
    tokio::task::yield_now().await;
    assert!(!receive.is_finished());
    send(&store, 1, "news").await.unwrap();
    let messages = tokio::time::timeout(5 * SECOND, receive).await.unwrap().unwrap().unwrap().messages;
    assert_eq!(messages.iter().map(body).collect::<Vec<_>>(), ["news"]);
    end(store).await;
}

#[tokio::test]
async fn many_waiting_receives_share_what_arrives() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let receives: Vec<_> = (0..10)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.pop(PopRequest { wait: 20 * SECOND, ..pop_request(1) }).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let messages = (0..10).map(|number| message(&format!("m{number}"), None)).collect();
    store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
    let mut bodies = Vec::new();
    for receive in receives {
        let popped = tokio::time::timeout(5 * SECOND, receive).await.expect("nobody is left waiting").unwrap();
        bodies.extend(popped.unwrap().messages.iter().map(body));
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 10);
    end(store).await;
}

#[tokio::test]
async fn a_receive_that_is_abandoned_takes_nothing_with_it() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "kept").await.unwrap();
    for _ in 0..20 {
        // Polled once: it has leased the message and waits for the log. Then the client is gone.
        let mut abandoned = Box::pin(store.pop(pop_request(1)));
        let waker = std::task::Waker::noop();
        let _ = abandoned.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    let popped = store.pop(PopRequest { wait: 5 * SECOND, ..pop_request(1) }).await.unwrap().messages;
    assert_eq!((body(&popped[0]), popped[0].attempt), ("kept".into(), 1));
    end(store).await;
}

#[tokio::test]
async fn only_matching_tags_are_delivered_and_others_do_not_block() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for number in 0..100 {
        let tag = ["a", "b", "c"].get(number % 4).copied();
        let messages = vec![message(&format!("{number}-{}", tag.unwrap_or("none")), tag)];
        store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
    }
    let filter = || FilterExpression::parse_tag("a || b").unwrap();
    let mut bodies = Vec::new();
    loop {
        let popped = store.pop(PopRequest { filter: filter(), ..pop_request(7) }).await.unwrap().messages;
        if popped.is_empty() {
            break;
        }
        bodies.extend(popped.iter().map(body));
    }
    assert_eq!(bodies.len(), 50);
    assert!(bodies.iter().all(|text| text.ends_with("-a") || text.ends_with("-b")));
    end(store).await;
}

#[tokio::test]
async fn a_message_given_back_comes_again_when_asked_and_suspending_does_not_count() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "again").await.unwrap();
    let first = pop(&store, 1).await.unwrap().remove(0);
    change(&store, &first, 5 * SECOND, false).await.unwrap();
    assert!(pop(&store, 1).await.unwrap().is_empty());
    machine.clock.advance(5 * SECOND);
    let second = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!(second.attempt, 2);
    change(&store, &second, Duration::ZERO, true).await.unwrap();
    let third = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!(third.attempt, 2, "a suspension is not an attempt");
    ack(&store, &third.handle).await.unwrap();
    assert!(matches!(change(&store, &third, SECOND, false).await, Err(HandleError::Expired)), "it came back to life");
    end(store).await;
}

#[tokio::test]
async fn a_waiting_receive_gets_a_message_that_somebody_gives_back() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "returned").await.unwrap();
    let first = pop(&store, 1).await.unwrap().remove(0);
    let receive = {
        let store = store.clone();
        tokio::spawn(async move { store.pop(PopRequest { wait: 20 * SECOND, ..pop_request(1) }).await })
    };
    tokio::task::yield_now().await;
    change(&store, &first, Duration::ZERO, false).await.unwrap();
    let popped = tokio::time::timeout(5 * SECOND, receive).await.unwrap().unwrap().unwrap().messages;
    assert_eq!(popped[0].attempt, 2);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receive_gets_a_message_whose_delivery_ends() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(50, 1);
    let store = machine.must_open();
    let mut receives = Vec::new();
    for number in 0..50 {
        let (group, topic) = (FIRST_GROUP, TopicId(FIRST_TOPIC.0 + number));
        let messages = vec![message(&format!("m{number}"), None)];
        store.append(AppendRequest { topic, queue: QueueId(0), messages }).await.unwrap();
        // Each delivery ends at another time, the last one first.
        let invisible = (200 - u64::from(number)) * SECOND.as_millis() as u64;
        let request = PopRequest { group, topic, invisible: Duration::from_millis(invisible), ..pop_request(1) };
        assert_eq!(store.pop(request).await.unwrap().messages[0].attempt, 1);
        for _ in 0..2 {
            let request = PopRequest { group, topic, wait: 3600 * SECOND, invisible: 3600 * SECOND, ..pop_request(1) };
            let store = store.clone();
            receives.push((number, tokio::spawn(async move { store.pop(request).await })));
        }
    }
    for number in (0..50).rev() {
        let done = |receives: &[(u32, tokio::task::JoinHandle<_>)]| {
            let done = receives.iter().filter(|(_, receive)| receive.is_finished());
            done.map(|(number, _)| *number).collect::<Vec<_>>()
        };
        machine.clock.set(Timestamp::from_millis(1_800_000_000_000 + (200 - u64::from(number)) * 1000 - 1));
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(done(&receives), (number + 1..50).collect::<Vec<_>>(), "before its end");
        machine.clock.advance(Duration::from_millis(1));
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(done(&receives), (number..50).collect::<Vec<_>>(), "one of the two gets it");
    }
    receives.iter().for_each(|(_, receive)| receive.abort());
    end(store).await;
}

#[tokio::test]
async fn exhausted_messages_move_to_the_dead_letter_topic_once_and_name_their_origin() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "poison").await.unwrap();
    for attempt in 1..=3 {
        let popped = pop(&store, 1).await.unwrap();
        assert_eq!(popped[0].attempt, attempt);
        machine.clock.advance(INVISIBLE);
    }
    let letters = read_dead_letters(&store).await;
    assert_eq!(letters.len(), 1);
    let head = letters[0].parse_head().unwrap();
    let origin = head.dead_letter_origin.unwrap();
    assert_eq!((origin.topic, origin.message_id, head.message_id), ("orders", "poison", "poison"));
    assert_eq!((head.user_properties, &letters[0].body[..]), (&b"user"[..], &b"poison"[..]));
    assert!(pop(&store, 1).await.unwrap().is_empty());
    end(store).await;
    machine.files.kill();
    let store = machine.must_open();
    machine.clock.advance(10 * INVISIBLE);
    assert!(pop(&store, 1).await.unwrap().is_empty());
    assert_eq!(read_dead_letters(&store).await.len(), 1, "the reader's lease ended, and there is still one");
    end(store).await;
}

#[tokio::test]
async fn a_consumer_can_send_a_message_to_the_dead_letters_itself_and_say_so_twice() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 1, "unwanted").await.unwrap();
    let popped = pop(&store, 1).await.unwrap().remove(0);
    for _ in 0..2 {
        let request = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: popped.handle.clone() };
        store.forward_to_dead_letter(request).await.unwrap();
    }
    assert_eq!(read_dead_letters(&store).await.len(), 1);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_acknowledgement_of_a_dead_letter_is_refused_also_after_a_restart() {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let mut store = machine.must_open();
    for text in ["sent away", "given back", "acknowledged"] {
        send(&store, 0, text).await.unwrap();
    }
    let popped = pop(&store, 3).await.unwrap();
    let request = || DeadLetterRequest { group: GROUP, topic: TOPIC, handle: popped[0].handle.clone() };
    store.forward_to_dead_letter(request()).await.unwrap();
    ack(&store, &popped[2].handle).await.unwrap();
    // Its attempts are used up long before the first delivery would have ended.
    change(&store, &popped[1], Duration::ZERO, false).await.unwrap();
    let mut attempts = vec![popped[1].handle.clone()];
    for _ in 1..3 {
        let again = pop(&store, 1).await.unwrap().remove(0);
        attempts.push(again.handle.clone());
        change(&store, &again, Duration::ZERO, false).await.unwrap();
    }
    let mut letters = 0;
    while letters < 2 {
        letters += read_dead_letters(&store).await.len();
    }
    send(&store, 1, "later").await.unwrap();
    let later = pop(&store, 1).await.unwrap().remove(0);
    ack(&store, &later.handle).await.unwrap();
    for restarts in 0..3 {
        for handle in &attempts {
            let answer = ack(&store, handle).await;
            assert!(matches!(answer, Err(HandleError::Expired)), "{answer:?} after {restarts} restarts");
        }
        let answer = ack(&store, &popped[0].handle).await;
        assert!(matches!(answer, Err(HandleError::Expired)), "{answer:?} after {restarts} restarts");
        store.forward_to_dead_letter(request()).await.expect("that is what became of it");
        ack(&store, &later.handle).await.expect("a repeated acknowledgement is true");
        // From a checkpoint alone nobody can tell that it was not given up with the others.
        assert_eq!(ack(&store, &popped[2].handle).await.is_ok(), restarts < 2);
        if restarts == 0 {
            // First from the log, then from a checkpoint.
            machine.files.kill();
        }
        end_any(store).await;
        machine.files.kill();
        store = machine.must_open();
    }
    end(store).await;
}

async fn end_any(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handle_of_a_delivery_that_the_log_lost_is_not_one_of_the_delivery_in_its_place() {
    let machine = Machine::new(5).with_flush(gantry_store::Flush::Async);
    let store = machine.must_open();
    send(&store, 0, "one").await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let lost = pop(&store, 1).await.unwrap().remove(0);
    machine.files.crash(5);
    end_any(store).await;
    let store = machine.must_open();
    let held = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!((body(&held), held.attempt), ("one".into(), 1), "the power failure took the delivery back");
    // Both records lay at the same place.
    let answer = ack(&store, &lost.handle).await;
    assert!(matches!(answer, Err(HandleError::Expired)), "{answer:?}");
    assert!(matches!(change(&store, &lost, Duration::ZERO, false).await, Err(HandleError::Expired)));
    let request = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: lost.handle.clone() };
    assert!(matches!(store.forward_to_dead_letter(request).await, Err(HandleError::Expired)));
    assert!(pop(&store, 1).await.unwrap().is_empty(), "it is held");
    ack(&store, &held.handle).await.unwrap();
    end(store).await;
}

#[tokio::test]
async fn a_repeated_acknowledgement_waits_for_the_first_one_to_be_durable() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for text in ["acknowledged", "given up"] {
        send(&store, 0, text).await.unwrap();
    }
    let popped = pop(&store, 2).await.unwrap();
    let give_up = || DeadLetterRequest { group: GROUP, topic: TOPIC, handle: popped[1].handle.clone() };
    // Nothing is written before the first wait.
    let mut first = Box::pin(ack(&store, &popped[0].handle));
    let mut second = Box::pin(ack(&store, &popped[0].handle));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    let mut third = Box::pin(store.forward_to_dead_letter(give_up()));
    let mut fourth = Box::pin(store.forward_to_dead_letter(give_up()));
    assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
    let answers = tokio::join!(first, second, third, fourth);
    assert!(matches!(answers, (Ok(()), Ok(()), Ok(()), Ok(()))), "{answers:?}");
    end(store).await;
}

#[tokio::test]
async fn leases_of_a_living_client_are_renewed_and_end_soon_after_it_is_gone() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let owner = ClientHash::of("client-1");
    send(&store, 0, "long work").await.unwrap();
    let request = PopRequest { owner: Some(owner), invisible: AUTO_RENEW_LEASE, ..pop_request(1) };
    let held = store.pop(request).await.unwrap().messages.remove(0);
    for _ in 0..10 {
        machine.clock.advance(AUTO_RENEW_LEASE / 2);
        store
            .renew(RenewRequest { owners: vec![owner], invisible: AUTO_RENEW_LEASE, arrived: Vec::new() })
            .await
            .unwrap();
        assert!(pop(&store, 1).await.unwrap().is_empty(), "renewed and delivered to somebody else");
    }
    store.release(ReleaseRequest { owner, invisible: SECOND }).await.unwrap();
    assert!(pop(&store, 1).await.unwrap().is_empty());
    machine.clock.advance(SECOND);
    let again = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!(again.attempt, 2, "renewing is not an attempt, the end of the lease is");
    assert!(matches!(ack(&store, &held.handle).await, Err(HandleError::Expired)));
    end(store).await;
}

#[tokio::test]
async fn what_is_not_known_to_have_arrived_comes_back_after_its_first_lease_however_long_its_client_lives() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let owner = ClientHash::of("client-1");
    send(&store, 0, "arrives").await.unwrap();
    send(&store, 0, "is lost").await.unwrap();
    send(&store, 0, "is given back").await.unwrap();
    let lease = AUTO_RENEW_LEASE;
    let request = PopRequest { owner: Some(owner), once_arrived: true, invisible: lease, ..pop_request(3) };
    let held = store.pop(request).await.unwrap().messages;
    let arrived = |of: &[&PoppedMessage]| {
        let handles = of.iter().map(|popped| popped.handle.clone()).collect();
        vec![ArrivedDeliveries { owner, group: GROUP, topic: TOPIC, handles }]
    };
    let renew = |arrived| RenewRequest { owners: vec![owner], invisible: lease, arrived };
    let (first, last) = (&held[0], &held[2]);
    change(&store, last, lease / 4, false).await.unwrap();
    machine.clock.advance(lease / 2);
    let nonsense = ReceiptHandle("nonsense".to_owned());
    let mut of_first = arrived(&[first, last]);
    of_first[0].handles.push(nonsense);
    store.renew(renew(of_first)).await.unwrap();
    let given_back = pop(&store, 8).await.unwrap();
    assert_eq!((given_back.len(), given_back[0].queue_offset), (1, last.queue_offset), "it stays given back");
    ack(&store, &given_back[0].handle).await.unwrap();
    // A restart changes nothing about it.
    machine.files.kill();
    let _ = store.shutdown().await;
    let store = machine.must_open();
    machine.clock.advance(lease / 2);
    let again = pop(&store, 8).await.unwrap();
    assert_eq!(again.len(), 1, "the client lives, and nobody has this message");
    assert_eq!((again[0].queue_offset, again[0].attempt), (held[1].queue_offset, 2));
    for _ in 0..5 {
        store.renew(renew(arrived(&[&held[1]]))).await.unwrap();
        machine.clock.advance(lease / 2);
    }
    ack(&store, &first.handle).await.unwrap();
    assert!(matches!(ack(&store, &held[1].handle).await, Err(HandleError::Expired)));
    end(store).await;
}

#[tokio::test]
async fn what_a_client_was_told_to_have_no_more_is_not_brought_back_by_its_life() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let owner = ClientHash::of("client-1");
    send(&store, 0, "late").await.unwrap();
    let request = PopRequest { owner: Some(owner), invisible: AUTO_RENEW_LEASE, ..pop_request(1) };
    let held = store.pop(request).await.unwrap().messages.remove(0);
    machine.clock.advance(AUTO_RENEW_LEASE);
    assert!(matches!(ack(&store, &held.handle).await, Err(HandleError::Expired)));
    let renewal = RenewRequest { owners: vec![owner], invisible: AUTO_RENEW_LEASE, arrived: Vec::new() };
    store.renew(renewal).await.unwrap();
    let again = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!(again.attempt, 2);
    assert!(matches!(ack(&store, &held.handle).await, Err(HandleError::Expired)), "nor does it end a newer one");
    ack(&store, &again.handle).await.unwrap();
    end(store).await;
}

#[tokio::test]
async fn a_renewed_lease_survives_a_restart() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let owner = ClientHash::of("client-1");
    send(&store, 0, "long work").await.unwrap();
    let request = PopRequest { owner: Some(owner), invisible: AUTO_RENEW_LEASE, ..pop_request(1) };
    let held = store.pop(request).await.unwrap().messages.remove(0);
    machine.clock.advance(AUTO_RENEW_LEASE / 2);
    store.renew(RenewRequest { owners: vec![owner], invisible: AUTO_RENEW_LEASE, arrived: Vec::new() }).await.unwrap();
    machine.files.kill();
    let _ = store.shutdown().await;
    let store = machine.must_open();
    machine.clock.advance(AUTO_RENEW_LEASE * 3 / 4);
    assert!(pop(&store, 1).await.unwrap().is_empty());
    ack(&store, &held.handle).await.unwrap();
    end(store).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_no_message_back() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "come again").await.unwrap();
    let request = PopRequest { invisible: SECOND, ..pop_request(1) };
    store.pop(request).await.unwrap();
    let an_hour_ago = Timestamp::from_millis(machine.env.clock.now().as_millis() - 3_600_000);
    machine.clock.set(an_hour_ago);
    assert!(pop(&store, 1).await.unwrap().is_empty(), "it was delivered just now");
    machine.clock.advance(SECOND * 8 / 7 + Duration::from_millis(1));
    assert_eq!(pop(&store, 1).await.unwrap().remove(0).attempt, 2);
    end(store).await;
}

#[tokio::test]
async fn a_group_that_never_acknowledges_stops_receiving_and_is_told_why() {
    let mut machine = Machine::new(1);
    machine.config.inflight_max = 10;
    let store = machine.must_open();
    for number in 0..20 {
        send(&store, number % QUEUES, &format!("m{number}")).await.unwrap();
    }
    let mut held = Vec::new();
    let refusal = loop {
        match pop(&store, 4).await {
            Ok(popped) => held.extend(popped),
            Err(error) => break error,
        }
        assert!(held.len() <= 20);
    };
    assert!(matches!(refusal, PopError::InflightFull { .. }), "{refusal}");
    assert!((10..14).contains(&held.len()), "{}", held.len());
    for message in held {
        ack(&store, &message.handle).await.unwrap();
    }
    assert!(!pop(&store, 4).await.unwrap().is_empty());
    end(store).await;
}

#[tokio::test]
async fn sealed_segments_are_read_like_the_active_one_and_expire_as_a_whole() {
    let mut machine = Machine::new(1);
    machine.config.retention.age = Duration::from_secs(3600);
    let store = machine.must_open();
    let text = |number: u32| format!("message-{number}-{}", "x".repeat(3000));
    for number in 0..200 {
        send(&store, number % QUEUES, &text(number)).await.unwrap();
    }
    assert!(store.log_range().1.0 > 8 * machine.config.segment_bytes, "several segments");
    assert_eq!(pop_all(&store).await.len(), 200);
    end(store).await;
    machine.files.kill();
    let store = machine.must_open();
    machine.clock.advance(2 * INVISIBLE);
    assert_eq!(pop_all(&store).await.len(), 200, "again after their leases ended, from the indexes on disk");

    machine.clock.advance(Duration::from_secs(7200));
    let deadline = tokio::time::Instant::now() + 40 * SECOND;
    while store.log_range().0.0 == 0 {
        assert!(tokio::time::Instant::now() < deadline, "nothing expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ranges = store.queues(TOPIC).await.unwrap();
    assert!(ranges.iter().all(|queue| queue.min_offset.0 > 0 && queue.max_offset.0 == 100), "{ranges:?}");
    assert!(pop_all(&store).await.len() < 200);
    end(store).await;
}
