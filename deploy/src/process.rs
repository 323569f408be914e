//! The life of a server process, whatever its role: logs and metrics, the operators' port, the role's start, signals, and
//! the stop in the reverse order.
//!
//! Must always hold: nothing is served before the role has started; long-lived tasks are in [`Tasks`], and if one of them
//! ends by itself the process stops in order and reports it.

use crate::config::{Config, Loaded};
use crate::ops::{Health, OpsServer, OpsState, Phase};
use crate::signals::{self, StopSignals};
use crate::tasks::Tasks;
use crate::{env, output, panics, port, runtime, telemetry};
use anyhow::{Context as _, anyhow};
use futures_util::FutureExt as _;
use gantry_proto::env::Env;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What a role builds on.
pub struct Process {
    /// The machine.
    pub env: Env,
    /// What probes are told.
    pub health: Health,
    /// Whatever must not end before the process does.
    pub tasks: Tasks,
}

/// A part that a process can play.
pub trait Role: Sized {
    /// Its name in logs.
    const NAME: &'static str;

    /// Builds it, in one readable order, until it serves.
    fn start(config: &Config, process: &mut Process) -> impl Future<Output = anyhow::Result<Self>>;

    /// Where it serves whom, for the log.
    fn address(&self) -> SocketAddr;

    /// Where it takes operators' calls, if it does.
    fn admin_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Stops what it started, upper parts first. Every part is stopped, whatever became of those before it; the first failure
    /// is the result.
    fn stop(self, config: &Config, tasks: &mut Tasks) -> impl Future<Output = anyhow::Result<()>>;
}

/// Runs until a signal or a failure, and then stops in order. A second signal ends the process at once.
pub async fn run<R: Role>(loaded: Loaded) -> anyhow::Result<()> {
    let start = Instant::now();
    let config = loaded.config;
    telemetry::start_logs(&config.log)?;
    runtime::allow_many_files();
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let data_dir = config.data.dir.display();
    tracing::info!(role = R::NAME, version = env!("CARGO_PKG_VERSION"), %data_dir, "starting");

    let mut process = Process { env: env::system(), health: Health::default(), tasks: Tasks::default() };
    let started = async {
        let ops = process.open_ops_port(&config).await?;
        Ok::<_, anyhow::Error>((ops, R::start(&config, &mut process).await?))
    };
    let (ops, role) = tokio::select! {
        started = started => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    process.health.enter(Phase::Ready);
    let (listen, start_ms) = (role.address(), start.elapsed().as_millis() as u64);
    let admin = role.admin_address().map(tracing::field::display);
    tracing::info!(role = R::NAME, %listen, admin, %ops, %data_dir, flush = %config.store.flush, start_ms, "ready");

    let reason = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        failure = process.tasks.unexpected_end() => {
            tracing::error!(error = output::in_one_line(&failure), "stopping");
            // Said once: whoever reads the last line finds the other.
            Err(anyhow!("a part of the server failed: see the line above that says \"stopping\""))
        }
    };
    process.health.enter(Phase::Draining);
    let asked = Instant::now();
    let stopped = tokio::select! {
        stopped = role.stop(&config, &mut process.tasks) => stopped,
        signal = signals.insisted(asked) => {
            tracing::warn!(signal, "told to stop a second time: not finishing what was begun");
            signals::exit_at_once()
        }
    };
    tracing::info!("stopped");
    reason.and(stopped)
}

impl Process {
    async fn open_ops_port(&mut self, config: &Config) -> anyhow::Result<SocketAddr> {
        let metrics = telemetry::start_metrics()?;
        panics::report();
        let state = OpsState { health: self.health.clone(), metrics: metrics.clone() };
        let address = config.ops.address;
        let ops = OpsServer::bind(address, state).await.map_err(|e| port::explain(address, "--ops-listen", &e))?;
        let local_addr = ops.local_addr()?;
        self.tasks.spawn("the operators' port", ops.serve().map(Ok));
        self.tasks.spawn("the upkeep of metrics", telemetry::keep_metrics_small(metrics).map(Ok));
        Ok(local_addr)
    }
}

/// Gives a part so long to stop, and no longer.
pub async fn within(
    deadline: Duration,
    who: &str,
    stopping: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let late = |_| Err(anyhow!("{who} did not stop within {}", humantime::format_duration(deadline)));
    timeout(deadline, stopping).await.unwrap_or_else(late)
}
