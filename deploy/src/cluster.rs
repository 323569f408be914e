//! `gantry cluster local`: a cluster on one machine, each process a child of this one, for trying out what happens when one
//! of them is killed.
//!
//! It chooses ports and folders, makes the secret that the processes share, starts them, passes on what they log, and
//! starts again whichever ends: what an orchestrator does with a real cluster.

mod child;
mod layout;

use crate::{output, runtime, signals};
use anyhow::Context as _;
use child::Child;
use clap::{Args, Subcommand};
use layout::Layout;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Run a cluster on this machine, to try it out.
    Local(LocalArgs),
}

/// The shape of a local cluster.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// Proxies: what clients connect to.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    proxies: u16,
    /// Store groups: where messages are. More can be added later by running the command again with a larger number.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    stores: u16,
    /// Members of the controller: 1, 3 or 5. Fixed by the first start in a data folder.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = parse_controllers)]
    controllers: u16,
    /// Where the first proxy listens. All other ports are the hundred behind it.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Folder for the data of all processes. Created when missing.
    #[arg(long, value_name = "PATH", default_value = "gantry-cluster")]
    data: PathBuf,
    /// When a change is acknowledged: see `store.flush`.
    #[arg(long, value_name = "sync|async", default_value = "sync")]
    flush: String,
}

fn parse_controllers(text: &str) -> Result<u16, String> {
    let odd = |n: &u16| matches!(n, 1 | 3 | 5);
    text.parse().ok().filter(odd).ok_or_else(|| "choose 1, 3 or 5: an even number survives no more failures".to_owned())
}

/// Longer than any process takes to drain and stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Controllers elect a leader, stores join, proxies find both.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Carries the command out.
pub fn run(command: ClusterCommand) -> anyhow::Result<()> {
    let ClusterCommand::Local(args) = command;
    runtime::block_on_client(run_local(args))
}

async fn run_local(args: LocalArgs) -> anyhow::Result<()> {
    let mut signals = signals::StopSignals::listen().context("cannot listen for signals")?;
    let layout = Layout::plan(&args)?;
    layout.prepare()?;

    let stop = CancellationToken::new();
    let mut children = JoinSet::new();
    for process in layout.processes() {
        children.spawn(Child::new(process.clone()).keep_running(stop.clone()));
    }
    let ready = async {
        for process in layout.processes() {
            child::await_ready(process.ops).await;
        }
    };
    let stopped_early = tokio::select! {
        ready = timeout(READY_DEADLINE, ready) => {
            ready.context("the cluster did not become ready within a minute; see what its processes say above")?;
            false
        }
        _ = signals.next() => true,
    };
    if !stopped_early {
        output::print(&layout.describe())?;
        signals.next().await;
    }
    stop.cancel();
    let all = async { while children.join_next().await.is_some() {} };
    tokio::select! {
        ended = timeout(STOP_DEADLINE, all) => ended.context("some processes did not stop in time and were killed")?,
        _ = signals.next() => {}
    }
    Ok(())
}
