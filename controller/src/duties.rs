//! What the member that leads does without being asked: it gives the cluster its identity, and ends the leases and
//! memberships of those that are gone. Always by proposing a command; the state is never edited.

use crate::controller::Core;
use crate::raft::{Leadership, NodeError};
use gantry_proto::model::{ClusterId, MetadataCommand, ProxyId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long after a proxy's silence it is noticed, at most. A lease's end is noticed when it comes.
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// How soon a failed attempt is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Works until it is dropped or the member stops.
pub(crate) async fn run(core: Arc<Core>) {
    let interval = (core.config.leases.heartbeat_interval / 2).min(INTERVAL_MAX);
    loop {
        let leader = core.node.leader();
        if !core.seems_to_lead() {
            if !core.node.leadership_changed(&leader).await {
                return;
            }
            continue;
        }
        let pause = match turn(&core).await {
            Ok(next_end) => next_end.map_or(interval, |end| interval.min(end)),
            Err(error) => {
                tracing::debug!(%error, "the leading controller's duties wait");
                RETRY_AFTER
            }
        };
        tokio::select! {
            biased;
            going_on = core.node.leadership_changed(&leader) => if !going_on { return },
            () = sleep(pause) => {}
        }
    }
}

/// Returns how long it is until the next lease ends, if nothing happens before.
async fn turn(core: &Core) -> Result<Option<Duration>, NodeError> {
    let leading = core.node.lead().await?;
    found(core, leading).await?;
    let (ended, gone) = core.with_table(leading, |table, now| {
        core.feed.read(|state| {
            table.retain(|id| state.store_group(id).is_some(), |id| state.proxy(id).is_some());
            let ended = table.ended(state.store_groups(), now);
            let proxies: Vec<ProxyId> = state.proxies().map(|proxy| proxy.id).collect();
            (ended, table.gone_proxies(proxies.into_iter(), now))
        })
    })?;
    for (store_group, epoch) in ended {
        tracing::info!(group = %store_group, %epoch, "a store's lease has ended");
        // It is never refused: at worst it has ended already.
        let _ = core.decide(MetadataCommand::EndStoreLease { store_group, epoch }, leading).await?;
    }
    for id in gone {
        tracing::info!(%id, "a proxy is gone");
        let _ = core.decide(MetadataCommand::RemoveProxy { id }, leading).await?;
    }
    core.with_table(leading, |table, now| Some(table.next_end()?.saturating_duration_since(now)))
}

async fn found(core: &Core, leading: Leadership) -> Result<(), NodeError> {
    if core.feed.read(|state| state.cluster().is_some()) {
        return Ok(());
    }
    let mut id = [0; 16];
    core.env.random.fill(&mut id);
    let cluster = ClusterId(id);
    let _ = core.decide(MetadataCommand::InitCluster { cluster }, leading).await?;
    tracing::info!(%cluster, "the cluster was founded");
    Ok(())
}
