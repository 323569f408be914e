//! One client connection: is it TLS, then HTTP/2, then each call to the service it names.
//!
//! Every connection and every call is a task of the [`TaskTracker`] that the proxy waits for when it drains.

mod rewound;

use crate::admin::{self, Admin, Cluster};
use crate::context::ConnectionInfo;
use crate::messaging::{self, Answer, Caller, Messaging};
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use gantry_proto::env::Connection;
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
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;

/// What a TLS client says first: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A client object has one telemetry stream and one parked receive per queue, and may share its connection with others.
const STREAMS_MAX: u32 = 65_535;
/// Closing consumers reset all their receives at once: that is no attack.
const RESET_STREAMS_MAX: usize = 1024;
/// Finds peers that vanished without a word.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

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

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.messaging.metrics
    }

    /// Serves one connection to its end. It came from `peer` to `local`.
    pub(crate) async fn serve(&self, connection: Box<dyn Connection>, peer: SocketAddr, local: SocketAddr) {
        if let Err(error) = self.handshake_and_serve(connection, ConnectionInfo::new(peer, local)).await {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    async fn handshake_and_serve(&self, connection: Box<dyn Connection>, info: ConnectionInfo) -> io::Result<()> {
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
            // The method's name lives in the request: resolved before the request moves on.
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
