//! The HTTP server of the operators' port.

use super::health::Health;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long a client may take to say what it wants.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a whole exchange may take. There is one per connection.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// Connections at a time; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept: out of file descriptors, most likely, and trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server tells about.
#[derive(Clone)]
pub struct OpsState {
    /// The answers to probes.
    pub health: Health,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

/// A bound listener that does not answer yet.
pub struct OpsServer {
    listener: TcpListener,
    state: OpsState,
}

impl OpsServer {
    /// Binds the port.
    pub async fn bind(address: SocketAddr, state: OpsState) -> io::Result<OpsServer> {
        Ok(OpsServer { listener: TcpListener::bind(address).await?, state })
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers. Never ends; dropping the future closes the port, and open connections end by their deadline.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let state = self.state.clone();
                    tokio::spawn(async move {
                        // Errors and deadlines concern only this client, who notices.
                        let _ = timeout(CONNECTION_DEADLINE, serve_connection(stream, state)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the operators' port");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, state: OpsState) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let response = respond(&request, &state);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

const TEXT: &str = "text/plain; charset=utf-8";
/// The exposition format that the exporter renders.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

fn respond<B>(request: &Request<B>, state: &OpsState) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !["/livez", "/readyz", "/metrics"].contains(&path) {
        return answer(StatusCode::NOT_FOUND, TEXT, "there are /livez, /readyz and /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => probe(state.health.live(), state.health.ready().err()),
        "/readyz" => probe(state.health.ready(), None),
        _ => answer(StatusCode::OK, PROMETHEUS_TEXT, state.metrics.render()),
    }
}

/// `but`: what an operator should see all the same.
fn probe(result: Result<(), String>, but: Option<String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => {
            answer(StatusCode::OK, TEXT, but.map_or("ok\n".to_owned(), |but| format!("ok, but not ready: {but}\n")))
        }
        Err(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;
    use metrics::Recorder as _;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn start() -> (SocketAddr, Health) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metadata = metrics::Metadata::new("test", metrics::Level::INFO, None);
        recorder.register_counter(&"rocketmq_messages_in_total".into(), &metadata).increment(3);
        let health = Health::default();
        let state = OpsState { health: health.clone(), metrics: recorder.handle() };
        let server = OpsServer::bind("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(server.serve());
        (address, health)
    }

    /// One exchange; the whole answer as text.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn probes_follow_the_life_of_the_process() {
        let (address, health) = start().await;
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        health.enter(Phase::Ready);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        health.ready_with(|| Err("its log failed".to_owned()));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        let live = get(address, "/livez").await;
        assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("not ready: its log failed\n"), "{live}");
        health.check_with(|| Err("the store stopped writing: I/O error".to_owned()));
        let live = get(address, "/livez").await;
        assert!(
            live.starts_with("HTTP/1.1 503 ") && live.ends_with("the store stopped writing: I/O error\n"),
            "{live}"
        );
    }

    #[tokio::test]
    async fn metrics_are_rendered_for_prometheus() {
        let (address, _) = start().await;
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("rocketmq_messages_in_total 3"), "{metrics}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let (address, _) = start().await;
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        let posted = exchange(address, "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD"), "{posted}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_cut_off() {
        let (address, _) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTT").await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(CONNECTION_DEADLINE * 2, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "the connection was not closed");
    }
}
