use super::*;
use crate::testing::{config, create_group, create_topic, topic_name};
use futures_util::StreamExt as _;
use futures_util::future::{join_all, poll_immediate};
use gantry_proto::contract::follow_metadata;
use gantry_proto::env::fake;
use gantry_proto::model::{MetadataRefusal, MetadataView, Timestamp};
use std::time::Duration;

const NONE: MetadataVersion = MetadataVersion(0);

#[tokio::test]
async fn a_proposal_is_carried_out_watched_and_found_after_a_restart() {
    let (env, files, clock) = fake::env(1);
    let controller = Controller::open(config(), env.clone()).unwrap();
    let view = Arc::new(MetadataView::default());
    let stream = controller.watch(NONE).await.unwrap();
    let following = tokio::spawn({
        let view = view.clone();
        async move { follow_metadata(stream, &view).await }
    });
    let at = clock.advance(Duration::from_secs(3));
    let (version, outcome) = controller.propose(create_group("g")).await.unwrap();
    view.reached(version).await;
    let group = view.group("g").unwrap();
    assert_eq!((outcome, group.created_at), (MetadataOutcome::Group(group.clone()), at));
    let refusal = controller.propose(create_group("g")).await;
    assert!(matches!(refusal, Err(MetadataError::Refused(MetadataRefusal::GroupExists(_)))));

    controller.shutdown().await;
    following.await.unwrap();
    assert!(matches!(controller.propose(create_group("h")).await, Err(MetadataError::Unavailable(_))));
    assert!(matches!(controller.watch(NONE).await, Err(MetadataError::Unavailable(_))));

    files.crash(0);
    let controller = Controller::open(config(), env).unwrap();
    assert_eq!(controller.recovery().version, version);
    let first = controller.watch(NONE).await.unwrap().next().await.unwrap();
    view.apply(first.version, &first.changes);
    assert_eq!(view.group("g"), Some(group));
    // A watcher that knows this version goes on without a snapshot.
    let mut resumed = controller.watch(version).await.unwrap();
    assert_eq!(poll_immediate(resumed.next()).await, None);
}

#[tokio::test]
async fn proposals_that_wait_together_share_a_sync() {
    let (env, files, _) = fake::env(1);
    let (controller, mut committer) = Controller::open_stepped(config(), env).unwrap();
    let before = files.mutations();
    let names: Vec<String> = (0..100).map(|n| format!("topic-{n}")).collect();
    let proposing = join_all(names.iter().map(|name| controller.propose(create_topic(name, 1))));
    let stepping = async {
        // The proposals were polled first, so all of them wait.
        committer.step()
    };
    let (answers, stepped) = tokio::join!(biased; proposing, stepping);
    assert_eq!(stepped, 100);
    assert_eq!(files.mutations() - before, 2);
    let versions: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().0.0).collect();
    assert_eq!(versions, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_is_done_for_a_proposer_that_has_gone() {
    let (env, ..) = fake::env(1);
    let (controller, mut committer) = Controller::open_stepped(config(), env).unwrap();
    assert!(poll_immediate(controller.propose(create_topic("a", 1))).await.is_none());
    assert_eq!(committer.step(), 1);
    let first = controller.watch(NONE).await.unwrap().next().await.unwrap();
    assert_eq!(first.version, NONE);
}

#[tokio::test]
async fn shutdown_answers_what_was_taken_and_frees_the_folder() {
    let (env, ..) = fake::env(1);
    let controller = Arc::new(Controller::open(config(), env.clone()).unwrap());
    let names: Vec<String> = (0..50).map(|n| format!("topic-{n}")).collect();
    let proposing = join_all(names.iter().map(|name| controller.propose(create_topic(name, 1))));
    let (answers, ()) = tokio::join!(biased; proposing, controller.shutdown());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    controller.shutdown().await;
    assert_eq!(Controller::open(config(), env).unwrap().recovery().replayed, 50);
}

#[tokio::test]
async fn a_committer_that_is_gone_leaves_outcomes_unknown_and_ends_watches() {
    let (env, ..) = fake::env(1);
    let (controller, committer) = Controller::open_stepped(config(), env).unwrap();
    let mut stream = controller.watch(NONE).await.unwrap();
    stream.next().await.unwrap();
    let (answer, ()) = tokio::join!(biased; controller.propose(create_topic("a", 1)), async { drop(committer) });
    assert!(matches!(answer, Err(MetadataError::Unknown(_))), "{answer:?}");
    assert_eq!(stream.next().await, None);
    assert!(matches!(controller.propose(create_topic("a", 1)).await, Err(MetadataError::Unavailable(_))));
}

/// A look at the times, not a check of them: `cargo test -p gantry-controller hundred -- --nocapture`.
#[tokio::test]
async fn a_hundred_thousand_topics_are_created_rolled_and_found_again() {
    const COUNT: usize = 100_000;
    let config = ControllerConfig { journal_bytes_max: 1 << 20, ..config() };
    let (env, files, _) = fake::env(1);
    let started = tokio::time::Instant::now();
    let controller = Controller::open(config.clone(), env.clone()).unwrap();
    let view = MetadataView::default();
    let mut stream = controller.watch(NONE).await.unwrap();
    for chunk in 0..COUNT / 1000 {
        let names: Vec<String> = (0..1000).map(|n| format!("topic-{chunk}-{n}")).collect();
        for answer in join_all(names.iter().map(|name| controller.propose(create_topic(name, 8)))).await {
            answer.unwrap();
        }
    }
    let created = started.elapsed();
    while view.version().0 < COUNT as u64 {
        let event = stream.next().await.unwrap();
        view.apply(event.version, &event.changes);
    }
    assert_eq!(view.counts(), (COUNT, 0));
    controller.shutdown().await;
    drop(controller);
    files.crash(0);
    let started = tokio::time::Instant::now();
    let controller = Controller::open(config.clone(), env).unwrap();
    let opened = started.elapsed();
    let recovery = controller.recovery();
    assert_eq!(recovery.version.0, COUNT as u64);
    assert!(recovery.replayed < COUNT as u64, "a snapshot was made on the way");
    let started = tokio::time::Instant::now();
    let everything = controller.watch(NONE).await.unwrap().next().await.unwrap();
    assert_eq!(everything.changes.len(), COUNT + 1);
    let bytes: u64 = gantry_proto::env::Files::list(&files, &config.dir).unwrap().iter().map(|entry| entry.len).sum();
    eprintln!(
        "created in {created:?}, opened in {opened:?} ({} replayed, {bytes} bytes), snapshot for a watcher in {:?}",
        recovery.replayed,
        started.elapsed()
    );
    assert!(view.topic(topic_name("topic-99-999").as_str()).is_some_and(|topic| topic.created_at > Timestamp::ZERO));
}
