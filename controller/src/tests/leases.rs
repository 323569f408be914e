//! Stores and proxies, as they meet a controller of one or three members.

use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::testing::{TestCluster, store_group_name};
use gantry_proto::contract::{
    JoinStoreRequest, MembershipError, MembershipService, MetadataService as _, PreviousLeader, ProxyAliveRequest,
    RenewStoreLeaseRequest, StoreGrant, StoreLease, StorePositions,
};
use gantry_proto::model::{
    ClusterId, Epoch, FolderId, LogOffset, MetadataCommand, PlaceId, ProcessId, ProxyId, StoreGroupId,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn quick(config: &mut ControllerConfig) {
    config.request_timeout = Duration::from_secs(3);
}

/// Leases that end.
fn timed(config: &mut ControllerConfig) {
    quick(config);
    config.leases.sole_replica_lease = Some(Duration::from_secs(3));
}

static NEXT_PROCESS: AtomicU64 = AtomicU64::new(1);

fn request(folder: u8) -> JoinStoreRequest {
    JoinStoreRequest {
        store_group: store_group_name("s"),
        folder: FolderId([folder; 16]),
        cluster: None,
        address: "s:1".into(),
        last_epoch: Epoch(0),
        version: "0.1".into(),
        // Each time another process, on another machine.
        process: ProcessId(u128::from(NEXT_PROCESS.fetch_add(1, Ordering::Relaxed)).to_le_bytes()),
        place: None,
        report: None,
    }
}

/// Another process with the folder that was led by this grant.
fn after(grant: &StoreGrant) -> JoinStoreRequest {
    JoinStoreRequest { last_epoch: grant.epoch, ..request(1) }
}

fn renewal(grant: &StoreGrant) -> RenewStoreLeaseRequest {
    let positions = StorePositions { appended_to: LogOffset(7), ..StorePositions::default() };
    RenewStoreLeaseRequest { store_group: grant.store_group, epoch: grant.epoch, positions, closed: None, report: None }
}

async fn leads(controller: &Arc<Controller>, group: StoreGroupId) -> bool {
    controller.core.feed.read(|state| state.store_group(group).is_some_and(|group| group.leader.is_some()))
}

#[tokio::test(start_paused = true)]
async fn a_sole_replica_leads_until_there_is_a_newer_epoch() {
    let cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1);
    let grant = controller.join_store(request(1)).await.unwrap();
    assert_eq!((grant.epoch, grant.lease), (Epoch(1), StoreLease::UntilSuperseded));
    // Its process is there: nobody else is let in, and it goes on however long it is silent.
    let held = controller.join_store(request(1)).await;
    assert!(matches!(held, Err(MembershipError::Held { epoch: Epoch(1), .. })), "{held:?}");
    sleep(Duration::from_secs(60)).await;
    assert!(leads(controller, grant.store_group).await);
    assert_eq!(controller.renew_store_lease(renewal(&grant)).await.unwrap(), StoreLease::UntilSuperseded);
    // It restarts: after three silent intervals it is let in, in a new epoch.
    sleep(Duration::from_secs(3)).await;
    let again = controller.join_store(JoinStoreRequest { last_epoch: Epoch(9), ..request(1) }).await.unwrap();
    assert_eq!((again.store_group, again.epoch), (grant.store_group, Epoch(10)));
    let over = controller.renew_store_lease(renewal(&grant)).await;
    assert!(matches!(over, Err(MembershipError::Superseded { epoch: Epoch(1), .. })), "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_free_at_once() {
    for configure in [quick, timed] {
        let cluster = TestCluster::started(1, configure).await;
        let controller = cluster.get(1);
        let grant = controller.join_store(request(1)).await.unwrap();
        controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
        assert!(!leads(controller, grant.store_group).await);
        assert!(controller.renew_store_lease(renewal(&grant)).await.is_err());
        assert_eq!(controller.join_store(request(1)).await.unwrap().epoch, Epoch(2));
        // A late one of an older epoch changes nothing.
        controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
        assert!(leads(controller, grant.store_group).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timed_lease_ends_a_margin_later_and_is_then_gone_for_good() {
    let cluster = TestCluster::started(1, timed).await;
    let controller = cluster.get(1);
    let grant = controller.join_store(request(1)).await.unwrap();
    assert_eq!(grant.lease, StoreLease::For(Duration::from_secs(3)));
    for _ in 0..5 {
        sleep(Duration::from_secs(2)).await;
        controller.renew_store_lease(renewal(&grant)).await.unwrap();
    }
    let renewed = Instant::now();
    let Err(MembershipError::Held { remaining, .. }) = controller.join_store(request(1)).await else { panic!() };
    assert!(remaining > Duration::from_secs(3), "{remaining:?}");
    controller.core.feed.reached(|state| state.store_group(grant.store_group).unwrap().leader.is_none()).await;
    assert!(renewed.elapsed() >= Duration::from_millis(3500), "{:?}", renewed.elapsed());
    assert!(renewed.elapsed() <= Duration::from_millis(3550), "noticed when it comes: {:?}", renewed.elapsed());
    assert!(matches!(controller.renew_store_lease(renewal(&grant)).await, Err(MembershipError::Superseded { .. })));
    assert_eq!(controller.join_store(after(&grant)).await.unwrap().epoch, Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_waits_for_leases_that_it_does_not_know_and_extends_those_that_live() {
    let mut cluster = TestCluster::started(3, timed).await;
    let old = cluster.leader().await;
    let grant = cluster.get(old).join_store(request(1)).await.unwrap();
    cluster.stop(old).await;
    let new = cluster.leader().await;
    let elected = Instant::now();
    assert!(matches!(cluster.get(new).join_store(request(1)).await, Err(MembershipError::Held { .. })));
    let follower = cluster.ids().into_iter().find(|id| *id != new).unwrap();
    assert_eq!(cluster.get(follower).renew_store_lease(renewal(&grant)).await.unwrap(), grant.lease);
    // Then nothing more is heard of it.
    let joined = loop {
        match cluster.get(follower).join_store(after(&grant)).await {
            Ok(joined) => break joined,
            Err(MembershipError::Held { .. }) => sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(joined.epoch, Epoch(2));
    assert!(elected.elapsed() >= Duration::from_millis(3400), "{:?}", elapsed(elected));
}

fn elapsed(since: Instant) -> Duration {
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_most_members_grants_and_extends_nothing() {
    let cluster = TestCluster::started(3, timed).await;
    let old = cluster.leader().await;
    let grant = cluster.get(old).join_store(request(1)).await.unwrap();
    cluster.isolate(old, true);
    let alone = cluster.get(old);
    assert!(matches!(alone.renew_store_lease(renewal(&grant)).await, Err(MembershipError::Unavailable(_))));
    assert!(matches!(
        alone.give_up_store_lease(grant.store_group, grant.epoch).await,
        Err(MembershipError::Unavailable(_))
    ));
    let other = JoinStoreRequest { store_group: store_group_name("t"), ..request(2) };
    assert!(matches!(alone.join_store(other).await, Err(MembershipError::Unavailable(_))));
    assert!(alone.cluster_status().await.is_err());
    let new = cluster.leader().await;
    assert_eq!(cluster.get(new).renew_store_lease(renewal(&grant)).await.unwrap(), grant.lease);
}

#[tokio::test(start_paused = true)]
async fn folders_of_other_clusters_groups_and_removed_groups_are_turned_away() {
    let cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1);
    let refused = async |request: JoinStoreRequest| {
        let answer = controller.join_store(request).await;
        assert!(matches!(answer, Err(MembershipError::Refused(_))), "{answer:?}");
    };
    refused(JoinStoreRequest { cluster: Some(ClusterId([9; 16])), ..request(1) }).await;
    refused(JoinStoreRequest { last_epoch: Epoch(u32::MAX), ..request(1) }).await;
    let grant = controller.join_store(request(1)).await.unwrap();
    controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
    refused(JoinStoreRequest { store_group: store_group_name("t"), ..request(1) }).await;
    refused(request(2)).await;
    // Removed, it is not taken for a new group.
    controller.join_store(JoinStoreRequest { store_group: store_group_name("t"), ..request(2) }).await.unwrap();
    let name = store_group_name("s");
    controller.propose(MetadataCommand::DrainStoreGroup { name: name.clone() }).await.unwrap();
    controller.propose(MetadataCommand::RemoveStoreGroup { name, force: true }).await.unwrap();
    refused(JoinStoreRequest { cluster: Some(grant.cluster), last_epoch: grant.epoch, ..request(1) }).await;
    assert!(matches!(controller.renew_store_lease(renewal(&grant)).await, Err(MembershipError::Superseded { .. })));
}

#[tokio::test(start_paused = true)]
async fn proxies_come_by_saying_so_and_go_by_silence() {
    let cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let alive = |id: u8| ProxyAliveRequest {
        id: ProxyId([id; 16]),
        address: format!("p-{id}:1").into(),
        version: "0.1".into(),
        sessions: 5,
    };
    assert_eq!(cluster.get(follower).proxy_alive(alive(1)).await.unwrap(), Duration::from_secs(1));
    for _ in 0..8 {
        cluster.get(leader).proxy_alive(alive(2)).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let status = cluster.get(follower).cluster_status().await.unwrap();
    let [proxy] = &status.proxies[..] else { panic!("{status:?}") };
    assert_eq!((proxy.proxy.id, proxy.sessions), (ProxyId([2; 16]), 5));
    assert!(proxy.heard.is_some_and(|heard| heard <= Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_what_stores_said() {
    let cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1);
    let grant = controller.join_store(request(1)).await.unwrap();
    controller.renew_store_lease(renewal(&grant)).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let status = controller.cluster_status().await.unwrap();
    assert_eq!(status.cluster, Some(grant.cluster));
    let [store] = &status.stores[..] else { panic!("{status:?}") };
    assert_eq!(
        (store.store_group.id, &*store.version, store.positions.appended_to),
        (grant.store_group, "0.1", LogOffset(7))
    );
    assert!(store.heard.is_some_and(|heard| heard >= Duration::from_secs(2)));
    assert!(store.leading_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_store_does_not_wait_for_itself_nor_for_a_process_that_is_known_to_be_dead_and_a_copy_does() {
    let mut cluster = TestCluster::started(3, timed).await;
    let here = Some(PlaceId([1; 16]));
    let leader = cluster.leader().await;
    let first = JoinStoreRequest { place: here, ..request(1) };
    let grant = cluster.get(leader).join_store(first.clone()).await.unwrap();
    // The answer was lost: it asks again, in whatever leadership of the controller.
    let again = cluster.get(leader).join_store(first.clone()).await.unwrap();
    assert_eq!((again.epoch, again.secret == grant.secret), (Epoch(2), true));
    assert_eq!(again.previous, Some(PreviousLeader { folder: first.folder, epoch: Epoch(1) }));
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    let again = cluster.get(leader).join_store(first).await.unwrap();
    assert_eq!(again.epoch, Epoch(3));
    // A copy of the folder on this machine, on another one, and on one that cannot tell.
    for place in [Some(PlaceId([2; 16])), None] {
        let copy = JoinStoreRequest { place, ..after(&again) };
        let held = cluster.get(leader).join_store(copy).await;
        assert!(matches!(held, Err(MembershipError::Held { .. })), "{held:?}");
    }
    // It was restarted where it was, and holds the lock that the one before held.
    let restarted = JoinStoreRequest { place: here, ..after(&again) };
    let grant = cluster.get(leader).join_store(restarted).await.unwrap();
    assert_eq!(grant.epoch, Epoch(4));
    // Nobody who cannot tell where he is takes another such one for himself.
    let nowhere = JoinStoreRequest { place: None, ..request(2) };
    let nowhere = JoinStoreRequest { store_group: store_group_name("t"), ..nowhere };
    let other = cluster.get(leader).join_store(nowhere.clone()).await.unwrap();
    assert!(other.previous.is_none() && other.secret != grant.secret, "each group has its own");
    let held = cluster.get(leader).join_store(JoinStoreRequest { process: ProcessId([9; 16]), ..nowhere }).await;
    assert!(matches!(held, Err(MembershipError::Held { .. })), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_a_folder_is_refused_by_name() {
    let cluster = TestCluster::started(1, quick).await;
    let controller = cluster.get(1);
    let grant = controller.join_store(request(1)).await.unwrap();
    // Granted, and perhaps never heard of: nothing is known about the folder.
    controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
    let grant = controller.join_store(request(1)).await.unwrap();
    assert_eq!(grant.epoch, Epoch(2));
    controller.renew_store_lease(renewal(&grant)).await.unwrap();
    controller.give_up_store_lease(grant.store_group, grant.epoch).await.unwrap();
    for last_epoch in [0, 1] {
        let older = JoinStoreRequest { last_epoch: Epoch(last_epoch), ..request(1) };
        let refused = controller.join_store(older).await.unwrap_err();
        assert!(matches!(&refused, MembershipError::Refused(why) if why.contains("is an older copy")), "{refused}");
    }
    assert!(!leads(controller, grant.store_group).await);
    assert_eq!(controller.join_store(after(&grant)).await.unwrap().epoch, Epoch(3));
}
