//! What the hop from a proxy to a store costs: CPU of both processes together, for each append of one message.
//!
//! `cargo run --release -p gantry-link --example hop -- [seconds per run]`
//!
//! Compares no hop at all (`direct`), a unary gRPC call for each append on one connection (`unary`), and [`StoreLink`], which
//! carries what waits in one frame (`stream`). The store behind it keeps nothing: it answers everything that came in
//! since the last time every 500 µs, as a store does that syncs its log.

use futures_util::future::BoxFuture;
use gantry_link::{LocalPeer, PeerCredentials, PeerServer, PeerServices, StoreIdentity, StoreLink};
use gantry_proto::contract::*;
use gantry_proto::env::{Addressed, Connection, Env, Listener, Network, fake};
use gantry_proto::model::*;
use gantry_proto::wire::store::v1 as wire;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const BODY_BYTES: usize = 1024;
const SYNC_INTERVAL: Duration = Duration::from_micros(500);
const UNARY_PATH: &str = "/measured.Unary/Append";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(mode) if mode == "serve" => serve().await,
        seconds => drive(Duration::from_secs_f64(seconds.map_or(Ok(4.0), |seconds| seconds.parse())?)).await,
    }
}

// ---- the driver ----

#[expect(clippy::print_stdout, reason = "the result")]
async fn drive(run: Duration) -> Result<(), AnyError> {
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdout(std::process::Stdio::piped())
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let mut lines = io::BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let link_address = lines.next().ok_or("no address")??;
    let unary_address = lines.next().ok_or("no address")??;

    let replica = Replica { folder: FOLDER, address: link_address.into() };
    let link = StoreLink::open(&env(), &local()?, replica, StoreGroupId(1), Epoch(1));
    let unary = Unary::connect(&unary_address).await?;
    let shapes: [(&str, Arc<dyn StoreService>); 3] =
        [("direct", SyncingStore::start().service()), ("unary", unary.service()), ("stream", Arc::new(link))];
    println!("shape   at once   appends/s   CPU µs each: driver, store, both");
    for at_once in [1, 16, 64, 256, 1024] {
        for (name, service) in &shapes {
            let (cpu_before, child_before) = (cpu("self")?, cpu(&child.id().to_string())?);
            let count = append_for(service.clone(), at_once, run).await?;
            let driver = (cpu("self")? - cpu_before) * 1e6 / count as f64;
            let store = (cpu(&child.id().to_string())? - child_before) * 1e6 / count as f64;
            let rate = count as f64 / run.as_secs_f64();
            println!("{name:7} {at_once:7} {rate:11.0}   {driver:6.2} {store:6.2} {:6.2}", driver + store);
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

async fn append_for(service: Arc<dyn StoreService>, at_once: usize, run: Duration) -> Result<u64, AnyError> {
    let (until, count) = (Instant::now() + run, Arc::new(AtomicU64::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (service, count) = (service.clone(), count.clone());
        callers.spawn(async move {
            let message = StoredMessage { head: vec![1; 100].into(), body: vec![7; BODY_BYTES].into() };
            while Instant::now() < until {
                let messages = vec![message.clone()];
                service.append(AppendRequest { topic: TopicId(1), queue: QueueId(0), messages }).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, AppendError>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(count.load(Ordering::Relaxed))
}

/// Seconds of CPU that a process has used.
fn cpu(process: &str) -> Result<f64, AnyError> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("no name")?.1.split(' ').collect();
    // Ticks in user and kernel mode, of 10 ms each.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

// ---- the store ----

#[expect(clippy::print_stdout, reason = "tells the driver where it is")]
async fn serve() -> Result<(), AnyError> {
    let store = SyncingStore::start();
    let server = PeerServer::bind(&env(), ([127, 0, 0, 1], 0).into(), &local()?).await?;
    println!("{}", server.local_addr()?);
    let unary = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", unary.local_addr()?);
    tokio::spawn(serve_unary(unary, store.clone()));
    let services = PeerServices::default().store(store.service(), Arc::new(GroupOne));
    server.run(services, CancellationToken::new(), Duration::ZERO).await;
    Ok(())
}

const FOLDER: FolderId = FolderId([1; 16]);

/// Either process.
fn local() -> Result<LocalPeer, AnyError> {
    let local = LocalPeer::new(PeerCredentials::None);
    local.belongs_to(ClusterId([1; 16]))?;
    Ok(local)
}

struct GroupOne;

impl StoreIdentity for GroupOne {
    fn store_group(&self) -> StoreGroupId {
        StoreGroupId(1)
    }

    fn folder(&self) -> FolderId {
        FOLDER
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn newer_epoch(&self, _epoch: Epoch) {}
}

/// Answers appends as if it had synced them, and nothing else.
struct SyncingStore {
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

impl SyncingStore {
    fn start() -> Arc<SyncingStore> {
        let store = Arc::new(SyncingStore { waiting: Mutex::default() });
        let syncing = store.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SYNC_INTERVAL).await;
                for waiter in std::mem::take(&mut *syncing.waiting.lock()) {
                    let _ = waiter.send(());
                }
            }
        });
        store
    }
}

const NOT_MEASURED: &str = "not measured";

type Append = dyn Fn(AppendRequest) -> BoxFuture<'static, Result<AppendReply, AppendError>> + Send + Sync;

/// A store that can do one thing.
struct OnlyAppends(Box<Append>);

#[async_trait::async_trait]
impl StoreService for OnlyAppends {
    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        (self.0)(request).await
    }

    async fn pop(&self, _request: PopRequest) -> Result<PopReply, PopError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()).into())
    }

    async fn ack(&self, _request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }

    async fn change_invisible(&self, _request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()).into())
    }

    async fn forward_to_dead_letter(&self, _request: DeadLetterRequest) -> Result<(), HandleError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()).into())
    }

    async fn renew(&self, _request: RenewRequest) -> Result<(), StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }

    async fn release(&self, _request: ReleaseRequest) -> Result<(), StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }

    async fn queues(&self, _topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }

    async fn progress(&self, _group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }

    async fn remains(&self) -> Result<Remains, StoreError> {
        Err(StoreError::Busy(NOT_MEASURED.to_owned()))
    }
}

impl SyncingStore {
    fn service(self: &Arc<SyncingStore>) -> Arc<OnlyAppends> {
        let store = self.clone();
        Arc::new(OnlyAppends(Box::new(move |request| {
            let store = store.clone();
            Box::pin(async move { Ok(store.append(request).await) })
        })))
    }

    async fn append(&self, request: AppendRequest) -> AppendReply {
        let (synced, wait) = oneshot::channel();
        self.waiting.lock().push(synced);
        let appended = request.messages.iter().map(|_| Appended {
            queue_offset: QueueOffset(1 << 20),
            log_offset: LogOffset(1 << 30),
            store_time: Timestamp::from_millis(1 << 40),
        });
        let appended = appended.collect();
        let _ = wait.await;
        AppendReply { appended }
    }
}

// ---- a call each ----

type UnaryChannel = hyper::client::conn::http2::SendRequest<tonic::body::Body>;

#[derive(Clone)]
struct UnaryService(UnaryChannel);

impl tower::Service<http::Request<tonic::body::Body>> for UnaryService {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

struct Unary(UnaryService, http::Uri);

impl Unary {
    async fn connect(address: &str) -> Result<Unary, AnyError> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http2.initial_connection_window_size(32 << 20).max_frame_size(256 << 10).max_concurrent_reset_streams(0);
        let (requests, driver) = http2.handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(driver);
        Ok(Unary(UnaryService(requests), format!("http://{address}").parse()?))
    }
}

impl Unary {
    fn service(self) -> Arc<OnlyAppends> {
        let unary = Arc::new(self);
        Arc::new(OnlyAppends(Box::new(move |request| {
            let unary = unary.clone();
            Box::pin(async move { unary.append(request).await })
        })))
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendReply, AppendError> {
        let messages = request.messages.into_iter();
        let call = wire::AppendCall {
            topic: request.topic.0,
            queue: request.queue.0,
            messages: messages.map(|m| wire::StoredMessage { head: m.head, body: m.body }).collect(),
        };
        let unreachable = |error: String| AppendError::Store(StoreError::Unreachable(error));
        let mut client = tonic::client::Grpc::with_origin(self.0.clone(), self.1.clone());
        client.ready().await.map_err(|error| unreachable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<wire::AppendCall, wire::AppendDone>::default();
        let path = http::uri::PathAndQuery::from_static(UNARY_PATH);
        let answered = client.unary(tonic::Request::new(call), path, codec).await;
        let done = answered.map_err(|status| unreachable(status.to_string()))?.into_inner();
        let appended = done.appended.into_iter().map(|one| Appended {
            queue_offset: QueueOffset(one.queue_offset),
            log_offset: LogOffset(one.log_offset),
            store_time: Timestamp::from_millis(one.store_time_ms),
        });
        Ok(AppendReply { appended: appended.collect() })
    }
}

async fn serve_unary(listener: TcpListener, store: Arc<SyncingStore>) -> io::Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let store = store.clone();
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2.timer(TokioTimer::new()).initial_connection_window_size(32 << 20).max_concurrent_streams(65_535);
        http2.max_frame_size(256 << 10).auto_date_header(false);
        let calls = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let append = UnaryAppend(store.clone());
            async move {
                let codec = tonic_prost::ProstCodec::<wire::AppendDone, wire::AppendCall>::default();
                Ok::<_, std::convert::Infallible>(tonic::server::Grpc::new(codec).unary(append, request).await)
            }
        });
        tokio::spawn(http2.serve_connection(TokioIo::new(tcp), calls));
    }
}

struct UnaryAppend(Arc<SyncingStore>);

impl tonic::server::UnaryService<wire::AppendCall> for UnaryAppend {
    type Response = wire::AppendDone;
    type Future = BoxFuture<'static, Result<tonic::Response<wire::AppendDone>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<wire::AppendCall>) -> Self::Future {
        let (store, call) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            let messages = call.messages.into_iter().map(|m| StoredMessage { head: m.head, body: m.body }).collect();
            let request = AppendRequest { topic: TopicId(call.topic), queue: QueueId(call.queue), messages };
            let reply = store.append(request).await;
            let appended = reply.appended.iter().map(|one| wire::Appended {
                queue_offset: one.queue_offset.0,
                log_offset: one.log_offset.0,
                store_time_ms: one.store_time.as_millis(),
            });
            Ok(tonic::Response::new(wire::AppendDone { appended: appended.collect() }))
        })
    }
}

// ---- the machine ----

fn env() -> Env {
    let (env, _, _) = fake::env(1);
    Env { network: Arc::new(Tcp), ..env }
}

struct Tcp;

#[async_trait::async_trait]
impl Network for Tcp {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Tcps(TcpListener::bind(address).await?)))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr().ok();
        Ok(Box::new(Addressed::new(tcp, local)))
    }
}

struct Tcps(TcpListener);

#[async_trait::async_trait]
impl Listener for Tcps {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (tcp, peer) = self.0.accept().await?;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr().ok();
        Ok((Box::new(Addressed::new(tcp, local)), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
