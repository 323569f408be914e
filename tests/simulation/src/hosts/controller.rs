use super::{Process, data, listen};
use crate::site::{LEASE, PEER_PORT};
use gantry_controller::{Controller, ControllerConfig, LeaseSettings};
use gantry_link::{ConsensusLink, PeerServer, PeerServices};
use gantry_proto::contract::LeaseTerm;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often somebody looks whether the member can go on.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Few, so that snapshots happen in every run.
const SNAPSHOT_COMMANDS: usize = 20;

pub(super) async fn run(process: Process, number: u64) -> anyhow::Result<()> {
    let Process { site, env, local, .. } = &process;
    let server = PeerServer::bind(env, listen(PEER_PORT), local).await?;
    let network = Arc::new(ConsensusLink::new(env, local));
    // Whoever is added to a controller at work must not found another one.
    let founders = site.first_members();
    let members = if founders.contains_key(&number) { founders } else { BTreeMap::new() };
    let sole_replica_lease = match site.lease {
        LeaseTerm::For(duration) => Some(duration),
        LeaseTerm::UntilSuperseded => None,
    };
    let config = ControllerConfig {
        snapshot_commands: SNAPSHOT_COMMANDS,
        leases: LeaseSettings { duration: LEASE, sole_replica_lease, ..LeaseSettings::default() },
        // A folder belongs to one number for ever.
        ..ControllerConfig::member(data().join(number.to_string()), number, members)
    };
    let controller = Arc::new(Controller::open(config, env.clone(), network).await?);
    let services = PeerServices::default().controller(controller.clone(), controller.clone(), controller.clone());
    tokio::select! {
        biased;
        () = server.run(services, CancellationToken::new(), Duration::from_secs(1)) => anyhow::bail!("the port is closed"),
        error = unhealthy(&controller) => Err(error),
    }
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
