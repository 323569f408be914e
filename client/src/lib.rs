//! The client's side of the RocketMQ 5 gRPC protocol: a connection, who the client is, and its calls.
//!
//! The load generator, the simulation's clients and the proxy's tests speak through it. It only says and hears: whoever
//! uses it dials, passes the stream in, and decides what to do when a call fails. No call is repeated, no connection made
//! again.

mod call;
mod connection;
mod failure;
mod identity;
mod telemetry;
mod wire;

pub use call::{call, receive};
pub use connection::{Connection, Http2Builder, Messaging};
pub use failure::{Failure, check};
pub use identity::{Agent, Identity};
pub use telemetry::Telemetry;
pub use wire::{endpoints, resource, tags, to_wire};
