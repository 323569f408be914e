//! Members that come and go while the others work.

use crate::config::ControllerConfig;
use crate::testing::{TestCluster, address, create_group};
use gantry_proto::contract::{ControllerChange, MembershipService as _, MetadataError, MetadataService as _};
use std::time::Duration;

fn quick(config: &mut ControllerConfig) {
    config.request_timeout = Duration::from_secs(3);
}

fn add(id: u64) -> ControllerChange {
    ControllerChange::Add { id, address: address(id) }
}

async fn voters(cluster: &TestCluster, through: u64) -> Vec<u64> {
    let status = cluster.get(through).cluster_status().await.unwrap();
    status.controllers.iter().filter(|member| member.voter).map(|member| member.id).collect()
}

#[tokio::test(start_paused = true)]
async fn one_member_grows_to_three_and_shrinks_to_two_while_it_works() {
    let mut cluster = TestCluster::started(1, quick).await;
    let mut groups = 0;
    let mut create = async |cluster: &TestCluster, id: u64| {
        groups += 1;
        cluster.get(id).propose(create_group(&format!("g-{groups}"))).await.unwrap();
    };
    create(&cluster, 1).await;
    for id in 2..=3 {
        cluster.start(id).await.unwrap();
        cluster.get(1).change_controllers(add(id)).await.unwrap();
        create(&cluster, id).await;
    }
    assert_eq!(voters(&cluster, 2).await, [1, 2, 3]);
    // Repeating a change changes nothing.
    cluster.get(3).change_controllers(add(2)).await.unwrap();
    let elsewhere = ControllerChange::Add { id: 2, address: "elsewhere:1".to_owned() };
    assert!(matches!(cluster.get(1).change_controllers(elsewhere).await, Err(MetadataError::Unavailable(_))));

    // The one that leads goes.
    cluster.get(2).change_controllers(ControllerChange::Remove { id: 1 }).await.unwrap();
    cluster.stop(1).await;
    let leader = cluster.leader().await;
    create(&cluster, leader).await;
    assert_eq!(voters(&cluster, leader).await, [2, 3]);
    cluster.settled().await;
    let found = cluster.get(2).core.feed.read(|state| state.groups().len());
    assert_eq!(found, 4);

    // Two need both; one of them may still be removed while they agree.
    let other = 5 - leader;
    cluster.get(leader).change_controllers(ControllerChange::Remove { id: other }).await.unwrap();
    cluster.stop(other).await;
    create(&cluster, leader).await;
    assert_eq!(voters(&cluster, leader).await, [leader]);
    let last = cluster.get(leader).change_controllers(ControllerChange::Remove { id: leader }).await;
    assert!(matches!(last, Err(MetadataError::Unavailable(_))), "{last:?}");
    // Removing who is not there changes nothing.
    cluster.get(leader).change_controllers(ControllerChange::Remove { id: 9 }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_status_is_the_same_through_every_member() {
    let cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    cluster.get(leader).propose(create_group("g")).await.unwrap();
    cluster.settled().await;
    for id in cluster.ids() {
        let status = cluster.get(id).cluster_status().await.unwrap();
        assert_eq!(status.controllers.len(), 3);
        let leads: Vec<u64> =
            status.controllers.iter().filter(|member| member.leader).map(|member| member.id).collect();
        assert_eq!(leads, [leader]);
        assert!(status.controllers.iter().all(|member| member.matched.is_some()), "{status:?}");
        assert_eq!(status.version, cluster.get(leader).core.feed.version());
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_waits_to_be_added_says_that_nobody_leads() {
    let mut cluster = TestCluster::new(0, quick);
    let alone = cluster.start(5).await.unwrap();
    assert!(matches!(alone.propose(create_group("g")).await, Err(MetadataError::Unavailable(_))));
    alone.shutdown().await;
}
