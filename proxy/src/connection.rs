//! From the socket to the call: connections are accepted, up to a number; each is TLS or plaintext, told by its first byte;
//! then it is HTTP/2, and each of its calls goes to the service that its path names. Clients and operators have listeners of
//! their own: nobody who can send can call what operators call.
//!
//! Every connection and every call is a task of the [`TaskTracker`] that the proxy waits for when it drains. A connection's
//! handshake is part of its task: it holds up no other connection.
//!
//! Whatever a client leaves undone has a deadline here: its first bytes and its TLS handshake, what HTTP/2 begins with, the
//! next call, reading an answer. (A request's arrival has its own in `messaging/request`.)

mod activity;
mod answer_body;
mod listener;
mod opening;
mod rewound;
mod stream_task;

pub(crate) use activity::{Activity, OpenCall};
pub(crate) use answer_body::AnswerBody;
pub(crate) use listener::{ConnectionLimits, Listener};
pub use opening::ProxyProtocol;

use crate::admin::{self, Admin, Cluster};
use crate::arrivals::ConnectionId;
use crate::memory::CALL_BYTES;
use crate::messaging::{self, Answer, Caller, Messaging};
use activity::Counted;
use futures_util::future::BoxFuture;
use gantry_proto::env::Connection;
use gantry_proto::wire::admin::v1::admin_service_server::AdminServiceServer;
use gantry_proto::wire::admin::v1::cluster_service_server::ClusterServiceServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use listener::Room;
use metrics::Counter;
use opening::Opened;
use rewound::Rewound;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use stream_task::StreamTask;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::codegen::Service as _;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A consumer that closes resets all its receives at once: that is no attack.
const RESET_STREAMS_MAX: usize = 1024;
/// Streams that we had to reset because of what a client sent on them; then its connection ends.
const FAULTY_STREAMS_MAX: usize = 128;
/// Bytes of a call's headers, as HTTP/2 counts them.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Finds peers that vanished without closing their connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection without an open call lasts once it was told to end: its client may have sent a call before it heard.
const GOODBYE: Duration = Duration::from_secs(1);

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) id: ConnectionId,
    /// The client's end, as text because each message that lacks a born host gets it.
    pub(crate) remote: String,
    /// Our end: the address that the client reached. Where that is not known, the one that is listened on, which may stand for
    /// all of the machine's addresses.
    pub(crate) local: SocketAddr,
    /// Our end as text, told as the store host of deliveries.
    pub(crate) local_text: String,
}

/// Serves connections. One per listener.
pub(crate) struct ConnectionServer {
    messaging: Arc<Messaging>,
    services: Services,
    tls: Option<TlsAcceptor>,
    http2: http2::Builder<Tasks>,
    proxy_protocol: ProxyProtocol,
    /// Ends every connection, whatever it is doing.
    cut: CancellationToken,
}

/// What can be called on a connection.
#[derive(Clone)]
pub(crate) enum Services {
    /// What clients call.
    Messaging,
    /// What operators call.
    Admin(AdminServiceServer<Admin>, ClusterServiceServer<Cluster>),
}

impl Services {
    pub(crate) fn admin(messaging: &Arc<Messaging>) -> Services {
        Services::Admin(
            AdminServiceServer::new(Admin::new(messaging.clone())),
            ClusterServiceServer::new(Cluster::new(messaging.clone())),
        )
    }
}

impl ConnectionInfo {
    pub(crate) fn new(id: ConnectionId, remote: SocketAddr, local: SocketAddr) -> ConnectionInfo {
        // A dual-stack socket shows IPv4 peers as IPv4-mapped IPv6 addresses.
        let unmapped = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = unmapped(local);
        ConnectionInfo { id, remote: unmapped(remote).to_string(), local, local_text: local.to_string() }
    }

    /// A load balancer says where the client is.
    fn comes_from(&mut self, client: SocketAddr) {
        self.remote = SocketAddr::new(client.ip().to_canonical(), client.port()).to_string();
    }
}

impl ConnectionServer {
    pub(crate) fn new(
        messaging: Arc<Messaging>,
        services: Services,
        tls: Option<Arc<rustls::ServerConfig>>,
        tasks: TaskTracker,
        cut: CancellationToken,
    ) -> ConnectionServer {
        let config = &messaging.config;
        let tasks =
            Tasks { tasks, read_timeout: config.read_timeout, unread: messaging.metrics.answers_unread.clone() };
        let mut http2 = http2::Builder::new(tasks);
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(config.streams_max)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(FAULTY_STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false);
        let proxy_protocol = match &services {
            Services::Messaging => messaging.config.proxy_protocol,
            Services::Admin(..) => ProxyProtocol::Off,
        };
        ConnectionServer { messaging, services, tls: tls.map(TlsAcceptor::from), http2, proxy_protocol, cut }
    }

    /// Serves one connection to its end.
    async fn serve(
        &self,
        connection: Box<dyn Connection>,
        mut info: ConnectionInfo,
        room: &mut Room,
    ) -> io::Result<()> {
        let deadline = Instant::now() + self.messaging.config.handshake_timeout;
        let handshake = tokio::time::timeout_at(deadline, self.handshake(connection));
        let (handshaken, told) = tokio::select! {
            biased;
            done = handshake => done.map_err(|_| self.late("no handshake in time"))??,
            () = self.messaging.drain.cancelled() => return Ok(()),
        };
        if let Some(client) = told {
            if self.proxy_protocol == ProxyProtocol::Require {
                room.is_of(self.messaging.peers.of(client.ip()))?;
            }
            info.comes_from(client);
        }
        match handshaken {
            Handshaken::Plain(plain) => self.serve_http2(plain, info, room, deadline).await,
            Handshaken::Tls(tls) => self.serve_http2(*tls, info, room, deadline).await,
        }
    }

    /// And where the client is, if a load balancer says so.
    async fn handshake(&self, connection: Box<dyn Connection>) -> io::Result<(Handshaken, Option<SocketAddr>)> {
        let Opened { connection, is_tls, told } = opening::open(connection, self.proxy_protocol).await?;
        let handshaken = match (is_tls, &self.tls) {
            (false, _) => Handshaken::Plain(connection),
            (true, Some(tls)) => Handshaken::Tls(Box::new(tls.accept(connection).await?)),
            (true, None) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "the client wants TLS, which is off"));
            }
        };
        Ok((handshaken, told))
    }

    /// `deadline`: when HTTP/2 must have begun.
    async fn serve_http2<I>(&self, io: I, info: ConnectionInfo, room: &Room, deadline: Instant) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let caller = Arc::new(Caller {
            messaging: self.messaging.clone(),
            connection: info,
            peer: room.peer.clone(),
            activity: activity.clone(),
        });
        let calls = Calls { caller, services: self.services.clone() };
        let io = TokioIo::new(Counted::new(io, activity.clone()));
        let mut connection = pin!(self.http2.serve_connection(io, calls));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = self.messaging.drain.cancelled() => {}
            () = self.without_greeting(&activity, deadline) => return Err(self.late("no HTTP/2 in time")),
            () = activity.idle_for(self.messaging.config.idle_timeout) => {
                self.messaging.metrics.connections_idle.increment(1);
            }
        }
        if !activity.is_greeted() {
            return Ok(());
        }
        connection.as_mut().graceful_shutdown();
        let told = Instant::now();
        tokio::select! {
            biased;
            ended = connection => ended.map_err(io::Error::other),
            () = self.cut.cancelled() => Ok(()),
            // A client that vanished does not confirm the end.
            () = async { tokio::time::sleep_until(told + GOODBYE).await; activity.idle_for(GOODBYE).await } => Ok(()),
        }
    }

    /// Ends when the client has not begun with HTTP/2 by then.
    async fn without_greeting(&self, activity: &Activity, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
        if activity.is_greeted() {
            std::future::pending().await
        }
    }

    fn late(&self, why: &'static str) -> io::Error {
        self.messaging.metrics.connections_late.increment(1);
        io::Error::new(io::ErrorKind::TimedOut, why)
    }
}

enum Handshaken {
    Plain(Rewound<Box<dyn Connection>>),
    Tls(Box<tokio_rustls::server::TlsStream<Rewound<Box<dyn Connection>>>>),
}

/// The services of one connection.
struct Calls {
    caller: Arc<Caller>,
    services: Services,
}

impl hyper::service::Service<http::Request<Incoming>> for Calls {
    type Response = http::Response<AnswerBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Answer>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let caller = &self.caller;
        let call = match caller.messaging.memory.take(&caller.peer, CALL_BYTES) {
            Ok(held) => OpenCall::new(caller.clone(), held),
            Err(exhausted) => return without_call(exhausted.into()),
        };
        let path = request.uri().path();
        match &self.services {
            Services::Messaging => {
                // Resolved before the request moves on: the method's name is part of it.
                match path.strip_prefix(messaging::SERVICE_PATH).and_then(messaging::method) {
                    Some(method) => method(call, request),
                    None => without_call(Status::unimplemented("this server has no such method")),
                }
            }
            Services::Admin(admin, _) if path.starts_with(admin::SERVICE_PATH) => {
                answered(call, admin.clone().call(request))
            }
            Services::Admin(_, cluster) if path.starts_with(admin::CLUSTER_SERVICE_PATH) => {
                answered(call, cluster.clone().call(request))
            }
            Services::Admin(..) => without_call(Status::unimplemented("operators' calls alone are served here")),
        }
    }
}

/// Answers at once, and keeps nothing of the call.
fn without_call(status: Status) -> BoxFuture<'static, Answer> {
    let answer = status.into_http::<()>().map(|()| AnswerBody::empty());
    Box::pin(std::future::ready(Ok(answer)))
}

fn answered(
    call: OpenCall,
    answer: impl Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send + 'static,
) -> BoxFuture<'static, Answer> {
    Box::pin(async move { Ok(answer.await?.map(|body| AnswerBody::streamed(body, call))) })
}

/// Runs hyper's tasks as ours.
#[derive(Clone)]
struct Tasks {
    tasks: TaskTracker,
    read_timeout: Duration,
    /// Answers that were dropped because nobody read them.
    unread: Counter,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.tasks.spawn(StreamTask::new(task, self.read_timeout, self.unread.clone()));
    }
}
