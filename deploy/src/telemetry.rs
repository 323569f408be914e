//! Logs and metrics of this process.

use crate::config::{Log, LogFormat};
use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::{self, IsTerminal as _};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error from now on.
pub fn start_logs(log: &Log) -> anyhow::Result<()> {
    // The steps of every election are for those who ask for them. What was asked for stands behind, and wins.
    let directives = format!("{QUIET},{}", log.level.as_str());
    let filter = EnvFilter::try_new(directives).context("log.level")?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Libraries that say more at a level than we do: Raft warns of every peer that is away, and so do we, once.
const QUIET: &str = "openraft=error";

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const HOUR: f64 = 3600.0;

/// Histogram bounds by the beginning of a metric's name: those of the reference server, which dashboards know.
const REFERENCE_BOUNDS: [(&str, &[f64]); 6] = [
    ("rocketmq_message_size", &[KIB, 4.0 * KIB, 512.0 * KIB, MIB, 2.0 * MIB, 4.0 * MIB]),
    ("rocketmq_topic_create_execution_time", &[10.0, 100.0, 1000.0, 3000.0, 5000.0]),
    ("rocketmq_consumer_group_create_execution_time", &[10.0, 100.0, 1000.0, 3000.0, 5000.0]),
    ("rocketmq_rpc_latency", &[1.0, 3.0, 5.0, 7.0, 10.0, 100.0, 1000.0, 2000.0, 3000.0]),
    ("rocketmq_finish_message_latency", &[5e3, 60e3, 600e3, 1e3 * HOUR, 12e3 * HOUR, 24e3 * HOUR]),
    ("rocketmq_delay_message_latency", &[60.0, 600.0, HOUR, 12.0 * HOUR, 24.0 * HOUR, 72.0 * HOUR]),
];

/// Histogram bounds of our own metrics, by the end of their names: the unit.
const UNIT_BOUNDS: [(&str, &[f64]); 2] = [
    ("_seconds", &[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0]),
    ("_bytes", &[KIB, 4.0 * KIB, 16.0 * KIB, 64.0 * KIB, 256.0 * KIB, MIB, 4.0 * MIB]),
];

/// Makes this process record metrics from now on. The handle renders them.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for (prefix, bounds) in REFERENCE_BOUNDS {
        builder = builder.set_buckets_for_metric(Matcher::Prefix(prefix.to_owned()), bounds)?;
    }
    for (suffix, bounds) in UNIT_BOUNDS {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)?;
    }
    let handle = builder.install_recorder().context("cannot start recording metrics")?;
    metrics::describe_gauge!("gantry_build_info", "1; the label says which version runs");
    metrics::gauge!("gantry_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// How often recorded histogram values are moved into their buckets; until then each takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps recorded metrics small. Never ends.
pub async fn keep_metrics_small(metrics: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}
