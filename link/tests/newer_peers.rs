//! Today's program beside one that is newer: it speaks one version more, says things in every message that are not known
//! here, and knows kinds of calls, answers, failures and changes that are not. Both get along, in both directions.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use gantry_link::{ControllerLink, PeerServices, StoreLink};
use gantry_proto::contract::*;
use gantry_proto::env::fake::Loopback;
use gantry_proto::model::*;
use gantry_proto::wire::controller::v1 as controller;
use gantry_proto::wire::store::v1 as store;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::call::Call;
use store::failure::Kind;
use store::reply::Outcome;
use support::controller::MemoryController;
use support::raw::dial;
use support::store::*;
use support::{CLUSTER, Served, env, eventually, local};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const EXCHANGE: &str = "/gantry.store.v1.StoreExchange/Exchange";

/// What a newer version may add to any message: a field, and another kind of whatever stands in a oneof.
#[derive(Clone, PartialEq, Message)]
struct Added {
    #[prost(bytes = "vec", optional, tag = "20000")]
    kind: Option<Vec<u8>>,
    #[prost(string, tag = "20001")]
    field: String,
}

/// The message, with a field that is not known here.
fn with_field(message: &impl Message) -> Vec<u8> {
    let added = Added { kind: None, field: "of a newer version".to_owned() };
    [message.encode_to_vec(), added.encode_to_vec()].concat()
}

/// The message, with a kind that is not known here in the place of one that is.
fn with_kind(message: &impl Message) -> Vec<u8> {
    let added = Added { kind: Some(b"something".to_vec()), field: "of a newer version".to_owned() };
    [message.encode_to_vec(), added.encode_to_vec()].concat()
}

/// A frame of an exchange in either direction, with calls or replies that are encoded already.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(bytes = "vec", optional, tag = "1")]
    handshake: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    list: Vec<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    refused: Option<Vec<u8>>,
    #[prost(string, tag = "20001")]
    added: String,
}

/// A page of a watch, likewise.
#[derive(Clone, PartialEq, Message)]
struct Page {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    changes: Vec<Vec<u8>>,
    #[prost(bool, tag = "3")]
    last: bool,
    #[prost(string, tag = "20001")]
    added: String,
}

fn frame(handshake: Option<Vec<u8>>, list: Vec<Vec<u8>>) -> Frame {
    Frame { handshake, list, refused: None, added: "of a newer version".to_owned() }
}

// ---- a newer proxy ----

struct NewerProxy {
    frames: mpsc::Sender<Frame>,
    replies: Streaming<store::Replies>,
}

impl NewerProxy {
    /// Says hello, and returns what the store says to that.
    async fn connect(address: SocketAddr, min: u32, max: u32) -> (NewerProxy, store::Replies) {
        let (frames, queue) = mpsc::channel(16);
        let hello = store::Hello {
            versions: Some(store::VersionRange { min, max }),
            cluster: Bytes::copy_from_slice(&CLUSTER.0),
            group: STORE_GROUP.0,
            folder: Bytes::copy_from_slice(&FOLDER.0),
            epoch: 1,
            ..store::Hello::default()
        };
        frames.send(frame(Some(with_field(&hello)), Vec::new())).await.unwrap();
        let queue = stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
        let (codec, path) = (ProstCodec::<Frame, store::Replies>::default(), PathAndQuery::from_static(EXCHANGE));
        let answer = dial(address).await.streaming(Request::new(queue), path, codec).await;
        let mut replies = answer.unwrap().into_inner();
        let first = replies.message().await.unwrap().unwrap();
        (NewerProxy { frames, replies }, first)
    }

    /// What the store answers to calls, by their numbers.
    async fn answers(&mut self, calls: Vec<Vec<u8>>) -> BTreeMap<u64, Outcome> {
        let (count, mut answers) = (calls.len(), BTreeMap::new());
        self.frames.send(frame(None, calls)).await.unwrap();
        while answers.len() < count {
            let frame = self.replies.message().await.unwrap().expect("the stream goes on");
            answers.extend(frame.replies.into_iter().map(|reply| (reply.id, reply.outcome.unwrap())));
        }
        answers
    }
}

fn is_unsupported(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failure(failure) if failure.kind() == Kind::Unsupported && failure.nothing_happened)
}

fn call(id: u64, call: Option<Call>) -> store::Call {
    store::Call { id, remaining_ms: 10_000, call, must_understand: Vec::new() }
}

#[tokio::test]
async fn a_newer_proxy_gets_along_with_this_store() {
    let (env, memory) = (env(Loopback), Arc::new(MemoryStore::default()));
    let services = PeerServices::default().store(memory.clone(), memory.clone());
    let served = Served::start(&env, 0, &local(), services).await;
    let (mut proxy, first) = NewerProxy::connect(served.address, 1, 2).await;
    assert_eq!(first.welcome.unwrap().version, 1, "the highest that both speak");

    let queues = || Call::Queues(store::QueuesCall { topic: TOPIC.0 });
    let conditional = store::Call { must_understand: vec![5], ..call(3, Some(queues())) };
    let answers = proxy
        .answers(vec![
            with_field(&call(1, Some(queues()))),
            with_kind(&call(2, None)),
            with_field(&conditional),
            with_field(&call(4, Some(Call::Append(store::AppendCall::default())))),
        ])
        .await;
    assert!(matches!(&answers[&1], Outcome::Queues(_)), "what may be skipped is");
    assert!(is_unsupported(&answers[&2]), "a kind of call that is not known: {:?}", answers[&2]);
    assert!(is_unsupported(&answers[&3]), "what must be understood: {:?}", answers[&3]);
    assert!(is_unsupported(&answers[&4]), "what makes no sense here: {:?}", answers[&4]);
    let answers = proxy.answers(vec![with_field(&call(5, Some(Call::Remains(store::RemainsCall {}))))]).await;
    assert!(matches!(&answers[&5], Outcome::Remains(_)), "the stream goes on");
    assert_eq!(memory.begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_proxy_without_a_common_version_is_told_what_to_upgrade() {
    let (env, memory) = (env(Loopback), Arc::new(MemoryStore::default()));
    let services = PeerServices::default().store(memory.clone(), memory.clone());
    let served = Served::start(&env, 0, &local(), services).await;
    let (mut proxy, first) = NewerProxy::connect(served.address, 2, 3).await;
    let refused = first.refused.unwrap();
    assert_eq!(refused.kind(), store::refused::Kind::Version);
    assert_eq!(
        refused.text,
        "the store speaks version 1 of the protocol, the proxy versions 2 to 3: upgrade the store"
    );
    assert!(proxy.replies.message().await.unwrap().is_none(), "that was all");
}

// ---- a newer store, a newer controller ----

type Handler = Arc<dyn Fn(http::Request<Incoming>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync>;

/// Connections that were taken, and where.
async fn serve(handler: Handler) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let handler = handler.clone();
            let calls =
                hyper::service::service_fn(move |request| handler(request).map(Ok::<_, std::convert::Infallible>));
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(tcp), calls));
        }
    });
    (address, taken)
}

/// Answers each frame of today's proxy.
#[derive(Clone)]
struct NewerStore(fn(store::Requests) -> Frame);

impl tonic::server::StreamingService<store::Requests> for NewerStore {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<store::Requests>>) -> Self::Future {
        let (requests, answer) = (request.into_inner(), self.0);
        let replies = requests.map(move |frame| frame.map(answer)).boxed();
        std::future::ready(Ok(Response::new(replies))).boxed()
    }
}

async fn link_to(answer: fn(store::Requests) -> Frame) -> (StoreLink, Arc<AtomicUsize>) {
    let serve_one = move |request| {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Frame, store::Requests>::default());
        async move { grpc.streaming(NewerStore(answer), request).await }.boxed()
    };
    let (address, taken) = serve(Arc::new(serve_one)).await;
    (StoreLink::open(&env(Loopback), &local(), replica(&address.to_string()), STORE_GROUP, Epoch(1)), taken)
}

fn welcome(hello: &store::Hello) -> Vec<u8> {
    let store::Hello { cluster, group, folder, .. } = hello.clone();
    with_field(&store::Welcome { version: 1, cluster, group, folder, epoch: 1, ..store::Welcome::default() })
}

fn answer(call: store::Call) -> Vec<u8> {
    let reply = |outcome| store::Reply { id: call.id, outcome };
    match call.call.unwrap() {
        Call::Append(_) => {
            let appended = store::Appended { queue_offset: 7, log_offset: 8, store_time_ms: 9 };
            with_field(&reply(Some(Outcome::Append(store::AppendDone { appended: vec![appended] }))))
        }
        Call::Queues(_) => with_kind(&reply(None)),
        Call::Progress(_) => {
            let failure = store::Failure { kind: 1000, nothing_happened: true, ..store::Failure::default() };
            with_field(&reply(Some(Outcome::Failure(failure))))
        }
        Call::Renew(_) => {
            let failure = store::Failure { kind: 1000, ..store::Failure::default() };
            with_field(&reply(Some(Outcome::Failure(failure))))
        }
        Call::Ack(ack) => {
            let failure = Some(store::Failure { kind: 1000, nothing_happened: true, ..store::Failure::default() });
            let failures = vec![store::AckFailure { position: 1, failure }];
            let done = store::AckDone { count: ack.handles.len() as u32, failures };
            with_field(&reply(Some(Outcome::Ack(done))))
        }
        _ => with_field(&reply(Some(Outcome::Remains(store::RemainsDone { unfinished: 1, unclaimed: 2 })))),
    }
}

#[tokio::test]
async fn this_proxy_gets_along_with_a_newer_store() {
    let (link, taken) = link_to(|requests| {
        let handshake = requests.hello.as_ref().map(welcome);
        frame(handshake, requests.calls.into_iter().map(answer).collect())
    })
    .await;
    let appended = link.append(append(vec![message("x", b"")])).await.unwrap().appended;
    assert_eq!(appended[0].queue_offset, QueueOffset(7), "what may be skipped is");
    let error = link.queues(TOPIC).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "an answer that is not known: {error:?}");
    let error = link.progress(GROUP).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported(_)), "an unknown failure before anything happened: {error:?}");
    let error = link
        .renew(RenewRequest { owners: Vec::new(), invisible: Duration::ZERO, arrived: Vec::new() })
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "an unknown failure that leaves it open: {error:?}");
    let handle = || ReceiptHandle::new(STORE_GROUP, "x");
    let results = link.ack(ack(vec![handle(), handle()])).await.unwrap();
    assert!(matches!(&results[..], [Ok(()), Err(HandleError::Store(StoreError::Unsupported(_)))]), "{results:?}");
    assert_eq!(link.remains().await.unwrap(), Remains { unfinished: 1, unclaimed: 2 });
    let connections = taken.load(Ordering::SeqCst);
    assert!(link.is_up() && connections <= 3, "nothing was connected anew: {connections}");
}

#[tokio::test]
async fn a_store_without_a_common_version_is_down_and_its_reason_is_told() {
    let (link, _taken) = link_to(|_hello| {
        let text = "the store speaks versions 2 to 3 of the protocol, the proxy version 1: upgrade the proxy";
        let refused = store::Refused { kind: 1000, text: text.to_owned() };
        Frame { refused: Some(with_field(&refused)), ..frame(None, Vec::new()) }
    })
    .await;
    eventually("the link is down", || !link.is_up()).await;
    let error = link.queues(TOPIC).await.unwrap_err();
    assert!(matches!(&error, StoreError::NoLeader(why) if why.ends_with("upgrade the proxy")), "{error}");
}

/// What a newer member answers, by the last part of the path.
async fn newer_controller(pages: Vec<Page>) -> ControllerLink {
    #[derive(Clone)]
    struct Watch(Vec<Page>);
    impl tonic::server::ServerStreamingService<controller::WatchRequest> for Watch {
        type Response = Page;
        type ResponseStream = BoxStream<'static, Result<Page, Status>>;
        type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

        fn call(&mut self, _request: Request<controller::WatchRequest>) -> Self::Future {
            let pages = stream::iter(self.0.clone()).map(Ok).chain(stream::pending()).boxed();
            std::future::ready(Ok(Response::new(pages))).boxed()
        }
    }
    #[derive(Clone)]
    struct Answer(Frame);
    impl tonic::server::UnaryService<Frame> for Answer {
        type Response = Frame;
        type Future = BoxFuture<'static, Result<Response<Frame>, Status>>;

        fn call(&mut self, _request: Request<Frame>) -> Self::Future {
            std::future::ready(Ok(Response::new(self.0.clone()))).boxed()
        }
    }
    let handler = move |request: http::Request<Incoming>| {
        let pages = pages.clone();
        async move {
            let versions = request.headers().get("gantry-versions").cloned();
            assert_eq!(versions.unwrap(), "1-1");
            let mut answer = match request.uri().path().rsplit('/').next().unwrap() {
                "Watch" => {
                    let codec = ProstCodec::<Page, controller::WatchRequest>::default();
                    tonic::server::Grpc::new(codec).server_streaming(Watch(pages), request).await
                }
                "ProxyAlive" => {
                    // Without a result that is known.
                    let codec = ProstCodec::<Frame, Frame>::default();
                    tonic::server::Grpc::new(codec).unary(Answer(frame(None, Vec::new())), request).await
                }
                "ClusterStatus" => {
                    let status = controller::ClusterStatus { version: 5, ..controller::ClusterStatus::default() };
                    let codec = ProstCodec::<Frame, Frame>::default();
                    let answer = Answer(frame(Some(with_field(&status)), Vec::new()));
                    tonic::server::Grpc::new(codec).unary(answer, request).await
                }
                path => panic!("{path}"),
            };
            answer.headers_mut().insert("gantry-versions", "1-2".parse().unwrap());
            answer.headers_mut().insert("gantry-cluster", CLUSTER.to_string().parse().unwrap());
            answer.headers_mut().insert("gantry-something", "newer".parse().unwrap());
            answer
        }
        .boxed()
    };
    let (address, _) = serve(Arc::new(handler)).await;
    ControllerLink::new(&env(Loopback), &local(), &[address.to_string()])
}

#[tokio::test]
async fn a_change_of_the_metadata_that_is_not_known_does_not_hold_up_the_others() {
    use controller::metadata_change::Change;
    let known = |id| controller::MetadataChange { change: Some(Change::TopicRemoved(id)), skippable: false };
    let page = |version, changes| Page { version, changes, last: true, added: "newer".to_owned() };
    let link = newer_controller(vec![
        page(1, vec![with_field(&known(1)), with_kind(&controller::MetadataChange::default()), with_field(&known(2))]),
        page(2, vec![with_kind(&controller::MetadataChange::default())]),
        page(3, vec![with_field(&known(3))]),
    ])
    .await;
    let mut events = link.watch(MetadataVersion(0)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event =
            tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("it is not held up").unwrap();
        seen.push((event.version.0, event.changes));
    }
    let removed = |id| MetadataChange::TopicRemoved(TopicId(id));
    // What may have been a topic or a group is told: nothing that is not named counts as removed then.
    let unknown = || MetadataChange::NotUnderstood(None);
    let expected = [(1, vec![removed(1), unknown(), removed(2)]), (2, vec![unknown()]), (3, vec![removed(3)])];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn answers_of_a_newer_controller_are_read_or_are_errors_of_their_own() {
    let link = newer_controller(Vec::new()).await;
    assert_eq!(link.cluster_status().await.unwrap().version, MetadataVersion(5));
    let error = link.proxy_alive(support::controller::alive()).await.unwrap_err();
    assert!(
        matches!(&error, MembershipError::Unavailable(why) if why.contains("not one that this version")),
        "{error:?}"
    );
    assert_eq!(link.cluster_status().await.unwrap().version, MetadataVersion(5));
}

#[tokio::test]
async fn a_newer_caller_of_this_controller_is_answered_or_told_that_nothing_happened() {
    let (env, memory) = (env(Loopback), Arc::new(MemoryController::default()));
    let services = PeerServices::default().controller(memory.clone(), memory.clone(), memory.clone());
    let served = Served::start(&env, 0, &local(), services).await;
    // Whatever is in the first field of a request is encoded already.
    let call = async |path: &'static str, first: Option<Vec<u8>>, versions: &'static str| {
        let mut request = Request::new(frame(first, Vec::new()));
        request.metadata_mut().insert("gantry-versions", versions.parse().unwrap());
        request.metadata_mut().insert("gantry-cluster", CLUSTER.to_string().parse().unwrap());
        let codec = ProstCodec::<Frame, Frame>::default();
        dial(served.address).await.unary(request, PathAndQuery::from_static(path), codec).await
    };
    call("/gantry.controller.v1.Membership/ClusterStatus", None, "1-2").await.unwrap();
    let begun = memory.begun.load(Ordering::SeqCst);
    assert_eq!(begun, 1);
    let refused = call("/gantry.controller.v1.Membership/ClusterStatus", None, "2-3").await.unwrap_err();
    assert!(refused.message().contains("upgrade this process"), "{refused:?}");
    let unknown = with_kind(&controller::MetadataCommand::default());
    let refused = call("/gantry.controller.v1.Metadata/Propose", Some(unknown), "1-2").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused:?}");
    assert_eq!(memory.begun.load(Ordering::SeqCst), begun, "nothing happened");
}
