use super::*;
use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::no_peers::NoPeers;
use crate::testing::{DIR, create_group, create_topic};
use gantry_proto::contract::MetadataService as _;
use gantry_proto::env::OpenMode;
use gantry_proto::env::fake::{self, FakeFiles};
use gantry_proto::model::limits::MAX_ATTEMPTS_DEFAULT;
use gantry_proto::model::{MetadataOutcome, Removed};

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn topic(id: u32, name: &str, queues: u32) -> RebuiltTopic {
    RebuiltTopic {
        id: TopicId(id),
        name: TopicName::parse(name).unwrap(),
        topic_type: TopicType::Mixed,
        placement: Placement::spread(queues, &[StoreGroupId(3)], 0),
    }
}

fn group(id: u32, name: &str, dead_letters: Option<u32>) -> RebuiltGroup {
    let name = GroupName::parse(name).unwrap();
    let (max_attempts, backoff) = (MAX_ATTEMPTS_DEFAULT, BackoffPolicy::default());
    let dead_letter_topic = dead_letters.map(TopicId);
    RebuiltGroup { id: GroupId(id), name, fifo: false, max_attempts, backoff, dead_letter_topic }
}

/// Topics 2 and 5 with dead letters in 7; 3 was deleted; nothing is known of 1, 4 and 6.
fn known() -> RebuiltMetadata {
    RebuiltMetadata {
        cluster: ClusterId([1; 16]),
        store_group: (StoreGroupId(3), StoreGroupName::parse("store-1").unwrap()),
        folder: FolderId([2; 16]),
        last_epoch: Epoch(9),
        topics: vec![topic(2, "orders", 4), topic(5, "payments", 1)],
        groups: vec![group(4, "readers", Some(7)), group(2, "others", None)],
        last_topic: TopicId(7),
        last_group: GroupId(4),
        topics_removed: BTreeSet::from([TopicId(3)]),
        groups_removed: BTreeSet::from([GroupId(1)]),
    }
}

async fn open(env: &Env) -> Result<Controller, OpenError> {
    Controller::open(ControllerConfig::standalone(DIR), env.clone(), Arc::new(NoPeers)).await
}

async fn created(controller: &Controller, name: &str) -> Arc<Topic> {
    match controller.propose(create_topic(name, 1)).await.unwrap().1 {
        MetadataOutcome::Topic(topic) => topic,
        other => panic!("{other:?}"),
    }
}

fn is_rebuilt(state: &MetadataState) {
    assert_eq!(state.cluster(), Some(ClusterId([1; 16])));
    let orders = state.topic("orders").unwrap();
    assert_eq!((orders.id, orders.placement.queue_count(StoreGroupId(3))), (TopicId(2), 4));
    let letters = state.topic("%DLQ%readers").unwrap();
    assert_eq!((letters.id, state.group("readers").unwrap().dead_letter_topic), (TopicId(7), TopicId(7)));
    assert_eq!(state.topic("%DLQ%others").unwrap().id, TopicId(8), "a new one");
    assert_eq!(state.store_group(StoreGroupId(3)).unwrap().epoch, Epoch(9));
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_made_again_opens_and_gives_no_number_twice() {
    let (env, files, _) = fake::env(1);
    assert!(is_lost(&files, dir()).unwrap());
    let before = files.mutations();
    let rebuild = Rebuild::new(&env, dir(), known()).unwrap();
    assert_eq!(files.mutations(), before, "to think it through changes nothing");
    assert_eq!(rebuild.carry_out().unwrap(), None);
    assert!(!is_lost(&files, dir()).unwrap());
    for start in 0..2 {
        let controller = open(&env).await.unwrap();
        controller.core.feed.read(is_rebuilt);
        let last = controller.core.feed.read(|state| state.given().topic);
        assert_eq!(created(&controller, &format!("new-{start}")).await.id, TopicId(last.0 + 1));
        assert!(last >= TopicId(8));
        controller.propose(create_group(&format!("new-{start}"))).await.unwrap();
        assert!(controller.core.feed.read(|state| state.group(&format!("new-{start}")).unwrap().id) > GroupId(4));
        controller.shutdown().await;
    }
    let Err(RebuildError::Refused(why)) = Rebuild::new(&env, dir(), known()) else { panic!("it is whole") };
    assert!(why.contains("is whole"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_known_to_be_deleted_counts_as_removed() {
    let (env, _, _) = fake::env(1);
    let state = state(&env, known()).unwrap();
    let view = gantry_proto::model::MetadataView::default();
    view.apply(state.version(), &state.to_changes());
    let removed = |id: Removed| view.knows_removed(id);
    let topics: Vec<u32> = (1..=9).filter(|id| removed(Removed::Topic(TopicId(*id)))).collect();
    let groups: Vec<u32> = (1..=9).filter(|id| removed(Removed::Group(GroupId(*id)))).collect();
    assert_eq!((topics, groups), (vec![3], vec![1]));
    assert_eq!(others(4, &BTreeSet::new()), [1..=4]);
    assert_eq!(others(4, &BTreeSet::from([1, 4])), [2..=3]);
    assert_eq!(others(0, &BTreeSet::new()), []);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (env, files, _) = fake::env(1);
    let before = files.mutations();
    let mut twice = known();
    twice.topics.push(topic(6, "orders", 1));
    let mut beyond = known();
    beyond.topics.push(topic(8, "beyond", 1));
    for wrong in [twice, beyond] {
        assert!(matches!(Rebuild::new(&env, dir(), wrong), Err(RebuildError::Refused(_))));
    }
    assert_eq!(files.mutations(), before);
}

/// A folder with a whole member, of another cluster.
async fn whole(seed: u64) -> (Env, FakeFiles) {
    let (env, files, _) = fake::env(seed);
    files.create_dir_all(dir()).unwrap();
    let controller = open(&env).await.unwrap();
    controller.shutdown().await;
    (env, files)
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_moved_away_and_one_in_use_is_left() {
    let (env, files) = whole(1).await;
    let controller = open(&env).await.unwrap();
    assert!(matches!(Rebuild::new(&env, dir(), known()), Err(RebuildError::Folder(OpenError::Locked { .. }))));
    controller.shutdown().await;
    drop(controller);
    files.open(&dir().join(FILE), OpenMode::ReadWrite).unwrap().set_len(0).unwrap();
    let moved = Rebuild::new(&env, dir(), known()).unwrap().carry_out().unwrap().unwrap();
    for name in [FILE, ACKNOWLEDGED] {
        files.open(&moved.join(name), OpenMode::Read).unwrap();
    }
    let controller = open(&env).await.unwrap();
    controller.core.feed.read(is_rebuilt);
    controller.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_at_any_step_leaves_it_lost_or_whole() {
    let (mut lost, mut made) = (0, 0);
    for seed in 0..3 {
        for step in 0..60 {
            let (env, files) = whole(seed).await;
            // Only what tells how far it was is left.
            files.remove(&dir().join(FILE)).unwrap();
            files.sync_dir(dir()).unwrap();
            files.power_off_after(step);
            let carried_out = Rebuild::new(&env, dir(), known()).is_ok_and(|rebuild| rebuild.carry_out().is_ok());
            files.crash(seed + 10 * step);
            match is_lost(&files, dir()).unwrap() {
                true => {
                    assert!(!carried_out, "step {step}");
                    lost += 1;
                    let _ = Rebuild::new(&env, dir(), known()).unwrap().carry_out().unwrap();
                }
                false => made += 1,
            }
            let controller = open(&env).await.unwrap();
            controller.core.feed.read(is_rebuilt);
            controller.shutdown().await;
        }
    }
    assert!(lost > 10 && made > 10, "{lost} {made}");
}
