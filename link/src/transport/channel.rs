use super::introduction::{Introduced, accept, introduce};
use super::tasks::TasksGuard;
use crate::local_peer::LocalPeer;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// An open connection, on which generated clients make calls. It ends when the last clone is dropped: keep one while a
/// stream of replies is read.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(super) requests: SendRequest<Body>,
    /// Scheme and authority.
    pub(super) origin: Uri,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) local: LocalPeer,
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
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Incoming>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.requests.poll_ready(cx).map_err(failed)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let introduced = Introduced::of(request.uri().path());
        let Some(introduced) = introduced else {
            let answered = self.requests.send_request(request);
            return Box::pin(async move { answered.await.map_err(failed) });
        };
        introduce(self.local.cluster(), request.headers_mut());
        let (answered, local) = (self.requests.send_request(request), self.local.clone());
        Box::pin(async move {
            let response = answered.await.map_err(failed)?;
            accept(response.headers(), introduced, &local)
                .map_err(|error| Status::failed_precondition(format!("its answer is not taken: {error}")))?;
            Ok(response)
        })
    }
}

fn failed(error: hyper::Error) -> Status {
    Status::from_error(Box::new(error))
}
