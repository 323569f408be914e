//! `gantry bench`: a load generator for any server that speaks the RocketMQ 5 gRPC protocol.
//!
//! It is a client like others: of Gantry it uses the wire types and the rules of names. A run goes through these files:
//! [`flags`] (what is wanted), [`run`] (prepares it, starts [`producers`] and [`consumers`], waits for its end), [`client`]
//! (connections and calls), [`schedule`] and [`timing`] (what is due when, and what is measured), [`stats`] and
//! [`tracker`] (what calls did, which messages came), [`report`] (what came of it). [`body`] is what messages carry.
//!
//! Must always hold: latency counts from the time a call was meant to begin, so a stalled server cannot slow the measuring
//! down; every message is accounted for by its sequence number; every task is awaited by whoever started it (and a panic of
//! one is a panic of the run: its part of the result would be missing); every wait has a deadline.

mod body;
mod client;
mod clock;
mod consumers;
mod errors;
mod flags;
mod producers;
mod progress;
mod report;
mod run;
mod schedule;
mod stats;
mod stop;
mod timer;
mod timing;
mod tracker;

pub use flags::{BenchArgs, WrongFlags};

use anyhow::Context as _;
use gantry_proto::env::Env;
use progress::ProgressOutput;
use run::Run;
use std::thread::available_parallelism;
use stop::Stop;
use tokio_util::task::AbortOnDropHandle;

pub struct Outcome {
    /// The result, as it was asked for.
    pub text: String,
    /// Why the run counts as failed: errors, lost or corrupt messages.
    pub failures: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    WrongFlags(#[from] WrongFlags),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Carries a benchmark out.
pub fn run(args: BenchArgs, env: &Env) -> Result<Outcome, Error> {
    let plan = args.plan()?;
    let format = plan.target.output;
    let progress = ProgressOutput::to_stderr(plan.target.quiet);
    let threads = plan.target.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), |n| n as usize);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .thread_name("gantry-bench")
        .build()
        .context("cannot start the threads of the load generator")?;
    let report = runtime.block_on(async {
        let stop = Stop::default();
        let asked = stop.clone();
        let _ctrl_c = AbortOnDropHandle::new(tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                asked.ask();
            }
        }));
        Run::new(plan, env, stop, progress).execute().await
    })?;
    Ok(Outcome { text: report.render(format)?, failures: report.failures })
}

#[cfg(test)]
mod tests;
