//! All tiers in one process: the composition root. Everything is built here, in one readable order, and nothing is
//! reachable through a static.
//!
//! Start: logs and metrics, the operators' port, the data folder, controller, metadata, store, proxy. Stop is the other way
//! round, each step with a deadline: the proxy drains, the store writes what it took, the controller closes. Each tier gets
//! the objects below it behind their contracts.
//!
//! Must always hold: the proxy serves nobody before the metadata is known and the store is open, and the store outlives the
//! proxy's last call. Long-lived tasks are in [`Tasks`]; if one of them ends by itself, the process stops in the same order
//! and reports it. The tiers own tasks of their own.

use crate::certificate;
use crate::config::{Config, FlushMode, Listen, Loaded, Store as StoreOptions};
use crate::data_dir::DataDir;
use crate::ops::{Health, OpsServer, OpsState, Phase};
use crate::signals::{self, StopSignals};
use crate::tasks::Tasks;
use crate::{env, panics, port, telemetry};
use anyhow::{Context as _, anyhow};
use futures_util::{FutureExt as _, StreamExt as _};
use gantry_controller::{Controller, ControllerConfig};
use gantry_proto::contract::{MetadataService as _, follow_metadata};
use gantry_proto::env::Env;
use gantry_proto::model::{MetadataVersion, MetadataView};
use gantry_proxy::{AdvertisedEndpoints, BuildError, Proxy, ProxyConfig, ProxyDeps, tls};
use gantry_store::{Flush, RetentionPolicy, Store, StoreConfig};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Beyond the proxy's own deadline for calls in flight: to cut off what is left and to hand deliveries back.
const PROXY_GRACE: Duration = Duration::from_secs(3);
/// How long the store may take to write what it took and to save its progress.
const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// How long the controller may take to finish what it is writing.
const CONTROLLER_DEADLINE: Duration = Duration::from_secs(5);

/// The proxy's name among the tasks: the one that is asked to end.
const PROXY_TASK: &str = "the proxy";

/// Runs until a signal or a failure, and then stops in order. A second signal ends the process at once.
pub async fn run(loaded: Loaded) -> anyhow::Result<()> {
    let start = Instant::now();
    let config = loaded.config;
    telemetry::start_logs(&config.log)?;
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data.dir.display(), "starting");

    let mut server = tokio::select! {
        server = Server::start(&config) => server?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    server.health.enter(Phase::Ready);
    tracing::info!(
        listen = %server.listen,
        ops = %server.ops,
        data_dir = %config.data.dir.display(),
        flush = %config.store.flush,
        start_ms = start.elapsed().as_millis() as u64,
        "ready"
    );

    let reason = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        failure = server.tasks.unexpected_end() => {
            tracing::error!(error = format!("{failure:#}"), "stopping");
            Err(failure)
        }
    };
    let stopped = tokio::select! {
        stopped = server.stop(&config.listen) => stopped,
        signal = signals.next() => {
            tracing::warn!(signal, "told to stop a second time: not finishing what was begun");
            signals::exit_at_once()
        }
    };
    tracing::info!("stopped");
    reason.and(stopped)
}

/// A server that takes clients.
struct Server {
    health: Health,
    tasks: Tasks,
    listen: SocketAddr,
    ops: SocketAddr,
    stop_proxy: CancellationToken,
    store: Arc<Store>,
    controller: Arc<Controller>,
}

impl Server {
    async fn start(config: &Config) -> anyhow::Result<Server> {
        // A taken port is found now, not after a long recovery.
        port::probe(config.listen.address, "--listen")?;
        let metrics = telemetry::start_metrics()?;
        panics::report();
        let health = Health::default();
        let mut tasks = Tasks::default();
        let ops = {
            let state = OpsState { health: health.clone(), metrics: metrics.clone() };
            let address = config.ops.address;
            let ops = OpsServer::bind(address, state).await.map_err(|e| port::explain(address, "--ops-listen", &e))?;
            let local_addr = ops.local_addr()?;
            tasks.spawn("the operators' port", ops.serve().map(Ok));
            tasks.spawn("the upkeep of metrics", telemetry::keep_metrics_small(metrics).map(Ok));
            local_addr
        };

        let env = env::system();
        let data = DataDir::prepare(&config.data.dir)?;
        let tls = tls_config(&config.listen, &data.tls)?;

        let controller = Arc::new(open_controller(data.controller, env.clone()).await?);
        let view = Arc::new(MetadataView::default());
        let mut changes = controller.watch(MetadataVersion::default()).await?;
        let everything = changes.next().await.context("the controller ended while it started")?;
        view.apply(everything.version, &everything.changes);
        tasks.spawn("the follower of the metadata", {
            let view = view.clone();
            async move { follow_metadata(changes, &view).map(Ok).await }
        });

        let store = open_store(store_config(&config.store, data.store), env.clone(), view.clone()).await?;
        health.check_with({
            let store = store.clone();
            move || store.health().map_err(|error| error.to_string())
        });

        let deps = ProxyDeps { env, metadata: controller.clone(), view, store: store.clone(), tls: Some(tls) };
        let proxy = Proxy::build(proxy_config(config)?, deps).map_err(explain_build)?;
        let listen = proxy.local_addr();
        let stop_proxy = CancellationToken::new();
        let stop = stop_proxy.clone();
        tasks.spawn(PROXY_TASK, async move { Ok(proxy.serve(stop.cancelled_owned()).await?) });
        Ok(Server { health, tasks, listen, ops, stop_proxy, store, controller })
    }

    /// Stops the tiers, upper ones first. Every tier is stopped, whatever became of those before it; the first failure is
    /// the result.
    async fn stop(&mut self, listen: &Listen) -> anyhow::Result<()> {
        self.health.enter(Phase::Draining);
        self.stop_proxy.cancel();
        let proxy = within(listen.drain_timeout + PROXY_GRACE, "the proxy", self.tasks.end_of(PROXY_TASK)).await;
        let store = async { self.store.shutdown().await.context("the store could not finish") };
        let store = within(STORE_DEADLINE, "the store", store).await;
        let controller = self.controller.shutdown().map(Ok);
        let controller = within(CONTROLLER_DEADLINE, "the controller", controller).await;
        proxy.and(store).and(controller)
    }
}

async fn within(
    deadline: Duration,
    who: &str,
    stopping: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let late = |_| Err(anyhow!("{who} did not stop within {}", humantime::format_duration(deadline)));
    timeout(deadline, stopping).await.unwrap_or_else(late)
}

/// Opening reads files: on a thread of its own, so that the operators' port answers meanwhile.
async fn open_controller(dir: PathBuf, env: Env) -> anyhow::Result<Controller> {
    let opened = spawn_blocking(move || Controller::open(ControllerConfig::new(dir), env)).await?;
    opened.context("cannot open the metadata")
}

async fn open_store(config: StoreConfig, env: Env, view: Arc<MetadataView>) -> anyhow::Result<Arc<Store>> {
    let opened = spawn_blocking(move || Store::open(config, env, view)).await?;
    opened.context("cannot open the store")
}

fn store_config(options: &StoreOptions, dir: PathBuf) -> StoreConfig {
    StoreConfig {
        flush: match options.flush {
            FlushMode::Sync => Flush::Sync,
            FlushMode::Async => Flush::Async,
        },
        segment_bytes: options.segment_bytes.0,
        retention: RetentionPolicy {
            age: options.retention,
            bytes_max: options.retention_bytes.map(|size| size.0),
            disk_used_percent: options.retention_watermark.0,
        },
        disk_full_percent: options.disk_watermark.0,
        checkpoint_interval: options.checkpoint_interval,
        dedup_window: options.dedup_window,
        inflight_max: options.inflight_max as usize,
        ..StoreConfig::new(dir)
    }
}

fn proxy_config(config: &Config) -> anyhow::Result<ProxyConfig> {
    let listen = &config.listen;
    let advertised = listen.advertised.as_ref().map(|address| AdvertisedEndpoints::parse(&address.to_string()));
    Ok(ProxyConfig {
        listen: listen.address,
        advertised_endpoints: advertised.transpose().context("listen.advertised")?,
        connections_max: listen.connections_max as usize,
        drain_timeout: listen.drain_timeout,
        auto_create_topics: config.topics.auto_create,
        queue_count_default: config.topics.auto_create_queues,
        auto_create_groups: config.groups.auto_create,
        max_attempts_default: config.groups.max_attempts,
        send_bytes_inflight_max: usize::try_from(config.limits.inflight_bytes_max.0).unwrap_or(usize::MAX),
        invisible_duration_min: config.limits.invisible_duration_min,
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

fn explain_build(error: BuildError) -> anyhow::Error {
    let (address, error) = match error {
        BuildError::AddressInUse { address } => (address, io::ErrorKind::AddrInUse.into()),
        BuildError::AddressForbidden { address } => (address, io::ErrorKind::PermissionDenied.into()),
        BuildError::AddressNotOurs { address } => (address, io::ErrorKind::AddrNotAvailable.into()),
        BuildError::Bind { address, source } => (address, source),
    };
    port::explain(address, "--listen", &error).into()
}
