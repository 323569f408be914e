//! The command line: what can be asked of the `gantry` binary, and which command answers it.
//!
//! Exit codes: 0 done, 1 failed (or what was looked at is not whole), 2 wrongly asked (command line or configuration). With
//! 2, trying again cannot help.

use crate::admin::AdminArgs;
use crate::cluster::{self, ClusterCommand};
use crate::config::{self, Environment, Mistakes, OptionFlags, Role};
use crate::exit::Failure;
use crate::inspect::{self, InspectArgs};
use crate::process;
use crate::repair::{self, RepairArgs};
use crate::roles::{ControllerRole, ProxyRole, Standalone, StoreRole};
use crate::{admin, env, output, panics, runtime};
use clap::{Args, Parser, Subcommand};
use gantry_bench::BenchArgs;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// A message server speaking the RocketMQ 5 gRPC protocol.
///
/// Without a command: `gantry standalone`.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    standalone: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all tiers in one process.
    Standalone(ConfigArgs),
    /// Run a proxy of a cluster: what clients connect to.
    Proxy(ConfigArgs),
    /// Run a store of a cluster: where the messages of a store group are.
    Store(ConfigArgs),
    /// Run a member of a cluster's controller: where topics, groups and members are.
    Controller(ConfigArgs),
    /// Run a whole cluster on this machine.
    #[command(subcommand, disable_help_subcommand = true)]
    Cluster(ClusterCommand),
    /// Look at the configuration.
    #[command(subcommand, disable_help_subcommand = true)]
    Config(ConfigCommand),
    /// Manage topics, consumer groups and the cluster of a running server.
    Admin(AdminArgs),
    /// Look at the files of a data folder without starting a server. Reads only.
    Inspect(InspectArgs),
    /// Decide about a store's folder that the server does not open. Changes nothing without --yes.
    Repair(RepairArgs),
    /// Measure a server with load from this machine.
    Bench(BenchArgs),
}

/// The layers of the configuration that the command line brings.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML). `gantry config print --defaults` shows what it may hold.
    #[arg(long, value_name = "FILE", env = "GANTRY_CONFIG", hide_env_values = true)]
    config: Option<OsString>,
    #[command(flatten)]
    options: OptionFlags,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration in force, each value with where it comes from.
    Print {
        /// Print the commented reference file instead: every option with its default.
        #[arg(long)]
        defaults: bool,
        #[command(flatten)]
        args: ConfigArgs,
    },
}

/// Carries out what was asked and reports failure on standard error.
pub fn run(cli: Cli) -> ExitCode {
    carry_out(cli).map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => run_server::<Standalone>(&cli.standalone, Role::Standalone),
        Some(Command::Standalone(args)) => run_server::<Standalone>(&args, Role::Standalone),
        Some(Command::Proxy(args)) => run_server::<ProxyRole>(&args, Role::Proxy),
        Some(Command::Store(args)) => run_server::<StoreRole>(&args, Role::Store),
        Some(Command::Controller(args)) => run_server::<ControllerRole>(&args, Role::Controller),
        Some(Command::Cluster(command)) => Ok(cluster::run(command)?),
        Some(Command::Config(ConfigCommand::Print { defaults: true, .. })) => print(&config::print_reference()),
        Some(Command::Config(ConfigCommand::Print { defaults: false, args })) => {
            print(&config::print_effective(&args.load(Role::Standalone)?.effective))
        }
        Some(Command::Admin(args)) => Ok(admin::run(args)?),
        Some(Command::Inspect(args)) => {
            panics::hide_of_database();
            inspect::run(args)
        }
        Some(Command::Repair(args)) => {
            panics::hide_of_database();
            repair::run(args)
        }
        Some(Command::Bench(args)) => bench(args),
    }
}

fn run_server<R: process::Role>(args: &ConfigArgs, role: Role) -> Result<(), Failure> {
    runtime::keep_pages_small();
    let loaded = args.load(role)?;
    Ok(runtime::block_on_server(process::run::<R>(loaded))?)
}

/// Prints the result also of a run that failed.
fn bench(args: BenchArgs) -> Result<(), Failure> {
    let outcome = gantry_bench::run(args, &env::system())?;
    print(&outcome.text)?;
    match outcome.failures.as_slice() {
        [] => Ok(()),
        failures => Err(anyhow::anyhow!("the benchmark found {}", failures.join(", ")).into()),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    output::print(text).map_err(|error| Failure::Failed(error.into()))
}

impl ConfigArgs {
    fn load(&self, role: Role) -> Result<config::Loaded, Mistakes> {
        // An empty variable counts as not set, as with options.
        let file = self.config.as_ref().filter(|file| !file.is_empty()).map(Path::new);
        config::load(file, &Environment::of_process(), &self.options, role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_gantry_is_standalone_and_takes_its_flags() {
        let bare = Cli::try_parse_from(["gantry", "--listen", "0.0.0.0:1", "--data", "/d"]).unwrap();
        assert!(bare.command.is_none());
        assert!(matches!(
            Cli::try_parse_from(["gantry", "standalone", "--flush", "async"]).unwrap().command,
            Some(Command::Standalone(_))
        ));
        assert!(Cli::try_parse_from(["gantry", "--listen", "0.0.0.0:1", "standalone"]).is_err());
    }

    #[test]
    fn short_help_is_short_and_long_help_names_everything() {
        let mut command = Cli::command();
        let standalone = command.find_subcommand_mut("standalone").unwrap();
        let short = standalone.render_help().to_string();
        for flag in ["--config", "--listen <", "--ops-listen", "--data", "--flush", "--log-level", "--log-format"] {
            assert!(short.contains(flag), "{flag} is missing in:\n{short}");
        }
        assert!(!short.contains("--store-retention"), "{short}");
        let long = standalone.render_long_help().to_string();
        for section in config::SECTIONS {
            for spec in section.options {
                assert!(long.contains(&format!("--{} ", spec.flag())), "{} is missing", spec.flag());
                assert!(long.contains(&format!("[env: {}]", spec.variable())), "{} is missing", spec.variable());
            }
        }
    }
}
