use super::{Process, data, listen};
use crate::site::{LEASE, PEER_PORT};
use anyhow::Context as _;
use gantry_controller::{Controller, ControllerConfig, LeaseSettings};
use gantry_link::{ConsensusLink, PeerServer, PeerServices};
use gantry_proto::contract::StoreLease;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often somebody looks whether the member can go on.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// As in `gantry controller`: how long it may take to end, and its port to answer the last calls.
const DEADLINE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(process: Process, number: u64) -> anyhow::Result<()> {
    let Process { site, env, local, .. } = &process;
    let server = PeerServer::bind(env, listen(PEER_PORT), local).await?;
    let network = Arc::new(ConsensusLink::new(env, local));
    // Whoever is added to a controller at work must not found another one.
    let founders = site.first_members();
    let members = if founders.contains_key(&number) { founders } else { BTreeMap::new() };
    let sole_replica_lease = match site.lease {
        StoreLease::For(duration) => Some(duration),
        StoreLease::UntilSuperseded => None,
    };
    let (snapshot_commands, log_kept) = site.habits.snapshots;
    let config = ControllerConfig {
        snapshot_commands,
        log_kept,
        leases: LeaseSettings { duration: LEASE, sole_replica_lease, ..LeaseSettings::default() },
        // A folder belongs to one number for ever.
        ..ControllerConfig::member(data().join(number.to_string()), number, members)
    };
    let controller = Arc::new(Controller::open(config, env.clone(), network).await?);
    let services = PeerServices::default().controller(controller.clone(), controller.clone(), controller.clone());
    let closing = CancellationToken::new();
    let serving = server.run(services, closing.clone(), GRACE);
    tokio::pin!(serving);
    tokio::select! {
        biased;
        () = &mut serving => anyhow::bail!("the port is closed"),
        error = unhealthy(&controller) => return Err(error),
        () = process.stop.cancelled() => {}
    }
    // As `gantry controller` ends: watches end with the controller, and only then has the port nothing left to say.
    closing.cancel();
    let (ended, ()) = tokio::join!(timeout(DEADLINE, controller.shutdown()), serving);
    ended.context("the controller took too long to end")
}

/// What operators would see, and restart the process for.
async fn unhealthy(controller: &Controller) -> anyhow::Error {
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        if let Err(error) = controller.health() {
            return error.into();
        }
    }
}
