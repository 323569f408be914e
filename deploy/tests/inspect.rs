//! `gantry inspect` and `gantry repair` on folders that a store left behind on this machine's disk, whole and damaged.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bytes::Bytes;
use gantry_deploy::env;
use gantry_proto::contract::{AppendRequest, StoreGrant, StoreLease};
use gantry_proto::model::{
    ClusterId, Epoch, GroupSecret, MessageHead, MetadataChange, MetadataVersion, MetadataView, Placement, QueueId,
    StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState, StoredMessage, Timestamp, Topic, TopicId, TopicName,
    TopicType,
};
use gantry_store::{Granted, Store, StoreConfig, StoreFolder};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

const HERE: StoreGroupId = StoreGroupId(2);
const TOPIC: TopicId = TopicId(7);

fn metadata() -> Arc<MetadataView> {
    let view = Arc::new(MetadataView::default());
    let group = StoreGroup {
        id: HERE,
        name: StoreGroupName::parse("store-2").unwrap(),
        state: StoreGroupState::Active,
        replicas: Vec::new(),
        in_sync: Vec::new(),
        leader: None,
        epoch: Epoch(1),
        created_at: Timestamp::ZERO,
    };
    let topic = Topic {
        id: TOPIC,
        name: TopicName::parse("orders").unwrap(),
        topic_type: TopicType::Mixed,
        placement: Placement::spread(1, &[HERE], 0),
        dead_letter_of: None,
        created_at: Timestamp::ZERO,
    };
    let changes = [MetadataChange::StoreGroupUpsert(Arc::new(group)), MetadataChange::TopicUpsert(Arc::new(topic))];
    view.apply(MetadataVersion(1), &changes);
    view
}

/// A data folder whose store took five messages and ended.
fn data_folder() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = env::system();
        let folder = StoreFolder::open(&env, &data.path().join("store")).unwrap();
        let config = StoreConfig { segment_bytes: 1 << 20, ..StoreConfig::default() };
        let store = Store::open(config, env, metadata(), folder).unwrap();
        let grant = StoreGrant {
            cluster: ClusterId([1; 16]),
            store_group: HERE,
            epoch: Epoch(1),
            lease: StoreLease::UntilSuperseded,
            previous: None,
            secret: GroupSecret([7; 32]),
        };
        let name = StoreGroupName::parse("store-2").unwrap();
        store.lead(&Granted { grant, name, called_at: tokio::time::Instant::now() }).await.unwrap();
        for number in 0..5 {
            let id = format!("id-{number}");
            let head = MessageHead {
                message_id: &id,
                tag: Some("red"),
                keys: ["order-1"].into_iter().collect(),
                message_group: None,
                dead_letter_origin: None,
                system_properties: b"",
                user_properties: b"",
                extensions: b"",
            };
            let message = StoredMessage::new(&head, Bytes::from_static(b"secret body")).unwrap();
            let request = AppendRequest { topic: TOPIC, queue: QueueId(0), messages: vec![message] };
            store.append(request).await.unwrap();
        }
        let _ = store.shutdown().await;
    });
    data
}

fn inspect(args: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gantry")).arg("inspect").args(args).arg(path).output().unwrap()
}

/// Standard output, when the command ended with `code`.
fn text(args: &[&str], path: &Path, code: i32) -> String {
    let output = inspect(args, path);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str], path: &Path, code: i32) -> Value {
    serde_json::from_str(&text(&[args, &["--output", "json"]].concat(), path, code)).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
}

#[test]
fn a_whole_folder_is_shown_and_found_whole() {
    let data = data_folder();
    let segment = data.path().join("store/commit-log/00000000000000000000.log");
    let shown = text(&["segment"], &segment, 0);
    assert_eq!(shown.matches("topic 7 queue 0 offset").count(), 5, "{shown}");
    assert!(shown.contains(r#"id "id-4"  tag "red"  keys ["order-1"]"#), "{shown}");
    assert!(shown.contains("the log ends: nothing was written behind it"), "{shown}");
    assert!(!shown.contains("secret"), "bodies are shown only when they are asked for");
    assert!(text(&["segment", "--bodies"], &segment, 0).contains("secret body"));

    let document = json(&["segment"], &segment, 0);
    let records = document["records"].as_array().unwrap();
    let third = &records[2];
    assert_eq!((&third["message"]["message_id"], &third["message"]["queue_offset"]), (&"id-2".into(), &2.into()));
    assert_eq!(document["end"]["why"], "log ends");
    let from = third["offset"].to_string();
    let some = json(&["segment", "--from", &from, "--limit", "2"], &segment, 0);
    let ids: Vec<_> = some["records"].as_array().unwrap().iter().map(|r| r["message"]["message_id"].clone()).collect();
    assert_eq!(ids, ["id-2", "id-3"]);
    assert_eq!(json(&["segment", "--topic", "8"], &segment, 0)["records"], Value::Array(Vec::new()));
    // A folder stands for all segments in it.
    assert_eq!(
        json(&["segment"], &data.path().join("store"), 0)[0]["records"].as_array().unwrap().len(),
        records.len()
    );

    assert!(text(&["positions"], data.path(), 0).contains("the one that counts"));
    assert_eq!(json(&["identity"], data.path(), 0)[1]["identity"]["store_group_name"], "store-2");
    let checkpoint = json(&["checkpoint"], data.path(), 0);
    let newest = checkpoint.as_array().unwrap().iter().max_by_key(|generation| generation["at"].as_u64()).unwrap();
    assert_eq!(newest["queues"][0]["next_offset"], 5, "{checkpoint}");
    let verified = json(&["verify"], data.path(), 0);
    assert_eq!((&verified["summary"]["problems"], &verified["summary"]["messages"]), (&0.into(), &5.into()));
    assert!(text(&["verify"], data.path(), 0).contains("whole, "));
}

#[test]
fn what_is_not_whole_is_said_with_exit_code_1() {
    let data = data_folder();
    let segment = data.path().join("store/commit-log/00000000000000000000.log");
    let third = json(&["segment"], &segment, 0)["records"][2].clone();
    flip(&segment, third["position"].as_u64().unwrap() + 60);
    let damaged = json(&["segment"], &segment, 1)["records"][2].clone();
    assert_eq!((&damaged["kind"], &damaged["offset"]), (&"damaged".into(), &third["offset"]));
    assert_eq!(damaged["to"].as_u64(), Some(third["offset"].as_u64().unwrap() + third["len"].as_u64().unwrap()));
    let shown = text(&["verify"], data.path(), 1);
    assert!(shown.contains("1 PROBLEM") && shown.contains(&format!(" at {}: ", third["offset"])), "{shown}");
    let quiet = text(&["verify", "--quiet"], data.path(), 1);
    assert!(!quiet.contains("\nwhole"), "{quiet}");

    flip(&data.path().join("store/identity"), 30);
    assert!(text(&["identity"], data.path(), 1).contains("identity is not whole"));
    flip(&data.path().join("store/positions"), 30);
    assert!(text(&["positions"], data.path(), 1).contains("DAMAGED"));
}

#[test]
fn what_is_not_there_is_wrong_usage() {
    let empty = tempfile::tempdir().unwrap();
    for command in ["segment", "positions", "identity", "verify", "index", "checkpoint", "controller"] {
        for path in [empty.path().to_owned(), empty.path().join("missing")] {
            let output = inspect(&[command], &path);
            assert_eq!(output.status.code(), Some(2), "{command} {}: {output:?}", path.display());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(&*path.to_string_lossy()), "{said}");
        }
    }
    let other = empty.path().join("notes.txt");
    std::fs::write(&other, "hello").unwrap();
    assert_eq!(inspect(&["segment"], &other).status.code(), Some(2));
}

#[test]
fn a_folder_in_use_is_read_all_the_same_and_said_to_be_in_use() {
    let data = data_folder();
    let folder = StoreFolder::open(&env::system(), &data.path().join("store")).unwrap();
    let output = inspect(&["verify"], data.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has ") && said.contains(" open: "), "{said}");
    drop(folder);
    assert!(inspect(&["verify"], data.path()).stderr.is_empty());
}

#[test]
fn a_lost_identity_is_given_back_when_it_is_said_twice() {
    let data = data_folder();
    let store = data.path().join("store");
    let identity = json(&["identity"], data.path(), 0)[0]["identity"].clone();
    let repair = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        let output = command.args(["repair", "identity"]).arg(data.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, said) = repair(&["--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has its identity"), "{said}");
    for name in ["identity", "identity.copy"] {
        std::fs::remove_file(store.join(name)).unwrap();
    }
    assert!(text(&["verify"], data.path(), 1).contains("gantry repair identity"));
    let (code, said, _) = repair(&[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("Nothing was changed") && !store.join("identity").exists(), "{said}");
    let (code, said, _) = repair(&["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let again = json(&["identity"], data.path(), 0)[0]["identity"].clone();
    assert_eq!((&again["folder"], &again["last_epoch"]), (&identity["folder"], &identity["last_epoch"]));
}

/// Runs a whole server on the folder and ends it.
fn run_server(data: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    let flags =
        "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 --store-segment-bytes 16MiB --data"
            .split(' ');
    // That variable is the tests' own, and an unknown option to the server.
    let mut server = command.args(flags).arg(data).env_remove("GANTRY_CLIENTS_DIR").spawn().unwrap();
    let deadline = std::time::Duration::from_secs(120);
    let begun = tokio::time::Instant::now();
    while !joined(data) {
        assert!(begun.elapsed() < deadline, "the server did not start");
        assert!(server.try_wait().unwrap().is_none(), "the server ended by itself, and said why above");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
}

fn joined(data: &Path) -> bool {
    String::from_utf8(inspect(&["identity"], data).stdout).unwrap().contains("belongs to store group")
}

#[test]
fn a_controllers_folder_is_shown_and_verified_and_its_damage_is_named() {
    let data = tempfile::tempdir().unwrap();
    run_server(data.path());
    let shown = json(&["controller"], data.path(), 0);
    let values = shown["values"].as_array().unwrap();
    assert!(values.iter().any(|value| value["kind"] == "folder" && value["says"] == "of member 1"), "{shown}");
    assert!(values.iter().any(|value| value["kind"] == "vote" && value["state"] == "whole"), "{shown}");
    assert!(!shown.to_string().contains("secret: ["), "{shown}");
    let entries = values.iter().filter(|value| value["kind"] == "log").count();
    assert!(entries > 1, "{shown}");
    let limited = json(&["controller", "--limit", "1"], data.path(), 0);
    assert_eq!(limited["values"].as_array().unwrap().iter().filter(|value| value["kind"] == "log").count(), 1);
    let verified = json(&["verify"], data.path(), 0);
    assert_eq!(verified["summary"]["controller_entries"].as_u64(), Some(entries as u64));
    assert!(text(&["verify"], &data.path().join("controller"), 0).contains("entries in the controller's log"));

    let acknowledged = data.path().join("controller/acknowledged");
    let held = std::fs::read(&acknowledged).unwrap();
    // Both places name a commit that is not there.
    let later = [0, 4096].iter().fold(held.clone(), |mut later, at| {
        let slot = &mut later[*at..*at + 24];
        slot[16..].copy_from_slice(&10_000_u64.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&slot[..12]), &slot[16..]);
        slot[12..16].copy_from_slice(&sum.to_le_bytes());
        later
    });
    for (bytes, says) in [(later, "and commit 10000 was acknowledged"), (vec![0; 8192], "damaged: it does not say")] {
        std::fs::write(&acknowledged, bytes).unwrap();
        let told = text(&["verify"], data.path(), 1);
        assert!(
            told.contains("1 PROBLEM") && told.contains(says) && told.contains("controller/acknowledged"),
            "{told}"
        );
    }
    std::fs::remove_file(&acknowledged).unwrap();
    assert!(text(&["verify"], data.path(), 1).contains("missing: nothing says how far the database was"));
    std::fs::write(&acknowledged, held).unwrap();
    json(&["verify"], data.path(), 0);

    let file = data.path().join("controller/consensus.redb");
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len / 3).unwrap();
    assert!(text(&["controller"], data.path(), 1).contains("NOT READABLE"));
    assert!(text(&["verify"], data.path(), 1).contains("1 PROBLEM"));
}
