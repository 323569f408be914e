//! What all members agree on, whatever happens to some of them.

use crate::config::ControllerConfig;
use crate::testing::{TestCluster, create_group, create_topic, group_name, join_store};
use futures_util::StreamExt as _;
use gantry_proto::contract::{MetadataError, MetadataService as _};
use gantry_proto::model::{MetadataCommand, MetadataRefusal, MetadataVersion};
use std::time::Duration;
use tokio::time::Instant;

fn quick(config: &mut ControllerConfig) {
    config.request_timeout = Duration::from_secs(3);
}

#[tokio::test(start_paused = true)]
async fn any_member_takes_a_proposal_and_all_apply_the_same() {
    let cluster = TestCluster::started(3, quick).await;
    cluster.leader().await;
    for id in cluster.ids() {
        cluster.get(id).propose(create_group(&format!("g-{id}"))).await.unwrap();
    }
    cluster.get(2).propose(join_store("s", 1)).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("t-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let id = 1 + n as u64 % 3;
        cluster.get(id).propose(create_topic(name, 2)).await.unwrap();
    }
    cluster.settled().await;
    let states: Vec<_> = cluster.ids().iter().map(|id| cluster.get(*id).core.feed.state()).collect();
    assert!(states.iter().all(|state| *state == states[0]));
    assert!(states[0].cluster().is_some());
    assert_eq!((states[0].groups().len(), states[0].topics().len()), (3, 23));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stays_what_it_is_when_it_was_passed_on() {
    let cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.get(leader).propose(create_group("g")).await.unwrap();
    for id in [leader, follower] {
        let refused = cluster.get(id).propose(create_group("g")).await;
        let Err(MetadataError::Refused(MetadataRefusal::GroupExists(group))) = refused else { panic!("{refused:?}") };
        assert_eq!(group.name, group_name("g"));
        let refused = cluster.get(id).propose(create_topic("t", 1)).await;
        assert!(matches!(refused, Err(MetadataError::Refused(MetadataRefusal::NoStoreGroup))));
    }
}

#[tokio::test(start_paused = true)]
async fn the_others_go_on_without_a_leader_that_stopped_and_it_catches_up() {
    let mut cluster = TestCluster::started(3, quick).await;
    let first = cluster.leader().await;
    cluster.get(first).propose(create_group("a")).await.unwrap();
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let (version, _) = cluster.get(second).propose(create_group("b")).await.unwrap();
    let again = cluster.start(first).await.unwrap();
    assert!(again.core.feed.reached(|state| state.version() >= version).await);
    cluster.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_all_goes_on_where_they_were() {
    let mut cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    let (version, _) = cluster.get(leader).propose(create_group("a")).await.unwrap();
    let identity = cluster.get(leader).core.feed.state().cluster();
    for id in cluster.ids() {
        let (_, files) = cluster.env(id);
        cluster.stop(id).await;
        files.crash(0);
    }
    for id in 1..=3 {
        cluster.start(id).await.unwrap();
    }
    let leader = cluster.leader().await;
    cluster.get(leader).core.node.lead().await.unwrap();
    let state = cluster.get(leader).core.feed.state();
    assert!(state.version() >= version && state.group("a").is_some());
    assert_eq!(state.cluster(), identity);
    cluster.get(leader).propose(create_group("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_for_long_gets_a_snapshot_and_its_watchers_with_it() {
    fn few(config: &mut ControllerConfig) {
        quick(config);
        config.snapshot_commands = 100;
        config.batch_len_max = 1;
    }
    let mut cluster = TestCluster::started(3, few).await;
    let leader = cluster.leader().await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let mut watch = cluster.get(away).watch(MetadataVersion(0)).await.unwrap();
    let mut seen = watch.next().await.unwrap().version;
    cluster.isolate(away, true);
    for n in 0..1_200 {
        cluster.get(leader).propose(create_group(&format!("g-{n}"))).await.unwrap();
    }
    // The leader keeps entries for a member that it cannot reach; the next one has not kept them.
    cluster.stop(leader).await;
    cluster.isolate(away, false);
    cluster.leader().await;
    cluster.start(leader).await.unwrap();
    let version = cluster.settled().await;
    let mut resets = 0;
    while seen < version {
        let event = watch.next().await.unwrap();
        assert!(event.version >= seen);
        seen = event.version;
        resets += usize::from(event.changes.first() == Some(&gantry_proto::model::MetadataChange::Reset));
    }
    assert!(resets > 0, "entries that are purged cannot be sent");
    let states: Vec<_> = cluster.ids().iter().map(|id| cluster.get(*id).core.feed.state()).collect();
    assert!(states.iter().all(|state| *state == states[0]));
    // It goes on from that snapshot when it starts again.
    cluster.stop(away).await;
    cluster.start(away).await.unwrap();
    cluster.settled().await;
    assert_eq!(cluster.get(away).core.feed.state(), states[0]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_most_members_changes_nothing_and_says_so_in_time() {
    let cluster = TestCluster::started(3, quick).await;
    let old = cluster.leader().await;
    cluster.get(old).propose(create_group("a")).await.unwrap();
    cluster.isolate(old, true);
    let started = Instant::now();
    let answer = cluster.get(old).propose(create_group("b")).await;
    assert!(matches!(answer, Err(MetadataError::Unknown(_) | MetadataError::Unavailable(_))), "{answer:?}");
    assert!(started.elapsed() <= Duration::from_secs(7), "{:?}", started.elapsed());
    let new = cluster.leader().await;
    let (version, _) = cluster.get(new).propose(create_group("c")).await.unwrap();
    cluster.isolate(old, false);
    let core = &cluster.get(old).core;
    assert!(core.feed.reached(|state| state.version() >= version).await);
    // The new leader decided: what the old one wrote alone is not there, or there on all.
    cluster.settled().await;
    assert_eq!(cluster.get(old).core.feed.state(), cluster.get(new).core.feed.state());
    assert!(cluster.get(old).core.feed.read(|state| state.group("c").is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_moves_to_a_member_that_lags_never_goes_back() {
    let cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.settled().await;
    cluster.isolate(away, true);
    let (version, _) = cluster.get(leader).propose(create_group("a")).await.unwrap();
    let refused = cluster.get(away).watch(version).await;
    assert!(matches!(refused, Err(MetadataError::Unavailable(_) | MetadataError::Unknown(_))));
    cluster.isolate(away, false);
    cluster.leader().await;
    let mut watch = cluster.get(away).watch(version).await.unwrap();
    cluster.get(leader).propose(create_group("b")).await.ok();
    assert!(watch.next().await.unwrap().version > version);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_reach_a_leader_that_died_is_asked_of_the_next_one() {
    fn patient(config: &mut ControllerConfig) {
        config.request_timeout = Duration::from_secs(10);
    }
    let mut cluster = TestCluster::started(3, patient).await;
    let first = cluster.leader().await;
    cluster.settled().await;
    let other = cluster.ids().into_iter().find(|id| *id != first).unwrap();
    cluster.stop(first).await;
    // The other one still thinks that it leads.
    let (version, _) = cluster.get(other).propose(create_group("a")).await.unwrap();
    // Carried out once.
    assert_eq!(cluster.settled().await, version);
}

#[tokio::test(start_paused = true)]
async fn calls_for_another_member_are_refused() {
    let cluster = TestCluster::started(1, quick).await;
    let node = &cluster.get(1).core.node;
    let cluster = cluster.get(1).core.feed.read(|state| state.cluster());
    let wrong = gantry_proto::contract::ConsensusCall { kind: 2, target: 7, cluster, payload: bytes::Bytes::new() };
    assert!(node.accept(&wrong).await.is_err());
    let unknown = gantry_proto::contract::ConsensusCall { kind: 99, target: 1, cluster, payload: bytes::Bytes::new() };
    assert!(node.accept(&unknown).await.is_err());
}

/// Power failures of any member at any moment, while proposals go on at all of them.
#[tokio::test(start_paused = true)]
async fn crashes_of_single_members_lose_nothing_that_was_answered() {
    for seed in 1..6_u64 {
        let mut cluster = TestCluster::started(3, |config| {
            // What finds no leader waits for a third of this: longer than an election takes.
            config.request_timeout = Duration::from_secs(6);
            config.snapshot_commands = 7;
        })
        .await;
        let mut answered: Vec<(MetadataVersion, MetadataCommand, String)> = Vec::new();
        for round in 0..6_u64 {
            let victim = 1 + (seed + round) % 3;
            let (_, files) = cluster.env(victim);
            files.power_off_after((seed * 31 + round * 17) % 40);
            for n in 0..6 {
                let name = format!("g-{round}-{n}");
                let id = 1 + n % 3;
                if let Ok((version, _)) = cluster.get(id).propose(create_group(&name)).await {
                    answered.push((version, create_group(&name), name));
                }
            }
            cluster.stop(victim).await;
            files.crash(seed * 100 + round);
            cluster.start(victim).await.unwrap();
            let leader = cluster.leader().await;
            for (version, _, name) in &answered {
                let feed = &cluster.get(leader).core.feed;
                assert!(feed.version() >= *version, "versions never go back");
                assert!(feed.read(|state| state.group(name).is_some()), "seed {seed}: {name} was answered");
            }
        }
        assert!(answered.len() > 12, "seed {seed}: {} answered", answered.len());
        cluster.settled().await;
        let states: Vec<_> = cluster.ids().iter().map(|id| cluster.get(*id).core.feed.state()).collect();
        assert!(states.iter().all(|state| *state == states[0]));
        for id in cluster.ids() {
            cluster.stop(id).await;
        }
    }
}

/// The same seeds, the same elections: nothing is drawn from anywhere else.
#[tokio::test(start_paused = true)]
async fn a_seed_determines_who_leads_and_when() {
    async fn run() -> (u64, Duration, u64) {
        let started = Instant::now();
        let mut cluster = TestCluster::started(3, quick).await;
        let first = cluster.leader().await;
        cluster.stop(first).await;
        let second = cluster.leader().await;
        let elapsed = started.elapsed();
        let (_, files) = cluster.env(second);
        for id in cluster.ids() {
            cluster.stop(id).await;
        }
        (first * 10 + second, elapsed, files.mutations())
    }
    assert_eq!(run().await, run().await);
}
