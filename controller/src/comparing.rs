//! What the member that leads does about the others' programs and states: it compares digests of their states at the same
//! entry of the log, and raises the rules once every member can follow.
//!
//! A member whose state differs from that of most members has decided differently, whatever the reason: it says so and
//! stops (see [`Node::stop_for`](crate::raft::Node::stop_for)). So does one that hears from the leader that most differ.

use crate::controller::Core;
use crate::raft::{Leadership, NodeError, Peer};
use crate::state::Rules;
use futures_util::future::join_all;
use gantry_proto::model::MetadataCommand;
use gantry_proto::wire::controller::v1 as wire;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often the states are compared, at most: only when something was carried out since the last time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Works until it is dropped or the member stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut compared = None;
    loop {
        let leader = core.node.leader();
        if !core.seems_to_lead() {
            compared = None;
            if !core.node.leadership_changed(&leader).await {
                return;
            }
            continue;
        }
        if let Err(error) = turn(&core, &mut compared).await {
            tracing::debug!(%error, "the members' states are not compared for now");
        }
        tokio::select! {
            biased;
            going_on = core.node.leadership_changed(&leader) => if !going_on { return },
            () = sleep(INTERVAL) => {}
        }
    }
}

/// `compared`: the entry up to which all other members were asked last, and how many those were.
async fn turn(core: &Core, compared: &mut Option<(u64, usize)>) -> Result<(), NodeError> {
    let Some((index, own)) = core.node.digests().last() else { return Ok(()) };
    let peers = core.node.peers();
    let can_raise = core.config.rules_max > core.feed.read(|state| state.rules().number());
    if !can_raise && *compared == Some((index, peers.len())) {
        return Ok(());
    }
    let leading = core.node.lead().await?;
    let answers = ask(core, &peers, &wire::CompareStates { index, agreed: None }).await;
    let known: BTreeMap<u64, u64> =
        answers.iter().filter_map(|(id, answer)| Some((*id, answer.as_ref()?.digest?))).collect();
    judge(core, &peers, index, own, &known).await;
    if known.len() == peers.len() {
        *compared = Some((index, peers.len()));
    }
    let supported = answers.iter().map(|(_, answer)| answer.as_ref().map_or(0, |answer| answer.rules_max));
    raise(core, supported.min(), leading).await
}

async fn ask(core: &Core, peers: &[Peer], question: &wire::CompareStates) -> Vec<(u64, Option<wire::StateCompared>)> {
    // Who does not answer is asked again in the next turn.
    join_all(peers.iter().map(|peer| async { (peer.id, core.node.compare(peer, question).await.ok()) })).await
}

/// Finds out who differs, and lets them know.
async fn judge(core: &Core, peers: &[Peer], index: u64, own: u64, known: &BTreeMap<u64, u64>) {
    let voters = 1 + peers.iter().filter(|peer| peer.voter).count();
    let voted = |digest: u64| {
        let others = peers.iter().filter(|peer| peer.voter && known.get(&peer.id) == Some(&digest)).count();
        others + usize::from(digest == own)
    };
    let most = |digest: &u64| voted(*digest) > voters / 2;
    let agreed = match [own].iter().chain(known.values()).find(|digest| most(digest)) {
        Some(digest) => *digest,
        // Nobody knows who is right, but who differs from the leader cannot go on with it.
        None if known.len() == peers.len() => own,
        None => return,
    };
    let differ: Vec<Peer> =
        peers.iter().filter(|peer| known.get(&peer.id).is_some_and(|digest| *digest != agreed)).cloned().collect();
    if !differ.is_empty() {
        let ids: Vec<u64> = differ.iter().map(|peer| peer.id).collect();
        tracing::error!(index, members = ?ids, "the metadata of these members differ from those of the others");
        let agreed = Some(wire::compare_states::Agreed { index, digest: agreed });
        ask(core, &differ, &wire::CompareStates { index, agreed }).await;
    }
    if own != agreed {
        core.node.check_agreed(index, agreed).await;
    }
}

/// Raises the rules to what this member and all others know. `others`: the least of what the others know.
async fn raise(core: &Core, others: Option<u32>, leading: Leadership) -> Result<(), NodeError> {
    let to = core.config.rules_max.min(others.unwrap_or(u32::MAX));
    let now = core.feed.read(|state| state.rules());
    if to <= now.number() || Rules::of(to).is_none() {
        return Ok(());
    }
    tracing::info!(from = now.number(), to, "every member of the controller knows newer rules: they are raised");
    let _ = core.decide(MetadataCommand::RaiseRules { to }, leading).await?;
    Ok(())
}
