//! The port for operators: `/livez`, `/readyz` and `/metrics` over plain HTTP/1.
//!
//! Owns its listener and connections. The composition root binds it first, so that a probe gets an answer during a long
//! recovery, and stops it last. Nothing here changes state; every connection has a deadline and their number is bounded.

mod health;
mod server;

pub use health::{Health, Phase};
pub use server::{OpsServer, OpsState};
