use super::channel::Channel;
use super::tasks::tasks;
use super::{
    CONNECTION_WINDOW, DIAL_TIMEOUT, HTTP2_FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, RESET_STREAMS_REMEMBERED,
    SEND_BUFFER_BYTES_MAX, STREAM_WINDOW,
};
use crate::local_peer::LocalPeer;
use crate::security::PeerCredentials;
use gantry_proto::env::{Env, Network};
use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Opens connections to peers.
#[derive(Clone)]
pub(crate) struct Dialer {
    network: Arc<dyn Network>,
    local: LocalPeer,
}

impl Dialer {
    pub(crate) fn new(env: &Env, local: &LocalPeer) -> Dialer {
        Dialer { network: env.network.clone(), local: local.clone() }
    }

    pub(crate) fn local(&self) -> &LocalPeer {
        &self.local
    }

    /// Connects to `host:port`, within [`DIAL_TIMEOUT`]. Who the peer is is not known yet, unless TLS proved it.
    pub(crate) async fn dial(&self, address: &str) -> io::Result<Channel> {
        let opened = tokio::time::timeout(DIAL_TIMEOUT, self.open(address)).await;
        opened.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")))
    }

    async fn open(&self, address: &str) -> io::Result<Channel> {
        let connection = self.network.connect(address).await?;
        let PeerCredentials::MutualTls(tls) = &self.local.credentials else {
            return self.start(connection, "http", address).await;
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(invalid)?;
        let secured = TlsConnector::from(tls.client.clone()).connect(name, connection).await?;
        self.start(secured, "https", address).await
    }

    async fn start<C>(&self, connection: C, scheme: &str, address: &str) -> io::Result<Channel>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let origin = Uri::builder().scheme(scheme).authority(address).path_and_query("/").build().map_err(invalid)?;
        let (executor, guard) = tasks();
        let (requests, driver) = http2::Builder::new(executor.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(connection))
            .await
            .map_err(io::Error::other)?;
        hyper::rt::Executor::execute(&executor, driver);
        let authorization = match &self.local.credentials {
            PeerCredentials::Token(token) => Some(token.header().clone()),
            PeerCredentials::None | PeerCredentials::MutualTls(_) => None,
        };
        let (local, _tasks) = (self.local.clone(), Arc::new(guard));
        Ok(Channel { requests, origin, authorization, local, _tasks })
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
