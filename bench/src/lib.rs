//! `gantry bench`: a load generator for any server that speaks the RocketMQ 5 gRPC protocol.
//!
//! It is a client like others: of Gantry it uses only the wire types, the names' rules and the machine that it is passed. A run goes through these files: [`args`] (what is wanted),
//! [`client`] (connections and calls), [`schedule`] and [`timing`] (what is due when, and what is measured), one runner
//! ([`produce`], [`consume`], [`end_to_end`]), which fills [`stats`] and the [`tracker`] of arrived messages, and
//! [`report`] (what came of it). [`body`] is what messages carry.
//!
//! Must always hold: latency counts from the time a call was meant to begin, so a stalled server cannot slow the measuring
//! down; every message is accounted for by its sequence number; every task is awaited by whoever started it and every
//! wait has a deadline.

mod args;
mod body;
mod client;
mod clock;
mod consume;
mod end_to_end;
mod produce;
mod progress;
mod report;
mod run;
mod schedule;
mod stats;
mod stop;
mod timer;
mod timing;
mod tracker;

pub use args::{BenchArgs, WrongFlags};

use anyhow::Context as _;
use args::Command;
use gantry_proto::env::Env;
use parking_lot::Mutex;
use progress::ProgressOutput;
use report::Report;
use run::Run;
use std::io::{IsTerminal as _, stderr};
use std::sync::Arc;
use std::thread::available_parallelism;
use stop::{CtrlC, Stop};
use tokio::task::JoinError;

/// What a run came to.
pub struct Outcome {
    /// The result, as it was asked for.
    pub text: String,
    /// Why the run counts as failed: errors, lost or corrupt messages.
    pub failures: Vec<String>,
}

/// Carries a benchmark out. Flags that contradict one another are [`WrongFlags`].
pub fn run(args: BenchArgs, env: &Env) -> anyhow::Result<Outcome> {
    let command = args.command;
    command.check()?;
    let common = command.common();
    let (format, progress) = (common.output, progress_output(common.quiet));
    let cores = available_parallelism().map_or(1, usize::from);
    let threads = common.threads.map_or(cores, |threads| threads as usize);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .thread_name("gantry-bench")
        .build()
        .context("cannot start the threads of the load generator")?;
    let report = runtime.block_on(async {
        let stop = Stop::default();
        let _ctrl_c = CtrlC::asks(stop.clone());
        execute(&command, env, stop, progress).await
    })?;
    Ok(Outcome { text: report.render(format)?, failures: report.failures() })
}

async fn execute(command: &Command, env: &Env, stop: Stop, progress: ProgressOutput) -> anyhow::Result<Report> {
    let run = Run::new(command, env, stop, progress);
    run.prepare(command).await?;
    match command {
        Command::Produce(args) => produce::run(&run, args).await,
        Command::Consume(args) => consume::run(&run, args).await,
        Command::EndToEnd(args) => end_to_end::run(&run, args).await,
    }
}

/// What a task returned. Tasks are never aborted, so one that did not end has panicked, and then we do too: its part of
/// the result would be missing.
fn joined<T>(task: Result<T, JoinError>) -> T {
    task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn progress_output(quiet: bool) -> ProgressOutput {
    match quiet {
        true => ProgressOutput::Quiet,
        false if stderr().is_terminal() => ProgressOutput::Terminal(Arc::new(Mutex::new(stderr()))),
        false => ProgressOutput::Lines(Arc::new(Mutex::new(stderr()))),
    }
}

#[cfg(test)]
mod tests;
