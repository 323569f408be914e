//! `gantry`: see the library's documentation.

use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gantry_deploy::cli::run(gantry_deploy::cli::Cli::parse())
}
