use super::observed::{ObservedMembership, ObservedStore};
use super::{Process, data, listen};
use crate::site::PEER_PORT;
use gantry_link::{PeerServer, PeerServices};
use gantry_proto::model::StoreGroupName;
use gantry_store::{Member, MemberConfig, RetentionPolicy, StoreConfig, StoreHost};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Small, so that segments are sealed in every run.
const SEGMENT_BYTES: u64 = 256 << 10;

pub(super) async fn run(process: Process, group: &str) -> anyhow::Result<()> {
    let Process { site, machine, env, local, .. } = &process;
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
        retention: RetentionPolicy { disk_used_percent: 100, ..defaults.retention },
        ..defaults
    };
    let (host, granted) = StoreHost::start(config, env.clone(), view.clone(), data().to_owned(), member).await?;
    let observed = Arc::new(ObservedStore::new(host.clone(), &process.name, &site.recorder));
    let services = PeerServices::default().store(observed.clone(), observed);
    tokio::select! {
        biased;
        () = process.follow(changes, &view) => anyhow::bail!("the watch of the metadata ended"),
        () = server.run(services, CancellationToken::new(), Duration::from_secs(1)) => anyhow::bail!("the port is closed"),
        kept = host.keep(granted) => Ok(kept?),
    }
}
