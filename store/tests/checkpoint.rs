//! Checkpoints of a running store: what they cost, what is fallen back to, what is named.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AckRequest, AppendRequest, PopRequest};
use gantry_proto::env::OpenMode;
use gantry_proto::env::fake::FakeOp;
use gantry_proto::model::{QueueId, TopicId};
use gantry_store::Store;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::*;

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

/// The checkpoints, oldest first, with their lengths.
fn checkpoints(machine: &Machine) -> Vec<(PathBuf, u64)> {
    let names = machine.env.files.list(&machine.dir).unwrap();
    let mut found: Vec<_> = (names.into_iter())
        .filter(|entry| entry.name.starts_with("checkpoint-"))
        .map(|entry| (machine.dir.join(entry.name), entry.len))
        .collect();
    found.sort();
    found
}

/// Sends and acknowledges on [`TOPIC`] until `count` messages were acknowledged, with checkpoints in between.
async fn consume(store: &Store, round: u32, count: u32) {
    for number in 0..count {
        send(store, number % QUEUES, &format!("m{round}-{number}-{}", "x".repeat(2000))).await.unwrap();
        if number % 10 == 9 {
            for message in pop_all(store).await {
                ack(store, &message.handle).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn one(store: &Store, topic: u32, text: &str) {
    let topic = TopicId(FIRST_TOPIC.0 + topic);
    let messages = vec![message(text, None)];
    store.append(AppendRequest { topic, queue: QueueId(0), messages }).await.unwrap();
    let popped = store.pop(PopRequest { topic, ..pop_request(1) }).await.unwrap();
    let handles = vec![popped.messages[0].handle.clone()];
    store.ack(AckRequest { group: GROUP, topic, handles }).await.unwrap().remove(0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_is_not_written_again() {
    const TOPICS: u32 = 2_000;
    let mut machine = Machine::new(1);
    machine.config.segment_bytes = 64 << 20;
    machine.add_topics_and_groups(TOPICS, 0);
    let store = machine.must_open();
    for topic in 0..TOPICS {
        one(&store, topic, &format!("m{topic}")).await;
    }
    // From the end of one process to the next everything is in one save.
    end(store).await;
    machine.files.kill();
    let everything = checkpoints(&machine).last().unwrap().1;
    assert!(everything > u64::from(TOPICS) * 48, "{everything} bytes");
    let store = machine.must_open();
    for busy in [10u32, 20, 40] {
        let before = checkpoints(&machine).last().unwrap().1;
        for round in 0..70 {
            // Enough to be worth a checkpoint.
            one(&store, 0, &format!("f{busy}-{round}-{}", "x".repeat(2000))).await;
        }
        for topic in 0..busy {
            one(&store, topic, &format!("b{busy}-{topic}")).await;
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
        let written = checkpoints(&machine).last().unwrap().1 - before;
        // A queue takes 24 bytes, a shard with some messages outstanding some 100; a few saves may have been made.
        assert!(
            written > 0 && written < 4 * (10_000 + u64::from(busy) * 200),
            "{written} bytes for {busy} busy topics"
        );
    }
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_costs_time_and_no_progress() {
    for byte in [3, 20, 60, 200, 1000] {
        let machine = Machine::new(byte);
        let store = machine.must_open();
        for round in 0..4 {
            consume(&store, round, 60).await;
        }
        end(store).await;
        machine.files.kill();
        let found = checkpoints(&machine);
        assert_eq!(found.len(), 2, "two generations are kept");
        machine.files.flip_bits(&found[1].0, byte, 0x10).unwrap();
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back");
        consume(&store, 9, 30).await;
        end(store).await;
        machine.files.kill();
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back");
        end(store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_checkpoint_everything_comes_from_a_log_that_is_whole() {
    let machine = Machine::new(3);
    let store = machine.must_open();
    consume(&store, 0, 60).await;
    send(&store, 0, "left").await.unwrap();
    end(store).await;
    machine.files.kill();
    for (path, _) in checkpoints(&machine) {
        machine.env.files.remove(&path).unwrap();
    }
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.iter().map(body).collect::<Vec<_>>(), ["left"]);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_save_that_failed_is_made_up_for() {
    for (op, after) in [(FakeOp::Write, 0), (FakeOp::Write, 1), (FakeOp::Rename, 0), (FakeOp::Remove, 0)] {
        let mut machine = Machine::new(4);
        machine.config.checkpoint_interval = Duration::from_secs(3600);
        let store = machine.must_open();
        consume(&store, 0, 40).await;
        let mut ended = Vec::new();
        machine.files.fail_next(op, after, io::ErrorKind::Other);
        ended.push(store.shutdown().await.is_err());
        drop(store);
        machine.files.kill();
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back: {op:?} {after}");
        consume(&store, 1, 40).await;
        end(store).await;
        machine.files.crash(7);
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back: {op:?} {after}");
        end(store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_checkpoint_says_is_durable_in_the_log_at_any_power_failure() {
    let mut crashes = 0;
    for seed in 0..80 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(40 + seed * 6);
        let (mut acked, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
        'work: for number in 0..200u32 {
            if send(&store, number % QUEUES, &format!("m{number}-{}", "x".repeat(700))).await.is_err() {
                break;
            }
            if number % 4 == 3 {
                let Ok(popped) = pop(&store, 3).await else { break };
                for message in popped {
                    let text = body(&message);
                    if ack(&store, &message.handle).await.is_err() {
                        doubtful.insert(text);
                        break 'work;
                    }
                    acked.insert(text);
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        }
        crashes += u32::from(send(&store, 0, "alive?").await.is_err());
        end(store).await;
        machine.files.crash(seed);
        let store = machine.must_open();
        machine.clock.advance(INVISIBLE + Duration::from_secs(1));
        for message in pop_all(&store).await {
            assert!(!acked.contains(&body(&message)), "seed {seed}: an acknowledged message came back");
        }
        end(store).await;
    }
    assert!(crashes > 40, "only {crashes} of 80 runs crashed: the test tests little");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_shorter_than_its_checkpoint_is_named() {
    let machine = Machine::new(6);
    let store = machine.must_open();
    consume(&store, 0, 10).await;
    end(store).await;
    machine.files.kill();
    // An older copy of the log and of what stands beside it, with the checkpoint of today.
    let other = Machine::new(6);
    let store = other.must_open();
    consume(&store, 0, 3).await;
    end(store).await;
    other.files.kill();
    for (path, _) in checkpoints(&other) {
        other.env.files.remove(&path).unwrap();
    }
    for (path, len) in checkpoints(&machine) {
        let from = machine.env.files.open(&path, OpenMode::Read).unwrap();
        let to = other.env.files.open(&path, OpenMode::CreateNew).unwrap();
        to.write_all_at(&from.read_at(0, len as usize).unwrap(), 0).unwrap();
        to.sync_data().unwrap();
    }
    let error = other.open().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("checkpoint") && error.contains("missing"), "{error}");
}

/// A machine without any checkpoint whose log lost its first segment, which was needed.
async fn without_a_beginning(seed: u64) -> Machine {
    let mut machine = Machine::new(seed);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    for number in 0..60 {
        send(&store, 0, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
    }
    machine.files.kill();
    drop(store);
    machine.env.files.remove(&machine.dir.join("commit-log/00000000000000000000.log")).unwrap();
    machine
}

#[tokio::test(start_paused = true)]
async fn checkpoints_that_are_lost_behind_an_accepted_gap_are_asked_about_by_name() {
    let mut machine = without_a_beginning(1).await;
    assert!(machine.open().map(|_| ()).unwrap_err().to_string().contains("accept_missing_log"));
    machine.config.accept_missing_log = true;
    let store = machine.must_open();
    // Without a moment for a save of its own.
    machine.files.kill();
    drop(store);
    machine.config.accept_missing_log = false;
    let store = machine.must_open();
    assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 60);
    machine.files.kill();
    drop(store);
    for (path, _) in checkpoints(&machine) {
        machine.env.files.remove(&path).unwrap();
    }
    for _ in 0..2 {
        let error = machine.open().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("gantry repair checkpoint --accept-lost-progress"), "{error}");
        assert!(checkpoints(&machine).is_empty());
    }
    let repair = gantry_store::repair::Repair::checkpoint(&machine.env, &machine.dir, true).unwrap();
    repair.carry_out().unwrap();
    let store = machine.must_open();
    assert_eq!(send(&store, 0, "after").await.unwrap().queue_offset.0, 61);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_while_a_gap_is_accepted_asks_for_no_more_than_the_same_again() {
    for step in 0..30u64 {
        let mut machine = without_a_beginning(step).await;
        machine.config.accept_missing_log = true;
        machine.files.power_off_after(step);
        let opened = machine.open();
        machine.files.crash(step + 1);
        drop(opened);
        let store = machine.open().unwrap_or_else(|error| panic!("step {step}: {error}"));
        machine.files.crash(step + 2);
        drop(store);
        machine.config.accept_missing_log = false;
        let store = machine.open().unwrap_or_else(|error| panic!("step {step}, at last: {error}"));
        assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 60, "step {step}");
        end(store).await;
    }
}
