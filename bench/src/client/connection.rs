//! One HTTP/2 connection to a server, without TLS.
//!
//! Straight hyper instead of tonic's channel: no queue and no task between a call and the connection, so that the load
//! generator takes less of the machine it shares with the server. The session dials and dials again; calls that find no
//! connection fail at once.

use gantry_proto::model::HostPort;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::body::Body;

/// Room for a response on the wire before the server has to wait for us.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all calls of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// A connection and the task that drives it.
pub(super) struct Link {
    requests: http2::SendRequest<Body>,
    /// `None` once it has ended.
    driver: Option<JoinHandle<Result<(), hyper::Error>>>,
}

impl Link {
    /// Connects within `timeout`.
    pub(super) async fn dial(endpoint: &HostPort, timeout: Duration) -> Result<Link, String> {
        let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {}", humantime::format_duration(timeout))),
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| with_causes(&error))?;
        Ok(Link { requests, driver: Some(tokio::spawn(connection)) })
    }

    /// Waits until the connection is gone, and says why. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        let outcome = match &mut self.driver {
            Some(driver) => driver.await,
            None => Ok(Ok(())),
        };
        self.driver = None;
        match outcome {
            Ok(Ok(())) => "the server closed the connection".to_owned(),
            Ok(Err(error)) => with_causes(&error),
            Err(_) => "the connection's task failed".to_owned(),
        }
    }

    /// Closes the connection and waits for its task.
    pub(super) async fn close(self) {
        let Link { requests, driver } = self;
        drop(requests);
        if let Some(driver) = driver {
            driver.abort();
            let _ = driver.await;
        }
    }
}

/// Where calls go: the current connection, if there is one. Clones share it.
#[derive(Clone)]
pub(super) struct Transport {
    state: Arc<Mutex<State>>,
}

enum State {
    Up(http2::SendRequest<Body>),
    Down(String),
}

impl Transport {
    /// Calls over `link`.
    pub(super) fn over(link: &Link) -> Transport {
        Transport { state: Arc::new(Mutex::new(State::Up(link.requests.clone()))) }
    }

    /// Calls go over `link` from now on.
    pub(super) fn up(&self, link: &Link) {
        *self.state.lock() = State::Up(link.requests.clone());
    }

    /// Calls fail from now on, for this reason.
    pub(super) fn down(&self, reason: String) {
        *self.state.lock() = State::Down(reason);
    }
}

impl tower::Service<http::Request<Body>> for Transport {
    type Response = http::Response<Incoming>;
    type Error = tonic::Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The number of calls in flight is bounded by whoever calls.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        const USER_AGENT: http::HeaderValue =
            http::HeaderValue::from_static(concat!("gantry-bench/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(http::header::USER_AGENT, USER_AGENT);
        let sent = match &mut *self.state.lock() {
            State::Up(requests) => Ok(requests.send_request(request)),
            State::Down(reason) => Err(tonic::Status::unavailable(format!("not connected: {reason}"))),
        };
        Box::pin(async move { sent?.await.map_err(|error| tonic::Status::unavailable(with_causes(&error))) })
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
