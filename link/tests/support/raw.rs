//! A client that sends whatever messages a test makes.

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tonic::body::Body;

#[derive(Clone)]
pub struct Client(hyper::client::conn::http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Client {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Connects over the loopback interface.
pub async fn dial(address: SocketAddr) -> tonic::client::Grpc<Client> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (requests, driver) = http2.handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(driver);
    let mut client = tonic::client::Grpc::with_origin(Client(requests), format!("http://{address}").parse().unwrap());
    client.ready().await.unwrap();
    client
}
