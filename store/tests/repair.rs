//! What an operator decides about a folder that does not open: it opens again, with everything in it, and what was changed
//! is kept beside it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::env::OpenMode;
use gantry_proto::model::StoreGroupName;
use gantry_store::repair::{Repair, RepairError};
use gantry_store::{Store, StoreFolder};
use std::path::Path;
use std::sync::Arc;
use support::*;

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

/// A machine whose store has sealed segments, and two starts behind it. Consumers have acknowledged eight messages.
async fn written(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    end(machine.must_open()).await;
    let store = machine.must_open();
    for number in 0..60 {
        send(&store, number % QUEUES, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
    }
    for popped in pop(&store, 8).await.unwrap() {
        ack(&store, &popped.handle).await.unwrap();
    }
    end(store).await;
    machine.files.kill();
    machine
}

fn group() -> Option<StoreGroupName> {
    Some(StoreGroupName::parse("store-2").unwrap())
}

fn names(machine: &Machine, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = machine.env.files.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names
}

fn contents(machine: &Machine, path: &Path) -> Vec<u8> {
    let file = machine.env.files.open(path, OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

fn refusal(repair: Result<Repair, RepairError>) -> String {
    repair.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test]
async fn a_lost_identity_is_given_back_and_the_folder_goes_on_where_it_was() {
    for damaged in [false, true] {
        let machine = written(1).await;
        let folder = machine.open_folder().unwrap();
        let (id, epoch, cluster) = (folder.id(), folder.last_epoch(), folder.cluster());
        drop(folder);
        for name in ["identity", "identity.copy"] {
            let path = machine.dir.join(name);
            if damaged {
                machine.files.flip_bits(&path, 20, 1).unwrap();
            } else {
                machine.env.files.remove(&path).unwrap();
            }
        }
        let lost = contents_of(&machine, damaged);
        let error = machine.open_folder().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("gantry repair identity"), "the message names the command: {error}");

        assert!(refusal(Repair::identity(&machine.env, &machine.dir, None)).contains("--store-group"));
        let before = names(&machine, &machine.dir);
        let repair = Repair::identity(&machine.env, &machine.dir, group()).unwrap();
        assert!(repair.steps[0].contains(&id.to_string()), "{:?}", repair.steps);
        drop(repair);
        assert_eq!(names(&machine, &machine.dir), before, "a plan changes nothing");

        let copies = Repair::identity(&machine.env, &machine.dir, group()).unwrap().carry_out().unwrap();
        assert_eq!(copies.is_some(), damaged);
        if let Some(copies) = copies {
            assert_eq!(names(&machine, &copies), ["identity", "identity.copy"]);
            assert_eq!(contents(&machine, &copies.join("identity")), lost.unwrap());
        }
        let folder = machine.open_folder().unwrap();
        assert_eq!((folder.id(), folder.last_epoch(), folder.cluster()), (id, epoch, cluster));
        assert_eq!(folder.store_group(), Some((HERE, &group().unwrap())));
        drop(folder);
        let store = machine.must_open();
        assert_eq!(pop_all(&store).await.len(), 52);
        end(store).await;
    }
}

fn contents_of(machine: &Machine, there: bool) -> Option<Vec<u8>> {
    there.then(|| contents(machine, &machine.dir.join("identity")))
}

#[tokio::test]
async fn a_folder_that_is_well_in_use_or_no_store_s_is_left_alone() {
    let machine = written(2).await;
    let before = names(&machine, &machine.dir);
    assert!(refusal(Repair::identity(&machine.env, &machine.dir, group())).contains("has its identity"));
    assert!(refusal(Repair::checkpoint(&machine.env, &machine.dir)).contains("is whole"));
    let elsewhere = Path::new("/data");
    assert!(refusal(Repair::identity(&machine.env, elsewhere, group())).contains("not a store's folder"));
    assert!(!names(&machine, elsewhere).contains(&"lock".to_owned()));
    assert_eq!(names(&machine, &machine.dir), before);

    let in_use = StoreFolder::open(&machine.env, &machine.dir).unwrap();
    machine.env.files.remove(&machine.dir.join("identity")).unwrap();
    machine.env.files.remove(&machine.dir.join("identity.copy")).unwrap();
    let refused = Repair::identity(&machine.env, &machine.dir, group()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, RepairError::InUse(_)), "{refused}");
    drop(in_use);
    assert!(Repair::identity(&machine.env, &machine.dir, group()).is_ok());
}

#[tokio::test]
async fn files_of_several_folders_are_not_given_an_identity() {
    let (machine, other) = (written(3).await, written(4).await);
    let name = "commit-log/00000000000000000000.log";
    let header = contents(&other, &other.dir.join(name));
    let file = machine.env.files.open(&machine.dir.join(name), OpenMode::ReadWrite).unwrap();
    file.write_all_at(&header[..4096], 0).unwrap();
    for name in ["identity", "identity.copy"] {
        machine.env.files.remove(&machine.dir.join(name)).unwrap();
    }
    assert!(refusal(Repair::identity(&machine.env, &machine.dir, group())).contains("of several folders"));
}

/// Damages all of them. Returns the name of the last.
fn damage_checkpoints(machine: &Machine) -> String {
    let names = machine.env.files.list(&machine.dir).unwrap().into_iter().map(|entry| entry.name);
    let found: Vec<String> = names.filter(|name| name.starts_with("checkpoint-")).collect();
    for name in &found {
        machine.files.flip_bits(&machine.dir.join(name), 20, 1).unwrap();
    }
    found.last().cloned().unwrap()
}

#[tokio::test]
async fn a_damaged_checkpoint_is_moved_away_and_progress_comes_back_from_the_log() {
    let machine = written(5).await;
    let name = damage_checkpoints(&machine);
    let damaged = contents(&machine, &machine.dir.join(&name));
    let copies = Repair::checkpoint(&machine.env, &machine.dir).unwrap().carry_out().unwrap().unwrap();
    assert_eq!(contents(&machine, &copies.join(&name)), damaged);
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.len(), 52, "what was acknowledged stays so");
    end(store).await;
}

#[tokio::test]
async fn a_checkpoint_that_the_log_cannot_replace_is_not_moved_away() {
    let machine = written(6).await;
    // Retention took the first segment.
    let positions = machine.dir.join("positions");
    machine.env.files.remove(&machine.dir.join("commit-log/00000000000000000000.log")).unwrap();
    damage_checkpoints(&machine);
    let before = (names(&machine, &machine.dir), contents(&machine, &positions));
    let said = refusal(Repair::checkpoint(&machine.env, &machine.dir));
    assert!(said.contains("reaches back to") && said.contains("group 1 on topic 1"), "{said}");
    assert_eq!((names(&machine, &machine.dir), contents(&machine, &positions)), before);
}
