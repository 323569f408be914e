//! What a process of a cluster needs to speak with the others: its credentials, its link to the controller, its own port.

use crate::config::{Cluster, Config};
use crate::port;
use crate::process::within;
use crate::tasks::Tasks;
use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use gantry_link::{ControllerLink, LocalPeer, MutualTls, PeerCredentials, PeerServer, PeerServices, SharedToken};
use gantry_proto::env::Env;
use gantry_proto::model::HostPort;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long calls of peers may take to finish when the process stops.
const GRACE: Duration = Duration::from_secs(5);
const TASK: &str = "the port for peers";

/// This process, as its peers see it: how it proves that it belongs to the cluster, and makes others prove it.
pub(super) fn local(cluster: &Cluster, env: &Env) -> anyhow::Result<LocalPeer> {
    Ok(LocalPeer::new(credentials(cluster, env)?))
}

fn credentials(cluster: &Cluster, env: &Env) -> anyhow::Result<PeerCredentials> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    match (&cluster.tls_ca, &cluster.tls_certificate, &cluster.tls_key, &cluster.token_file) {
        (Some(ca), Some(certificate), Some(key), _) => {
            let tls = MutualTls::new(&read(ca)?, &read(certificate)?, &read(key)?, env.clock.clone());
            let named = || format!("cannot use {}, {} and {}", ca.display(), certificate.display(), key.display());
            Ok(PeerCredentials::MutualTls(tls.with_context(named)?))
        }
        (_, _, _, Some(file)) => {
            let token = SharedToken::new(&read(file)?).with_context(|| format!("cannot use {}", file.display()))?;
            Ok(PeerCredentials::Token(token))
        }
        // The configuration was checked for this.
        _ => bail!("neither cluster.token_file nor cluster.tls_ca is set"),
    }
}

/// The controller of the cluster, whichever of its members answers.
pub(super) fn controller(config: &Config, local: &LocalPeer, env: &Env) -> anyhow::Result<Arc<ControllerLink>> {
    let members = config.cluster.controllers.as_ref().context("cluster.controllers is not set")?;
    let addresses: Vec<String> = members.iter().map(|(_, address)| address.to_string()).collect();
    Ok(Arc::new(ControllerLink::new(env, local, &addresses)))
}

/// What others are told to connect to.
pub(super) fn advertised(advertised: Option<&HostPort>, listen: SocketAddr) -> String {
    advertised.map_or_else(|| listen.to_string(), HostPort::to_string)
}

/// A port at which peers are served.
pub(super) struct PeerPort {
    /// Where it listens.
    pub(super) address: SocketAddr,
    stop: CancellationToken,
}

/// A port that is taken and not yet served.
pub(super) struct BoundPort {
    server: PeerServer,
    address: SocketAddr,
}

impl BoundPort {
    /// Takes the port.
    pub(super) async fn bind(
        address: SocketAddr,
        flag: &str,
        local: &LocalPeer,
        env: &Env,
    ) -> anyhow::Result<BoundPort> {
        let server = PeerServer::bind(env, address, local).await;
        let server = server.map_err(|error| port::explain(address, flag, &error))?;
        let address = server.local_addr()?;
        Ok(BoundPort { server, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves from now on.
    pub(super) fn serve(self, services: PeerServices, tasks: &mut Tasks) -> PeerPort {
        let stop = CancellationToken::new();
        tasks.spawn(TASK, self.server.run(services, stop.clone(), GRACE).map(Ok));
        PeerPort { address: self.address, stop }
    }
}

impl PeerPort {
    /// Takes no more calls; those under way go on.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// Waits until the calls under way are answered, after [`PeerPort::close`].
    pub(super) async fn finish(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        within(2 * GRACE, TASK, tasks.end_of(TASK)).await
    }
}
