//! The listener: one port for TLS and plaintext, limits, and the way down.

use crate::support::{
    Server, Telemetry, code, connect, from_client, message, producer_settings, query_route, receive, receive_request,
    send,
};
use gantry_client::Connection;
use gantry_proto::wire::v2::{self, Code};
use gantry_proxy::{BuildError, Proxy, ProxyConfig, tls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn tls_connection(address: SocketAddr, certificate: &str) -> Connection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Connection::over(tls, "localhost", |_| {}).await.unwrap()
}

#[tokio::test]
async fn tls_and_plaintext_share_a_port() {
    let pair = tls::self_signed(["localhost"]).unwrap();
    let config = tls::server_config(&pair).unwrap();
    let server = Server::start_with(|_, deps| deps.tls = Some(config)).await;
    let mut plain = server.client().await;
    let mut secure = tls_connection(server.address, &pair.certificates).await.messaging();
    assert_eq!(code(query_route(&mut plain, "orders").await.status.as_ref()), Code::Ok);
    assert_eq!(code(send(&mut secure, vec![message("orders", "id")]).await.status.as_ref()), Code::Ok);
    let received = receive(&mut plain, from_client("c", receive_request("orders", "group"))).await;
    assert_eq!(received.shape, "smt");
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_holds_up_nobody() {
    let pair = tls::self_signed(["localhost"]).unwrap();
    let config = tls::server_config(&pair).unwrap();
    let server = Server::start_with(|proxy, deps| {
        deps.tls = Some(config);
        proxy.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[0x16, 3, 1]).await.unwrap();
    query_route(&mut server.client().await, "orders").await;
    for stream in [&mut silent, &mut half] {
        let closed = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut [0; 64])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let server = Server::start_with(|config, _| config.connections_max = 2).await;
    let mut first = server.client().await;
    query_route(&mut first, "orders").await;
    let second = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(3), third.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    drop(second);
    tokio::time::sleep(Duration::from_millis(100)).await;
    query_route(&mut server.client().await, "orders").await;
}

#[tokio::test]
async fn hundreds_of_parked_receives_share_a_connection() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let wait = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let request = v2::ReceiveMessageRequest { long_polling_timeout: wait, ..receive_request("orders", "group") };
    let parked: Vec<_> = (0..500)
        .map(|_| {
            let (mut client, request) = (client.clone(), request.clone());
            tokio::spawn(async move { receive(&mut client, from_client("c", request)).await })
        })
        .collect();
    crate::support::eventually("all are parked", || server.store.seen().parked == 500).await;
    let quick = query_route(&mut client, "orders");
    tokio::time::timeout(Duration::from_secs(2), quick).await.expect("not behind the parked ones");
    for receive in &parked {
        receive.abort();
    }
    crate::support::eventually("all are gone", || server.store.seen().parked == 0).await;
    query_route(&mut client, "orders").await;
}

#[tokio::test]
async fn a_message_of_the_largest_size_goes_in_and_out() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let mut large = message("orders", "large");
    large.body = vec![7; 4 << 20].into();
    assert_eq!(code(send(&mut client, vec![large.clone()]).await.status.as_ref()), Code::Ok);
    let received = receive(&mut client, from_client("c", receive_request("orders", "group"))).await;
    assert_eq!(received.messages[0].body, large.body);
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    let server = Server::start().await;
    let connection = server.connection().await;
    let mut admin = v2::admin_client::AdminClient::with_origin(connection.clone(), connection.origin());
    let error = admin.change_log_level(v2::ChangeLogLevelRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn a_deadline_of_sixty_years_is_fine() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let mut request = from_client("java", receive_request("orders", "group"));
    request.metadata_mut().insert("grpc-timeout", "31535999M".parse().unwrap());
    assert_eq!(receive(&mut client, request).await.code(), Code::MessageNotFound);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let server = Server::start().await;
    let taken = server.address;
    let error = build_at(taken).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::AddressInUse { address } if address == taken), "{error:?}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let elsewhere: SocketAddr = "192.0.2.1:8081".parse().unwrap();
    let error = build_at(elsewhere).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::AddressNotOurs { address } if address == elsewhere), "{error:?}");
}

async fn build_at(listen: SocketAddr) -> Result<Proxy, BuildError> {
    let (env, _, _) = gantry_proto::env::fake::env(1);
    let view = Arc::new(gantry_proto::model::MetadataView::default());
    let deps = gantry_proxy::ProxyDeps {
        env: gantry_proto::env::Env { network: Arc::new(gantry_proto::env::fake::Loopback), ..env },
        metadata: Arc::new(crate::support::FakeMetadata::new(view.clone())),
        membership: Arc::new(crate::support::FakeMembership::new(view.clone())),
        view,
        stores: Arc::new(crate::support::FakeStores::default()),
        tls: None,
    };
    Proxy::build(ProxyConfig { listen, ..ProxyConfig::default() }, deps).await
}

#[tokio::test]
async fn a_drain_ends_what_waits_and_finishes_what_works() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let mut telemetry: Telemetry = connect(&mut client, "producer", producer_settings("orders")).await;
    let wait = Some(prost_types::Duration { seconds: 15, nanos: 0 });
    let request = v2::ReceiveMessageRequest { long_polling_timeout: wait, ..receive_request("orders", "group") };
    let parked = tokio::spawn({
        let mut client = client.clone();
        async move { receive(&mut client, from_client("c", request)).await }
    });
    crate::support::eventually("the receive is parked", || server.store.seen().parked == 1).await;
    server.store.held.send_replace(true);
    let working = tokio::spawn({
        let mut client = client.clone();
        async move { send(&mut client, vec![message("orders", "id")]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;

    server.shut_down();
    let received = parked.await.unwrap();
    assert_eq!((received.shape.as_str(), received.code()), ("st", Code::MessageNotFound));
    assert_eq!(telemetry.hear().await, None, "ended with OK");
    assert!(!working.is_finished());
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody new comes in");
    server.store.held.send_replace(false);
    assert_eq!(code(working.await.unwrap().status.as_ref()), Code::Ok);
    server.ended().await.unwrap();
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let server = Server::start_with(|config, _| config.drain_timeout = Duration::from_millis(200)).await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    server.store.held.send_replace(true);
    let stuck = tokio::spawn({
        let mut client = client.clone();
        let request = v2::SendMessageRequest { messages: vec![message("orders", "id")] };
        async move { client.send_message(from_client("c", request)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shut_down();
    tokio::time::timeout(Duration::from_secs(3), server.ended()).await.expect("bounded").unwrap();
    assert!(stuck.await.unwrap().is_err());
}

#[tokio::test]
async fn whoever_can_send_cannot_call_what_operators_call() {
    use gantry_proto::wire::admin::v1 as admin;
    use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
    let server = Server::start().await;
    let connection = server.connection().await;
    query_route(&mut connection.clone().messaging(), "orders").await;
    let mut stranger = AdminServiceClient::with_origin(connection.clone(), connection.origin());
    let delete = || admin::DeleteTopicRequest { name: "orders".to_owned() };
    assert_eq!(stranger.delete_topic(delete()).await.unwrap_err().code(), tonic::Code::Unimplemented);
    let mut operator = server.admin().await;
    operator.describe_topic(admin::DescribeTopicRequest { name: "orders".to_owned() }).await.unwrap();
    operator.delete_topic(delete()).await.unwrap();
    // And nobody sends where operators call.
    let mut client = Connection::over(TcpStream::connect(server.admin_address).await.unwrap(), "h", |_| {}).await;
    let mut client = client.as_mut().unwrap().clone().messaging();
    let request = v2::SendMessageRequest { messages: vec![message("orders", "id")] };
    assert_eq!(client.send_message(from_client("c", request)).await.unwrap_err().code(), tonic::Code::Unimplemented);
}
