use super::tasks::TasksGuard;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;

/// An open connection, on which generated clients call. The connection ends when the last clone is dropped: whoever
/// reads a stream of replies keeps one.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(super) requests: SendRequest<Body>,
    /// Scheme and authority.
    pub(super) origin: Uri,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) _tasks: Arc<TasksGuard>,
}

impl Channel {
    /// What generated clients put before paths.
    pub(crate) fn origin(&self) -> Uri {
        self.origin.clone()
    }

    /// Whether the connection is known to be over.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Box::pin(self.requests.send_request(request))
    }
}
