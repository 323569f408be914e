//! Store folders as version 1 wrote them are opened for ever. The files in `fixtures/v1/folder` are made by
//! `cargo test -p gantry-store --test golden_folder -- --ignored`, and never again after a release: identity, positions,
//! checkpoint, a sealed segment with its index, and an active one. Between them the segments hold a record of every kind; of
//! the changes of progress the most frequent (all of them: `delivery::record`).

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{
    AppendRequest, ChangeInvisibleRequest, DeadLetterRequest, PopRequest, ReleaseRequest, RenewRequest,
};
use gantry_proto::env::OpenMode;
use gantry_proto::model::{ClientHash, MetadataChange, MetadataVersion, QueueId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use support::*;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/folder");
const LOG: &str = "commit-log";

type Folder = BTreeMap<String, Vec<u8>>;

/// What this version writes.
async fn written() -> Folder {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    machine.add_topics_and_groups(1, 0);
    let store = machine.must_open();
    let append = async |topic, queue, texts: &[&str]| {
        let messages = texts.iter().map(|text| message(text, Some("tag"))).collect();
        store.append(AppendRequest { topic, queue: QueueId(queue), messages }).await.unwrap();
    };
    append(FIRST_TOPIC, 0, &["of a topic that goes"]).await;
    for number in 0..12 {
        append(TOPIC, 0, &[&format!("{number:02}-{}", "x".repeat(3000))]).await;
    }
    append(TOPIC, 1, &["b0", "b1", "b2"]).await;
    let owner = ClientHash::of("client");
    let held = store.pop(PopRequest { owner: Some(owner), ..pop_request(2) }).await.unwrap().messages;
    assert_eq!(held.len(), 2);
    store.renew(RenewRequest { owners: vec![owner], invisible: 2 * INVISIBLE, arrived: Vec::new() }).await.unwrap();
    store.release(ReleaseRequest { owner, invisible: 2 * INVISIBLE }).await.unwrap();
    let popped = pop(&store, 4).await.unwrap();
    let (group, topic) = (GROUP, TOPIC);
    ack(&store, &popped[0].handle).await.unwrap();
    let (handle, invisible) = (popped[1].handle.clone(), 3 * INVISIBLE);
    let change = ChangeInvisibleRequest { group, topic, handle, invisible, suspend: false };
    store.change_invisible(change).await.unwrap();
    let handle = popped[2].handle.clone();
    store.forward_to_dead_letter(DeadLetterRequest { group, topic, handle }).await.unwrap();
    store.pop(PopRequest { group: READER, ..pop_request(1) }).await.unwrap();
    store.pop(PopRequest { topic: FIRST_TOPIC, ..pop_request(1) }).await.unwrap();
    for gone in [MetadataChange::TopicRemoved(FIRST_TOPIC), MetadataChange::GroupRemoved(READER)] {
        machine.view.apply(MetadataVersion(machine.view.version().0 + 1), &[gone]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    store.shutdown().await.unwrap();
    let mut folder = Folder::new();
    for (dir, prefix) in [(machine.dir.clone(), String::new()), (machine.dir.join(LOG), format!("{LOG}/"))] {
        for entry in
            machine.env.files.list(&dir).unwrap().into_iter().filter(|entry| !entry.is_dir && entry.name != "lock")
        {
            let file = machine.env.files.open(&dir.join(&entry.name), OpenMode::Read).unwrap();
            let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec();
            folder.insert(format!("{prefix}{}", entry.name), bytes);
        }
    }
    let count = |extension| folder.keys().filter(|name| name.ends_with(extension)).count();
    assert_eq!((count(".log"), count(".index")), (2, 1), "{:?}", folder.keys());
    folder
}

fn golden() -> Folder {
    let mut folder = Folder::new();
    for prefix in ["", LOG] {
        for entry in std::fs::read_dir(Path::new(FIXTURE).join(prefix)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(FIXTURE).unwrap().to_str().unwrap().to_owned();
                folder.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    folder
}

#[tokio::test(start_paused = true)]
#[ignore = "makes the files"]
async fn make_the_folder_of_version_1() {
    let _ = std::fs::remove_dir_all(FIXTURE);
    std::fs::create_dir_all(Path::new(FIXTURE).join(LOG)).unwrap();
    for (name, bytes) in written().await {
        std::fs::write(Path::new(FIXTURE).join(name), bytes).unwrap();
    }
}

/// The kinds of the records in a segment.
fn kinds(segment: &[u8]) -> BTreeSet<u8> {
    let (mut at, mut kinds) = (4096, BTreeSet::new());
    while let Some(len) = segment.get(at + 4..at + 8).map(|len| u32::from_le_bytes(len.try_into().unwrap()))
        && len > 0
    {
        kinds.insert(segment[at + 8]);
        at += len as usize;
    }
    kinds
}

#[test]
fn the_golden_folder_holds_a_record_of_every_kind() {
    let segments = golden().into_iter().filter(|(name, _)| name.ends_with(".log"));
    let kinds: BTreeSet<u8> = segments.flat_map(|(_, segment)| kinds(&segment)).collect();
    assert_eq!(kinds, (1..=6).collect());
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_written_as_version_1_wrote_it() {
    let (golden, written) = (golden(), written().await);
    assert_eq!(written.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (name, bytes) in &golden {
        if name == "positions" {
            assert_eq!(uncounted(&written[name]), uncounted(bytes), "{name} differs");
        } else {
            assert!(written[name] == *bytes, "{name} differs");
        }
    }
}

/// Both slots of `positions` without how often the file was written, which is no matter of the format, and the checksum over
/// that.
fn uncounted(positions: &[u8]) -> Vec<u8> {
    let mut positions = positions.to_vec();
    for slot in [0, 4096] {
        positions[slot + 12..slot + 24].fill(0);
    }
    positions
}

/// With all its files; without those that are derived, so that every record is read.
#[tokio::test(start_paused = true)]
async fn a_folder_of_version_1_is_read() {
    for derived in [true, false] {
        let mut machine = Machine::new(2);
        machine.config.checkpoint_interval = Duration::from_secs(3600);
        machine.env.files.create_dir_all(&machine.dir.join(LOG)).unwrap();
        let is_derived = |name: &str| name.starts_with("checkpoint-") || name.ends_with(".index");
        for (name, bytes) in golden().into_iter().filter(|(name, _)| derived || !is_derived(name)) {
            let file = machine.env.files.open(&machine.dir.join(name), OpenMode::CreateNew).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
        }
        let store = machine.must_open();
        let ends = |status: Vec<gantry_proto::contract::QueueStatus>| -> Vec<_> {
            status.iter().map(|queue| (queue.queue.0, queue.min_offset.0, queue.max_offset.0)).collect()
        };
        assert_eq!(ends(store.queues(TOPIC).await.unwrap()), [(0, 0, 12), (1, 0, 3)]);
        assert_eq!(ends(store.queues(DEAD_LETTERS).await.unwrap()), [(1, 0, 1)]);
        let removed = ends(store.queues(FIRST_TOPIC).await.unwrap());
        assert!(removed.iter().all(|(_, min, max)| min == max), "{removed:?}");
        assert_eq!(store.progress(READER).await.unwrap(), []);
        let progress = store.progress(GROUP).await.unwrap();
        // Of 15 messages 6 were received, of which one was acknowledged and one is a dead letter.
        assert_eq!(progress.iter().map(|on| (on.topic, on.ready, on.inflight)).collect::<Vec<_>>(), [(TOPIC, 9, 4)]);
        let mut came: Vec<_> = pop_all(&store).await.iter().map(body).collect();
        assert_eq!(came.len(), 9);
        for _ in 0..3 {
            machine.clock.advance(INVISIBLE);
            let again: Vec<_> = pop(&store, 1).await.unwrap().iter().map(body).collect();
            assert_eq!(again.len(), 1, "a lease that ended, released or changed");
            came.extend(again);
        }
        store.shutdown().await.unwrap();
    }
}
