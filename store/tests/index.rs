//! Sealed indexes: made from memory and made again from the segment they are the same, damage in them is never believed,
//! and they find what is there in the whole log.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use bytes::Bytes;
use gantry_proto::contract::AppendRequest;
use gantry_proto::env::OpenMode;
use gantry_proto::env::fake::FakeOp;
use gantry_proto::model::{LogOffset, MessageHead, QueueId, QueueOffset, StoredMessage};
use gantry_store::Store;
use gantry_store::inspect::IndexFile;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::*;

const MESSAGES: u32 = 120;

fn text(number: u32) -> String {
    format!("m{number}-{}", "x".repeat(3000))
}

/// A message with a key and, every third one, a message group.
fn rich(number: u32) -> StoredMessage {
    let (id, key) = (format!("id-{number}"), format!("key-{}", number % 10));
    let head = MessageHead {
        message_id: &id,
        tag: Some("t"),
        keys: [key.as_str()].into_iter().collect(),
        message_group: number.is_multiple_of(3).then_some("group"),
        dead_letter_origin: None,
        system_properties: b"",
        user_properties: b"",
        extensions: &[],
    };
    StoredMessage::new(&head, Bytes::from(text(number))).unwrap()
}

async fn send_rich(store: &Store, number: u32) -> LogOffset {
    let request = AppendRequest { topic: TOPIC, queue: QueueId(number % 7 % QUEUES), messages: vec![rich(number)] };
    store.append(request).await.unwrap().appended[0].log_offset
}

/// A machine with some sealed segments, and where each message is. The store has ended.
async fn sealed_machine(seed: u64) -> (Machine, Vec<LogOffset>) {
    let machine = Machine::new(seed);
    let store = machine.must_open();
    let mut places = Vec::new();
    for number in 0..MESSAGES {
        places.push(send_rich(&store, number).await);
    }
    until("all full segments are sealed", || {
        let (logs, indexes) = segments(&machine);
        logs.len() > 4 && indexes.len() + 1 == logs.len()
    })
    .await;
    end(store).await;
    machine.files.kill();
    (machine, places)
}

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Base offsets of segments and of indexes.
fn segments(machine: &Machine) -> (Vec<u64>, Vec<u64>) {
    let names = machine.env.files.list(&machine.dir.join("commit-log")).unwrap();
    let bases = |extension: &str| {
        let names = names.iter().filter_map(|entry| entry.name.strip_suffix(extension));
        let mut bases: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        bases.sort_unstable();
        bases
    };
    (bases(".log"), bases(".index"))
}

fn path(machine: &Machine, base: u64, extension: &str) -> PathBuf {
    machine.dir.join(format!("commit-log/{base:020}.{extension}"))
}

fn contents(machine: &Machine, base: u64) -> Option<Bytes> {
    let file = machine.env.files.open(&path(machine, base, "index"), OpenMode::Read).ok()?;
    file.read_at(0, file.len().unwrap() as usize).ok()
}

/// Everything that is delivered, tried again while indexes are built.
async fn pop_patiently(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..600 {
        match pop(store, 32).await {
            Ok(popped) if popped.is_empty() => return all,
            Ok(popped) => all.extend(popped.iter().map(body)),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("still no end after {} messages", all.len());
}

fn check_all(delivered: Vec<String>) {
    let expected: BTreeSet<String> = (0..MESSAGES).map(text).collect();
    assert_eq!(delivered.len(), expected.len(), "a message is missing or came twice");
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), expected, "a message came altered");
}

#[tokio::test]
async fn an_index_that_is_made_again_is_the_same() {
    let (machine, _) = sealed_machine(1).await;
    let (_, indexes) = segments(&machine);
    let before: BTreeMap<u64, Bytes> = indexes.iter().map(|base| (*base, contents(&machine, *base).unwrap())).collect();
    // One at the end, whose segment is read into memory again; one at the front and all of them, which are built from
    // their segments.
    for gone in [vec![indexes[indexes.len() - 1]], vec![indexes[0], indexes[2]], indexes.clone()] {
        for base in &gone {
            machine.env.files.remove(&path(&machine, *base, "index")).unwrap();
        }
        let store = machine.must_open();
        until("the indexes are there again", || segments(&machine).1 == indexes).await;
        end(store).await;
        machine.files.kill();
        for (base, bytes) in &before {
            assert!(contents(&machine, *base).as_ref() == Some(bytes), "the index at {base} differs");
        }
    }
    let store = machine.must_open();
    check_all(pop_patiently(&store).await);
    end(store).await;
}

#[tokio::test]
async fn a_flipped_bit_in_an_index_is_never_data_and_the_index_is_made_again() {
    let (mut machine, _) = sealed_machine(2).await;
    // Every round delivers all of them anew.
    machine.view = metadata(10_000);
    let (_, indexes) = segments(&machine);
    let whole = contents(&machine, indexes[1]).unwrap();
    // Every block, at many places.
    for byte in (0..whole.len() as u64).step_by(509) {
        machine.files.flip_bits(&path(&machine, indexes[1], "index"), byte, 1 << (byte % 8)).unwrap();
        let store = machine.must_open();
        check_all(pop_patiently(&store).await);
        assert!(!store.find_messages(TOPIC, "id-30", 9).into_iter().flatten().any(|at| at.queue_offset.0 > 60));
        end(store).await;
        // Not a step of it is kept: every round begins with messages that nobody has.
        machine.files.crash(0);
        let file = machine.env.files.open(&path(&machine, indexes[1], "index"), OpenMode::ReadWrite).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        file.sync_data().unwrap();
        machine.clock.advance(INVISIBLE + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn damage_in_a_segment_leaves_the_rest_of_its_index_whole() {
    let (machine, places) = sealed_machine(3).await;
    let (logs, _) = segments(&machine);
    let in_second: Vec<u32> =
        (0..MESSAGES).filter(|number| (logs[1]..logs[2]).contains(&places[*number as usize].0)).collect();
    // The third and the fourth message of the segment, and its last one.
    let lost = [in_second[2], in_second[3], in_second[in_second.len() - 1]];
    for number in lost {
        let log_header = 4096;
        let at = places[number as usize].0 - logs[1] + log_header + 700;
        machine.files.flip_bits(&path(&machine, logs[1], "log"), at, 0x20).unwrap();
    }
    machine.env.files.remove(&path(&machine, logs[1], "index")).unwrap();
    let store = machine.must_open();
    until("the index is there again", || contents(&machine, logs[1]).is_some()).await;

    let index = IndexFile::open(&*machine.env.files, &path(&machine, logs[1], "index")).unwrap();
    let ranges = index.damaged_ranges().unwrap();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert_eq!(ranges[0].start, places[lost[0] as usize]);
    assert_eq!(ranges[0].end, places[in_second[4] as usize]);
    assert_eq!(ranges[1].start, places[lost[2] as usize]);
    let mut found = BTreeSet::new();
    let mut damaged = 0;
    for run in index.runs().unwrap() {
        for (entry, offset) in index.entries(&run).unwrap().iter().zip(run.first.0..) {
            assert_eq!(entry.queue_offset, QueueOffset(offset), "offsets are dense");
            if entry.len == 0 {
                damaged += 1;
            } else {
                found.insert(entry.log_offset);
            }
        }
    }
    let whole = in_second.iter().filter(|number| !lost.contains(number));
    assert_eq!(found, whole.map(|number| places[*number as usize]).collect());
    // The last one's queue goes on in the next segment.
    assert_eq!(damaged, 2);
    end(store).await;
}

#[tokio::test]
async fn a_message_is_found_by_its_id_and_its_keys_wherever_it_is() {
    let (machine, places) = sealed_machine(4).await;
    let store = machine.must_open();
    for number in MESSAGES..MESSAGES + 5 {
        send_rich(&store, number).await;
    }
    for number in 0..MESSAGES {
        let found = store.find_messages(TOPIC, &format!("id-{number}"), 10).unwrap();
        assert_eq!(found.iter().map(|found| found.log_offset).collect::<Vec<_>>(), [places[number as usize]]);
    }
    let of_key = store.find_messages(TOPIC, "key-4", 100).unwrap();
    assert_eq!(of_key.len() as u32, (MESSAGES + 5) / 10 + 1, "the last one is in the segment that is written");
    assert!(of_key.is_sorted_by_key(|found| found.log_offset));
    assert_eq!(store.find_messages(TOPIC, "key-4", 3).unwrap(), of_key[..3]);
    assert_eq!(store.find_messages(DEAD_LETTERS, "key-4", 3).unwrap(), [], "of another topic");
    // The filters are in memory by now: what is absent is told without a read.
    let mut read = 0;
    for number in 0..200 {
        machine.files.fail_next(FakeOp::Read, 0, io::ErrorKind::Other);
        read += u32::from(store.find_messages(TOPIC, &format!("absent-{number}"), 1).is_err());
        let _ = machine.env.files.open(&path(&machine, 0, "log"), OpenMode::Read).unwrap().read_at(0, 1);
    }
    assert!(read <= 20, "{read} of 200 lookups of what is absent had to read");
    end(store).await;
}

#[tokio::test]
async fn what_expired_is_not_looked_for_and_a_queue_begins_behind_it() {
    let mut machine = Machine::new(5);
    machine.config.retention.age = Duration::from_secs(3600);
    let store = machine.must_open();
    for number in 0..MESSAGES {
        send_rich(&store, number).await;
    }
    machine.clock.advance(Duration::from_secs(7200));
    until("all but the segment that is written is gone", || segments(&machine).0.len() <= 1).await;
    let begin = store.queues(TOPIC).await.unwrap()[0].min_offset;
    assert!(begin > QueueOffset(0));
    let left = pop_all(&store).await;
    assert!(!left.is_empty() && left.len() < 30, "{} left", left.len());
    assert_eq!(store.find_messages(TOPIC, "id-1", 9).unwrap(), []);
    end(store).await;
}

/// Changes a byte of the index file's first block, as whoever wrote it would have.
fn rewrite(machine: &Machine, base: u64, at: usize, flip: u8) {
    let file = machine.env.files.open(&path(machine, base, "index"), OpenMode::ReadWrite).unwrap();
    let mut block = file.read_at(0, 4096).unwrap().to_vec();
    block[at] ^= flip;
    // Number and base of the first block are not known yet when it is read.
    let place = crc32c::crc32c(&[0; 16]);
    let checksum = crc32c::crc32c_append(place, &block[..4092]);
    block[4092..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&block, 0).unwrap();
    file.sync_data().unwrap();
}

#[tokio::test]
async fn an_index_of_a_newer_version_is_refused_and_stays_as_it_is() {
    let (format, demands) = (8, 16);
    for (at, which) in [(format, 0), (demands, 1), (format, usize::MAX)] {
        let (machine, _) = sealed_machine(6).await;
        let (_, indexes) = segments(&machine);
        let base = indexes[which.min(indexes.len() - 1)];
        rewrite(&machine, base, at, 2);
        let newer = contents(&machine, base).unwrap();
        let refused = machine.open().err().expect("a newer index must not be used").to_string();
        assert!(refused.contains("newer Gantry") && refused.contains(&format!("{base:020}.index")), "{refused}");
        assert!(contents(&machine, base).unwrap() == newer, "the index was replaced");
        // The version that wrote it opens it.
        rewrite(&machine, base, at, 2);
        let store = machine.must_open();
        check_all(pop_patiently(&store).await);
        end(store).await;
    }
}

#[tokio::test]
async fn an_index_that_cannot_be_opened_for_now_is_not_made_again() {
    let (machine, _) = sealed_machine(7).await;
    let (_, indexes) = segments(&machine);
    // Nobody looks at these bytes, and an index that is made again does not have them.
    indexes.iter().for_each(|base| rewrite(&machine, *base, 12, 1));
    let contents = || indexes.iter().map(|base| contents(&machine, *base).unwrap()).collect::<Vec<_>>();
    let before = contents();
    let mut refusals = 0;
    for (op, after) in (0..40).flat_map(|after| [(FakeOp::Open, after), (FakeOp::Read, after)]) {
        let folder = machine.open_folder().unwrap();
        machine.files.fail_next(op, after, io::ErrorKind::Other);
        match machine.open_only(folder) {
            Ok(store) => end(store).await,
            Err(refused) => refusals += u32::from(refused.to_string().contains(".index")),
        }
        machine.files.kill();
        // The failure happens here, if it did not before.
        for _ in 0..=after {
            let _ =
                machine.env.files.open(&path(&machine, 0, "log"), OpenMode::Read).and_then(|file| file.read_at(0, 1));
        }
        assert!(contents() == before, "{op:?} {after}: an index was made again");
    }
    assert!(refusals >= 4, "only {refusals} times it was an index that could not be opened");
}
