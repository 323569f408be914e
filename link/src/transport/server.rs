//! Accepts connections of peers, up to a number, and serves each in a task of its own until it ends or the server drains.

use super::introduction::{Introduced, admit, introduce, refusal};
use super::services::PeerServices;
use super::tasks::tasks;
use super::{
    CONNECTION_WINDOW, DIAL_TIMEOUT, HTTP2_FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES_MAX,
    STREAM_WINDOW,
};
use crate::local_peer::LocalPeer;
use crate::security::{Gate, PeerCredentials};
use futures_util::future::BoxFuture;
use gantry_proto::contract::ConsensusPeer;
use gantry_proto::env::{Connection, Env, Listener};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;

/// Connections at once. Each peer has a few.
const CONNECTIONS_MAX: usize = 4096;
/// Streams of one connection at once: calls to the controller, watches, exchanges.
const STREAMS_MAX: u32 = 4096;
/// A connection on which no call was let in for this long is closed: strangers must not use up [`CONNECTIONS_MAX`].
const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no room for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// An address at which peers are served.
pub struct PeerServer {
    listener: Box<dyn Listener>,
    shared: Arc<Shared>,
}

struct Shared {
    local: LocalPeer,
    gate: Gate,
    tls: Option<TlsAcceptor>,
    draining: CancellationToken,
    cut: CancellationToken,
}

/// What is served on each connection.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) routes: Routes,
    /// The member of the controller, if there is one.
    pub(super) member: Option<Arc<dyn ConsensusPeer>>,
}

/// In the extensions of each request: cancelled when long streams shall end by themselves.
#[derive(Clone)]
pub(crate) struct Draining(pub(crate) CancellationToken);

/// In the extensions of each request: who calls.
#[derive(Clone, Copy)]
pub(crate) struct Connected(pub(crate) SocketAddr);

impl PeerServer {
    /// Binds the address. Nobody is served before [`PeerServer::run`].
    pub async fn bind(env: &Env, address: SocketAddr, local: &LocalPeer) -> io::Result<PeerServer> {
        let listener = env.network.listen(address).await?;
        let tls = match &local.credentials {
            PeerCredentials::MutualTls(tls) => Some(TlsAcceptor::from(tls.server.clone())),
            PeerCredentials::None | PeerCredentials::Token(_) => None,
        };
        let (draining, cut) = (CancellationToken::new(), CancellationToken::new());
        let gate = Gate::new(&local.credentials);
        Ok(PeerServer { listener, shared: Arc::new(Shared { local: local.clone(), gate, tls, draining, cut }) })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled. Then accepts no more connections and calls, and returns once the calls under way are
    /// answered, after `grace` at the latest. Dropping the future ends everything at once.
    pub async fn run(mut self, services: PeerServices, stop: CancellationToken, grace: Duration) {
        let served = services.into_served(&self.shared.local);
        let connections = TaskTracker::new();
        let cut = self.shared.cut.clone();
        let _cut_on_drop = cut.clone().drop_guard();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.accept(served, &connections) => {}
        }
        drop(self.listener);
        self.shared.draining.cancel();
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            cut.cancel();
            connections.wait().await;
        }
    }

    async fn accept(&mut self, served: Served, connections: &TaskTracker) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (connection, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no peer can be taken at present");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                tracing::warn!(%peer, CONNECTIONS_MAX, "too many peers, one more is turned away");
                continue;
            };
            let (shared, served) = (self.shared.clone(), served.clone());
            connections.spawn(async move {
                let cut = shared.cut.clone();
                tokio::select! {
                    biased;
                    () = cut.cancelled() => {}
                    ended = shared.serve(connection, peer, served) => if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a peer's connection ended");
                    }
                }
                drop(permit);
            });
        }
    }
}

impl Shared {
    async fn serve(
        self: Arc<Shared>,
        connection: Box<dyn Connection>,
        peer: SocketAddr,
        served: Served,
    ) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return self.serve_http2(connection, peer, served).await;
        };
        match tokio::time::timeout(DIAL_TIMEOUT, tls.accept(connection)).await {
            Ok(Ok(secured)) => self.serve_http2(secured, peer, served).await,
            Ok(Err(error)) => {
                self.gate.refuse(peer, "no certificate of the cluster");
                Err(error)
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")),
        }
    }

    async fn serve_http2<C>(self: &Arc<Shared>, connection: C, peer: SocketAddr, served: Served) -> io::Result<()>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (executor, _calls_end_with_the_connection) = tasks();
        let admitted = CancellationToken::new();
        let calls = Calls { shared: self.clone(), peer, served, admitted: admitted.clone() };
        let mut http2 = http2::Builder::new(executor);
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false);
        let mut connection = pin!(http2.serve_connection(TokioIo::new(connection), calls));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = admitted.cancelled() => {}
            () = self.draining.cancelled() => {}
            () = tokio::time::sleep(FIRST_CALL_TIMEOUT) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no call was let in"));
            }
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = self.draining.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(io::Error::other)
    }
}

/// The services of one connection.
struct Calls {
    shared: Arc<Shared>,
    peer: SocketAddr,
    served: Served,
    /// Cancelled by the first call that is let in.
    admitted: CancellationToken,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if !self.shared.gate.admits(request.headers(), self.peer) {
            let refusal = Status::unauthenticated("this cluster's token is needed").into_http();
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let introduced = Introduced::of(request.uri().path()).zip(self.served.member.clone());
        if let Some((call, member)) = &introduced
            && let Err(error) = admit(request.headers(), *call, &self.shared.local, member)
        {
            self.shared.gate.refuse(self.peer, &error.to_string());
            let mut refusal = refusal(&error).into_http();
            introduce(member.cluster(), refusal.headers_mut());
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        self.admitted.cancel();
        request.extensions_mut().insert(Draining(self.shared.draining.clone()));
        request.extensions_mut().insert(Connected(self.peer));
        let answer = self.served.routes.clone().call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if let Some((_, member)) = introduced {
                introduce(member.cluster(), answer.headers_mut());
            }
            Ok(answer)
        })
    }
}
