//! The proxy: what official RocketMQ 5 clients talk to. Stateless: any proxy can die, any proxy serves any client.
//!
//! The way of a message that is sent: `connection`, `messaging/call`, `messaging/send_message`, `translate/message`,
//! `stores/append`, then the store. Where to find what:
//!
//! | what | where |
//! |---|---|
//! | connections: accepted, TLS or plaintext, HTTP/2, which service | `connection`, `tls` |
//! | calls: which RPC, who asks; each RPC in a file of its own | `messaging` |
//! | protocol to model and back; errors to client codes | `translate` |
//! | topics and consumer groups by name, created on first use | `directory` |
//! | which store group is asked, and what to do when it does not answer | `stores` |
//! | clients that are alive, what has reached them, renewing their leases, handing back what did not reach them | `session`, `arrivals`, `renewal`, `handback` |
//! | telling consumers that their group was altered | `altered_groups` |
//! | operators | `admin` |
//! | telling the controller that this proxy is alive | `membership` |
//!
//! What always holds: a proxy keeps nothing that cannot be lost, knows stores and the metadata only by their contracts,
//! and answers a client's mistakes with a status inside the answer, never with a gRPC error.

mod admin;
mod altered_groups;
mod arrivals;
mod config;
mod connection;
mod directory;
mod handback;
mod membership;
mod memory;
mod messaging;
mod metrics;
mod renewal;
mod session;
mod stores;
pub mod tls;
mod translate;

pub use config::{ProxyConfig, QUEUE_COUNT_DEFAULT};
pub use connection::ProxyProtocol;
pub use translate::{AdvertisedEndpoints, InvalidEndpoints};

use crate::connection::{ConnectionLimits, ConnectionServer, Listener, Services};
use crate::directory::{CreationRules, Directory};
use crate::handback::HandbackTask;
use crate::membership::Presence;
use crate::memory::{MemoryBudget, Peers};
use crate::messaging::Messaging;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::stores::StoreGroups;
use gantry_proto::contract::{MembershipService, MetadataService, Stores};
use gantry_proto::env::Env;
use gantry_proto::model::{MetadataView, ProxyId};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of operators at one time.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// How often the metrics are told how much memory clients hold.
const MEMORY_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long tasks may take to end once they were told to.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A proxy that is bound and not yet serving.
pub struct Proxy {
    listener: Listener,
    admin: Option<Listener>,
    messaging: Arc<Messaging>,
    handback: HandbackTask,
    presence: Presence,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// What a proxy works with.
pub struct ProxyDeps {
    /// The machine: clock, randomness and network are used.
    pub env: Env,
    /// Where topics and groups are created.
    pub metadata: Arc<dyn MetadataService>,
    /// The metadata as this process sees it. Its owner fills it before the proxy serves and follows the changes from then
    /// on: a call about a delivery of a topic that is not in it is answered as gone for ever.
    pub view: Arc<MetadataView>,
    /// The cluster's members. The proxy reports here that it is alive, and passes on what operators ask.
    pub membership: Arc<dyn MembershipService>,
    /// Where messages are: the leading stores of the groups that `view` knows.
    pub stores: Arc<dyn Stores>,
    /// TLS configuration (see [`tls::server_config`]). `None`: plaintext only, which default clients of Java, Go, C++ and
    /// C# cannot use.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Why a proxy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The port is taken.
    #[error("cannot listen on {address}: another process uses this port; stop it or choose another one")]
    AddressInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system does not let us.
    #[error("cannot listen on {address}: permission denied; ports below 1024 need a privilege, choose a higher one")]
    AddressForbidden {
        /// What was asked for.
        address: SocketAddr,
    },
    /// No interface has it.
    #[error("cannot listen on {address}: this machine has no such address; use 0.0.0.0 for all of its own")]
    AddressNotOurs {
        /// What was asked for.
        address: SocketAddr,
    },
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        source: io::Error,
    },
}

/// Why serving ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket is broken.
    #[error("connections can no longer be taken: {0}")]
    Listener(io::Error),
}

impl Proxy {
    /// Binds the listener and builds all parts. Install the metrics recorder before.
    pub async fn build(config: ProxyConfig, deps: ProxyDeps) -> Result<Proxy, BuildError> {
        let listener = Listener::bind(&*deps.env.network, config.listen).await?;
        let admin = match config.admin_listen {
            Some(address) => Some(Listener::bind(&*deps.env.network, address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new());
        let stores = Arc::new(StoreGroups::new(deps.stores, deps.view.clone()));
        let (handback, handback_task) = handback::handback(stores.clone(), metrics.clone());
        let mut id = ProxyId::default();
        deps.env.random.fill(&mut id.0);
        let address = match &config.advertised_endpoints {
            Some(advertised) => advertised.to_string(),
            None => listener.local_addr().to_string(),
        };
        let presence = Presence { id, address: address.into(), random: deps.env.random.clone() };
        let directory = Directory::new(
            deps.view,
            deps.metadata,
            CreationRules {
                topics: config.auto_create_topics,
                queue_count: config.queue_count_default,
                groups: config.auto_create_groups,
                max_attempts: config.max_attempts_default,
                rate: config.auto_create_rate,
                number_max: config.auto_create_max,
            },
        );
        let messaging = Arc::new(Messaging {
            clock: deps.env.clock,
            stores,
            membership: deps.membership,
            directory,
            sessions: Sessions::new(config.sessions_max),
            memory: MemoryBudget::new(config.memory_max, config.memory_per_peer_percent),
            peers: Peers::default(),
            telemetry_streams: Arc::new(Semaphore::new(config.telemetry_streams_max.min(Semaphore::MAX_PERMITS))),
            metrics,
            handback,
            drain: CancellationToken::new(),
            config,
        });
        Ok(Proxy { listener, admin, messaging, handback: handback_task, presence, tls: deps.tls })
    }

    /// Where it listens: with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Where operators' calls are taken.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Listener::local_addr)
    }

    /// Serves until `shutdown`, then drains: takes no more connections, ends parked receives and telemetry streams, lets
    /// calls in flight finish, and after [`ProxyConfig::drain_timeout`] cuts off what is left. Dropping the future cuts
    /// everything off at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Proxy { listener, admin, messaging, handback, presence, tls } = self;
        let address = listener.local_addr();
        let (connections, background) = (TaskTracker::new(), TaskTracker::new());
        let (cut, stop_background) = (CancellationToken::new(), CancellationToken::new());
        let drain = messaging.drain.clone();
        let _on_drop = (drain.clone().drop_guard(), cut.clone().drop_guard(), stop_background.clone().drop_guard());

        background.spawn(handback.run(stop_background.clone()));
        background.spawn({
            let (messaging, stop) = (messaging.clone(), stop_background.clone());
            async move { renewal::run(&messaging, stop).await }
        });
        background.spawn({
            let (messaging, stop) = (messaging.clone(), stop_background.clone());
            async move { altered_groups::run(&messaging, stop).await }
        });
        background.spawn({
            let (messaging, stop) = (messaging.clone(), stop_background.clone());
            async move { presence.run(&messaging, stop).await }
        });
        background.spawn({
            let (messaging, stop) = (messaging.clone(), stop_background.clone());
            async move {
                let report = async {
                    loop {
                        messaging.memory.report();
                        tokio::time::sleep(MEMORY_REPORT_INTERVAL).await;
                    }
                };
                tokio::select! { () = stop.cancelled() => {}, () = report => {} }
            }
        });
        let server =
            |services, tls| ConnectionServer::new(messaging.clone(), services, tls, connections.clone(), cut.clone());
        let for_operators = async {
            let Some(admin) = admin else { return std::future::pending().await };
            let limits = ConnectionLimits { in_all: ADMIN_CONNECTIONS_MAX, of_one_peer: ADMIN_CONNECTIONS_MAX };
            let server = server(Services::admin(&messaging), tls.clone());
            admin.run(Arc::new(server), limits, connections.clone()).await
        };
        let for_clients = async {
            let limits = ConnectionLimits {
                in_all: messaging.config.connections_max,
                of_one_peer: messaging.config.connections_per_peer_max,
            };
            let server = server(Services::Messaging, tls.clone());
            listener.run(Arc::new(server), limits, connections.clone()).await
        };
        messaging.metrics.set_up(true);
        tracing::info!(address = %address, "proxy serves");

        let ended = tokio::select! {
            biased;
            () = shutdown => Ok(()),
            // Dropping the listeners closes their sockets.
            ended = for_clients => ended,
            ended = for_operators => ended,
        };

        messaging.metrics.set_up(false);
        tracing::info!(connections_and_calls = connections.len(), "proxy drains");
        drain.cancel();
        connections.close();
        if tokio::time::timeout(messaging.config.drain_timeout, connections.wait()).await.is_err() {
            tracing::warn!(connections_and_calls = connections.len(), "not finished in time, cut off");
            cut.cancel();
            let _ = tokio::time::timeout(CUT_TIMEOUT, connections.wait()).await;
        }
        // Last: answers that were cut off leave deliveries to hand back.
        stop_background.cancel();
        background.close();
        if tokio::time::timeout(CUT_TIMEOUT, background.wait()).await.is_err() {
            tracing::warn!("deliveries to vanished clients could not be handed back in time");
        }
        tracing::info!("proxy is down");
        ended
    }
}
