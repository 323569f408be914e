//! `gantry-sim`: see [`gantry_simulation`].

mod machine;

use clap::Parser as _;
use gantry_simulation::outside;
use gantry_simulation::runner::{Args, run_all, run_here};
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.here() {
        outside::close(args.seed());
        run_here(&args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !machine::fix_addresses() {
        eprintln!("addresses cannot be fixed here: runs of one seed may differ where something hashes addresses");
    }
    Ok(if run_all(&args)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
