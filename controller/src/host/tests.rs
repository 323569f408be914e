use super::*;
use crate::no_peers::NoPeers;
use crate::testing::{DIR, create_group};
use futures_util::StreamExt as _;
use gantry_proto::env::fake::{self, FakeFiles, FakeOp};
use gantry_proto::env::{Files as _, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

fn file() -> PathBuf {
    Path::new(DIR).join("consensus.redb")
}

struct Kept {
    host: Arc<ControllerHost>,
    files: FakeFiles,
    env: Env,
    keeping: JoinHandle<Result<(), Failed>>,
}

async fn host() -> Kept {
    let (env, files, _) = fake::env(1);
    kept(env, files).await
}

async fn kept(env: Env, files: FakeFiles) -> Kept {
    let config = ControllerConfig { request_timeout: Duration::from_secs(3), ..ControllerConfig::standalone(DIR) };
    let host = Arc::new(ControllerHost::open(config, env.clone(), Arc::new(NoPeers)).await.unwrap());
    let keeping = host.clone();
    Kept { host, files, env, keeping: tokio::spawn(async move { keeping.keep().await }) }
}

impl Kept {
    async fn create(&self, name: &str) -> Result<(), MetadataError> {
        self.host.propose(create_group(name)).await.map(|_| ())
    }

    /// Waits until it serves, and what it shows survives a power failure at once.
    async fn goes_on(&self) {
        for _ in 0..600 {
            if self.host.serves().is_ok() && self.create("again").await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        panic!("{:?}", self.host.serves());
    }

    fn groups(&self) -> Vec<String> {
        let state = self.host.controller().core.feed.state();
        state.groups().map(|group| group.name.to_string()).collect()
    }

    async fn end(self) {
        self.host.shutdown().await;
        self.keeping.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_that_has_room_again_is_gone_on_with_and_nothing_answered_is_lost() {
    let kept = host().await;
    kept.files.set_capacity(Some(kept.files.list(Path::new(DIR)).unwrap().iter().map(|entry| entry.len).sum()));
    let mut answered = Vec::new();
    for n in 0.. {
        let name = format!("g-{n}");
        match kept.create(&name).await {
            Ok(()) => answered.push(name),
            Err(_) => break,
        }
    }
    // There may be room for a little when it is opened again; but it says what is wrong for as long as it is.
    let mut said = 0;
    for n in 0..100 {
        sleep(Duration::from_secs(3)).await;
        said += u32::from(kept.host.serves().is_err_and(|why| why.contains("the disk is full")));
        let name = format!("h-{n}");
        if kept.create(&name).await.is_ok() {
            answered.push(name);
        }
    }
    assert!(said > 50 && !kept.keeping.is_finished(), "{said}");
    kept.files.set_capacity(None);
    kept.goes_on().await;
    let found = kept.groups();
    assert!(answered.iter().all(|name| found.contains(name)), "{answered:?} in {found:?}");
    kept.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_sync_left_is_not_believed_and_what_is_shown_afterwards_is_durable() {
    for op in [FakeOp::Sync, FakeOp::Write] {
        for after in 0..6 {
            let kept = host().await;
            kept.create("a").await.unwrap();
            let mut watch = kept.host.watch(MetadataVersion(0)).await.unwrap();
            kept.files.fail_next(op, after, io::ErrorKind::Other);
            let mut answered = vec!["a".to_owned()];
            for n in 0..6 {
                let name = format!("g-{n}");
                if kept.create(&name).await.is_ok() {
                    answered.push(name);
                }
            }
            kept.goes_on().await;
            while watch.next().await.is_some() {}
            let mut shown = kept.groups();
            kept.files.crash(after);
            drop(kept.host);
            kept.keeping.abort();
            let _ = kept.keeping.await;
            let again = kept_when_free(kept.env, kept.files).await;
            let found = again.groups();
            shown.retain(|name| !found.contains(name));
            assert!(shown.is_empty(), "{op:?} {after}: shown and lost: {shown:?}");
            assert!(answered.iter().all(|name| found.contains(name)), "{op:?} {after}");
            again.end().await;
        }
    }
}

/// The one before may still be ending.
async fn kept_when_free(env: Env, files: FakeFiles) -> Kept {
    for _ in 0..200 {
        match files.try_lock(&Path::new(DIR).join("LOCK")) {
            Ok(lock) => {
                drop(lock);
                return kept(env, files).await;
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the folder stays locked");
}

#[tokio::test(start_paused = true)]
async fn what_opening_again_cannot_mend_ends_it_with_what_to_do() {
    let kept = host().await;
    kept.create("a").await.unwrap();
    // While it is away somebody empties its file.
    kept.files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    kept.create("b").await.unwrap_err();
    kept.files.open(&file(), OpenMode::ReadWrite).unwrap().set_len(0).unwrap();
    let why = kept.keeping.await.unwrap().unwrap_err().to_string();
    assert!(why.contains("consensus.redb: damaged") && why.contains("restore the folder"), "{why}");
    assert!(kept.host.serves().is_err());
}

#[tokio::test(start_paused = true)]
async fn it_can_be_stopped_while_it_is_being_opened_again() {
    let kept = host().await;
    kept.create("a").await.unwrap();
    kept.files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    kept.create("b").await.unwrap_err();
    while kept.host.now.read().reopening.is_none() {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(kept.host.serves().is_err());
    kept.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_removed_moved_or_replaced_under_it_ends_it_and_nothing_is_answered_or_made() {
    for name in ["consensus.redb", "acknowledged"] {
        for (how, says) in [("removed", "was removed"), ("moved", "was moved away"), ("replaced", "was replaced")] {
            for asked in [false, true] {
                let kept = host().await;
                kept.create("a").await.unwrap();
                let (path, aside) = (Path::new(DIR).join(name), Path::new(DIR).join("aside"));
                match how {
                    "removed" => kept.files.remove(&path).unwrap(),
                    "moved" => kept.files.rename(&path, &aside).unwrap(),
                    _ => {
                        let copy = kept.files.open(&aside, OpenMode::CreateNew).unwrap();
                        let held = kept.files.open(&path, OpenMode::Read).unwrap();
                        copy.write_all_at(&held.read_at(0, held.len().unwrap() as usize).unwrap(), 0).unwrap();
                        kept.files.rename(&aside, &path).unwrap();
                    }
                }
                // Whether somebody asks or nobody does, and before anybody is told of success.
                if asked {
                    kept.create("b").await.unwrap_err();
                }
                let why = kept.keeping.await.unwrap().unwrap_err().to_string();
                assert!(why.contains(&format!("{name} {says}")) && why.contains("put back"), "{name} {how}: {why}");
                assert!(kept.host.serves().is_err());
                assert_eq!(kept.files.identity_at(&path).unwrap().is_some(), how == "replaced", "{name} {how}");
                if how == "moved" {
                    kept.files.rename(&aside, &path).unwrap();
                    kept.host.shutdown().await;
                    let again = kept_when_free(kept.env, kept.files).await;
                    assert!(again.groups().contains(&"a".to_owned()));
                    again.end().await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_while_it_is_opened_again_is_not_made_anew() {
    let kept = host().await;
    kept.create("a").await.unwrap();
    kept.files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    kept.create("b").await.unwrap_err();
    for name in ["consensus.redb", "acknowledged"] {
        kept.files.remove(&Path::new(DIR).join(name)).unwrap();
    }
    let why = kept.keeping.await.unwrap().unwrap_err().to_string();
    assert!(why.contains("consensus.redb is gone") && why.contains("gantry repair controller"), "{why}");
    assert_eq!(kept.files.identity_at(&file()).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn without_the_database_beside_acknowledged_nothing_is_made_and_the_command_is_named() {
    let kept = host().await;
    kept.create("a").await.unwrap();
    kept.host.shutdown().await;
    kept.keeping.await.unwrap().unwrap();
    kept.files.remove(&file()).unwrap();
    let names = |files: &FakeFiles| {
        let mut names: Vec<String> = files.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    };
    let before = names(&kept.files);
    for _ in 0..2 {
        let opened = ControllerHost::open(ControllerConfig::standalone(DIR), kept.env.clone(), Arc::new(NoPeers)).await;
        let error = opened.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Lost { .. }), "{error}");
        assert!(error.to_string().contains("`gantry repair controller"), "{error}");
        assert_eq!(names(&kept.files), before);
    }
}
