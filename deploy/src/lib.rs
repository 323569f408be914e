//! The `gantry` binary: reads the configuration, builds the tiers, runs them and stops them in order. The only crate that
//! sees all tiers.
//!
//! - [`cli`]: what can be asked. [`exit`]: the exit codes.
//! - [`config`]: every option, its layers and mistakes.
//! - [`roles`]: the composition roots: what each role is made of. [`process`]: what all of them have in common.
//! - [`cluster`]: a cluster of processes on this machine, for trying out.
//! - [`ops`]: health and metrics for operators.
//! - [`admin`]: the operator's client. [`inspect`] and
//!   [`repair`]: the files of a data folder, without a server.
//! - [`data_dir`], [`lost_controller`], [`beside`], [`certificate`], [`port`]: what a tier needs of the machine before it starts.
//! - [`env`]: the real clock, randomness, files, sockets and threads, passed to every tier.
//! - [`runtime`], [`tasks`], [`signals`], [`panics`]: threads, who runs on them, and what ends them.
//! - [`telemetry`]: logs and metrics.
//!
//! `gantry bench` is the crate `gantry-bench`.

pub mod admin;
pub mod beside;
pub mod certificate;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod data_dir;
pub mod env;
pub mod exit;
pub mod inspect;
pub mod lost_controller;
pub mod machine;
pub mod ops;
pub mod output;
pub mod panics;
pub mod port;
pub mod process;
pub mod repair;
pub mod roles;
pub mod runtime;
pub mod signals;
pub mod tasks;
pub mod telemetry;
