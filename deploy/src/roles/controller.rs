//! A member of the controller: alone in its process, or as a part of a standalone server.

use super::peers::{self, BoundPort, PeerPort};
use crate::config::{Config, Controller as ControllerOptions};
use crate::data_dir::DataDir;
use crate::lost_controller;
use crate::process::{Process, Role, within};
use crate::tasks::Tasks;
use anyhow::Context as _;
use futures_util::FutureExt as _;
use gantry_controller::{ControllerConfig, ControllerHost, LeaseSettings, NoPeers};
use gantry_link::{ConsensusLink, PeerServices};
use gantry_proto::contract::ConsensusNetwork;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the controller may take to finish what it is writing.
const DEADLINE: Duration = Duration::from_secs(5);
const TASK: &str = "the controller";

/// `gantry controller`: a member of the controller.
pub struct ControllerRole {
    part: ControllerPart,
    port: PeerPort,
}

impl Role for ControllerRole {
    const NAME: &'static str = "controller";

    async fn start(config: &Config, process: &mut Process) -> anyhow::Result<ControllerRole> {
        let env = process.env.clone();
        let local = peers::local(&config.cluster, &env)?;
        let port = BoundPort::bind(config.controller.listen, "--controller-listen", &local, &env).await?;
        warn_of_another_port(config, port.address());
        let (root, id) = (&config.data.dir, u64::from(config.controller.id));
        lost_controller::check_member(&*env.files, root, id)?;
        let dir = DataDir::new(root).prepare_controller()?;
        let network = Arc::new(ConsensusLink::new(&env, &local));
        let part = ControllerPart::start(member_config(config, dir)?, network, process).await?;
        lost_controller::note_member(root, id).context("cannot note in the data folder which member it is of")?;
        let host = part.host.clone();
        let services = PeerServices::default().controller(host.clone(), host.clone(), host);
        Ok(ControllerRole { part, port: port.serve(services, &mut process.tasks) })
    }

    fn address(&self) -> SocketAddr {
        self.port.address
    }

    async fn stop(self, _config: &Config, tasks: &mut Tasks) -> anyhow::Result<()> {
        // Watches end with the controller: only then has the port nothing left to say.
        self.port.close();
        let controller = self.part.shut_down().await;
        controller.and(self.port.finish(tasks).await)
    }
}

/// A controller at work.
pub(super) struct ControllerPart {
    pub(super) host: Arc<ControllerHost>,
}

impl ControllerPart {
    /// The only member: nobody else is asked.
    pub(super) async fn start_alone(dir: PathBuf, process: &mut Process) -> anyhow::Result<ControllerPart> {
        ControllerPart::start(ControllerConfig::standalone(dir), Arc::new(NoPeers), process).await
    }

    async fn start(
        config: ControllerConfig,
        network: Arc<dyn ConsensusNetwork>,
        process: &mut Process,
    ) -> anyhow::Result<ControllerPart> {
        let opened = ControllerHost::open(config, process.env.clone(), network).await;
        let host = Arc::new(opened.context("cannot open the metadata")?);
        process.health.ready_with({
            let host = host.clone();
            move || host.serves()
        });
        // It is opened again when its disk failed; meanwhile a store beside it goes on without changes of the metadata. It ends
        // where that cannot help, and with it the process: an operator has to look.
        let kept = host.clone();
        process.tasks.spawn(TASK, async move { Ok(kept.keep().await?) });
        Ok(ControllerPart { host })
    }

    /// Finishes what it is writing and frees the folder.
    pub(super) async fn shut_down(&self) -> anyhow::Result<()> {
        within(DEADLINE, TASK, self.host.shutdown().map(Ok)).await
    }
}

/// Something may stand in between and forward one port to the other. More often one of the two is a mistake, and then the
/// cluster is never founded, without anybody knowing why.
fn warn_of_another_port(config: &Config, listens: SocketAddr) {
    let members = config.cluster.controllers.as_ref();
    if let Some(told) = members.and_then(|members| members.address_of(config.controller.id))
        && told.port != listens.port()
    {
        tracing::warn!(
            %listens, %told,
            "the others are told another port than this member listens on: compare controller.listen with cluster.controllers"
        );
    }
}

fn member_config(config: &Config, dir: PathBuf) -> anyhow::Result<ControllerConfig> {
    let options = &config.controller;
    let members = config.cluster.controllers.as_ref().context("cluster.controllers is not set")?;
    // One that joins a controller at work must not found another one.
    let members = if options.join {
        BTreeMap::new()
    } else {
        members.iter().map(|(id, address)| (u64::from(id), address.to_string())).collect()
    };
    Ok(ControllerConfig {
        heartbeat_interval: options.heartbeat_interval,
        election_timeout: options.election_timeout,
        leases: lease_settings(options),
        ..ControllerConfig::member(dir, u64::from(options.id), members)
    })
}

fn lease_settings(options: &ControllerOptions) -> LeaseSettings {
    LeaseSettings {
        duration: options.lease,
        sole_replica_lease: options.lease_only_replica.then_some(options.lease),
        ..LeaseSettings::default()
    }
}
