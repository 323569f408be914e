use super::observed::{ObservedMembership, ObservedStore, log_of, state_of};
use super::{Process, data, listen};
use crate::history::{LogSeen, Reopened};
use crate::note;
use crate::site::{PEER_PORT, Retention};
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
/// The same where the log is bounded.
pub(crate) const SEGMENT_BYTES_BOUNDED: u64 = 128 << 10;
/// How often the log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
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
        store_group: StoreGroupName::parse(group)?,
        address: format!("{}:{PEER_PORT}", machine.name).into(),
        version: "simulation".into(),
    };
    let member = Member::new(membership, env.clone(), member);
    let defaults = StoreConfig::default();
    let retention = process.site.retention;
    let mut kept = RetentionPolicy {
        // A full disk must refuse messages here, not remove those that nobody has consumed: that is no loss to find.
        disk_used_percent: None,
        ..defaults.retention
    };
    match retention {
        Some(Retention::Bytes(max)) => kept.bytes_max = Some(max),
        Some(Retention::Age(age)) => kept.age = age,
        None => {}
    }
    let config = StoreConfig {
        segment_bytes: if retention.is_some() { SEGMENT_BYTES_BOUNDED } else { SEGMENT_BYTES },
        checkpoint_interval: process.site.habits.checkpoints,
        retention: kept,
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
    let looking = look(&process, &store, &view);
    tokio::pin!(following, serving, keeping, looking);
    tokio::select! {
        biased;
        () = &mut following => anyhow::bail!("the watch of the metadata ended"),
        () = &mut serving => anyhow::bail!("the port is closed"),
        kept = &mut keeping => return Ok(kept?),
        () = &mut looking => anyhow::bail!("nobody looks at the log"),
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

/// Looks at the log for as long as the process runs.
async fn look(process: &Process, store: &StoreHost, view: &MetadataView) {
    let (recorder, store_group) = (&process.site.recorder, store.store_group());
    let mut last = None;
    loop {
        if let Ok(state) = log_of(&store.store(), view, process.site.retention.is_some()).await {
            let differs = (state.retained_from, state.damaged.clone(), state.minima.clone());
            if last.as_ref() != Some(&differs) {
                if !state.damaged.is_empty() || state.retained_from.0 > 0 {
                    let (from, damaged) = (state.retained_from, &state.damaged);
                    note!(recorder.trace, &process.name, "its log begins at {from}, damaged: {damaged:?}");
                }
                last = Some(differs);
                let at = recorder.moment();
                recorder.history(|history| history.logs.push(LogSeen { store_group, state, at }));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
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
