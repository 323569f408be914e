//! Connections between peers: HTTP/2 over whatever the passed `Network` gives, with TLS when the credentials ask for it.
//!
//! [`Dialer`] opens one, [`Peer`] keeps one to an address for unary calls, [`PeerServer`] takes them. Both ends ping: a
//! peer that vanished without a word is noticed after [`PING_INTERVAL`] + [`PING_TIMEOUT`].

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

/// A connection, with its TLS handshake, is made within this time or not at all.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection is probed when nothing else was heard on it.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A connection whose probe was not answered within this time is dead.
pub const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of one stream that may be under way: a few of the largest replies.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of one connection that may be under way.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Large frames: batches are written and read with few headers between.
const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;
/// Bytes of one stream that wait for the socket.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams that the other side reset are not remembered: for how long would depend on the machine's clock.
const RESET_STREAMS_REMEMBERED: usize = 0;
