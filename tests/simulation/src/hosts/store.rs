use super::observed::{ObservedMembership, ObservedStore, state_of};
use super::{Process, data, listen};
use crate::history::Reopened;
use crate::note;
use crate::site::PEER_PORT;
use anyhow::Context as _;
use gantry_link::{PeerServer, PeerServices};
use gantry_proto::model::{MetadataView, StoreGroupName};
use gantry_store::{Member, MemberConfig, RetentionPolicy, StoreConfig, StoreHost};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Small, so that segments are sealed in every run.
const SEGMENT_BYTES: u64 = 256 << 10;
/// As in `gantry store`: how long the store may take to end, to leave its group, and its port to answer the last calls.
const DEADLINE: Duration = Duration::from_secs(10);
const LEAVE_DEADLINE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(process: Process, group: &str) -> anyhow::Result<()> {
    let Process { machine, env, local, .. } = &process;
    let server = PeerServer::bind(env, listen(PEER_PORT), local).await?;
    let controller = process.controller();
    let (view, changes) = process.watch(&*controller).await?;
    let membership = Arc::new(ObservedMembership::new(controller, &process));
    let member = MemberConfig {
        group: StoreGroupName::parse(group)?,
        address: format!("{}:{PEER_PORT}", machine.name).into(),
        version: "simulation".into(),
    };
    let member = Member::new(membership, env.clone(), member);
    let defaults = StoreConfig::default();
    let config = StoreConfig {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_interval: Duration::from_secs(2),
        // A full disk must refuse messages here, not remove those that nobody has consumed: that is no loss to find.
        retention: RetentionPolicy { disk_used_percent: None, ..defaults.retention },
        ..defaults
    };
    let (store, granted) = StoreHost::start(config, env.clone(), view.clone(), data().to_owned(), member).await?;
    compare(&process, &store, &view).await?;
    let observed = Arc::new(ObservedStore::new(store.clone(), view.clone(), &process));
    let services = PeerServices::default().store(observed.clone(), observed);
    let closing = CancellationToken::new();
    let following = process.follow(changes, &view);
    let serving = server.run(services, closing.clone(), GRACE);
    let keeping = store.keep(granted);
    tokio::pin!(following, serving, keeping);
    tokio::select! {
        biased;
        () = &mut following => anyhow::bail!("the watch of the metadata ended"),
        () = &mut serving => anyhow::bail!("the port is closed"),
        kept = &mut keeping => return Ok(kept?),
        () = process.stop.cancelled() => {}
    }
    // As `gantry store` ends: waiting receives end with the store, and only then has the port nothing left to answer.
    closing.cancel();
    let ending = async {
        let (ended, (), kept) = tokio::join!(
            timeout(DEADLINE, store.shutdown()),
            &mut serving,
            timeout(LEAVE_DEADLINE + DEADLINE, &mut keeping)
        );
        ended.context("the store took too long to end")??;
        remember(&process, &store, &view).await?;
        Ok(kept.context("the store took too long to leave")??)
    };
    tokio::select! {
        biased;
        () = &mut following => anyhow::bail!("the watch of the metadata ended"),
        ended = ending => ended,
    }
}

/// Keeps the state of a store that has ended gracefully for the next one that opens the folder.
async fn remember(process: &Process, store: &StoreHost, view: &MetadataView) -> anyhow::Result<()> {
    let state = state_of(&store.store(), view).await?;
    process.site.ended.lock().insert(process.machine.name.clone(), state);
    Ok(())
}

/// Holds the state of a store that has just been opened against the one that it ended with, if it ended gracefully.
async fn compare(process: &Process, store: &StoreHost, view: &MetadataView) -> anyhow::Result<()> {
    let (after, recorder) = (state_of(&store.store(), view).await?, &process.site.recorder);
    note!(recorder.trace, &process.name, "opened: {after:?}");
    let ended = process.site.ended.lock().remove(&process.machine.name);
    if let Some(before) = ended {
        let reopened = Reopened { process: process.name.clone(), before, after, at: recorder.moment() };
        recorder.history(|history| history.reopened.push(reopened));
    }
    Ok(())
}
