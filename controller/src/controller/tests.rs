//! One member: opening, proposing, watching, and what a disk may do to it.

use super::*;
use crate::no_peers::NoPeers;
use crate::testing::{create_group, create_topic, join_store, topic_name};
use futures_util::StreamExt as _;
use futures_util::future::{join_all, poll_immediate};
use gantry_proto::contract::{MetadataError, MetadataService as _, follow_metadata};
use gantry_proto::env::fake::{self, FakeFiles, FakeOp};
use gantry_proto::env::{Files as _, OpenMode};
use gantry_proto::model::{MetadataOutcome, MetadataRefusal, MetadataVersion, MetadataView};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NONE: MetadataVersion = MetadataVersion(0);
const DIR: &str = "/data/controller";

fn config() -> ControllerConfig {
    ControllerConfig::standalone(DIR)
}

async fn open(env: &Env) -> Result<Controller, OpenError> {
    Controller::open(config(), env.clone(), Arc::new(NoPeers)).await
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

#[tokio::test(start_paused = true)]
async fn a_proposal_is_carried_out_watched_and_found_after_a_restart() {
    let (env, files, clock) = fake::env(1);
    let controller = open(&env).await.unwrap();
    let view = Arc::new(MetadataView::default());
    let stream = controller.watch(NONE).await.unwrap();
    let following = tokio::spawn({
        let view = view.clone();
        async move { follow_metadata(stream, &view, |_| {}).await }
    });
    let at = clock.advance(Duration::from_secs(3));
    let (version, outcome) = controller.propose(create_group("g")).await.unwrap();
    view.reached(version).await;
    let group = view.group("g").unwrap();
    assert_eq!((outcome, group.created_at), (MetadataOutcome::Group(group.clone()), at));
    let refusal = controller.propose(create_group("g")).await;
    assert!(matches!(refusal, Err(MetadataError::Refused(MetadataRefusal::GroupExists(_)))));

    let cluster = view.cluster();
    assert!(cluster.is_some());
    controller.shutdown().await;
    following.await.unwrap();
    assert!(matches!(controller.propose(create_group("h")).await, Err(MetadataError::Unavailable(_))));
    assert!(matches!(controller.watch(NONE).await, Err(MetadataError::Unavailable(_))));

    files.crash(0);
    let controller = open(&env).await.unwrap();
    let first = controller.watch(NONE).await.unwrap().next().await.unwrap();
    assert_eq!(first.version, version);
    view.apply(first.version, &first.changes);
    assert_eq!((view.group("g"), view.cluster()), (Some(group), cluster));
    // A watcher that knows this version goes on without a snapshot.
    let mut resumed = controller.watch(version).await.unwrap();
    assert_eq!(poll_immediate(resumed.next()).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_only_member_is_ready_without_waiting() {
    let (env, ..) = fake::env(1);
    for _ in 0..2 {
        let started = Instant::now();
        let controller = open(&env).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        controller.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn proposals_that_wait_together_share_an_entry() {
    let (env, files, _) = fake::env(1);
    let controller = open(&env).await.unwrap();
    controller.propose(join_store("s", 1)).await.unwrap();
    let before = files.mutations();
    let names: Vec<String> = (0..200).map(|n| format!("topic-{n}")).collect();
    let answers = join_all(names.iter().map(|name| controller.propose(create_topic(name, 1)))).await;
    let mut versions: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().0.0).collect();
    versions.sort();
    assert_eq!(versions, (3..=202).collect::<Vec<_>>());
    let mutations = files.mutations() - before;
    assert!(mutations < 60, "{mutations} changes of the disk");
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_what_was_taken_and_frees_the_folder() {
    let (env, ..) = fake::env(1);
    let controller = Arc::new(open(&env).await.unwrap());
    let names: Vec<String> = (0..50).map(|n| format!("group-{n}")).collect();
    let proposing = join_all(names.iter().map(|name| controller.propose(create_group(name))));
    let (answers, ()) = tokio::join!(biased; proposing, controller.shutdown());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    controller.shutdown().await;
    let again = open(&env).await.unwrap();
    assert_eq!(again.core.feed.read(|state| state.groups().len()), 50);
}

#[tokio::test(start_paused = true)]
async fn a_second_controller_is_kept_out() {
    let (env, ..) = fake::env(1);
    let first = open(&env).await.unwrap();
    assert!(matches!(open(&env).await, Err(OpenError::Locked { .. })));
    first.shutdown().await;
    open(&env).await.unwrap().shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_of_another_member_is_refused_by_name() {
    let (env, ..) = fake::env(1);
    open(&env).await.unwrap().shutdown().await;
    let config = ControllerConfig { id: 2, ..config() };
    let refused = Controller::open(config, env, Arc::new(NoPeers)).await;
    assert!(matches!(refused, Err(OpenError::OtherMember { expected: 2, found: 1, .. })));
}

/// A folder in which a group was made, and the bytes of its file.
async fn closed_folder() -> (Env, FakeFiles, Vec<u8>) {
    let (env, files, _) = fake::env(1);
    let controller = open(&env).await.unwrap();
    controller.propose(create_group("g")).await.unwrap();
    controller.shutdown().await;
    let file = files.open(&path("consensus.redb"), OpenMode::Read).unwrap();
    let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec();
    (env, files, bytes)
}

fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        done.send(runtime.block_on(work)).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).expect("it ends, and without a panic")
}

/// A folder as a killed process leaves it. redb looks for torn commits then, and finds one in a damaged page.
#[test]
fn a_flipped_bit_never_takes_back_what_was_acknowledged() {
    type Left = Vec<(PathBuf, Vec<u8>)>;
    async fn left(names: &[&str]) -> Left {
        let (env, files, _) = fake::env(1);
        let controller = open(&env).await.unwrap();
        for name in names {
            controller.propose(create_group(name)).await.unwrap();
        }
        let read = |name: &str| {
            let file = files.open(&path(name), OpenMode::Read).unwrap();
            (path(name), file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec())
        };
        ["consensus.redb", "acknowledged"].map(read).to_vec()
    }
    async fn opened(left: Left) -> Result<(), OpenError> {
        let (env, files, _) = fake::env(2);
        files.create_dir_all(Path::new(DIR)).unwrap();
        for (path, bytes) in left {
            let file = files.open(&path, OpenMode::CreateNew).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
        files.sync_dir(Path::new(DIR)).unwrap();
        let controller = open(&env).await?;
        let found = |name: &str| controller.core.feed.read(|state| state.group(name).is_some());
        assert!(found("f") && found("g"), "it was answered");
        controller.shutdown().await;
        Ok(())
    }
    let whole = run(left(&["f", "g"]));
    run(opened(whole.clone())).unwrap();
    let (mut older, mut refused) = (0, 0);
    for (page, bytes) in whole[0].1.chunks(4096).enumerate() {
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let Some(last) = written.len().checked_sub(1) else { continue };
        for place in [0, last / 4, last / 2, last * 3 / 4, last] {
            let mut damaged = whole.clone();
            damaged[0].1[page * 4096 + written[place]] ^= 0x10;
            match run(opened(damaged)) {
                Ok(()) => {}
                Err(error @ OpenError::RolledBack { .. }) => {
                    let said = error.to_string();
                    assert!(
                        said.contains("older than what it acknowledged") && said.contains("remove-controller"),
                        "{said}"
                    );
                    older += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(older > 0, "{refused} others");
    // An older copy of the database alone.
    let mut put_back = whole.clone();
    put_back[0] = run(left(&["f"]))[0].clone();
    assert!(matches!(run(opened(put_back)), Err(OpenError::RolledBack { .. })));
}

/// Each page of the file, at its first and last bytes and in between. What opens must work; what does not must end, with
/// what to do: on a thread of its own, so that what hangs is noticed.
#[test]
fn damage_of_any_page_is_harmless_or_ends_with_advice_and_never_hangs_or_loses() {
    async fn with_damage(at: usize, bit: u8) -> bool {
        let (env, files, _) = closed_folder().await;
        files.flip_bits(&path("consensus.redb"), at as u64, bit).unwrap();
        match open(&env).await {
            Ok(controller) => {
                assert!(controller.core.feed.read(|state| state.group("g").is_some()), "byte {at}");
                if controller.propose(create_group("h")).await.is_err() {
                    let why = controller.health().unwrap_err().to_string();
                    assert!(why.contains("consensus.redb") && why.contains("restore the folder"), "byte {at}: {why}");
                }
                controller.shutdown().await;
                false
            }
            Err(error @ (OpenError::Damaged { .. } | OpenError::Newer { .. } | OpenError::Io { .. })) => {
                assert!(error.to_string().contains("consensus.redb"), "byte {at}: {error}");
                true
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    let (_, _, bytes) = run(closed_folder());
    let mut refused = 0;
    for (page, bytes) in bytes.chunks(4096).enumerate() {
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let Some(last) = written.len().checked_sub(1) else { continue };
        for place in [0, last / 3, last * 2 / 3, last] {
            let at = page * 4096 + written[place];
            refused += u32::from(run(with_damage(at, if at.is_multiple_of(2) { 0x01 } else { 0x80 })));
        }
    }
    assert!(refused > 0, "some of it is looked at");
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_only_dropped_frees_its_folder_soon() {
    let (env, ..) = fake::env(1);
    drop(open(&env).await.unwrap());
    for _ in 0..100 {
        match open(&env).await {
            Ok(again) => return again.shutdown().await,
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the folder stays locked");
}

#[tokio::test(start_paused = true)]
async fn after_a_sync_that_failed_nothing_is_answered_until_the_folder_is_opened_again() {
    let (env, files, _) = fake::env(1);
    let controller = open(&env).await.unwrap();
    controller.propose(create_group("a")).await.unwrap();
    files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    assert!(controller.health().is_ok());
    assert!(matches!(controller.propose(create_group("b")).await, Err(MetadataError::Unknown(_))));
    assert!(controller.health().is_err());
    for _ in 0..3 {
        let refused = controller.propose(create_group("c")).await;
        assert!(matches!(refused, Err(MetadataError::Unavailable(_) | MetadataError::Unknown(_))), "{refused:?}");
    }
    assert!(controller.core.feed.read(|state| state.group("c").is_none() && state.group("b").is_none()));
    controller.shutdown().await;
    files.crash(0);
    let controller = open(&env).await.unwrap();
    assert!(controller.core.feed.read(|state| state.group("a").is_some() && state.group("c").is_none()));
    controller.propose(create_group("d")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_nothing_that_was_answered() {
    let (env, files, _) = fake::env(1);
    let controller = open(&env).await.unwrap();
    let used = files.open(&path("consensus.redb"), OpenMode::Read).unwrap().len().unwrap();
    files.set_capacity(Some(used));
    let mut answered = 0;
    for n in 0..10_000 {
        match controller.propose(create_group(&format!("g-{n}"))).await {
            Ok(_) => answered += 1,
            Err(_) => break,
        }
    }
    assert!(answered < 10_000, "the disk is full some time");
    let refused = controller.propose(create_group("one-more")).await.unwrap_err().to_string();
    assert!(refused.contains("consensus.redb: the disk is full: free space on it"), "{refused}");
    assert_eq!(controller.health().unwrap_err().to_string().matches("the disk is full").count(), 1);
    controller.shutdown().await;
    files.set_capacity(None);
    files.crash(0);
    let controller = open(&env).await.unwrap();
    let found = controller.core.feed.read(|state| state.groups().len());
    assert!((answered..=answered + 1).contains(&found), "{answered} answered, {found} found");
}

/// What a history of proposals must look like after a crash at some step.
struct History {
    /// Groups whose creation was answered.
    answered: Vec<String>,
    version: MetadataVersion,
}

/// Proposes until something fails.
async fn work(controller: &Controller, from: usize, history: &mut History) {
    for n in from..from + 8 {
        let name = format!("g-{n}");
        match controller.propose(create_group(&name)).await {
            Ok((version, _)) => {
                assert!(version > history.version);
                history.version = version;
                history.answered.push(name);
            }
            Err(MetadataError::Refused(refusal)) => panic!("{refusal}"),
            Err(_) => return,
        }
    }
}

async fn check_history(env: &Env, files: &FakeFiles, history: &History) {
    files.crash(0);
    let controller = open(env).await.unwrap();
    assert!(controller.core.feed.version() >= history.version, "versions never go back");
    for name in &history.answered {
        assert!(controller.core.feed.read(|state| state.group(name).is_some()), "{name} was answered");
    }
    controller.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_that_was_answered() {
    for seed in 0..4 {
        let mut step = 0;
        loop {
            let (env, files, _) = fake::env(seed);
            let mut history = History { answered: Vec::new(), version: NONE };
            files.power_off_after(step);
            let config = ControllerConfig { snapshot_commands: 5, ..config() };
            // The power may go while it opens, works, or makes a snapshot.
            let before = files.mutations();
            if let Ok(controller) = Controller::open(config, env.clone(), Arc::new(NoPeers)).await {
                work(&controller, 0, &mut history).await;
                controller.shutdown().await;
            }
            let all_done = history.answered.len() == 8 && files.mutations() - before < step;
            files.crash(seed);
            check_history(&env, &files, &history).await;
            if all_done {
                break;
            }
            step += 1 + step / 24;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn snapshots_replace_the_log_and_a_restart_goes_on_from_them() {
    let (env, ..) = fake::env(1);
    let config = ControllerConfig { snapshot_commands: 100, batch_len_max: 1, ..config() };
    let controller = Controller::open(config.clone(), env.clone(), Arc::new(NoPeers)).await.unwrap();
    for n in 0..700 {
        controller.propose(create_group(&format!("g-{n}"))).await.unwrap();
    }
    let version = controller.core.feed.version();
    let groups = controller.core.feed.state();
    controller.shutdown().await;
    let controller = Controller::open(config, env, Arc::new(NoPeers)).await.unwrap();
    assert_eq!(controller.core.feed.version(), version);
    assert_eq!(controller.core.feed.state(), groups);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_another_history_begins_anew() {
    let (env, ..) = fake::env(1);
    let controller = open(&env).await.unwrap();
    let first = controller.watch(MetadataVersion(1_000)).await.unwrap().next().await.unwrap();
    assert_eq!(first.version, controller.core.feed.version());
}

/// A look at the times, not a check of them: `cargo test -p gantry-controller hundred -- --nocapture`.
#[tokio::test]
async fn a_hundred_thousand_topics_are_created_and_found_again() {
    const COUNT: usize = 100_000;
    let (env, files, _) = fake::env(1);
    let started = Instant::now();
    let controller = open(&env).await.unwrap();
    controller.propose(join_store("s", 1)).await.unwrap();
    for chunk in 0..COUNT / 1000 {
        let names: Vec<String> = (0..1000).map(|n| format!("topic-{chunk}-{n}")).collect();
        for answer in join_all(names.iter().map(|name| controller.propose(create_topic(name, 8)))).await {
            answer.unwrap();
        }
    }
    let created = started.elapsed();
    controller.shutdown().await;
    drop(controller);
    let bytes: u64 = files.list(Path::new(DIR)).unwrap().iter().map(|entry| entry.len).sum();
    let started = Instant::now();
    let controller = open(&env).await.unwrap();
    let opened = started.elapsed();
    let started = Instant::now();
    let everything = controller.watch(NONE).await.unwrap().next().await.unwrap();
    assert_eq!(everything.changes.len(), COUNT + 4);
    eprintln!(
        "created in {created:?}, opened in {opened:?} ({bytes} bytes), snapshot for a watcher in {:?}",
        started.elapsed()
    );
    assert!(controller.core.feed.read(|state| state.topic(topic_name("topic-99-999").as_str()).is_some()));
}
