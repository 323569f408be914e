//! What was answered survives the death of the process and of the machine, at any step and with any part of the unsynced
//! writes on disk; nothing comes back twice and nothing is made up.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gantry_proto::contract::{AppendError, HandleError, PoppedMessage, StoreLease};
use gantry_proto::env::fake::FakeOp;
use gantry_proto::env::{WorkPanicked, Workers};
use gantry_proto::model::ReceiptHandle;
use gantry_store::{Flush, Store, StoreConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::*;

/// What a client knows of the store from its answers.
#[derive(Default)]
struct Known {
    /// Answered sends: body → (queue, offset).
    sent: BTreeMap<String, (u32, u64)>,
    /// Sends whose outcome is not known.
    maybe_sent: BTreeSet<String>,
    /// Acknowledged, with an answer.
    acked: BTreeSet<String>,
    /// Acknowledgements and receives whose outcome is not known.
    maybe_gone: BTreeSet<String>,
    /// Held and not acknowledged: body → attempt.
    held: BTreeMap<String, (u32, ReceiptHandle)>,
    /// Those of them that were delivered after the last answer that promised durability. A delivery is a promise about time:
    /// it survives the process, and a power failure may take it back.
    held_unflushed: BTreeSet<String>,
}

/// Sends, receives and acknowledges until something fails.
async fn work(store: &Store, known: &mut Known, round: u64, steps: usize) {
    for step in 0..steps {
        let text = format!("message-{round}-{step}-{}", "x".repeat(step * 37 % 3000));
        let queue = step as u32 % QUEUES;
        match send(store, queue, &text).await {
            Ok(appended) => {
                known.held_unflushed.clear();
                known.sent.insert(text, (queue, appended.queue_offset.0))
            }
            Err(_) => {
                known.maybe_sent.insert(text);
                return;
            }
        };
        if step % 3 == 2 {
            let Ok(popped) = pop(store, 4).await else {
                // Some messages may be leased now, nobody knows which.
                known.maybe_gone.extend(known.sent.keys().cloned());
                return;
            };
            for (place, message) in popped.into_iter().enumerate() {
                let text = body(&message);
                if place % 2 == 1 {
                    known.held_unflushed.insert(text.clone());
                    known.held.insert(text, (message.attempt, message.handle));
                } else if ack(store, &message.handle).await.is_ok() {
                    known.held_unflushed.clear();
                    known.acked.insert(text);
                } else {
                    known.maybe_gone.insert(text);
                    return;
                }
            }
        }
    }
}

/// Checks the reopened store against what is known, and consumes everything.
async fn verify(machine: &Machine, store: &Store, known: &Known) {
    let before_leases_end = pop_all(store).await;
    check_deliveries(known, &before_leases_end);
    for message in &before_leases_end {
        let text = body(message);
        if let Some((attempt, _)) = known.held.get(&text) {
            assert!(known.held_unflushed.contains(&text), "a live lease was given to somebody else: {text}");
            assert_eq!(message.attempt, *attempt, "of a delivery that is forgotten nothing is left");
        }
        ack(store, &message.handle).await.unwrap();
    }
    // What a consumer still holds it can still acknowledge.
    let mut held = known.held.iter().filter(|(text, _)| !known.held_unflushed.contains(*text));
    if let Some((_, (_, handle))) = held.next() {
        ack(store, handle).await.expect("a lease survives the restart");
    }
    machine.clock.advance(INVISIBLE + Duration::from_secs(1));
    let after = pop_all(store).await;
    check_deliveries(known, &after);
    let came: BTreeSet<String> = before_leases_end.iter().chain(&after).map(body).collect();
    for (text, (attempt, _)) in held {
        if !known.maybe_gone.contains(text) {
            let message = after.iter().find(|message| body(message) == *text).expect("an ended lease comes back");
            assert_eq!(message.attempt, attempt + 1);
        }
    }
    let first_held = known.held.keys().find(|text| !known.held_unflushed.contains(*text));
    for text in known.sent.keys() {
        let gone = known.acked.contains(text) || known.maybe_gone.contains(text) || Some(text) == first_held;
        assert!(gone || came.contains(text), "an answered message is lost: {text}");
    }
    for message in &after {
        ack(store, &message.handle).await.unwrap();
    }
}

fn check_deliveries(known: &Known, messages: &[PoppedMessage]) {
    let mut seen = BTreeSet::new();
    for message in messages {
        let text = body(message);
        assert!(seen.insert(text.clone()), "delivered twice: {text}");
        assert!(!known.acked.contains(&text), "delivered after it was acknowledged: {text}");
        match known.sent.get(&text) {
            Some(place) => assert_eq!((message.queue.0, message.queue_offset.0), *place, "moved: {text}"),
            None => assert!(known.maybe_sent.contains(&text), "made up: {text}"),
        }
    }
}

async fn end(store: Arc<Store>) {
    // The machine may be gone: then the end has nothing to save it on.
    let _ = store.shutdown().await;
}

#[tokio::test]
async fn answered_messages_survive_a_power_failure_at_any_step() {
    let mut crashes = 0;
    for seed in 0..60 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(5 + seed * 7);
        let mut known = Known::default();
        work(&store, &mut known, 0, 120).await;
        let crashed = !known.maybe_sent.is_empty() || !known.maybe_gone.is_empty();
        crashes += u32::from(crashed);
        end(store).await;
        machine.files.crash(seed);
        let store = machine.must_open();
        verify(&machine, &store, &known).await;
        end(store).await;
    }
    assert!(crashes > 30, "only {crashes} of 60 runs crashed: the test tests nothing");
}

#[tokio::test]
async fn answered_messages_survive_a_power_failure_at_any_step_while_epochs_come_and_go() {
    let mut crashes = 0;
    for seed in 0..60 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(5 + seed * 7);
        let mut known = Known::default();
        for round in 0..40 {
            work(&store, &mut known, round, 8).await;
            if !known.maybe_sent.is_empty() || !known.maybe_gone.is_empty() {
                break;
            }
            // Joins that come to nothing leave gaps.
            let epoch = store.epoch().0 + 1 + (seed as u32 + round as u32) % 3;
            if store.lead(&granted(epoch, StoreLease::UntilSuperseded)).await.is_err() {
                break;
            }
        }
        crashes += u32::from(store.leads().is_err() || !known.maybe_sent.is_empty() || !known.maybe_gone.is_empty());
        let epoch = store.epoch();
        end(store).await;
        machine.files.crash(seed);
        let last = machine.open_folder().unwrap().last_epoch();
        assert!(last >= epoch, "epoch {epoch} had begun, and the folder knows of {last}");
        let store = machine.must_open();
        verify(&machine, &store, &known).await;
        end(store).await;
    }
    assert!(crashes > 30, "only {crashes} of 60 runs crashed: the test tests nothing");
}

#[tokio::test]
async fn what_a_restarted_process_finds_is_durable_before_it_is_shown() {
    let (mut failed, mut found) = (0, 0);
    for seed in 0..120 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        // A process that dies, or gives up after a flush that failed, leaves writes that nothing made durable. The system
        // shows them to the next process all the same, and after a failed flush another one does not save them.
        if seed % 2 == 0 {
            machine.files.fail_next(FakeOp::Sync, seed, io::ErrorKind::Other);
        } else {
            machine.files.power_off_after(5 + seed * 3);
        }
        let mut known = Known::default();
        work(&store, &mut known, 0, 120).await;
        failed += u32::from(!known.maybe_sent.is_empty() || !known.maybe_gone.is_empty());
        end(store).await;
        machine.files.kill();

        let store = machine.must_open();
        for message in pop_all(&store).await {
            let text = body(&message);
            found += u32::from(known.maybe_sent.remove(&text));
            known.sent.insert(text.clone(), (message.queue.0, message.queue_offset.0));
            known.held.insert(text, (message.attempt, message.handle));
        }
        work(&store, &mut known, 1, 10).await;
        machine.files.crash(seed);
        end(store).await;

        let store = machine.must_open();
        verify(&machine, &store, &known).await;
        end(store).await;
    }
    assert!(failed > 60, "only {failed} of 120 runs were disturbed: the test tests little");
    assert!(found > 10, "only {found} times was something found that nobody knew of: the test tests little");
}

#[tokio::test]
async fn a_segment_whose_name_was_not_made_durable_is_not_written_before_it_is() {
    let mut machine = Machine::new(8);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    // The next segment gets its name, and the process ends before that is durable.
    machine.files.fail_next(FakeOp::SyncDir, 0, io::ErrorKind::Other);
    let large = "x".repeat(8 << 10);
    let mut sent = 0;
    while send(&store, 0, &format!("{sent}-{large}")).await.is_ok() {
        sent += 1;
    }
    assert!(sent as u64 * (8 << 10) < 2 * StoreConfig::SEGMENT_BYTES_MIN, "no segment followed the first");
    end(store).await;
    machine.files.kill();
    let store = machine.must_open();
    send(&store, 1, "later").await.unwrap();
    machine.files.crash(0);
    end(store).await;
    let store = machine.must_open();
    let all: BTreeSet<String> = pop_all(&store).await.iter().map(body).collect();
    assert!(all.contains("later"), "an answered message is lost with its segment");
    assert!((0..sent).all(|number| all.contains(&format!("{number}-{large}"))), "an answered message is lost");
    end(store).await;
}

#[tokio::test]
async fn a_store_can_crash_again_and_again_during_recovery() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(150 + seed);
        let mut known = Known::default();
        work(&store, &mut known, 0, 200).await;
        end(store).await;
        machine.files.crash(seed);
        for mutations in 0..6 {
            machine.files.power_off_after(mutations);
            if let Ok(store) = machine.open() {
                end(store).await;
            }
            machine.files.crash(seed * 31 + mutations);
        }
        let store = machine.must_open();
        verify(&machine, &store, &known).await;
        end(store).await;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_not_even_a_lease() {
    for (seed, flush) in (0..10).flat_map(|seed| [(seed, Flush::Async), (seed, Flush::Sync)]) {
        let machine = Machine::new(seed).with_flush(flush);
        let store = machine.must_open();
        let mut known = Known::default();
        work(&store, &mut known, 0, 150).await;
        send(&store, 0, "last").await.unwrap();
        let last = pop(&store, 1).await.unwrap().remove(0);
        known.sent.insert("last".into(), (last.queue.0, last.queue_offset.0));
        known.held.insert("last".into(), (last.attempt, last.handle));
        assert!(known.maybe_sent.is_empty());
        known.held_unflushed.clear();
        machine.files.kill();
        end(store).await;
        let store = machine.must_open();
        verify(&machine, &store, &known).await;
        end(store).await;
    }
}

#[tokio::test]
async fn an_asynchronous_store_reopens_after_a_power_failure_and_makes_nothing_up() {
    for seed in 0..100 {
        let machine = Machine::new(seed).with_flush(Flush::Async);
        let store = machine.must_open();
        machine.files.power_off_after(20 + seed * 2);
        let mut known = Known::default();
        work(&store, &mut known, 0, 150).await;
        end(store).await;
        machine.files.crash(seed);
        let store = machine.must_open();
        for message in pop_all(&store).await {
            let text = body(&message);
            assert!(known.sent.contains_key(&text) || known.maybe_sent.contains(&text), "made up: {text}");
        }
        end(store).await;
    }
}

#[tokio::test]
async fn progress_survives_many_clean_restarts() {
    let machine = Machine::new(7);
    let mut known = Known::default();
    for round in 0..5 {
        let store = machine.must_open();
        work(&store, &mut known, round, 60).await;
        store.shutdown().await.unwrap();
        known.held_unflushed.clear();
    }
    let store = machine.must_open();
    verify(&machine, &store, &known).await;
    assert!(pop_all(&store).await.is_empty());
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_waits_for_no_flush_and_an_acknowledgement_does() {
    let mut machine = Machine::new(3);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "message").await.unwrap();
    let message = {
        machine.files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
        pop(&store, 1).await.expect("its message is durable already").remove(0)
    };
    assert!(matches!(ack(&store, &message.handle).await, Err(HandleError::Store(_))), "that flush failed");
    end(store).await;
    machine.files.crash(0);
    let store = machine.must_open();
    let again = pop_all(&store).await;
    assert_eq!(again.iter().map(|again| (body(again), again.attempt)).collect::<Vec<_>>(), [("message".into(), 1)]);
    let late = ack(&store, &message.handle).await;
    assert!(matches!(late, Err(HandleError::Expired)), "of a delivery that is forgotten");
    ack(&store, &again[0].handle).await.unwrap();
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_made_durable_a_moment_later_though_nobody_waits_for_it() {
    let mut machine = Machine::new(3);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "message").await.unwrap();
    assert_eq!(pop(&store, 1).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_millis(60)).await;
    machine.files.crash(0);
    end(store).await;
    let store = machine.must_open();
    assert!(pop_all(&store).await.is_empty(), "its lease was flushed");
    end(store).await;
}

#[tokio::test]
async fn nothing_is_answered_after_a_failed_flush_until_the_store_is_reopened() {
    let mut machine = Machine::new(3);
    // The flush that fails must be the log's.
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    let kept = send(&store, 0, "kept").await.unwrap();
    machine.files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    let mut refused = 0;
    for attempt in 0..5 {
        refused += u32::from(send(&store, 0, &format!("lost-{attempt}")).await.is_err());
    }
    assert!(refused >= 4, "the flush failed once, and only what came before may have been answered");
    assert!(store.health().is_err());
    assert!(send(&store, 0, "later").await.is_err());
    end(store).await;
    machine.files.crash(3);
    let store = machine.must_open();
    let all = pop_all(&store).await;
    assert_eq!(body(&all[0]), "kept");
    assert_eq!(all[0].queue_offset, kept.queue_offset);
    assert!(all.iter().all(|message| body(message) != "later"));
    end(store).await;
}

#[tokio::test]
async fn a_retried_message_is_stored_once_and_gets_the_first_answer_even_after_a_restart() {
    let machine = Machine::new(4);
    let store = machine.must_open();
    let first = send_with_id(&store, 0, "id", "body").await.unwrap();
    assert_eq!(send_with_id(&store, 1, "id", "body").await.unwrap(), first, "whatever queue the retry came to");
    // Enough to seal the segment that holds it.
    for number in 0..40 {
        send(&store, 0, &format!("filler-{number}-{}", "x".repeat(3000))).await.unwrap();
    }
    end(store).await;
    machine.files.kill();
    let store = machine.must_open();
    assert_eq!(send_with_id(&store, 0, "id", "body").await.unwrap(), first);
    let refusal = send_with_id(&store, 0, "id", "another body").await.unwrap_err();
    assert!(matches!(refusal, AppendError::IdReused { .. }), "{refusal}");
    let copies = pop_all(&store).await.iter().filter(|message| body(message) == "body").count();
    assert_eq!(copies, 1);
    end(store).await;
}

/// Workers that count what they do.
#[derive(Default)]
struct CountingWorkers(AtomicUsize);

impl Workers for CountingWorkers {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkPanicked>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        work();
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_what_is_not_in_memory_is_read_on_a_worker() {
    let mut machine = Machine::new(4);
    let workers = Arc::new(CountingWorkers::default());
    machine.env.workers = workers.clone();
    let store = machine.must_open();
    let first = send_with_id(&store, 0, "id", "body").await.unwrap();
    for (cold, works) in [(false, 0), (true, 1)] {
        machine.files.set_cold(cold);
        let before = workers.0.load(Ordering::SeqCst);
        assert_eq!(send_with_id(&store, 0, "id", "body").await.unwrap(), first);
        assert_eq!(workers.0.load(Ordering::SeqCst) - before, works, "cold: {cold}");
    }
    end(store).await;
}

#[tokio::test]
async fn retries_that_overtake_the_first_attempt_wait_for_its_answer() {
    let machine = Machine::new(4);
    let store = machine.must_open();
    let sends = (0..20).map(|queue| {
        let store = store.clone();
        tokio::spawn(async move { send_with_id(&store, queue % QUEUES, "id", "body").await })
    });
    let mut answers = BTreeSet::new();
    for send in sends.collect::<Vec<_>>() {
        answers.insert(send.await.unwrap().unwrap().log_offset);
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(pop_all(&store).await.len(), 1);
    end(store).await;
}

#[tokio::test]
async fn damage_in_the_middle_is_noted_and_stops_neither_the_start_nor_what_follows() {
    let machine = Machine::new(5);
    let store = machine.must_open();
    for number in 0..20 {
        send(&store, 0, &format!("message-{number}")).await.unwrap();
    }
    let end_at = store.log_range().1;
    end(store).await;
    machine.files.kill();
    let segment = machine.dir.join("commit-log/00000000000000000000.log");
    machine.files.flip_bits(&segment, 4096 + 500, 0x10).unwrap();
    for _ in 0..2 {
        let store = machine.must_open();
        let [damaged] = store.damaged()[..] else { panic!("one range: {:?}", store.damaged()) };
        assert!(damaged.from.0 <= 500 && 500 < damaged.to.0 && damaged.to.0 - damaged.from.0 < 300, "{damaged:?}");
        assert!(store.log_range().1 >= end_at);
        end(store).await;
        machine.files.kill();
    }
    let store = machine.must_open();
    assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 20);
    end(store).await;
}

#[tokio::test]
async fn a_full_disk_refuses_messages_and_loses_none() {
    let machine = Machine::new(9);
    machine.files.set_capacity(Some(5 * machine.config.segment_bytes));
    let store = machine.must_open();
    let mut sent = 0;
    let refusal = loop {
        match send(&store, 0, &format!("message-{sent}-{}", "x".repeat(8000))).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "the disk never became full");
    };
    assert!(refusal.to_string().contains("full"), "{refusal}");
    assert!(store.health().is_ok(), "a full disk is not the end of the store");
    let mut received = BTreeSet::new();
    for message in pop_all(&store).await {
        received.insert(body(&message));
    }
    assert_eq!(received.len(), sent);
    end(store).await;
}

/// Long before the disk counts as full there may be no room for another segment.
#[tokio::test(start_paused = true)]
async fn a_store_that_has_no_room_for_the_next_segment_says_so_before_and_while_it_refuses() {
    let mut machine = Machine::new(9);
    machine.config.disk_full_percent = 100;
    machine.files.set_capacity(Some(5 * machine.config.segment_bytes));
    let store = machine.must_open();
    send(&store, 0, "first").await.unwrap();
    let first = pop_all(&store).await.remove(0);
    assert!(store.takes_messages().is_ok(), "the current segment has room");
    let mut refused = None;
    for len in [8000, 1000, 0] {
        for n in 0..2000 {
            // Equal ones would be one message.
            if let Err(error) = send(&store, 0, &format!("{len}-{n}-{}", "x".repeat(len))).await {
                refused = Some(error.to_string());
                break;
            }
        }
    }
    assert!(refused.as_ref().is_some_and(|why| why.contains("no next segment")), "{refused:?}");
    for _ in 0..5 {
        let why = store.takes_messages().unwrap_err().to_string();
        assert!(why.contains("no next segment"), "{why}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    machine.files.set_capacity(None);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(store.takes_messages().is_ok(), "by itself");
    ack(&store, &first.handle).await.unwrap();
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn consumers_go_on_when_there_is_no_room_for_messages() {
    for restarted in [false, true] {
        let mut machine = Machine::new(9);
        machine.config.segment_bytes = 1 << 20;
        machine.config.disk_full_percent = 100;
        machine.files.set_capacity(Some(3 * machine.config.segment_bytes));
        let mut store = machine.must_open();
        let mut sent = 0;
        let mut fill = async |store: &Store| {
            for len in [20_000, 1000, 0] {
                while send(store, 0, &format!("{len}-{sent}-{}", "x".repeat(len))).await.is_ok() {
                    sent += 1;
                }
            }
        };
        fill(&store).await;
        if restarted {
            // Whatever the first look after a start sees: the room that is left is not for messages.
            machine.files.kill();
            end(store).await;
            store = machine.must_open();
            fill(&store).await;
        }
        let mut got = 0;
        while got < sent {
            let popped = pop(&store, 32).await.unwrap();
            assert!(!popped.is_empty(), "{got} of {sent}");
            got += popped.len();
            for message in popped {
                ack(&store, &message.handle).await.unwrap();
            }
            assert!(send(&store, 0, &format!("more-{got}")).await.is_err(), "it takes what consumers need");
        }
        assert_eq!(store.remains().await.unwrap().unfinished, 0);
        end(store).await;
    }
}

#[tokio::test]
async fn a_folder_serves_one_store_at_a_time_and_a_flipped_bit_of_its_identity_is_mended() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let error = machine.open().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another gantry process"), "{error}");
    end(store).await;
    // Only dropping the store gives the lock back.
    machine.files.kill();
    // In the format's number: it is damage and no newer version, and the copy is whole.
    for file in ["identity", "identity.copy"] {
        let id = machine.open_folder().unwrap().id();
        machine.files.flip_bits(&machine.dir.join(file), 8, 0x40).unwrap();
        assert_eq!(machine.open_folder().unwrap().id(), id, "{file}");
    }
    for file in ["identity", "identity.copy"] {
        machine.files.flip_bits(&machine.dir.join(file), 8, 0x40).unwrap();
    }
    let error = machine.open().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn a_handle_of_a_finished_or_ended_delivery_is_answered_honestly() {
    let machine = Machine::new(2);
    let store = machine.must_open();
    send(&store, 0, "once").await.unwrap();
    let first = pop(&store, 1).await.unwrap().remove(0);
    machine.clock.advance(INVISIBLE);
    assert!(matches!(ack(&store, &first.handle).await, Err(HandleError::Expired)));
    let second = pop(&store, 1).await.unwrap().remove(0);
    assert_eq!(second.attempt, 2);
    assert!(matches!(ack(&store, &first.handle).await, Err(HandleError::Expired)), "of an older delivery");
    ack(&store, &second.handle).await.unwrap();
    ack(&store, &second.handle).await.expect("a repeated acknowledgement is true");
    let invalid = ReceiptHandle("nonsense".into());
    assert!(matches!(ack(&store, &invalid).await, Err(HandleError::Malformed)));
    machine.clock.advance(10 * INVISIBLE);
    assert!(store.pop(pop_request(1)).await.unwrap().messages.is_empty());
    end(store).await;
}
