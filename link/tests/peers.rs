//! Who may speak to a peer: nobody without what the cluster's credentials ask for.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::StreamExt as _;
use gantry_link::{ConsensusLink, ControllerLink, MutualTls, PeerCredentials, PeerServices, SharedToken, StoreLink};
use gantry_proto::contract::*;
use gantry_proto::env::fake::{Loopback, Wires};
use gantry_proto::env::{Env, fake};
use gantry_proto::model::*;
use gantry_proto::wire::DESCRIPTORS;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::controller::*;
use support::store::{MemoryStore, STORE_GROUP, TOPIC, replica};
use support::{CLUSTER, Served, env, local, local_of};

const OURS: [&str; 2] = ["gantry.store.v1", "gantry.controller.v1"];
const UNAUTHENTICATED: i32 = 16;
const UNIMPLEMENTED: i32 = 12;

struct Everything {
    env: Env,
    store: Arc<MemoryStore>,
    controller: Arc<MemoryController>,
    served: Served,
}

impl Everything {
    /// A process that serves all that can be served.
    async fn serve(credentials: &PeerCredentials) -> Everything {
        let env = env(Loopback);
        let (store, controller) = (Arc::new(MemoryStore::default()), Arc::new(MemoryController::default()));
        controller.add_topics([topic("secret", 1)]);
        let services = PeerServices::default().store(store.clone(), store.clone()).controller(
            controller.clone(),
            controller.clone(),
            controller.clone(),
        );
        let served = Served::start(&env, 0, &local_of(CLUSTER, credentials), services).await;
        Everything { env, store, controller, served }
    }

    fn calls(&self) -> usize {
        self.store.begun.load(Ordering::SeqCst) + self.controller.begun.load(Ordering::SeqCst)
    }

    /// What each link gets with these credentials: whether it could do anything at all.
    async fn is_served(&self, credentials: &PeerCredentials) -> [bool; 5] {
        let address = format!("localhost:{}", self.served.address.port());
        let local = local_of(CLUSTER, credentials);
        let store = StoreLink::open(&self.env, &local, replica(&address), STORE_GROUP, Epoch(1));
        let controller = ControllerLink::new(&self.env, &local, std::slice::from_ref(&address));
        let consensus = ConsensusLink::new(&self.env, &local);
        let call = ConsensusCall { kind: 1, target: 1, cluster: None, payload: "x".into() };
        let mut watch = controller.watch(MetadataVersion(0)).await.unwrap();
        [
            store.queues(TOPIC).await.is_ok(),
            controller.propose(create("x")).await.is_ok(),
            controller.join_store(join()).await.is_ok(),
            tokio::time::timeout(Duration::from_millis(500), watch.next()).await.is_ok(),
            consensus.call(&address, call, Duration::from_secs(5)).await.is_ok(),
        ]
    }
}

fn token(text: &str) -> PeerCredentials {
    PeerCredentials::Token(SharedToken::new(text.as_bytes()).unwrap())
}

/// Every RPC that peers serve, as a path.
fn paths() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let files = set.file.iter().filter(|file| OURS.contains(&file.package()));
    let paths = files.flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let methods = service.method.iter();
            methods.map(move |method| format!("/{}.{}/{}", file.package(), service.name(), method.name()))
        })
    });
    paths.collect()
}

/// The gRPC status of a call with an empty message, or `None` if there is none within a while.
async fn status_of(address: SocketAddr, path: &str, authorization: Option<&str>) -> Option<i32> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut requests, driver) = http2.handshake(TokioIo::new(tcp)).await.unwrap();
    let driver = tokio::spawn(driver);
    let mut request = http::Request::post(format!("http://{address}{path}")).header("content-type", "application/grpc");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Full::new(bytes::Bytes::from_static(&[0; 5]))).unwrap();
    let response = requests.send_request(request).await.unwrap();
    let number = |headers: &http::HeaderMap| headers.get("grpc-status").map(|s| s.to_str().unwrap().parse().unwrap());
    let status = match number(response.headers()) {
        Some(status) => Some(status),
        None => {
            let whole = tokio::time::timeout(Duration::from_millis(300), response.into_body().collect()).await;
            whole.ok().and_then(|body| number(body.unwrap().trailers()?))
        }
    };
    driver.abort();
    status
}

#[tokio::test]
async fn no_rpc_is_served_without_the_clusters_token() {
    let everything = Everything::serve(&token("the token of this cluster".replace(' ', "-").as_str())).await;
    let address = everything.served.address;
    let paths = paths();
    assert!(paths.len() >= 10, "{paths:?}");
    let wrong = [
        None,
        Some("Bearer the-token-of-another-one"),
        Some("Bearer "),
        Some("the-token-of-this-cluster"),
        Some("Bearer the-token-of-this-cluste"),
    ];
    for path in &paths {
        for authorization in wrong {
            let status = status_of(address, path, authorization).await;
            assert_eq!(status, Some(UNAUTHENTICATED), "{path} with {authorization:?}");
        }
    }
    assert_eq!(status_of(address, "/no.Such/Method", None).await, Some(UNAUTHENTICATED));
    assert_eq!(everything.calls(), 0, "no handler saw a call");
    for path in &paths {
        let status = status_of(address, path, Some("Bearer the-token-of-this-cluster")).await;
        assert!(status != Some(UNAUTHENTICATED) && status != Some(UNIMPLEMENTED), "{path}: {status:?}");
    }
}

#[tokio::test]
async fn links_with_the_token_are_served_and_others_can_do_nothing() {
    let right = token("0123456789abcdef");
    let everything = Everything::serve(&right).await;
    for wrong in [PeerCredentials::None, token("0123456789abcdeF")] {
        assert_eq!(everything.is_served(&wrong).await, [false; 5], "{wrong:?}");
    }
    assert_eq!(everything.calls(), 0, "no handler saw a call");
    assert_eq!(everything.is_served(&right).await, [true; 5]);
}

/// An authority, and certificates by it.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for this machine; the peer trusts `trusted`.
    fn certify(&self, trusted: &Authority) -> PeerCredentials {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let (env, _, _) = fake::env(1);
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let tls = MutualTls::new(trusted.pem.as_bytes(), certificate.as_bytes(), key.as_bytes(), env.clock);
        PeerCredentials::MutualTls(tls.unwrap())
    }
}

#[tokio::test]
async fn links_with_a_certificate_of_the_authority_are_served_and_others_can_do_nothing() {
    let (ours, others) = (Authority::new(), Authority::new());
    let everything = Everything::serve(&ours.certify(&ours)).await;
    let wrong = [PeerCredentials::None, token("0123456789abcdef"), others.certify(&ours), others.certify(&others)];
    for wrong in wrong {
        assert_eq!(everything.is_served(&wrong).await, [false; 5], "{wrong:?}");
    }
    assert_eq!(everything.calls(), 0, "no handler saw a call");
    assert_eq!(everything.is_served(&ours.certify(&ours)).await, [true; 5]);
}

#[tokio::test]
async fn a_client_does_not_speak_to_a_server_that_another_authority_certified() {
    let (ours, others) = (Authority::new(), Authority::new());
    // It would let us in.
    let everything = Everything::serve(&others.certify(&ours)).await;
    assert_eq!(everything.is_served(&ours.certify(&ours)).await, [false; 5]);
    assert_eq!(everything.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_makes_a_call_is_closed() {
    use tokio::io::AsyncReadExt as _;
    let env = env(Wires::default());
    let _served = Served::start(&env, 1, &local(), PeerServices::default()).await;
    let mut silent = env.network.connect("peer:1").await.unwrap();
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(11), silent.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "it is open after 11 s");
}

#[test]
fn certificates_that_cannot_be_used_are_refused_with_a_reason() {
    let (env, _, _) = fake::env(1);
    let authority = Authority::new();
    let error = MutualTls::new(b"nothing", b"", b"", env.clock.clone()).unwrap_err();
    assert_eq!(error.to_string(), "the certificate of the authority cannot be read: it holds no certificate");
    let error = MutualTls::new(authority.pem.as_bytes(), authority.pem.as_bytes(), b"no key", env.clock).unwrap_err();
    assert!(error.to_string().starts_with("the private key cannot be read"), "{error}");
}
