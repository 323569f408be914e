//! A proxy: alone in its process, or as a part of a standalone server.

use super::{peers, view};
use crate::certificate;
use crate::config::{Config, Listen, ProxyProtocolMode};
use crate::data_dir::DataDir;
use crate::machine;
use crate::port;
use crate::process::{Process, Role, within};
use crate::tasks::Tasks;
use anyhow::Context as _;
use gantry_link::LinkedStores;
use gantry_proto::contract::{MembershipService, MetadataService, Stores};
use gantry_proto::model::MetadataView;
use gantry_proxy::{AdvertisedEndpoints, BuildError, Proxy, ProxyConfig, ProxyDeps, ProxyProtocol, tls};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Beyond the proxy's own deadline for calls in flight: to cut off what is left and to hand deliveries back.
const GRACE: Duration = Duration::from_secs(3);
/// Files that stay for whatever else the process does: the log's segments and indexes, its links, probes.
const FILES_RESERVE: usize = 512;
/// The proxy's name among the tasks: the one that is asked to end.
const TASK: &str = "the proxy";

/// `gantry proxy`: what clients connect to.
pub struct ProxyRole {
    part: ProxyPart,
}

impl Role for ProxyRole {
    const NAME: &'static str = "proxy";

    async fn start(config: &Config, process: &mut Process) -> anyhow::Result<ProxyRole> {
        let env = process.env.clone();
        // A taken port is found now, not after a wait for the controller.
        port::probe(config.listen.address, "--listen")?;
        port::probe(config.admin.listen, "--admin-listen")?;
        let local = peers::local(&config.cluster, &env)?;
        let tls_dir = DataDir::new(&config.data.dir).prepare_tls()?;
        let controller = peers::controller(config, &local, &env)?;
        let view = view::watch(controller.clone(), &mut process.tasks).await?;
        let stores = Arc::new(LinkedStores::new(&env, &local, view.clone()));
        let backends = ProxyBackends { metadata: controller.clone(), membership: controller, view, stores };
        Ok(ProxyRole {
            part: ProxyPart::start(config, Creation::of_cluster(config), &tls_dir, backends, process).await?,
        })
    }

    fn address(&self) -> SocketAddr {
        self.part.address
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        self.part.admin_address
    }

    async fn stop(self, config: &Config, tasks: &mut Tasks) -> anyhow::Result<()> {
        self.part.stop(&config.listen, tasks).await
    }
}

/// What a proxy calls: in this process, or over links.
pub(super) struct ProxyBackends {
    pub(super) metadata: Arc<dyn MetadataService>,
    pub(super) membership: Arc<dyn MembershipService>,
    pub(super) view: Arc<MetadataView>,
    pub(super) stores: Arc<dyn Stores>,
}

/// What is created when a client first names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Creation {
    topics: bool,
    groups: bool,
}

impl Creation {
    /// To try things out, names need not be made beforehand.
    pub(super) fn of_standalone(config: &Config) -> Creation {
        Creation::or(config, true)
    }

    /// Where many programs share a cluster a misspelt name is to be an error.
    fn of_cluster(config: &Config) -> Creation {
        Creation::or(config, false)
    }

    fn or(config: &Config, default: bool) -> Creation {
        let (topics, groups) = (config.topics.auto_create, config.groups.auto_create);
        Creation { topics: topics.unwrap_or(default), groups: groups.unwrap_or(default) }
    }

    /// Operators are told what becomes of a misspelt name.
    fn say(self) {
        let Creation { topics, groups } = self;
        match topics || groups {
            true => tracing::info!(
                topics,
                groups,
                "what clients name for the first time is created, also if the name is misspelt; topics.auto_create and \
                 groups.auto_create change that"
            ),
            false => tracing::info!(
                "clients can use only topics and consumer groups that were created; topics.auto_create and \
                 groups.auto_create change that"
            ),
        }
    }
}

/// A proxy at work.
pub(super) struct ProxyPart {
    pub(super) address: SocketAddr,
    pub(super) admin_address: Option<SocketAddr>,
    stop: CancellationToken,
}

impl ProxyPart {
    /// Serves clients from now on. `tls_dir`: where the proxy keeps a certificate of its own making.
    pub(super) async fn start(
        config: &Config,
        creation: Creation,
        tls_dir: &Path,
        backends: ProxyBackends,
        process: &mut Process,
    ) -> anyhow::Result<ProxyPart> {
        let tls = Some(tls_config(&config.listen, tls_dir)?);
        let ProxyBackends { metadata, membership, view, stores } = backends;
        let deps = ProxyDeps { env: process.env.clone(), metadata, membership, view, stores, tls };
        let built = Proxy::build(proxy_config(config, creation)?, deps).await;
        let proxy = built.map_err(|error| explain_build(config, error))?;
        let (address, admin_address) = (proxy.local_addr(), proxy.admin_addr());
        creation.say();
        if admin_address.is_some_and(|address| !address.ip().is_loopback()) {
            tracing::warn!(address = %config.admin.listen, "operators' calls are open to other machines, without a password");
        }
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        process.tasks.spawn(TASK, async move { Ok(proxy.serve(stopped.cancelled_owned()).await?) });
        Ok(ProxyPart { address, admin_address, stop })
    }

    /// Lets calls under way finish, within the configured time.
    pub(super) async fn stop(&self, listen: &Listen, tasks: &mut Tasks) -> anyhow::Result<()> {
        self.stop.cancel();
        within(listen.drain_timeout + GRACE, TASK, tasks.end_of(TASK)).await
    }
}

fn proxy_config(config: &Config, creation: Creation) -> anyhow::Result<ProxyConfig> {
    let (listen, limits) = (&config.listen, &config.limits);
    let advertised = listen.advertised.as_ref().map(|address| AdvertisedEndpoints::parse(&address.to_string()));
    Ok(ProxyConfig {
        listen: listen.address,
        advertised_endpoints: advertised.transpose().context("listen.advertised")?,
        admin_listen: Some(config.admin.listen),
        connections_max: connections_max(listen.connections_max as usize),
        proxy_protocol: match listen.proxy_protocol {
            ProxyProtocolMode::Off => ProxyProtocol::Off,
            ProxyProtocolMode::Detect => ProxyProtocol::Detect,
            ProxyProtocolMode::Require => ProxyProtocol::Require,
        },
        sessions_max: limits.sessions_max as usize,
        auto_create_rate: limits.auto_create_rate,
        auto_create_max: limits.auto_create_max as usize,
        connections_per_peer_max: listen.connections_per_peer_max as usize,
        streams_max: listen.streams_max,
        handshake_timeout: listen.handshake_timeout,
        idle_timeout: listen.idle_timeout,
        request_timeout: limits.request_timeout,
        read_timeout: limits.read_timeout,
        settings_timeout: limits.settings_timeout,
        telemetry_streams_max: limits.telemetry_streams_max as usize,
        drain_timeout: listen.drain_timeout,
        auto_create_topics: creation.topics,
        queue_count_default: config.topics.auto_create_queues,
        auto_create_groups: creation.groups,
        max_attempts_default: config.groups.max_attempts,
        memory_max: limits
            .memory
            .map_or_else(machine::memory_for_clients, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
        memory_per_peer_percent: limits.memory_per_peer.0,
        invisible_duration_min: limits.invisible_duration_min,
        ..ProxyConfig::default()
    })
}

/// The operator's certificate, or our own.
fn tls_config(listen: &Listen, dir: &Path) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (certificate, key, pem) = match (&listen.tls_certificate, &listen.tls_key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), certificate::read(certificate, key)?),
        _ => {
            let pem = certificate::read_or_make(dir, || Ok(tls::self_signed(names(listen))?))?;
            (dir.join(certificate::CERTIFICATE), dir.join(certificate::KEY), pem)
        }
    };
    tls::server_config(&pem)
        .with_context(|| format!("cannot use the certificate {} with the key {}", certificate.display(), key.display()))
}

/// Names under which clients may reach a server whose certificate is made by itself.
fn names(listen: &Listen) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(listen.advertised.iter().map(|address| address.host.clone()));
    let ip = listen.address.ip();
    if !ip.is_unspecified() && !ip.is_loopback() {
        names.push(ip.to_string());
    }
    names
}

/// As many connections as are wanted and the limit of open files allows.
fn connections_max(wanted: usize) -> usize {
    let possible = machine::files_max().saturating_sub(FILES_RESERVE).max(1);
    if wanted > possible {
        tracing::warn!(
            wanted,
            possible,
            "the limit of open files allows fewer connections than listen.connections_max"
        );
    }
    wanted.min(possible)
}

fn explain_build(config: &Config, error: BuildError) -> anyhow::Error {
    let (address, error) = match error {
        BuildError::AddressInUse { address } => (address, io::ErrorKind::AddrInUse.into()),
        BuildError::AddressForbidden { address } => (address, io::ErrorKind::PermissionDenied.into()),
        BuildError::AddressNotOurs { address } => (address, io::ErrorKind::AddrNotAvailable.into()),
        BuildError::Bind { address, source } => (address, source),
    };
    let flag = if address == config.admin.listen { "--admin-listen" } else { "--listen" };
    port::explain(address, flag, &error).into()
}
