//! Connections between peers: HTTP/2 through the `Network` that is passed in, with TLS if the credentials are certificates.
//!
//! [`Dialer`] opens connections, [`Peer`] keeps one to an address for unary calls, [`PeerServer`] accepts them. Both ends
//! ping: a peer that vanished is noticed after [`PING_INTERVAL`] + [`PING_TIMEOUT`].

mod channel;
mod dialer;
mod introduction;
mod peer;
mod retry;
mod server;
mod services;
mod tasks;

pub(crate) use channel::Channel;
pub(crate) use dialer::Dialer;
pub(crate) use peer::{CallFailure, Peer};
pub(crate) use retry::Retry;
pub use server::PeerServer;
pub(crate) use server::{Connected, Draining};
pub(crate) use services::CONSENSUS_BYTES_MAX;
pub use services::PeerServices;

use std::time::Duration;

/// How long making a connection may take, TLS handshake included.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A connection whose ping was not answered within this time is dead.
pub const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of one stream that may be under way: a few of the largest replies.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of one connection that may be under way.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Large frames: batches are written and read with few headers between.
const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;
/// Bytes of one stream that wait for the socket.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams that the other end reset are not remembered: for how long would depend on the machine's clock.
const RESET_STREAMS_REMEMBERED: usize = 0;
