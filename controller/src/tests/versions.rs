//! Members of different versions, members that decide differently, members of different clusters.

use crate::config::ControllerConfig;
use crate::open_error::OpenError;
use crate::state::Rules;
use crate::testing::{TestCluster, create_group, create_topic, join_store};
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusPeer as _, MetadataError, MetadataService as _};
use gantry_proto::model::limits::QUEUE_COUNT_MAX;
use gantry_proto::model::{ClusterId, MetadataCommand, MetadataRefusal, MetadataVersion, Timestamp};
use gantry_proto::wire::controller::v1 as wire;
use prost::Message as _;
use std::time::Duration;
use tokio::time::sleep;

fn quick(config: &mut ControllerConfig) {
    config.request_timeout = Duration::from_secs(3);
}

/// Member 3 runs an older version.
fn one_is_older(config: &mut ControllerConfig) {
    quick(config);
    config.rules_max = if config.id == 3 { Rules::First.number() } else { Rules::Later.number() };
}

fn all_are_newer(config: &mut ControllerConfig) {
    quick(config);
    config.rules_max = Rules::Later.number();
}

/// Waits until a member has stopped, and for why.
async fn stopped(cluster: &TestCluster, id: u64) -> String {
    for _ in 0..500 {
        if let Err(failed) = cluster.get(id).health() {
            return failed.to_string();
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("member {id} goes on");
}

fn rules(cluster: &TestCluster, id: u64) -> Rules {
    cluster.get(id).core.feed.read(|state| state.rules())
}

/// As a wrong decision would: something is in this member's state that the log does not hold.
fn diverge(cluster: &TestCluster, id: u64) {
    cluster.get(id).core.feed.apply(&[create_group("of-this-member-only")], Timestamp::ZERO)[0].as_ref().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_state_differs_says_so_and_stops_and_the_others_go_on() {
    for leads in [false, true] {
        let mut cluster = TestCluster::started(3, quick).await;
        let leader = cluster.leader().await;
        cluster.get(leader).propose(create_group("a")).await.unwrap();
        cluster.settled().await;
        let differs = cluster.ids().into_iter().find(|id| (*id == leader) == leads).unwrap();
        diverge(&cluster, differs);
        // Whatever becomes of it: it is carried out, and differently here.
        let _ = cluster.get(leader).propose(create_group("b")).await;
        let why = stopped(&cluster, differs).await;
        assert!(why.contains("differ from those of the other members"), "{why}");
        let asked = cluster.get(differs).propose(create_group("c")).await;
        assert!(matches!(asked, Err(MetadataError::Unavailable(_))), "{asked:?}");
        assert!(cluster.get(differs).watch(MetadataVersion(0)).await.is_err());
        let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != differs).collect();
        cluster.leader().await;
        for id in &others {
            assert!(cluster.get(*id).health().is_ok());
            cluster.get(*id).propose(create_group(&format!("by-{id}"))).await.unwrap();
        }
        // From its disk, which holds what all agreed upon, it goes on with them.
        cluster.stop(differs).await;
        cluster.start(differs).await.unwrap();
        cluster.settled().await;
        assert!(cluster.get(differs).core.feed.read(|state| state.group("of-this-member-only").is_none()));
        sleep(Duration::from_secs(5)).await;
        assert!(cluster.get(differs).health().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_members_that_differ_the_one_that_follows_stops() {
    let cluster = TestCluster::started(2, quick).await;
    let leader = cluster.leader().await;
    cluster.settled().await;
    let other = 3 - leader;
    diverge(&cluster, other);
    cluster.get(leader).propose(create_group("b")).await.unwrap();
    stopped(&cluster, other).await;
    assert!(cluster.get(leader).health().is_ok());
}

#[tokio::test(start_paused = true)]
async fn members_that_agree_are_compared_and_go_on() {
    let cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.get(leader).propose(create_group(&format!("g-{n}"))).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(cluster.ids().into_iter().all(|id| cluster.get(id).health().is_ok()));
}

#[tokio::test(start_paused = true)]
async fn rules_are_raised_when_every_member_knows_them_and_hold_on_all() {
    let mut cluster = TestCluster::started(3, one_is_older).await;
    let leader = cluster.leader().await;
    cluster.get(leader).propose(join_store("s", 1)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    cluster.settled().await;
    assert!(cluster.ids().into_iter().all(|id| rules(&cluster, id) == Rules::First));
    let large = || create_topic("large", QUEUE_COUNT_MAX + 1);
    let refused = cluster.get(leader).propose(large()).await;
    assert!(matches!(refused, Err(MetadataError::Refused(MetadataRefusal::QueueCount { .. }))), "{refused:?}");
    // Nobody else raises them.
    let asked = cluster.get(leader).propose(MetadataCommand::RaiseRules { to: 3 }).await;
    assert!(matches!(asked, Err(MetadataError::Refused(MetadataRefusal::Rules { now: 1, asked: 3 }))), "{asked:?}");

    cluster.stop(3).await;
    sleep(Duration::from_secs(5)).await;
    assert!(rules(&cluster, 1) == Rules::First, "who is away may be older");
    cluster.configure = all_are_newer;
    cluster.start(3).await.unwrap();
    for id in cluster.ids() {
        assert!(cluster.get(id).core.feed.reached(|state| state.rules() == Rules::Later).await);
    }
    let leader = cluster.leader().await;
    cluster.get(leader).propose(large()).await.unwrap();
    cluster.settled().await;
    sleep(Duration::from_secs(5)).await;
    assert!(cluster.ids().into_iter().all(|id| cluster.get(id).health().is_ok()));

    // Going back is refused by name, and loses nothing.
    cluster.stop(3).await;
    cluster.configure = one_is_older;
    let refused = cluster.start(3).await.err();
    assert!(matches!(refused, Some(OpenError::Newer { .. })), "{refused:?}");
    cluster.configure = all_are_newer;
    cluster.start(3).await.unwrap();
    cluster.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_know_a_command_stops_with_newer_and_does_not_wedge_the_others() {
    let mut cluster = TestCluster::started(3, one_is_older).await;
    let leader = cluster.leader().await;
    if leader == 3 {
        cluster.stop(3).await;
        cluster.leader().await;
        cluster.start(3).await.unwrap();
    }
    let leader = cluster.leader().await;
    cluster.settled().await;
    // As if the leader had not asked.
    let core = &cluster.get(leader).core;
    let leading = core.node.lead().await.unwrap();
    core.decide(MetadataCommand::RaiseRules { to: 3 }, leading).await.unwrap().unwrap();
    let why = stopped(&cluster, 3).await;
    assert!(why.contains("written by a newer gantry") && !why.contains("damaged"), "{why}");
    cluster.get(leader).propose(create_group("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_of_another_cluster_is_refused_by_name_and_its_votes_never_enter() {
    let mut cluster = TestCluster::started(3, quick).await;
    let leader = cluster.leader().await;
    cluster.get(leader).propose(create_group("a")).await.unwrap();
    cluster.settled().await;
    let own = cluster.get(leader).core.feed.read(|state| state.cluster()).unwrap();
    let foreign = ClusterId([0xee; 16]);
    let vote = wire::Vote { term: 1_000_000, member: 2, committed: true };
    let last = Some(wire::LogId { term: 1_000_000, member: 2, index: 1_000_000 });
    for round in 0..2 {
        for cluster_of_caller in [Some(foreign), None] {
            for id in cluster.ids() {
                let asked =
                    wire::VoteFor { vote: Some(wire::Vote { committed: false, ..vote }), last, ..Default::default() };
                let entries = wire::AppendEntries { vote: Some(vote), ..Default::default() };
                for (kind, payload) in [(2, asked.encode_to_vec()), (1, entries.encode_to_vec())] {
                    let call = ConsensusCall { kind, target: id, cluster: cluster_of_caller, payload: payload.into() };
                    let answer = cluster.get(id).answer(call).await;
                    let Err(ConsensusError::Refused(why)) = answer else { panic!("{answer:?}") };
                    assert!(why.contains(&own.to_string()), "{why}");
                    assert!(cluster_of_caller.is_none() || why.contains(&foreign.to_string()), "{why}");
                }
            }
        }
        assert_eq!(cluster.leader().await, leader, "round {round}");
        // Also right after a start, before anything is known to be committed.
        let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        cluster.stop(follower).await;
        cluster.start(follower).await.unwrap();
    }
}
