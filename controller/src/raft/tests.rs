use super::disk::Disk;
use super::log_store::LogStore;
use super::state_machine::{SnapshotPace, StateMachine};
use super::type_config::{Runtime, TypeConfig};
use crate::feed::Feed;
use crate::state::MetadataState;
use gantry_proto::env::fake::{self, FakeOp};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let (env, ..) = fake::env(1);
        let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
        let feed = Arc::new(Feed::new(MetadataState::default()));
        let pace = SnapshotPace::new(usize::MAX, Arc::new(Notify::new()));
        let machine = StateMachine::new(env, disk.clone(), feed, None, pace, Arc::default(), 1);
        Ok(((), LogStore::new(disk), machine))
    }
}

/// openraft's own suite for everything that it stores.
#[tokio::test]
async fn the_storage_passes_the_suite_of_openraft() {
    Runtime::scope(7, Suite::test_all(Builder)).await.unwrap();
}

fn blank(index: u64) -> super::type_config::Entry {
    let leader_id = super::type_config::LeaderId { term: 1, node_id: 0 };
    openraft::Entry { log_id: super::type_config::LogId { leader_id, index }, payload: openraft::EntryPayload::Blank }
}

/// However the power fails, what was written with success is there.
#[tokio::test]
async fn what_is_appended_survives_a_crash_at_any_step() {
    for seed in 0..8 {
        for step in 0.. {
            let (env, files, _) = fake::env(seed);
            let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
            let before = files.mutations();
            files.power_off_after(step);
            let mut written = 0;
            for index in 0..12 {
                if disk.append(vec![blank(index)]).await.is_err() {
                    break;
                }
                written = index + 1;
            }
            let done = written == 12 && files.mutations() - before < step;
            disk.close().await;
            drop(disk);
            files.crash(seed);
            let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
            let found = disk.entries(.., false).await.unwrap().len() as u64;
            assert!(found >= written, "seed {seed}, step {step}: {written} written, {found} found");
            if done {
                break;
            }
        }
    }
}

/// What a member shows after a restart it has promised again, even if the sync of an earlier process failed.
#[tokio::test]
async fn what_a_restarted_member_finds_survives_a_power_failure() {
    let mut found_more = 0;
    for seed in 0..4 {
        for step in 0..40 {
            let (env, files, _) = fake::env(seed);
            let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
            files.fail_next(FakeOp::Sync, step, io::ErrorKind::Other);
            let mut written = 0;
            for index in 0..12 {
                if disk.append(vec![blank(index)]).await.is_err() {
                    break;
                }
                written = index + 1;
            }
            drop(disk);
            files.kill();
            let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
            let shown = disk.entries(.., false).await.unwrap().len() as u64;
            assert!(shown >= written, "seed {seed}, step {step}: {written} written, {shown} found");
            found_more += u32::from(shown > written);
            files.crash(seed);
            let (disk, _) = Disk::open(&env, Path::new("/data"), 0, 1, false).await.unwrap();
            let found = disk.entries(.., false).await.unwrap().len() as u64;
            assert!(found >= shown, "seed {seed}, step {step}: {shown} shown, {found} found");
        }
    }
    assert!(found_more > 0, "no restart found what was not answered: the test tests little");
}
