//! The same seed and the same calls leave the same bytes on the disk: nothing is made in the order of a hash map.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendRequest, PopRequest, ReleaseRequest, RenewRequest};
use gantry_proto::env::OpenMode;
use gantry_proto::model::limits::AUTO_RENEW_LEASE;
use gantry_proto::model::{ClientHash, GroupId, QueueId, TopicId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::*;

const TOPICS: u32 = 20;
const GROUPS: u32 = 4;

/// Works on many topics with many groups, and returns what is on the disk then.
async fn work(seed: u64) -> BTreeMap<String, Vec<u8>> {
    let machine = Machine::new(seed);
    machine.add_topics_and_groups(TOPICS, GROUPS);
    let store = machine.must_open();
    let owner = ClientHash::of("client");
    for topic in 0..TOPICS {
        let messages = (0..3).map(|number| message(&format!("m{topic}-{number}"), None)).collect();
        let request = AppendRequest { topic: TopicId(FIRST_TOPIC.0 + topic), queue: QueueId(0), messages };
        store.append(request).await.unwrap();
    }
    for _attempt in 0..3 {
        for topic in 0..TOPICS {
            for group in 0..GROUPS {
                let request = PopRequest {
                    group: GroupId(FIRST_GROUP.0 + group),
                    topic: TopicId(FIRST_TOPIC.0 + topic),
                    owner: (topic % 2 == 0).then_some(owner),
                    ..pop_request(8)
                };
                assert_eq!(store.pop(request).await.unwrap().messages.len(), 3);
            }
        }
        // Records for all of them at once.
        store
            .renew(RenewRequest { owners: vec![owner], invisible: 2 * AUTO_RENEW_LEASE, arrived: Vec::new() })
            .await
            .unwrap();
        store.release(ReleaseRequest { owner, invisible: Duration::from_secs(1) }).await.unwrap();
        machine.clock.advance(2 * INVISIBLE);
    }
    // All that is left moves to the dead letters.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.remains().await.unwrap().unfinished, 0);
    store.shutdown().await.unwrap();
    let mut disk = BTreeMap::new();
    for dir in [machine.dir.clone(), machine.dir.join("commit-log")] {
        for entry in machine.env.files.list(&dir).unwrap().into_iter().filter(|entry| !entry.is_dir) {
            disk.insert(entry.name.clone(), read(&machine, &dir.join(&entry.name)));
        }
    }
    disk
}

fn read(machine: &Machine, path: &Path) -> Vec<u8> {
    let file = machine.env.files.open(path, OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_leaves_the_same_bytes() {
    let first = work(1).await;
    assert!(
        first.keys().filter(|name| name.ends_with(".log")).count() >= 1
            && first.keys().any(|name| name.starts_with("checkpoint-"))
    );
    for _ in 0..3 {
        let again = work(1).await;
        assert_eq!(again.keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>());
        for (name, bytes) in &first {
            assert!(again[name] == *bytes, "{name} differs");
        }
    }
    assert_ne!(work(2).await["identity"], first["identity"]);
}
