//! One damaged message stops only itself; what is read back, and what is remembered of it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendError, AppendRequest, PopRequest, TopicProgress};
use gantry_proto::env::fake::FakeOp;
use gantry_proto::model::{ClientHash, FilterExpression, QueueId};
use gantry_store::DamageCause;
use std::io;
use std::time::Duration;
use support::*;

const SECOND: Duration = Duration::from_secs(1);

impl Machine {
    /// Flips a bit of the body of a message in the first segment.
    fn damage(&self, body: &str) {
        let log = self.dir.join("commit-log/00000000000000000000.log");
        let bytes = self.env.files.open(&log, gantry_proto::env::OpenMode::Read).unwrap();
        let held = bytes.read_at(0, bytes.len().unwrap() as usize).unwrap();
        let found = held.windows(body.len()).rposition(|window| window == body.as_bytes()).unwrap();
        self.files.flip_bits(&log, found as u64, 1).unwrap();
    }
}

#[tokio::test]
async fn a_receive_brings_the_messages_around_a_damaged_one() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for n in 0..20 {
        send(&store, n % 2, &format!("message-{n:02}")).await.unwrap();
    }
    machine.damage("message-07");
    let mut got = pop_all(&store).await;
    assert_eq!(got.len(), 19);
    got.sort_by_key(body);
    assert!(got.iter().all(|message| body(message) != "message-07"));
    let progress = store.progress(GROUP).await.unwrap();
    assert_eq!(progress, [TopicProgress { topic: TOPIC, ready: 0, inflight: 19, damaged: 1 }]);
    for message in &got {
        ack(&store, &message.handle).await.unwrap();
    }
    machine.clock.advance(INVISIBLE);
    assert_eq!(pop_all(&store).await.len(), 0, "it does not come again and again");
    assert_eq!(store.remains().await.unwrap().unfinished, 1, "nor is it consumed");
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_receive_that_finds_only_a_damaged_message_goes_on_waiting() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    send(&store, 0, "message-00").await.unwrap();
    machine.damage("message-00");
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.pop(PopRequest { wait: 20 * SECOND, ..pop_request(1) }).await })
    };
    while store.progress(GROUP).await.unwrap().iter().all(|progress| progress.damaged == 0) {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    send(&store, 0, "message-01").await.unwrap();
    let got = waiting.await.unwrap().unwrap().messages;
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["message-01"]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn dead_letters_do_not_stop_at_a_damaged_message() {
    let mut machine = Machine::new(1);
    machine.view = metadata(1);
    let store = machine.must_open();
    for n in 0..3 {
        send(&store, 0, &format!("message-{n:02}")).await.unwrap();
    }
    assert_eq!(pop(&store, 8).await.unwrap().len(), 3);
    machine.damage("message-00");
    machine.clock.advance(INVISIBLE);
    let mut letters = Vec::new();
    while letters.len() < 2 {
        let request = PopRequest { group: READER, topic: DEAD_LETTERS, wait: 20 * SECOND, ..pop_request(8) };
        let got = store.pop(request).await.unwrap().messages;
        assert!(!got.is_empty(), "only {letters:?} came");
        letters.extend(got.iter().map(body));
    }
    assert_eq!(letters, ["message-01", "message-02"]);
    let progress = store.progress(GROUP).await.unwrap();
    assert_eq!(progress, [TopicProgress { topic: TOPIC, ready: 0, inflight: 0, damaged: 1 }]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_for_a_moment_comes_later_and_is_no_attempt() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for n in 0..3 {
        send(&store, 0, &format!("message-{n:02}")).await.unwrap();
    }
    // The read of all three, on the runtime and on a worker, and then that of the second alone.
    for after in [0, 1, 3] {
        machine.files.fail_next(FakeOp::Read, after, io::ErrorKind::Other);
    }
    let got: Vec<_> = pop_all(&store).await.iter().map(body).collect();
    assert_eq!(got, ["message-00", "message-02"]);
    machine.clock.advance(10 * SECOND);
    let got = pop(&store, 8).await.unwrap();
    assert_eq!(
        got.iter().map(|message| (body(message), message.attempt)).collect::<Vec<_>>(),
        [("message-01".into(), 1)]
    );
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_tag_with_the_hash_of_a_wanted_one_is_not_delivered() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    // FNV-1a of these is the same in 32 bits.
    let (wanted, other) = colliding_tags();
    for (text, tag) in [("one", &wanted), ("two", &other), ("three", &wanted)] {
        let messages = vec![message(text, Some(tag))];
        store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
    }
    let filter = || FilterExpression::parse_tag(&wanted).unwrap();
    let got = store.pop(PopRequest { filter: filter(), ..pop_request(8) }).await.unwrap().messages;
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["one", "three"]);
    let progress = store.progress(GROUP).await.unwrap();
    assert_eq!(progress, [TopicProgress { topic: TOPIC, ready: 0, inflight: 2, damaged: 0 }]);
    store.shutdown().await.unwrap();
}

/// Two tags with the same hash.
fn colliding_tags() -> (String, String) {
    let mut seen = std::collections::HashMap::new();
    for number in 0u32.. {
        let tag = format!("t{number}");
        if let Some(earlier) = seen.insert(gantry_proto::model::tag_hash(Some(&tag)), tag.clone()) {
            return (earlier, tag);
        }
    }
    unreachable!("there are more numbers than hashes")
}

#[tokio::test]
async fn two_of_one_id_in_one_request_are_one_message() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let append = async |messages| store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await;
    let reply = append(vec![message("same", None), message("other", None), message("same", None)]).await.unwrap();
    assert_eq!(reply.appended[0], reply.appended[2]);
    assert_eq!(reply.appended.iter().map(|at| at.queue_offset.0).collect::<Vec<_>>(), [0, 1, 0]);
    let again = append(vec![message("other", None), message("new", None), message("same", None)]).await.unwrap();
    assert_eq!(again.appended.iter().map(|at| at.queue_offset.0).collect::<Vec<_>>(), [1, 2, 0]);
    let mut changed = message("twice", None);
    changed.body = "another body".into();
    let refused = append(vec![message("twice", None), changed]).await;
    assert!(matches!(refused, Err(AppendError::IdReused { message_id }) if message_id == "twice"));
    assert_eq!(pop_all(&store).await.len(), 3);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn ids_of_sealed_segments_are_remembered_after_a_restart_though_not_all_at_once() {
    for at_once in [0, 10, 1_000] {
        let mut machine = Machine::new(1);
        machine.config.dedup_recalled_at_once = at_once;
        let store = machine.must_open();
        let text = |n: u32| format!("{n}-{}", "x".repeat(1000));
        for n in 0..200 {
            send(&store, 0, &text(n)).await.unwrap();
        }
        let indexes = machine.all_indexed().await;
        assert!(indexes > 4);
        store.shutdown().await.unwrap();
        drop(store);
        let store = machine.must_open();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        for n in 0..200 {
            let again = send(&store, 0, &text(n)).await.unwrap();
            assert_eq!(again.queue_offset.0, u64::from(n), "{at_once} at once");
        }
        store.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_receive_is_bounded_in_bytes() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for n in 0..6 {
        send(&store, 0, &format!("{n}-{}", "x".repeat(1000))).await.unwrap();
    }
    let bounded = PopRequest { bytes_max: 7000, owner: Some(ClientHash(1)), ..pop_request(32) };
    assert_eq!(store.pop(bounded).await.unwrap().messages.len(), 3, "about 2,100 bytes each, with the id");
    let tiny = PopRequest { bytes_max: 1, ..pop_request(32) };
    assert_eq!(store.pop(tiny).await.unwrap().messages.len(), 1);
    store.shutdown().await.unwrap();
}

impl Machine {
    /// Where in which segment file a message lies that no other is like.
    fn place_of(&self, body: &str) -> (std::path::PathBuf, u64) {
        let log = self.dir.join("commit-log");
        let mut names: Vec<_> = self.env.files.list(&log).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        for path in names.iter().filter(|name| name.ends_with(".log")).map(|name| log.join(name)) {
            let file = self.env.files.open(&path, gantry_proto::env::OpenMode::Read).unwrap();
            let held = file.read_at(0, file.len().unwrap() as usize).unwrap();
            if let Some(found) = held.windows(body.len()).rposition(|window| window == body.as_bytes()) {
                return (path, found as u64);
            }
        }
        panic!("{body} is in no segment");
    }
}

#[tokio::test]
async fn a_message_on_a_bad_sector_is_tried_again_and_then_set_aside() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for n in 0..3 {
        send(&store, 0, &format!("message-{n:02}")).await.unwrap();
    }
    let (path, at) = machine.place_of("message-01");
    machine.files.make_unreadable(&path, at..at + 1).unwrap();
    let got = pop_all(&store).await;
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["message-00", "message-02"]);
    for message in got {
        ack(&store, &message.handle).await.unwrap();
    }
    for tries in 1..=3 {
        let damaged: Vec<_> = store.damaged().iter().map(|range| range.cause).collect();
        let known = if tries < 3 { Vec::new() } else { vec![DamageCause::Unreadable] };
        assert_eq!(damaged, known, "after {tries} tries");
        machine.clock.advance(10 * SECOND);
        assert_eq!(pop(&store, 8).await.unwrap().len(), 0);
    }
    let progress = store.progress(GROUP).await.unwrap();
    assert_eq!(progress, [TopicProgress { topic: TOPIC, ready: 0, inflight: 0, damaged: 1 }]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bad_sector_in_a_sealed_segment_or_its_index_stops_neither_the_start_nor_the_messages_around() {
    for in_index in [false, true] {
        let machine = Machine::new(1);
        let store = machine.must_open();
        let text = |n: u32| format!("{n:03}-{}", "x".repeat(1000));
        for n in 0..200 {
            send(&store, 0, &text(n)).await.unwrap();
        }
        machine.all_indexed().await;
        store.shutdown().await.unwrap();
        drop(store);
        machine.files.kill();
        let (path, at) = machine.place_of("005-xxx");
        let index = path.with_extension("index");
        if in_index {
            machine.files.make_unreadable(&index, 0..8192).unwrap();
        } else {
            machine.files.make_unreadable(&path, at..at + 1).unwrap();
            machine.env.files.remove(&index).unwrap();
        }
        let store = machine.must_open();
        while !machine
            .env
            .files
            .list(&machine.dir.join("commit-log"))
            .unwrap()
            .iter()
            .any(|entry| entry.name == index.file_name().unwrap().to_str().unwrap())
        {
            tokio::task::yield_now().await;
        }
        let mut got = Vec::new();
        while got.len() < 190 {
            match pop(&store, 32).await {
                Ok(popped) => got.extend(popped.iter().map(|message| body(message)[..3].parse::<u32>().unwrap())),
                // An index is being made.
                Err(_) => tokio::task::yield_now().await,
            }
        }
        got.extend(pop_all(&store).await.iter().map(|message| body(message)[..3].parse::<u32>().unwrap()));
        got.sort();
        if in_index {
            assert_eq!(got, (0..200).collect::<Vec<_>>());
            assert_eq!(store.damaged(), []);
        } else {
            assert!(got.len() < 200 && got.len() >= 190 && !got.contains(&5), "{got:?}");
            assert_eq!(store.damaged().iter().map(|range| range.cause).collect::<Vec<_>>(), [DamageCause::Unreadable]);
        }
        store.shutdown().await.unwrap();
        // The disk gives it again: the index that lists it as damaged is made again.
        let before = got.len();
        drop(store);
        machine.files.kill();
        machine.env.files.open(&path, gantry_proto::env::OpenMode::ReadWrite).unwrap().write_all_at(b"0", at).unwrap();
        let store = machine.must_open();
        assert_eq!(store.damaged(), []);
        let mut read = Vec::new();
        let all = || PopRequest { group: READER, ..pop_request(32) };
        while read.len() < 200 {
            match store.pop(all()).await {
                Ok(popped) => read.extend(popped.messages.iter().map(|message| message.queue_offset.0)),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        read.sort();
        assert_eq!(read, (0..200).collect::<Vec<_>>(), "{before} before");
        store.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_cut_and_put_back_leaves_nothing_marked_as_damaged() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for n in 0..3 {
        send(&store, 0, &format!("message-{n:02}")).await.unwrap();
    }
    let (path, at) = machine.place_of("message-01");
    let file = machine.env.files.open(&path, gantry_proto::env::OpenMode::ReadWrite).unwrap();
    let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
    file.set_len(at).unwrap();
    let _ = pop(&store, 8).await;
    assert_eq!(store.damaged(), [], "the file is at fault, and no record");
    assert!(store.health().unwrap_err().to_string().contains("was cut"));
    let _ = store.shutdown().await;
    drop(store);
    machine.files.kill();
    let file = machine.env.files.open(&path, gantry_proto::env::OpenMode::ReadWrite).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    machine.clock.advance(INVISIBLE);
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.len(), 3);
    store.shutdown().await.unwrap();
}
