//! A controller behind a link does what it does without one; and what happens when members come and go.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_link::{ConsensusLink, ControllerLink, LocalPeer, PeerCredentials, PeerServices};
use gantry_proto::contract::*;
use gantry_proto::env::Env;
use gantry_proto::env::fake::{Loopback, Wires};
use gantry_proto::model::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::controller::*;
use support::counted::Counted;
use support::{CLUSTER, Served, env, eventually, local, local_of};
use tokio::time::Instant;

fn services(controller: &Arc<MemoryController>) -> PeerServices {
    PeerServices::default().controller(controller.clone(), controller.clone(), controller.clone())
}

async fn serve(env: &Env, port: u16) -> (Arc<MemoryController>, Served) {
    let controller = Arc::new(MemoryController::default());
    let served = Served::start(env, port, &local(), services(&controller)).await;
    (controller, served)
}

fn link_to(env: &Env, ports: &[u16]) -> ControllerLink {
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    ControllerLink::new(env, &local(), &addresses)
}

// ---- the contract, with and without a link ----

async fn does_what_a_controller_does<C: MetadataService + MembershipService>(service: &C) {
    let (version, outcome) = service.propose(create("orders")).await.unwrap();
    assert_eq!((version, outcome), (MetadataVersion(1), MetadataOutcome::Topic(Arc::new(topic("orders", 2)))));
    let refused = service.propose(create("orders")).await.unwrap_err();
    let MetadataError::Refused(MetadataRefusal::TopicExists(existing)) = refused else { panic!("{refused:?}") };
    assert_eq!(*existing, topic("orders", 2));

    let mut events = service.watch(MetadataVersion(0)).await.unwrap();
    assert_eq!(events.next().await.unwrap().version, MetadataVersion(1));
    service.propose(create("more")).await.unwrap();
    let event = events.next().await.unwrap();
    let change = MetadataChange::TopicUpsert(Arc::new(topic("more", 2)));
    assert_eq!(event, MetadataEvent { version: MetadataVersion(2), changes: vec![change] });

    let grant = service.join_store(join()).await.unwrap();
    let lease = StoreLease::For(Duration::from_secs(3));
    let (group, epoch, previous, secret) = (StoreGroupId(4), Epoch(8), None, GroupSecret([3; 32]));
    let expected = StoreGrant { cluster: ClusterId([1; 16]), store_group: group, epoch, lease, previous, secret };
    assert_eq!(grant, expected);
    assert_eq!(service.renew_store_lease(renew()).await.unwrap(), StoreLease::UntilSuperseded);
    service.give_up_store_lease(StoreGroupId(4), Epoch(8)).await.unwrap();
    assert_eq!(service.proxy_alive(alive()).await.unwrap(), Duration::from_millis(1500));
    let status = service.cluster_status().await.unwrap();
    assert_eq!((status.version, status.controllers[0].matched), (MetadataVersion(2), Some(5)));
    service.change_controllers(ControllerChange::Remove { id: 2 }).await.unwrap();
}

async fn refuses_as_a_controller_refuses<C: MetadataService + MembershipService>(service: &C, real: &MemoryController) {
    let text = || "why".to_owned();
    let group = || StoreGroupName::parse("store-1").unwrap();
    let membership_errors = || {
        [
            MembershipError::Refused(text()),
            MembershipError::Held {
                store_group: group(),
                epoch: Epoch(4),
                remaining: Duration::from_nanos(1_234_567_891),
            },
            MembershipError::Superseded { store_group: StoreGroupId(4), epoch: Epoch(8) },
        ]
    };
    for call in 0..4 {
        for error in membership_errors() {
            let expected = format!("{error:?}");
            *real.membership_error.lock() = Some(error);
            let error = match call {
                0 => service.join_store(join()).await.map(drop),
                1 => service.renew_store_lease(renew()).await.map(drop),
                2 => service.give_up_store_lease(StoreGroupId(4), Epoch(8)).await,
                _ => service.proxy_alive(alive()).await.map(drop),
            };
            assert_eq!(format!("{:?}", error.unwrap_err()), expected, "call {call}");
        }
    }
    let metadata_errors = || {
        [
            MetadataError::Refused(MetadataRefusal::NoStoreGroup),
            MetadataError::Refused(MetadataRefusal::LastStoreGroup(group())),
            MetadataError::Unavailable(text()),
            MetadataError::Unknown(text()),
        ]
    };
    for call in 0..2 {
        for error in metadata_errors() {
            let expected = format!("{error:?}");
            *real.metadata_error.lock() = Some(error);
            let error = match call {
                0 => service.propose(create("x")).await.map(drop),
                _ => service.change_controllers(ControllerChange::Remove { id: 2 }).await,
            };
            assert_eq!(format!("{:?}", error.unwrap_err()), expected, "call {call}");
        }
    }
}

#[tokio::test]
async fn a_controller_fulfils_the_contract_without_a_link() {
    let controller = MemoryController::default();
    does_what_a_controller_does(&controller).await;
    refuses_as_a_controller_refuses(&controller, &controller).await;
}

#[tokio::test]
async fn a_controller_fulfils_the_contract_through_a_link() {
    let env = env(Loopback);
    let (controller, served) = serve(&env, 0).await;
    let link = link_to(&env, &[served.address.port()]);
    does_what_a_controller_does(&link).await;
    refuses_as_a_controller_refuses(&link, &controller).await;
}

// ---- members come and go ----

#[tokio::test(start_paused = true)]
async fn the_next_member_is_asked_when_one_cannot_be_reached_or_cannot_decide() {
    let wires = Wires::default();
    let env = env(wires.clone());
    let link = link_to(&env, &[1, 2, 3]);
    let error = link.propose(create("x")).await.unwrap_err();
    assert!(matches!(error, MetadataError::Unavailable(_)), "{error:?}");
    assert!(matches!(link.join_store(join()).await.unwrap_err(), MembershipError::Unavailable(_)));

    tokio::time::sleep(Duration::from_secs(1)).await;
    let (second, _second) = serve(&env, 2).await;
    let (third, _third) = serve(&env, 3).await;
    *second.metadata_error.lock() = Some(MetadataError::Unavailable("no leader".to_owned()));
    link.propose(create("x")).await.unwrap();
    assert_eq!((second.begun.load(Ordering::SeqCst), third.begun.load(Ordering::SeqCst)), (1, 1));
    link.propose(create("y")).await.unwrap();
    assert_eq!(third.begun.load(Ordering::SeqCst), 2, "it keeps to the one that answered");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_decided_is_not_asked_again_and_what_may_be_repeated_is() {
    let env = env(Wires::default());
    let (first, _first) = serve(&env, 1).await;
    let (second, _second) = serve(&env, 2).await;
    first.stuck.store(true, Ordering::SeqCst);
    let link = link_to(&env, &[1, 2]);
    let began = Instant::now();
    let error = link.propose(create("x")).await.unwrap_err();
    assert!(matches!(error, MetadataError::Unknown(_)), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(second.begun.load(Ordering::SeqCst), 0);
    link.propose(create("x")).await.unwrap();

    let link = link_to(&env, &[1, 2]);
    let began = Instant::now();
    link.renew_store_lease(renew()).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 1, "a lease does not wait long for one member");
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_it_was_at_whichever_member_answers() {
    let wires = Wires::default();
    let env = env(wires.clone());
    let controller = Arc::new(MemoryController::default());
    let first = Served::start(&env, 1, &local(), services(&controller)).await;
    let link = link_to(&env, &[1, 2]);
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    controller.add_topics([topic("a", 1)]);
    assert_eq!(events.next().await.unwrap().version, MetadataVersion(1));

    first.kill().await;
    controller.add_topics([topic("b", 1)]);
    controller.add_topics([topic("c", 1)]);
    let _second = Served::start(&env, 2, &local(), services(&controller)).await;
    let versions: Vec<_> = events.by_ref().take(2).map(|event| event.version.0).collect().await;
    assert_eq!(versions, [2, 3]);

    wires.break_all();
    controller.add_topics([topic("d", 1)]);
    controller.forget_log();
    let event = events.next().await.unwrap();
    assert_eq!((event.version, &event.changes[0]), (MetadataVersion(4), &MetadataChange::Reset));
    assert_eq!(event.changes.len(), 5);

    wires.swallow_all();
    let began = Instant::now();
    wires.heal();
    controller.add_topics([topic("e", 1)]);
    let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap();
    assert_eq!(event.unwrap().version, MetadataVersion(5));
    assert!(began.elapsed() < Duration::from_secs(10), "a silent connection is noticed");
    drop(link);
    assert!(events.next().await.is_none(), "the watch ends with its link");
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_controller_does_not_storm() {
    let wires = Wires::default();
    let env = env(wires.clone());
    let link = link_to(&env, &[1, 2, 3]);
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    assert!(waited.is_err());
    assert!((10..25).contains(&wires.dialed()), "dialed {} times in a minute", wires.dialed());
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_drains_ends_its_watches() {
    let env = env(Wires::default());
    let (controller, served) = serve(&env, 1).await;
    controller.add_topics([topic("a", 1)]);
    let link = link_to(&env, &[1]);
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    events.next().await.unwrap();
    let began = Instant::now();
    served.drain().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_hundred_thousand_topics_are_seen_as_one_picture() {
    let network = Counted::default();
    let env = env(network.clone());
    let (controller, served) = serve(&env, 0).await;
    controller.add_topics((0..100_000).map(|n| topic(&format!("topic-with-a-usual-name-{n}"), 8)));
    controller.add_topics([topic("one-more", 8)]);
    controller.forget_log();
    let link = link_to(&env, &[served.address.port()]);
    let began = Instant::now();
    let event = link.watch(MetadataVersion(0)).await.unwrap().next().await.unwrap();
    assert_eq!((event.version, event.changes.len()), (MetadataVersion(2), 100_002));
    let view = MetadataView::default();
    view.apply(event.version, &event.changes);
    assert_eq!(view.counts(), (100_001, 0));
    let bytes = network.0.load(Ordering::Relaxed);
    // About 65 bytes for each topic: its name, 8 queues and their message group queues. A slow machine begins the picture
    // more than once; none of them may cost more.
    let pictures = controller.watched.load(Ordering::SeqCst) as u64;
    assert!(bytes >= 50 * 100_000 && bytes <= 75 * 100_000 * pictures, "{bytes} bytes for {pictures} pictures");
    // Some five seconds in an optimised build.
    eprintln!("{bytes} bytes for {pictures} pictures, seen after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_up_nothing_but_itself() {
    let env = env(Loopback);
    let (controller, served) = serve(&env, 0).await;
    let port = served.address.port();
    let (slow, quick) = (link_to(&env, &[port]), link_to(&env, &[port]));
    let mut slow_events = slow.watch(MetadataVersion(0)).await.unwrap();
    controller.add_topics([topic("first", 1)]);
    slow_events.next().await.unwrap();
    let watched = controller.watched.load(Ordering::SeqCst);
    // More than windows and buffers on the way take.
    let (id, version) = (ProxyId([1; 16]), "x".repeat(1 << 20).into());
    let proxy = Arc::new(ProxyMember { id, address: "p:1".into(), version, joined_at: Timestamp::ZERO });
    for _ in 0..30 {
        controller.change(vec![MetadataChange::ProxyUpsert(proxy.clone())]);
    }
    let mut previous = usize::MAX;
    eventually("the server reads no further ahead", || {
        let now = controller.watched.load(Ordering::SeqCst) - watched;
        let settled = now == previous;
        previous = now;
        settled && now > 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ahead = controller.watched.load(Ordering::SeqCst) - watched;
    assert!(ahead < 25, "{ahead} of 30 versions were read for a watcher that took none");
    let mut quick_events = quick.watch(MetadataVersion(0)).await.unwrap();
    for version in 1..=31 {
        assert_eq!(quick_events.next().await.unwrap().version, MetadataVersion(version));
    }
    for version in 2..=31 {
        assert_eq!(slow_events.next().await.unwrap().version, MetadataVersion(version));
    }
}

// ---- among members ----

#[tokio::test]
async fn members_call_one_another() {
    let env = env(Loopback);
    let (_controller, served) = serve(&env, 0).await;
    let link = ConsensusLink::new(&env, &local());
    let address = served.address.to_string();
    let snapshot = Bytes::from(vec![7; 40 << 20]);
    let call = ConsensusCall { kind: 3, target: 1, cluster: None, payload: snapshot.clone() };
    assert_eq!(link.call(&address, call, Duration::from_secs(20)).await.unwrap(), snapshot);
    let call = ConsensusCall { kind: 0, target: 1, cluster: None, payload: Bytes::new() };
    let refused = link.call(&address, call, Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(refused, ConsensusError::Refused(why) if why == "not that"));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_answer_is_unreachable_in_time() {
    let wires = Wires::default();
    let env = env(wires.clone());
    let link = ConsensusLink::new(&env, &local());
    let call = || ConsensusCall { kind: 1, target: 1, cluster: None, payload: Bytes::from_static(b"x") };
    let patience = Duration::from_millis(250);
    let error = link.call("127.0.0.1:1", call(), patience).await.unwrap_err();
    assert!(matches!(error, ConsensusError::NotSent(_)), "{error:?}");
    let (controller, _served) = serve(&env, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.call("127.0.0.1:1", call(), patience).await.unwrap();
    let dialed = wires.dialed();
    link.call("127.0.0.1:1", call(), patience).await.unwrap();
    assert_eq!(wires.dialed(), dialed, "the connection is kept");
    controller.stuck.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let error = link.call("127.0.0.1:1", call(), patience).await.unwrap_err();
    assert!(matches!(error, ConsensusError::Unreachable(_)), "{error:?}");
    assert!(began.elapsed() < patience * 2);
    controller.stuck.store(false, Ordering::SeqCst);
    wires.break_all();
    let answered = || async { link.call("127.0.0.1:1", call(), patience).await.is_ok() };
    for attempt in 0.. {
        if answered().await {
            break;
        }
        assert!(attempt < 3, "a broken connection is made again");
    }
}

// ---- who is who ----

const OTHER: ClusterId = ClusterId([8; 16]);

/// A member of this cluster, which itself learns it from its metadata.
async fn serve_member(env: &Env, port: u16, cluster: Option<ClusterId>) -> (Arc<MemoryController>, Served) {
    let controller = Arc::new(MemoryController::default());
    *controller.cluster.lock() = cluster;
    let unknown = LocalPeer::new(PeerCredentials::None);
    let served = Served::start(env, port, &unknown, services(&controller)).await;
    (controller, served)
}

#[tokio::test(start_paused = true)]
async fn a_controller_of_another_cluster_carries_nothing_out_and_is_named() {
    let env = env(Wires::default());
    let (controller, _served) = serve_member(&env, 1, Some(OTHER)).await;
    controller.add_topics([topic("theirs", 1)]);
    let (link, members) = (link_to(&env, &[1]), ConsensusLink::new(&env, &local()));
    let error = link.propose(create("orders")).await.unwrap_err();
    let MetadataError::Unavailable(why) = &error else { panic!("{error:?}: it is certain that nothing happened") };
    assert!(why.contains(&CLUSTER.to_string()) && why.contains(&OTHER.to_string()), "{why}");
    assert!(matches!(link.join_store(join()).await, Err(MembershipError::Unavailable(_))));
    assert!(
        matches!(link.renew_store_lease(renew()).await, Err(MembershipError::Unavailable(_))),
        "no tenure ends by it"
    );
    let given_up = link.give_up_store_lease(renew().store_group, renew().epoch).await;
    assert!(matches!(given_up, Err(MembershipError::Unavailable(_))), "{given_up:?}");
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), events.next()).await.is_err(), "its metadata are not seen");
    let call = ConsensusCall { kind: 1, target: 1, cluster: None, payload: Bytes::new() };
    let error = members.call("127.0.0.1:1", call, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(&error, ConsensusError::NotSent(why) if why.contains(&OTHER.to_string())), "{error:?}");
    assert_eq!(controller.begun.load(Ordering::SeqCst), 0, "no handler saw a call");
}

#[tokio::test(start_paused = true)]
async fn a_recycled_address_is_left_for_the_next_member() {
    let env = env(Wires::default());
    let (theirs, _theirs) = serve_member(&env, 1, Some(OTHER)).await;
    let (ours, _ours) = serve_member(&env, 2, Some(CLUSTER)).await;
    link_to(&env, &[1, 2]).propose(create("orders")).await.unwrap();
    let counts = [&theirs, &ours].map(|controller| controller.begun.load(Ordering::SeqCst));
    assert_eq!(counts, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_process_learns_its_cluster_once_and_insists_on_it() {
    let env = env(Wires::default());
    let (_ours, _served) = serve_member(&env, 1, Some(CLUSTER)).await;
    let (_theirs, _served) = serve_member(&env, 2, Some(OTHER)).await;
    let fresh = LocalPeer::new(PeerCredentials::None);
    let link = |port: u16| ControllerLink::new(&env, &fresh, &[format!("127.0.0.1:{port}")]);
    link(1).cluster_status().await.unwrap();
    assert_eq!(fresh.cluster(), Some(CLUSTER));
    assert!(link(2).cluster_status().await.is_err());
    assert_eq!(fresh.cluster(), Some(CLUSTER));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_when_the_cluster_is_founded_and_brings_no_other_one() {
    let env = env(Wires::default());
    let (controller, _served) = serve_member(&env, 1, None).await;
    let fresh = LocalPeer::new(PeerCredentials::None);
    let link = ControllerLink::new(&env, &fresh, &["127.0.0.1:1".to_owned()]);
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    controller.add_topics([topic("early", 1)]);
    events.next().await.unwrap();
    assert_eq!(fresh.cluster(), None, "it was not founded yet");
    controller.change(vec![MetadataChange::ClusterInitialized(CLUSTER)]);
    events.next().await.unwrap();
    assert_eq!(fresh.cluster(), Some(CLUSTER));
    // A member that tells of another cluster than the one that it names.
    *controller.cluster.lock() = Some(CLUSTER);
    controller.change(vec![MetadataChange::Reset, MetadataChange::ClusterInitialized(OTHER)]);
    assert!(tokio::time::timeout(Duration::from_secs(20), events.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_metadata_is_not_taken_for_an_empty_cluster() {
    let env = env(Wires::default());
    let (controller, _served) = serve_member(&env, 1, None).await;
    controller.change(vec![MetadataChange::Reset]);
    let link = link_to(&env, &[1]);
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), events.next()).await.is_err());
    assert_eq!(controller.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_member_belongs_to_the_cluster_whose_member_calls_it_first() {
    let env = env(Wires::default());
    let (controller, _served) = serve_member(&env, 1, None).await;
    let call = |local: LocalPeer| {
        let link = ConsensusLink::new(&env, &local);
        async move {
            let call = ConsensusCall { kind: 1, target: 1, cluster: None, payload: Bytes::new() };
            link.call("127.0.0.1:1", call, Duration::from_secs(5)).await
        }
    };
    call(LocalPeer::new(PeerCredentials::None)).await.expect("while the first cluster is founded");
    call(local()).await.unwrap();
    call(local_of(OTHER, &PeerCredentials::None)).await.unwrap_err();
    call(LocalPeer::new(PeerCredentials::None)).await.expect_err("a member that is nobody's");
    assert_eq!(controller.begun.load(Ordering::SeqCst), 2);
}
