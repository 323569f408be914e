//! One HTTP/2 connection to a proxy.

use crate::env::{Machine, dial};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::AbortHandle;
use tonic::body::Body;

/// How long a client waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection. It ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    requests: http2::SendRequest<Body>,
    pub(super) origin: Uri,
    _driver: Arc<Driver>,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects to `host:port`.
    pub(super) async fn open(machine: &Arc<Machine>, address: &str) -> Result<Connection, String> {
        let connecting = async {
            let stream = dial(machine, address).await.map_err(|error| error.to_string())?;
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(3))
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())
        };
        let connected = tokio::time::timeout(PATIENCE, connecting).await;
        let (requests, driver) = connected.unwrap_or_else(|_| Err("no answer".to_owned()))?;
        let driver = tokio::spawn(async move {
            let _ = driver.await;
        });
        let origin = Uri::builder().scheme("http").authority(address).path_and_query("/").build();
        let origin = origin.map_err(|error| error.to_string())?;
        Ok(Connection { requests, origin, _driver: Arc::new(Driver(driver.abort_handle())) })
    }

    /// Whether it is known to be over.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}
