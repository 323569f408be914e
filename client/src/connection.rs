//! One HTTP/2 connection to a server, over a stream that the caller made.
//!
//! Straight hyper instead of tonic's channel: no queue and no task stand between a call and the connection. It ends with
//! its last clone.

use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use gantry_proto::wire::v2::messaging_service_client::MessagingServiceClient;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;

pub type Http2Builder = http2::Builder<TokioExecutor>;
pub type Messaging = MessagingServiceClient<Connection>;

#[derive(Clone)]
pub struct Connection {
    requests: http2::SendRequest<Body>,
    shared: Arc<Shared>,
}

struct Shared {
    origin: Uri,
    /// Why it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Speaks HTTP/2 over `stream`; `authority` is what calls say whom they ask. `tune` sets windows and keep-alive.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        authority: &str,
        tune: impl FnOnce(&mut Http2Builder),
    ) -> Result<Connection, String> {
        let origin = format!("http://{authority}").parse().map_err(|error| format!("{authority:?}: {error}"))?;
        let mut builder = Http2Builder::new(TokioExecutor::new());
        tune(&mut builder);
        let opened = builder.handshake(TokioIo::new(stream)).await;
        let (requests, driver) = opened.map_err(|error| with_causes(&error))?;
        let (tell, ended) = watch::channel(None);
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let why = driver.await.map_or_else(|error| with_causes(&error), |()| CLOSED.to_owned());
            tell.send_replace(Some(why));
        }));
        Ok(Connection { requests, shared: Arc::new(Shared { origin, ended, _driver: driver }) })
    }

    /// For the calls of the client protocol, with messages of any size that servers take.
    pub fn messaging(&self) -> Messaging {
        MessagingServiceClient::with_origin(self.clone(), self.origin())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    /// For clients of other services.
    pub fn origin(&self) -> Uri {
        self.shared.origin.clone()
    }

    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Waits until the connection is gone, and says why. Cancel safe.
    pub async fn closed(&self) -> String {
        let mut ended = self.shared.ended.clone();
        let why = ended.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the connection's task failed".to_owned())
    }
}

const CLOSED: &str = "the server closed the connection";

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Whoever calls bounds the number of calls in flight; one over an ended connection fails.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = self.requests.send_request(request);
        Box::pin(async move { sent.await.map_err(|error| Status::unavailable(with_causes(&error))) })
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
