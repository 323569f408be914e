//! What an operator may choose about the proxy. `deploy` fills it from file, environment and flags.

use crate::connection::ProxyProtocol;
use crate::translate::AdvertisedEndpoints;
use gantry_proto::model::limits;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Queues of a topic that is created without saying how many.
pub const QUEUE_COUNT_DEFAULT: u32 = 8;

/// Configuration of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// Where to listen, for both TLS and plaintext. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The address that routes tell clients to connect to. `None`: the one that the client itself used, which is right behind
    /// NAT, port mappings and Kubernetes services.
    pub advertised_endpoints: Option<AdvertisedEndpoints>,
    /// Where to listen for operators. Whoever reaches it may do everything. `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Whether connections begin with a header that a load balancer writes.
    pub proxy_protocol: ProxyProtocol,
    /// Connections at one time. One more is closed at once.
    pub connections_max: usize,
    /// Connections of one address at one time.
    pub connections_per_peer_max: usize,
    /// Calls that one connection may have open.
    pub streams_max: u32,
    /// How long a new connection may take until it speaks HTTP/2, a TLS handshake included.
    pub handshake_timeout: Duration,
    /// A connection without an open call for this long is closed.
    pub idle_timeout: Duration,
    /// How long a request may take to arrive once its call is there.
    pub request_timeout: Duration,
    /// How long a client may take to read the next part of an answer.
    pub read_timeout: Duration,
    /// How long a telemetry stream may be without settings.
    pub settings_timeout: Duration,
    /// Telemetry streams at one time, over all clients.
    pub telemetry_streams_max: usize,
    /// Clients that the proxy knows at one time.
    pub sessions_max: usize,
    /// Topics and consumer groups that may be created on first use, per second in the long run. Ten seconds' worth may come
    /// at once.
    pub auto_create_rate: u32,
    /// With so many topics, none is created on first use; with so many groups, no group.
    pub auto_create_max: usize,
    /// How long calls in flight may take to finish after the shutdown began.
    pub drain_timeout: Duration,
    /// Creates topics when a client asks for their route. Otherwise unknown topics are refused.
    pub auto_create_topics: bool,
    /// Queues of a topic that is created without saying how many.
    pub queue_count_default: u32,
    /// Creates consumer groups when a consumer first names them.
    pub auto_create_groups: bool,
    /// Deliveries of a message, for groups that are created without saying how many.
    pub max_attempts_default: u32,
    /// Bytes of memory that all clients together may make this process hold, as far as it counts them.
    pub memory_max: usize,
    /// The share of them that one address may have.
    pub memory_per_peer_percent: u8,
    /// Shortest invisible duration that a receive without automatic renewal may ask for.
    pub invisible_duration_min: Duration,
    /// How far ahead a delivery time may be.
    pub delivery_delay_max: Duration,
    /// How long a receive may wait for messages.
    pub long_polling_max: Duration,
    /// A client that sent nothing for this long is gone. Clients send heartbeats every 10 to 30 s.
    pub session_timeout: Duration,
    /// How long the lease of a receive with automatic renewal lasts, from the receive and from each renewal.
    pub auto_renew_lease: Duration,
    /// How often leases of living clients are renewed. Well below the lease.
    pub renew_interval: Duration,
    /// When settings are sent a second time on a new telemetry stream: some clients miss the first reply.
    pub settings_resend_after: Duration,
}

impl Default for ProxyConfig {
    fn default() -> ProxyConfig {
        ProxyConfig {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8081)),
            advertised_endpoints: None,
            admin_listen: None,
            proxy_protocol: ProxyProtocol::Detect,
            connections_max: 10_000,
            connections_per_peer_max: 5_000,
            streams_max: 2048,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            settings_timeout: Duration::from_secs(30),
            telemetry_streams_max: 20_000,
            sessions_max: 50_000,
            auto_create_rate: 20,
            auto_create_max: 10_000,
            drain_timeout: Duration::from_secs(10),
            auto_create_topics: true,
            queue_count_default: QUEUE_COUNT_DEFAULT,
            auto_create_groups: true,
            max_attempts_default: limits::MAX_ATTEMPTS_DEFAULT,
            memory_max: 256 << 20,
            memory_per_peer_percent: 50,
            invisible_duration_min: limits::INVISIBLE_DURATION_MIN,
            delivery_delay_max: Duration::from_secs(40 * 24 * 3600),
            long_polling_max: limits::LONG_POLLING_MAX,
            session_timeout: Duration::from_secs(120),
            auto_renew_lease: limits::AUTO_RENEW_LEASE,
            renew_interval: Duration::from_secs(15),
            settings_resend_after: Duration::from_secs(1),
        }
    }
}
