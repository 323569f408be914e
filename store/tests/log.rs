//! The log on a disk that meets power failures, damage, and other versions of this program.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendRequest, StoreService as _};
use gantry_proto::env::OpenMode;
use gantry_proto::model::QueueId;
use gantry_store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::*;

/// Bytes in front of a segment's records.
const SEGMENT_HEADER_LEN: u64 = 4096;

async fn end(store: Arc<Store>) {
    // The machine may be gone: then the end has nothing to save it on.
    let _ = store.shutdown().await;
}

fn first_segment(machine: &Machine) -> PathBuf {
    machine.dir.join("commit-log/00000000000000000000.log")
}

#[tokio::test]
async fn the_messages_of_a_request_are_all_there_after_a_power_failure_or_none_is() {
    let (mut none, mut all) = (0, 0);
    for seed in 0..200 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(4 + seed % 4);
        let messages = (0..8).map(|n| message(&format!("b{n}-{}", "x".repeat(3000)), None)).collect();
        let answer = store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await;
        end(store).await;
        machine.files.crash(seed);
        let store = machine.must_open();
        let there = pop_all(&store).await.len();
        assert!(there == 8 || (there == 0 && answer.is_err()), "seed {seed}: {there} of 8 are there, {answer:?}");
        none += u32::from(there == 0);
        all += u32::from(there == 8);
        end(store).await;
    }
    assert!(none > 20 && all > 20, "{none} and {all} of 200: the test tests little");
}

#[tokio::test]
async fn a_record_that_a_later_version_wrote_is_neither_cut_off_nor_called_damaged() {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "m").await.unwrap();
    let epoch = store.epoch().0;
    end(store).await;
    machine.files.kill();
    // What a later version would write: of a kind that is not known here, whole and durable.
    let end_at = machine.must_open().log_range().1.0;
    machine.files.kill();
    let mut record = vec![0u8; 48 + 16];
    record[4..8].copy_from_slice(&64u32.to_le_bytes());
    record[8] = 77;
    record[12..16].copy_from_slice(&(epoch + 1).to_le_bytes());
    record[16..24].copy_from_slice(&end_at.to_le_bytes());
    let crc = crc32c::crc32c(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    let write = |record: &[u8]| {
        let file = machine.env.files.open(&first_segment(&machine), OpenMode::ReadWrite).unwrap();
        file.write_all_at(record, SEGMENT_HEADER_LEN + end_at).unwrap();
        file.sync_data().unwrap();
    };
    write(&record);
    for _ in 0..2 {
        let error = machine.open().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("newer Gantry") && error.contains("kind 77") && error.contains(".log"), "{error}");
    }
    // One that says that it may be passed over is.
    record[9] = 1;
    let crc = crc32c::crc32c(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    write(&record);
    let store = machine.must_open();
    assert_eq!(store.log_range().1.0, end_at + 64);
    assert_eq!(pop_all(&store).await.len(), 1);
    end(store).await;
}
