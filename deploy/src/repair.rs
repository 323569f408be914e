//! `gantry repair`: what an operator decides about a store's folder that the server does not open. Without `--yes` it says
//! what it would do and what would be lost, and changes nothing.

use crate::env;
use crate::inspect::store_dir;
use crate::output;
use clap::{Args, Subcommand};
use gantry_proto::model::StoreGroupName;
use gantry_store::repair::Repair;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What to repair.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: What,
    /// Do it. Otherwise only say what would be done, and what would be lost.
    #[arg(long, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Give a folder its identity back: identity and identity.copy are lost or damaged.
    Identity {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
        /// Name of the store group that it belongs to.
        #[arg(long, value_name = "NAME", value_parser = parse_group)]
        store_group: Option<StoreGroupName>,
    },
    /// Go on without a damaged checkpoint: the next start makes it again from the log, if all of the log is there.
    Checkpoint {
        /// The data folder (what --data names), or the store's folder in it.
        dir: PathBuf,
    },
}

fn parse_group(name: &str) -> Result<StoreGroupName, String> {
    StoreGroupName::parse(name).map_err(|error| error.to_string())
}

/// Thinks the repair through, and carries it out if that was asked for.
pub fn run(args: RepairArgs) -> anyhow::Result<()> {
    let env = env::system();
    let repair = match args.what {
        What::Identity { dir, store_group } => Repair::identity(&env, &store_dir(&*env.files, &dir)?, store_group),
        What::Checkpoint { dir } => Repair::checkpoint(&env, &store_dir(&*env.files, &dir)?),
    }?;
    let mut text = String::new();
    for step in &repair.steps {
        let _ = writeln!(text, "{step}.");
    }
    for lost in &repair.lost {
        let _ = writeln!(text, "{lost}.");
    }
    if args.yes {
        let copies = repair.carry_out()?;
        let _ = writeln!(text, "Done. Start the server.");
        if let Some(copies) = copies {
            let _ = writeln!(text, "What was there before is in {}.", copies.display());
        }
    } else {
        let _ = writeln!(text, "Nothing was changed: do it with --yes.");
    }
    Ok(output::print(&text)?)
}
