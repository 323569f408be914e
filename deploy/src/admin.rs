//! `gantry admin`: the operator's client for topics, consumer groups and the cluster, over the server's `gantry.admin.v1` API.
//!
//! Each command is one call (listing: one per page) and prints one result, as a table or as one JSON document whose field
//! names stay.

mod client;
mod cluster;
mod group;
mod render;
mod topic;

pub use render::OutputFormat;

use crate::runtime;
use clap::{Args, Subcommand};
use client::Client;
use gantry_proto::model::HostPort;
use std::time::Duration;

/// What to do, on which server.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    resource: Resource,
    /// The server's address for operators (its admin.listen).
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8085",
        env = "GANTRY_ENDPOINT",
        hide_env_values = true
    )]
    endpoint: HostPort,
    /// How long to wait for the server.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How to print the result.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum Resource {
    /// Named streams of messages.
    #[command(subcommand, disable_help_subcommand = true)]
    Topic(topic::TopicCommand),
    /// Proxies, stores and controllers.
    #[command(subcommand, disable_help_subcommand = true)]
    Cluster(cluster::ClusterCommand),
    /// Consumers that share progress.
    #[command(subcommand, disable_help_subcommand = true)]
    Group(group::GroupCommand),
}

/// Carries the command out and prints its result.
pub fn run(args: AdminArgs) -> anyhow::Result<()> {
    runtime::block_on_client(async {
        let client = Client::connect(&args.endpoint, args.timeout).await?;
        match args.resource {
            Resource::Topic(command) => topic::run(command, client, args.output).await,
            Resource::Cluster(command) => cluster::run(command, client, args.output).await,
            Resource::Group(command) => group::run(command, client, args.output).await,
        }
    })
}

#[cfg(test)]
mod tests;
