//! The proxy over a loopback socket, with a client that knows nothing but the protocol, in front of a store and a metadata
//! service that live in memory. The rules are those that the official clients need kept.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod admin;
mod arrivals;
mod clients;
mod cluster;
mod limits;
mod receive;
mod route;
mod send;
mod store_groups;
mod support;
mod transport;
