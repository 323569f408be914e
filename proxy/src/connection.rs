//! From the socket to the call: connections are accepted, up to a number; each is TLS or plaintext, told by its first byte;
//! then it is HTTP/2, and each of its calls goes to the service that its path names.
//!
//! Every connection and every call is a task of the [`TaskTracker`] that the proxy waits for when it drains. A connection's
//! handshake is part of its task: it holds up no other connection.

mod rewound;

use crate::admin::{self, Admin, Cluster};
use crate::messaging::{self, Answer, Caller, Messaging};
use crate::{BuildError, ServeError};
use futures_util::future::BoxFuture;
use gantry_proto::env::{self, Connection, Network};
use gantry_proto::wire::admin::v1::admin_service_server::AdminServiceServer;
use gantry_proto::wire::admin::v1::cluster_service_server::ClusterServiceServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rewound::Rewound;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;

/// The first byte that a TLS client sends: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A client object has one telemetry stream and one parked receive per queue, and may share its connection with others.
const STREAMS_MAX: u32 = 65_535;
/// A consumer that closes resets all its receives at once: that is no attack.
const RESET_STREAMS_MAX: usize = 1024;
/// Finds peers that vanished without closing their connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait when the system has no room for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound listening socket.
pub(crate) struct Listener {
    socket: Box<dyn env::Listener>,
    local_addr: SocketAddr,
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    /// The client's end, as text because each message that lacks a born host gets it.
    pub(crate) remote: String,
    /// Our end: the address that the client reached. Where that is not known, the one that is listened on, which may stand for
    /// all of the machine's addresses.
    pub(crate) local: SocketAddr,
    /// Our end as text, told as the store host of deliveries.
    pub(crate) local_text: String,
}

/// Serves connections. One per proxy.
pub(crate) struct ConnectionServer {
    messaging: Arc<Messaging>,
    admin: AdminServiceServer<Admin>,
    cluster: ClusterServiceServer<Cluster>,
    tls: Option<TlsAcceptor>,
    http2: http2::Builder<Tasks>,
    /// Ends every connection, whatever it is doing.
    cut: CancellationToken,
}

impl Listener {
    pub(crate) async fn bind(network: &dyn Network, address: SocketAddr) -> Result<Listener, BuildError> {
        let bound = async {
            let socket = network.listen(address).await?;
            let local_addr = socket.local_addr()?;
            Ok(Listener { socket, local_addr })
        };
        bound.await.map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BuildError::AddressInUse { address },
            io::ErrorKind::PermissionDenied => BuildError::AddressForbidden { address },
            io::ErrorKind::AddrNotAvailable => BuildError::AddressNotOurs { address },
            _ => BuildError::Bind { address, source },
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts connections until the returned future is dropped; ends by itself only when the socket is broken.
    pub(crate) async fn run(
        mut self,
        server: Arc<ConnectionServer>,
        connections_max: usize,
        tasks: TaskTracker,
    ) -> Result<(), ServeError> {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        loop {
            let (connection, peer) = self.accept().await?;
            let metrics = server.messaging.metrics.clone();
            let Ok(permit) = room.clone().try_acquire_owned() else {
                metrics.connections_refused.increment(1);
                tracing::debug!(%peer, connections_max, "too many connections, one more is closed");
                continue;
            };
            let local = connection.local_addr().unwrap_or(self.local_addr);
            let (server, info) = (server.clone(), ConnectionInfo::new(peer, local));
            tasks.spawn(async move {
                metrics.connections.increment(1.0);
                if let Err(error) = server.serve(connection, info).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                metrics.connections.decrement(1.0);
                drop(permit);
            });
        }
    }

    async fn accept(&mut self) -> Result<(Box<dyn Connection>, SocketAddr), ServeError> {
        loop {
            let error = match self.socket.accept().await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            match error.kind() {
                // The client was gone before we looked.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted => {}
                io::ErrorKind::InvalidInput => return Err(ServeError::Listener(error)),
                // Out of file descriptors or memory, or the network is unwell: others may leave.
                _ => {
                    tracing::warn!(%error, "no connection can be taken at present");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

impl ConnectionInfo {
    pub(crate) fn new(remote: SocketAddr, local: SocketAddr) -> ConnectionInfo {
        // A dual-stack socket shows IPv4 peers as IPv4-mapped IPv6 addresses.
        let unmapped = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = unmapped(local);
        ConnectionInfo { remote: unmapped(remote).to_string(), local, local_text: local.to_string() }
    }
}

impl ConnectionServer {
    pub(crate) fn new(
        messaging: Arc<Messaging>,
        tls: Option<Arc<rustls::ServerConfig>>,
        tasks: TaskTracker,
        cut: CancellationToken,
    ) -> ConnectionServer {
        let mut http2 = http2::Builder::new(Tasks(tasks));
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false);
        let admin = AdminServiceServer::new(Admin::new(messaging.clone()));
        let cluster = ClusterServiceServer::new(Cluster::new(messaging.clone()));
        ConnectionServer { messaging, admin, cluster, tls: tls.map(TlsAcceptor::from), http2, cut }
    }

    /// Serves one connection to its end.
    async fn serve(&self, connection: Box<dyn Connection>, info: ConnectionInfo) -> io::Result<()> {
        let patience = self.messaging.config.handshake_timeout;
        let handshake = tokio::time::timeout(patience, self.handshake(connection));
        let handshaken = tokio::select! {
            biased;
            done = handshake => done.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no handshake in time"))??,
            () = self.messaging.drain.cancelled() => return Ok(()),
        };
        match handshaken {
            Handshaken::Plain(plain) => self.serve_http2(plain, info).await,
            Handshaken::Tls(tls) => self.serve_http2(*tls, info).await,
        }
    }

    async fn handshake(&self, mut connection: Box<dyn Connection>) -> io::Result<Handshaken> {
        let first = connection.read_u8().await?;
        let connection = Rewound::new(first, connection);
        match (first == TLS_HANDSHAKE, &self.tls) {
            (false, _) => Ok(Handshaken::Plain(connection)),
            (true, Some(tls)) => Ok(Handshaken::Tls(Box::new(tls.accept(connection).await?))),
            (true, None) => Err(io::Error::new(io::ErrorKind::Unsupported, "the client wants TLS, which is off")),
        }
    }

    async fn serve_http2<I>(&self, io: I, info: ConnectionInfo) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let caller = Arc::new(Caller { messaging: self.messaging.clone(), connection: info });
        let calls = Calls { caller, admin: self.admin.clone(), cluster: self.cluster.clone() };
        let mut connection = pin!(self.http2.serve_connection(TokioIo::new(io), calls));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = self.messaging.drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            biased;
            ended = connection => ended.map_err(io::Error::other),
            () = self.cut.cancelled() => Ok(()),
        }
    }
}

enum Handshaken {
    Plain(Rewound<Box<dyn Connection>>),
    Tls(Box<tokio_rustls::server::TlsStream<Rewound<Box<dyn Connection>>>>),
}

/// The services of one connection.
struct Calls {
    caller: Arc<Caller>,
    admin: AdminServiceServer<Admin>,
    cluster: ClusterServiceServer<Cluster>,
}

impl hyper::service::Service<http::Request<Incoming>> for Calls {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Answer>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if let Some(method) = path.strip_prefix(messaging::SERVICE_PATH) {
            // Resolved before the request moves on: the method's name is part of it.
            match messaging::method(method) {
                Some(method) => return method(self.caller.clone(), request),
                None => return unknown_method(),
            }
        }
        if path.starts_with(admin::SERVICE_PATH) {
            return self.admin.clone().call(request);
        }
        if path.starts_with(admin::CLUSTER_SERVICE_PATH) {
            return self.cluster.clone().call(request);
        }
        unknown_method()
    }
}

fn unknown_method() -> BoxFuture<'static, Answer> {
    let answer = tonic::Status::unimplemented("this server has no such method").into_http();
    Box::pin(std::future::ready(Ok(answer)))
}

/// Runs hyper's tasks as ours.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
