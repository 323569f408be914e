//! Identities as version 1 wrote them are read for ever. The file `fixtures/v1/identity` is made by
//! `cargo test -p gantry-store --test golden_identity -- --ignored`, and never again after a release.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::StoreLease;
use gantry_proto::env::OpenMode;
use gantry_proto::model::{ClusterId, Epoch, StoreGroupName};
use std::path::Path;
use support::*;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/identity");

/// What this version writes: the identity of a folder that was drawn from seed 1 and led twice.
fn written() -> Vec<u8> {
    let machine = Machine::new(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let store =
            machine.open_with(machine.open_folder().unwrap(), &granted(3, StoreLease::UntilSuperseded)).unwrap();
        store.lead(&granted(258, StoreLease::UntilSuperseded)).await.unwrap();
        store.shutdown().await.unwrap();
    });
    let file = machine.env.files.open(&machine.dir.join("identity"), OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

#[test]
#[ignore = "makes the file"]
fn make_the_identity_of_version_1() {
    std::fs::create_dir_all(Path::new(FIXTURE).parent().unwrap()).unwrap();
    std::fs::write(FIXTURE, written()).unwrap();
}

#[test]
fn an_identity_is_written_as_version_1_wrote_it() {
    assert_eq!(written(), std::fs::read(FIXTURE).unwrap());
}

#[test]
fn an_identity_of_version_1_is_read() {
    let golden = std::fs::read(FIXTURE).unwrap();
    for name in ["identity", "identity.copy"] {
        let machine = Machine::new(2);
        machine.env.files.create_dir_all(&machine.dir).unwrap();
        let file = machine.env.files.open(&machine.dir.join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(&golden, 0).unwrap();
        let folder = machine.open_folder().unwrap();
        let (group, name) = folder.store_group().unwrap();
        assert_eq!((group, name), (HERE, &StoreGroupName::parse("store-2").unwrap()));
        assert_eq!((folder.cluster(), folder.last_epoch()), (Some(ClusterId([1; 16])), Epoch(258)));
        // The first 16 bytes that seed 1 gave.
        assert_eq!(folder.id().to_string(), FOLDER);
    }
}

const FOLDER: &str = "c15c0289ec2d0a9167ec8e65a18debbe";
