//! Controllers and stores of which one was put back to an earlier state, under others that went on.

use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::state::Rules;
use crate::testing::{TestCluster, create_group, create_topic, store_group_name, topic_name};
use futures_util::StreamExt as _;
use gantry_proto::contract::{
    JoinStoreRequest, MembershipError, MembershipService as _, MetadataService as _, RenewStoreLeaseRequest,
    StoreGrant, StorePositions, StoreReport,
};
use gantry_proto::model::{
    Epoch, FolderId, GroupId, KnownIds, LogOffset, MetadataCommand, MetadataOutcome, MetadataVersion, MetadataView,
    PlaceId, ProcessId, Removed, StoreGroupId, TopicId,
};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn quick(config: &mut ControllerConfig) {
    config.request_timeout = Duration::from_secs(3);
}

fn older(config: &mut ControllerConfig) {
    quick(config);
    config.rules_max = Rules::First.number();
}

/// The one store of these tests, the same process all the time.
fn joining(last_epoch: Epoch, report: StoreReport) -> JoinStoreRequest {
    JoinStoreRequest {
        store_group: store_group_name("s"),
        folder: FolderId([1; 16]),
        cluster: None,
        address: "s:1".into(),
        last_epoch,
        version: "1".into(),
        process: ProcessId([1; 16]),
        place: Some(PlaceId([1; 16])),
        report: Some(report),
    }
}

fn renewing(grant: &StoreGrant, report: StoreReport) -> RenewStoreLeaseRequest {
    let (group, epoch, positions) = (grant.store_group, grant.epoch, StorePositions::default());
    RenewStoreLeaseRequest { store_group: group, epoch, positions, closed: None, report: Some(report) }
}

fn knowing(topic: u32, group: u32) -> StoreReport {
    let known = KnownIds { topic: TopicId(topic), group: GroupId(group), store_group: StoreGroupId(1) };
    StoreReport { known, ..StoreReport::default() }
}

fn holding(durable_to: u64) -> StoreReport {
    StoreReport { durable_to: LogOffset(durable_to), ..StoreReport::default() }
}

async fn raised(controller: &Controller) {
    assert!(controller.core.feed.reached(|state| state.rules() >= Rules::PutBack).await);
}

/// Everything that the controller has told a watcher until now.
async fn picture(controller: &Controller) -> MetadataView {
    let view = MetadataView::default();
    follow(controller, &view).await;
    view
}

async fn follow(controller: &Controller, view: &MetadataView) {
    let mut events = controller.watch(view.version()).await.unwrap();
    while view.version() < controller.core.feed.version() {
        let event = events.next().await.unwrap();
        view.apply(event.version, &event.changes);
    }
}

async fn created(controller: &Controller, name: &str) -> TopicId {
    match controller.propose(create_topic(name, 1)).await.unwrap().1 {
        MetadataOutcome::Topic(topic) => topic.id,
        other => panic!("{other:?}"),
    }
}

/// A controller with topic 1, which is put back; topics 2 and 4, a group and its topic 3 are of the lost history.
async fn put_back() -> (TestCluster, Arc<Controller>, StoreGrant, MetadataView) {
    let mut cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1).clone();
    raised(&controller).await;
    let grant = controller.join_store(joining(Epoch(0), StoreReport::default())).await.unwrap();
    assert_eq!(created(&controller, "before").await, TopicId(1));
    controller.shutdown().await;
    let backup = cluster.backup(1);
    let controller = cluster.start(1).await.unwrap();
    assert_eq!(created(&controller, "lost-1").await, TopicId(2));
    controller.propose(create_group("lost")).await.unwrap();
    assert_eq!(created(&controller, "lost-2").await, TopicId(4));
    let view = picture(&controller).await;
    assert_eq!(view.known_ids(), knowing(4, 1).known);
    controller.shutdown().await;
    cluster.restore(1, &backup);
    let controller = cluster.start(1).await.unwrap();
    (cluster, controller, grant, view)
}

#[tokio::test(start_paused = true)]
async fn what_a_running_store_knows_is_given_to_nobody_else_and_never_looks_removed() {
    for joins in [false, true] {
        let (_cluster, controller, grant, view) = put_back().await;
        let report = StoreReport { known: view.known_ids(), ..StoreReport::default() };
        match joins {
            true => drop(controller.join_store(joining(grant.epoch, report)).await.unwrap()),
            false => drop(controller.renew_store_lease(renewing(&grant, report)).await.unwrap()),
        }
        assert_eq!(controller.core.feed.read(|state| state.given()), report.known, "before the answer");
        let next = created(&controller, "next").await;
        assert_eq!(next, TopicId(5));
        // Until the lost versions are passed, and a deletion that counts as one.
        while controller.core.feed.version() <= view.version() {
            created(&controller, &format!("more-{}", controller.core.feed.version().0)).await;
        }
        controller.propose(MetadataCommand::DeleteTopic { name: topic_name("next") }).await.unwrap();
        follow(&controller, &view).await;
        for (view, who) in [(&view, "who was there"), (&picture(&controller).await, "who comes new")] {
            let removed: Vec<u32> = (1..=9).filter(|id| view.knows_removed(Removed::Topic(TopicId(*id)))).collect();
            assert_eq!(removed, [5], "{who}");
            assert!(!view.knows_removed(Removed::Group(GroupId(1))), "{who}");
        }
        controller.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn raised_identities_outlive_restarts_and_are_raised_once() {
    let (mut cluster, controller, grant, _) = put_back().await;
    controller.renew_store_lease(renewing(&grant, knowing(9, 9))).await.unwrap();
    let version = controller.core.feed.version();
    controller.renew_store_lease(renewing(&grant, knowing(8, 9))).await.unwrap();
    assert_eq!(controller.core.feed.version(), version, "nothing was new");
    controller.renew_store_lease(renewing(&grant, knowing(12, 9))).await.unwrap();
    let before = controller.core.feed.state();
    controller.shutdown().await;
    let controller = cluster.start(1).await.unwrap();
    assert_eq!(controller.core.feed.state(), before);
    assert_eq!(created(&controller, "a").await, TopicId(13));
    // What was raised twice in a row is one range.
    let changes = format!("{:?}", controller.core.feed.state().to_changes());
    assert!(changes.contains("topics: [2..=12], groups: [1..=9]"), "{changes}");
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_group_is_unknown_is_refused_but_heard() {
    let (_cluster, controller, grant, _) = put_back().await;
    let known = KnownIds { topic: TopicId(70), group: GroupId(8), store_group: StoreGroupId(6) };
    let mut request = joining(Epoch(3), StoreReport { known, ..StoreReport::default() });
    (request.store_group, request.folder, request.cluster) =
        (store_group_name("forgotten"), FolderId([6; 16]), Some(grant.cluster));
    let refused = controller.join_store(request).await;
    assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
    assert_eq!(controller.core.feed.read(|state| state.given()), known);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_names_the_last_identity_there_is_does_not_use_them_up() {
    let (_cluster, controller, grant, _) = put_back().await;
    let known = |topic, group, store_group| {
        let known = KnownIds { topic: TopicId(topic), group: GroupId(group), store_group: StoreGroupId(store_group) };
        StoreReport { known, ..StoreReport::default() }
    };
    for report in [known(u32::MAX, 1, 1), known(1, u32::MAX, 1), known(1, 1, u32::MAX)] {
        let refused = controller.join_store(joining(grant.epoch, report)).await;
        assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
        let refused = controller.renew_store_lease(renewing(&grant, report)).await;
        assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
    }
    assert_eq!(created(&controller, "next").await, TopicId(2));
}

#[tokio::test(start_paused = true)]
async fn under_the_first_rules_a_store_that_knows_more_waits_and_nobody_stops() {
    let cluster = TestCluster::started(1, older).await;
    let controller = cluster.get(1);
    let refused = controller.join_store(joining(Epoch(0), knowing(9, 9))).await;
    assert!(matches!(&refused, Err(MembershipError::Unavailable(why)) if why.contains("earlier state")), "{refused:?}");
    let grant = controller.join_store(joining(Epoch(0), StoreReport::default())).await.unwrap();
    controller
        .renew_store_lease(renewing(&grant, StoreReport { durable_to: LogOffset(9), ..knowing(9, 9) }))
        .await
        .unwrap();
    for command in [MetadataCommand::RaiseIds(knowing(9, 9).known), MetadataCommand::RaiseRules { to: 2 }] {
        assert!(controller.propose(command).await.is_err(), "nobody else asks for it");
    }
    assert!(controller.health().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_a_stores_folder_is_refused_by_name_until_it_is_accepted() {
    let mut cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1).clone();
    raised(&controller).await;
    let grant = controller.join_store(joining(Epoch(0), holding(0))).await.unwrap();
    controller.renew_store_lease(renewing(&grant, holding(5 * MIB))).await.unwrap();
    let less = |grant: &StoreGrant, to| joining(grant.epoch, holding(to));
    let is_refused = |answer: Result<StoreGrant, MembershipError>| match answer {
        Err(MembershipError::Refused(why)) => {
            assert!(why.contains("older copy") && why.contains("store.accept_missing_log = true"), "{why}");
        }
        other => panic!("{other:?}"),
    };
    is_refused(controller.join_store(less(&grant, 5 * MIB - 1)).await);
    // What the leader heard last counts as well, as long as it is there.
    controller.renew_store_lease(renewing(&grant, holding(5 * MIB + 7))).await.unwrap();
    is_refused(controller.join_store(less(&grant, 5 * MIB)).await);
    controller.shutdown().await;
    let controller = cluster.start(1).await.unwrap();
    is_refused(controller.join_store(less(&grant, 5 * MIB - 1)).await);
    // In a row: whoever holds all of it may lead.
    let grant = controller.join_store(less(&grant, 5 * MIB)).await.unwrap();
    // The last word of a leadership is kept, however little it is.
    controller.renew_store_lease(renewing(&grant, holding(5 * MIB))).await.unwrap();
    controller.renew_store_lease(renewing(&grant, holding(5 * MIB + 3))).await.unwrap();
    controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
    let other = JoinStoreRequest { folder: FolderId([2; 16]), ..less(&grant, 0) };
    let refused = controller.join_store(other).await;
    let named = |why: &str| why.contains("has its data in the folder") && !why.contains("accept_missing_log");
    assert!(matches!(&refused, Err(MembershipError::Refused(why)) if named(why)), "{refused:?}");
    controller.shutdown().await;
    let controller = cluster.start(1).await.unwrap();
    is_refused(controller.join_store(less(&grant, 5 * MIB + 2)).await);
    let accepted = StoreReport { accept_missing: true, ..holding(MIB) };
    let grant = controller.join_store(joining(grant.epoch, accepted)).await.unwrap();
    controller.renew_store_lease(renewing(&grant, holding(MIB))).await.unwrap();
    // From now on that is what it had.
    is_refused(controller.join_store(less(&grant, MIB - 1)).await);
    controller.join_store(less(&grant, MIB)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn how_far_a_log_reaches_is_seldom_written_down() {
    let cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1);
    raised(controller).await;
    let grant = controller.join_store(joining(Epoch(0), holding(0))).await.unwrap();
    controller.renew_store_lease(renewing(&grant, holding(0))).await.unwrap();
    let first: MetadataVersion = controller.core.feed.version();
    for second in 1..=180 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        controller.renew_store_lease(renewing(&grant, holding(second * 10 * MIB))).await.unwrap();
    }
    let written = controller.core.feed.version().0 - first.0;
    assert!((2..=3).contains(&written), "{written} in three minutes");
    for _ in 0..180 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        controller.renew_store_lease(renewing(&grant, holding(1800 * MIB + 5))).await.unwrap();
    }
    assert!(controller.core.feed.version().0 - first.0 <= written + 1, "an idle store costs nothing");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_after_a_restore_before_the_store_has_said_what_it_knows() {
    let (_cluster, controller, grant, view) = put_back().await;
    let creating = tokio::spawn({
        let controller = controller.clone();
        async move { (created(&controller, "next").await, created(&controller, "more").await) }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!creating.is_finished(), "the store may know more");
    let report = StoreReport { known: view.known_ids(), ..StoreReport::default() };
    controller.renew_store_lease(renewing(&grant, report)).await.unwrap();
    assert_eq!(creating.await.unwrap(), (TopicId(5), TopicId(6)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_holds_nothing_up_unless_another_one_knows_of_a_lost_history() {
    let (_cluster, controller, _, _) = put_back().await;
    assert_eq!(created(&controller, "next").await, TopicId(2));

    let (_cluster, controller, grant, _) = put_back().await;
    let mut request = joining(Epoch(3), knowing(70, 8));
    (request.store_group, request.folder, request.cluster) =
        (store_group_name("forgotten"), FolderId([6; 16]), Some(grant.cluster));
    controller.join_store(request).await.unwrap_err();
    let why = controller.propose(create_topic("next", 1)).await.unwrap_err().to_string();
    assert!(why.contains("store groups s have not said yet") && why.contains("remove s --force"), "{why}");
    controller.renew_store_lease(renewing(&grant, knowing(90, 8))).await.unwrap();
    assert_eq!(created(&controller, "next").await, TopicId(91));
}
