//! `gantry repair`: what an operator decides about a folder that the server does not open. Without `--yes` it says what it
//! would do and what would be lost, and changes nothing.

mod controller;

use crate::beside;
use crate::env;
use crate::exit::Failure;
use crate::inspect::{Format, store_dir};
use crate::output;
use clap::{Args, Subcommand};
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, LogOffset, StoreGroupName};
use gantry_store::DamagedRange;
use gantry_store::repair::{Concerned, NamedGroup, Repair, ToldBy};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What to repair.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: What,
    /// Do it. Otherwise only say what would be done, and what would be lost.
    #[arg(long, global = true)]
    yes: bool,
    /// How to print what was found and done.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Give a folder its identity back: identity and identity.copy are lost or damaged.
    Identity {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
        /// Name of the store group that it belongs to. Not needed where the controller's folder beside it knows it.
        #[arg(long, value_name = "NAME", value_parser = parse_group)]
        store_group: Option<StoreGroupName>,
        /// The name is right, although nothing here can tell.
        #[arg(long, requires = "store_group")]
        unchecked_name: bool,
    },
    /// Use a folder again after a copy of it has led: what the copy stored is not in it. The server's refusal names the epoch.
    PutBack {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
        /// The last epoch in which the copy led.
        #[arg(long, value_name = "EPOCH")]
        led: u32,
    },
    /// Give up a damaged part of the log: groups pass the messages that lay there, and the report says which they were.
    Record {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
        /// Where in the log the damaged part begins, as gantry inspect shows it.
        #[arg(long, value_name = "LOG OFFSET")]
        offset: u64,
    },
    /// Go on without a damaged checkpoint: the next start makes it again from the log, if all of the log is there.
    Checkpoint {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
        /// The log does not reach back to its beginning: go on with what it says, and lose what only the checkpoint said.
        #[arg(long)]
        accept_lost_progress: bool,
    },
    /// Make the controller's folder of a standalone server again, which is lost or damaged: from what its store knows.
    Controller(controller::ControllerArgs),
}

/// For programs.
#[derive(Serialize)]
struct Report<'a> {
    done: bool,
    steps: &'a [String],
    lost: &'a [String],
    damaged: Option<Damaged>,
    copies: Option<String>,
    #[serde(flatten)]
    made: Option<controller::Made>,
}

/// A damaged part of the log.
#[derive(Serialize)]
struct Damaged {
    from: u64,
    to: u64,
    cause: String,
    messages: Vec<Messages>,
    groups: Vec<OfGroup>,
    claims: Option<String>,
}

#[derive(Serialize)]
struct Messages {
    topic: u32,
    queue: u32,
    first_offset: u64,
    count: u64,
    told_by: &'static str,
}

#[derive(Serialize)]
struct OfGroup {
    group: u32,
    topic: u32,
    queue: u32,
    finished: u64,
    outstanding: u64,
    set_aside: u64,
    to_come: u64,
}

fn damaged((range, concerned): &(DamagedRange, Concerned)) -> Damaged {
    let messages = concerned.messages.iter().map(|lost| Messages {
        topic: lost.topic.0,
        queue: lost.queue.0,
        first_offset: lost.first.0,
        count: lost.end.0 - lost.first.0,
        told_by: match lost.told_by {
            ToldBy::Index => "index",
            ToldBy::Neighbours => "neighbours",
            ToldBy::NeighboursOfSeveral => "neighbours of several damaged parts",
            ToldBy::Checkpoint => "checkpoint",
        },
    });
    let groups = concerned.groups.iter().map(|of| OfGroup {
        group: of.group.0,
        topic: of.topic.0,
        queue: of.queue.0,
        finished: of.finished,
        outstanding: of.outstanding,
        set_aside: of.set_aside,
        to_come: of.to_come,
    });
    Damaged {
        from: range.from.0,
        to: range.to.0,
        cause: range.cause.to_string(),
        messages: messages.collect(),
        groups: groups.collect(),
        claims: concerned.claims.clone(),
    }
}

fn parse_group(name: &str) -> Result<StoreGroupName, String> {
    StoreGroupName::parse(name).map_err(|error| error.to_string())
}

/// Thinks the repair through, and carries it out if that was asked for.
pub fn run(args: RepairArgs) -> Result<(), Failure> {
    let env = env::system();
    let dir = match &args.what {
        What::Identity { dir, .. }
        | What::Checkpoint { dir, .. }
        | What::Record { dir, .. }
        | What::PutBack { dir, .. } => dir,
        What::Controller(what) => &what.dir,
    };
    let dir = store_dir(&*env.files, dir)?;
    Ok(repair(args, &env, &dir)?)
}

fn repair(args: RepairArgs, env: &Env, dir: &Path) -> anyhow::Result<()> {
    let asked = Asked { yes: args.yes, output: args.output };
    let repair = match args.what {
        What::Controller(what) => {
            let plan = controller::Plan::new(env, dir, &what)?;
            let (steps, lost) = (plan.steps.clone(), plan.lost.clone());
            let (made, copies) = plan.finish(args.yes)?;
            return asked.report(&steps, &lost, copies, None, Some(made));
        }
        What::Identity { store_group, unchecked_name, .. } => {
            let known = |folder, home| beside::home_of(&*env.files, dir, folder, home);
            Repair::identity(env, dir, &NamedGroup { said: store_group, unchecked: unchecked_name, known: &known })
        }
        What::Checkpoint { accept_lost_progress, .. } => Repair::checkpoint(env, dir, accept_lost_progress),
        What::PutBack { led, .. } => Repair::put_back(env, dir, Epoch(led)),
        What::Record { offset, .. } => Repair::record(env, dir, LogOffset(offset)),
    }?;
    let (steps, lost) = (repair.steps.clone(), repair.lost.clone());
    let damaged = repair.concerned.as_ref().map(damaged);
    let copies = if args.yes { repair.carry_out()? } else { None };
    asked.report(&steps, &lost, copies, damaged, None)
}

/// How the repair was asked for.
struct Asked {
    yes: bool,
    output: Format,
}

impl Asked {
    fn report(
        &self,
        steps: &[String],
        lost: &[String],
        copies: Option<PathBuf>,
        damaged: Option<Damaged>,
        made: Option<controller::Made>,
    ) -> anyhow::Result<()> {
        if self.output == Format::Json {
            let copies = copies.map(|copies| copies.display().to_string());
            let report = Report { done: self.yes, steps, lost, damaged, copies, made };
            return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?);
        }
        let mut text = String::new();
        for sentence in steps.iter().chain(lost) {
            let _ = writeln!(text, "{sentence}.");
        }
        if self.yes {
            let _ = writeln!(text, "Done. Start the server.");
            if let Some(copies) = copies {
                let _ = writeln!(text, "What was there before is in {}.", copies.display());
            }
        } else {
            let _ = writeln!(text, "Nothing was changed: do it with --yes.");
        }
        Ok(output::print(&text)?)
    }
}
