//! A member's folder of version 1, which every later version must read as this one does.
//!
//! `fixtures/v1/consensus.redb` holds every kind of command and each kind of value but `purged`, which is as `committed`; `consensus.txt` is what they say and the bytes in
//! which they say it. Both were written by `cargo test -p gantry-controller --test golden -- --ignored`, and are never
//! written again.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use gantry_controller::{Controller, ControllerConfig, NoPeers, inspect};
use gantry_proto::contract::MetadataService as _;
use gantry_proto::env::fake::{self, FakeFiles};
use gantry_proto::env::{Files as _, OpenMode};
use gantry_proto::model::{
    BackoffPolicy, ClusterId, Epoch, FolderId, GroupName, GroupSecret, MetadataCommand, MetadataVersion, PlaceId,
    ProcessId, ProxyId, StoreGroupId, StoreGroupName, TopicName, TopicType,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/data/controller";
/// How many commands come before the snapshot is due.
const BEFORE_SNAPSHOT: usize = 20;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name)
}

fn commands() -> Vec<MetadataCommand> {
    use MetadataCommand as C;
    let topic = |name: &str| TopicName::parse(name).unwrap();
    let group = |name: &str| GroupName::parse(name).unwrap();
    let store = |name: &str| StoreGroupName::parse(name).unwrap();
    let join = |name: &str, number: u8| C::JoinStore {
        store_group: store(name),
        folder: FolderId([number; 16]),
        address: format!("{name}:9000").into(),
        last_epoch: Epoch(number.into()),
        process: ProcessId([number; 16]),
        place: (number > 1).then_some(PlaceId([number; 16])),
        secret: GroupSecret([number; 32]),
    };
    let proxy = |number: u8| C::JoinProxy {
        id: ProxyId([number; 16]),
        address: format!("proxy-{number}:8081").into(),
        version: "0.1.0".into(),
    };
    let exponential = BackoffPolicy::Exponential {
        initial: Duration::from_millis(1500),
        max: Duration::from_secs(3600),
        multiplier: 2.5,
    };
    let types = [TopicType::Normal, TopicType::Fifo, TopicType::Delay, TopicType::Transaction, TopicType::Mixed];
    let mut commands = vec![join("store-1", 1), join("store-2", 2), proxy(1), proxy(2)];
    commands.extend(types.into_iter().enumerate().map(|(n, topic_type)| C::CreateTopic {
        name: topic(&format!("topic-{n}")),
        topic_type,
        queue_count: 3 + n as u32,
    }));
    commands.extend([
        C::CreateGroup { name: group("group-1"), fifo: false, max_attempts: 17, backoff: BackoffPolicy::default() },
        C::CreateGroup { name: group("group-2"), fifo: true, max_attempts: 3, backoff: exponential.clone() },
        C::AlterTopic { name: topic("topic-0"), topic_type: Some(TopicType::Mixed), queue_count: Some(8) },
        C::AlterGroup { name: group("group-1"), fifo: Some(true), max_attempts: Some(5), backoff: Some(exponential) },
        C::NoteLeading { store_group: StoreGroupId(2), epoch: Epoch(3) },
        C::EndStoreLease { store_group: StoreGroupId(2), epoch: Epoch(3) },
        C::DrainStoreGroup { name: store("store-2") },
        C::SpreadTopics { after: None, limit: 2 },
    ]);
    // Most of these come after the snapshot.
    commands.extend([
        C::InitCluster { cluster: ClusterId([9; 16]) },
        C::SpreadTopics { after: Some(topic("topic-1")), limit: 100 },
        C::DeleteTopic { name: topic("topic-4") },
        C::DeleteGroup { name: group("group-2") },
        C::RemoveProxy { id: ProxyId([2; 16]) },
        C::ActivateStoreGroup { name: store("store-2") },
        C::DrainStoreGroup { name: store("store-1") },
        C::CloseStoreGroup { name: store("store-1") },
    ]);
    // Founding is a version, and each command.
    let since = MetadataVersion(commands.len() as u64 + 1);
    commands.extend([
        C::NoteClosed { store_group: StoreGroupId(1), epoch: Epoch(2), since },
        C::RemoveStoreGroup { name: store("store-1"), force: false },
        join("store-3", 3),
        C::DrainStoreGroup { name: store("store-3") },
        C::RemoveStoreGroup { name: store("store-3"), force: true },
        proxy(3),
        C::AlterTopic { name: topic("topic-2"), topic_type: None, queue_count: Some(9) },
        C::AlterGroup { name: group("group-1"), fifo: None, max_attempts: None, backoff: None },
        C::CreateTopic { name: topic("topic-5"), topic_type: TopicType::Normal, queue_count: 1 },
        C::CreateGroup { name: group("group-3"), fifo: false, max_attempts: 1, backoff: BackoffPolicy::default() },
        C::EndStoreLease { store_group: StoreGroupId(3), epoch: Epoch(4) },
    ]);
    commands
}

/// Writes the folder as this version does.
async fn written() -> Vec<u8> {
    let (env, files, clock) = fake::env(1);
    // Version 1 knew the first rules.
    let config =
        ControllerConfig { snapshot_commands: BEFORE_SNAPSHOT, rules_max: 1, ..ControllerConfig::standalone(DIR) };
    let controller = Controller::open(config, env, Arc::new(NoPeers)).await.unwrap();
    for command in commands() {
        clock.advance(Duration::from_secs(1));
        controller.propose(command).await.unwrap();
    }
    controller.shutdown().await;
    let file = files.open(&Path::new(DIR).join("consensus.redb"), OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

/// A disk with this file in the folder of a member.
fn disk_with(bytes: &[u8]) -> (gantry_proto::env::Env, FakeFiles) {
    let (env, files, _) = fake::env(2);
    files.create_dir_all(Path::new(DIR)).unwrap();
    let file = files.open(&Path::new(DIR).join("consensus.redb"), OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    files.sync_dir(Path::new(DIR)).unwrap();
    (env, files)
}

/// What the values say, and their bytes.
fn told(files: &FakeFiles) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let values = inspect(files, Path::new(DIR)).unwrap();
    let of_version_1 = values.iter().filter(|value| value.name != "commit");
    let told: String = of_version_1.map(|value| format!("{value}\n  {}\n", hex(&value.bytes))).collect();
    // Fields that came later, of which version 1 said nothing.
    told.replace(", durable: None", "").replace(", lost_topics: [], lost_groups: []", "")
}

#[tokio::test(start_paused = true)]
#[ignore = "writes the fixtures, which are never to change"]
async fn write_the_fixtures() {
    let bytes = written().await;
    let (_, files) = disk_with(&bytes);
    std::fs::write(fixture("consensus.redb"), &bytes).unwrap();
    std::fs::write(fixture("consensus.txt"), told(&files)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn values_of_version_1_say_what_they_said() {
    let (env, files) = disk_with(&std::fs::read(fixture("consensus.redb")).unwrap());
    let before = files.mutations();
    let told = told(&files);
    assert_eq!(files.mutations(), before, "who looks writes nothing");
    assert_eq!(told, std::fs::read_to_string(fixture("consensus.txt")).unwrap());
    for kind in ["folder: ", "vote: ", "committed: ", "snapshot: ", "Membership(", "RemoveStoreGroup(", "NoteClosed("] {
        assert!(told.contains(kind), "nothing of {kind}");
    }
    // A controller goes on from there.
    let config = ControllerConfig { rules_max: 1, ..ControllerConfig::standalone(DIR) };
    let controller = Controller::open(config, env, Arc::new(NoPeers)).await.unwrap();
    // None that gives an identity: before that the stores would be waited for.
    let group = GroupName::parse("group-1").unwrap();
    let command = MetadataCommand::AlterGroup { name: group, fifo: None, max_attempts: Some(7), backoff: None };
    // Founding and each command are a version; so is this one.
    assert_eq!(controller.propose(command).await.unwrap().0.0, commands().len() as u64 + 2);
    controller.shutdown().await;
}

/// Equal metadata are equal bytes, also those of the version before.
#[tokio::test(start_paused = true)]
async fn this_version_writes_the_values_of_version_1() {
    let (_, files) = disk_with(&written().await);
    assert_eq!(told(&files), std::fs::read_to_string(fixture("consensus.txt")).unwrap());
}
