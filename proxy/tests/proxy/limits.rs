//! What a client may ask of a proxy, and how long it may take: whoever goes beyond it is told so, and nobody else suffers.

use crate::support::{
    Client, Server, code, connect, eventually, from_client, message, producer_settings, query_route, send,
};
use gantry_proto::wire::v2::{self, Code};
use gantry_proxy::ProxyConfig;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;

/// What HTTP/2 begins with: the preface and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn server(change: impl FnOnce(&mut ProxyConfig)) -> Server {
    Server::start_with(|config, _| change(config)).await
}

/// Fails if the server does not close the connection soon.
async fn assert_closed(stream: &mut TcpStream) {
    let ended = async { while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("it stays open");
}

async fn send_of(client: &mut Client, messages: Vec<v2::Message>) -> Result<Code, tonic::Status> {
    let request = from_client("c", v2::SendMessageRequest { messages });
    client.send_message(request).await.map(|reply| code(reply.into_inner().status.as_ref()))
}

#[tokio::test]
async fn a_request_of_too_many_parts_is_refused_before_it_is_decoded() {
    let server = server(|_| {}).await;
    let mut client = server.client().await;
    let many = vec![v2::Message::default(); 200_000];
    assert_eq!(send_of(&mut client, many).await.unwrap(), Code::PayloadTooLarge);
    let entries = vec![v2::AckMessageEntry::default(); 10_000];
    let ack = v2::AckMessageRequest { entries, ..v2::AckMessageRequest::default() };
    let reply = client.ack_message(from_client("c", ack)).await.unwrap().into_inner();
    assert_eq!(code(reply.status.as_ref()), Code::PayloadTooLarge);
    let endpoints = v2::Endpoints { scheme: 1, addresses: vec![v2::Address::default(); 1000] };
    let route = v2::QueryRouteRequest { endpoints: Some(endpoints), ..v2::QueryRouteRequest::default() };
    let reply = client.query_route(from_client("c", route)).await.unwrap().into_inner();
    assert_eq!(code(reply.status.as_ref()), Code::IllegalAccessPoint);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_resource_exhausted() {
    let server = server(|_| {}).await;
    let mut client = server.client().await;
    let group = v2::Resource { name: "g".repeat(70 << 10), ..v2::Resource::default() };
    let heartbeat = v2::HeartbeatRequest { group: Some(group), ..v2::HeartbeatRequest::default() };
    let error = client.heartbeat(from_client("c", heartbeat)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error:?}");
}

#[tokio::test]
async fn settings_that_are_too_large_are_refused_by_a_command() {
    let server = server(|_| {}).await;
    let mut client = server.client().await;
    let mut settings = producer_settings("orders");
    settings.client_properties.insert("k".to_owned(), "v".repeat(2 << 20));
    let command = v2::TelemetryCommand {
        command: Some(v2::telemetry_command::Command::Settings(settings)),
        ..v2::TelemetryCommand::default()
    };
    let stream = from_client("c", tokio_stream::iter([command]));
    let mut answers = client.telemetry(stream).await.unwrap().into_inner();
    let told = answers.message().await.unwrap().unwrap();
    assert_eq!(code(told.status.as_ref()), Code::PayloadTooLarge);
    assert_eq!(answers.message().await.unwrap(), None, "and ends with OK");
}

#[tokio::test]
async fn a_telemetry_stream_without_settings_ends() {
    let server = server(|config| config.settings_timeout = Duration::from_millis(300)).await;
    let mut client = server.client().await;
    let (_open, commands) = tokio::sync::mpsc::channel(1);
    let mut answers = client.telemetry(from_client("c", ReceiverStream::new(commands))).await.unwrap().into_inner();
    let told = answers.message().await.unwrap().unwrap();
    assert_eq!(code(told.status.as_ref()), Code::RequestTimeout);
    assert_eq!(answers.message().await.unwrap(), None);
    // One that has settings stays.
    let mut ours = connect(&mut client, "producer", producer_settings("orders")).await;
    let silent = tokio::time::timeout(Duration::from_millis(900), async { while ours.hear().await.is_some() {} });
    assert!(silent.await.is_err(), "it ended");
}

#[tokio::test]
async fn telemetry_streams_have_a_number() {
    let server = server(|config| config.telemetry_streams_max = 2).await;
    let mut client = server.client().await;
    let first = connect(&mut client, "one", producer_settings("orders")).await;
    let _second = connect(&mut client, "two", producer_settings("orders")).await;
    let (_open, commands) = tokio::sync::mpsc::channel(1);
    let error = client.telemetry(from_client("three", ReceiverStream::new(commands))).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    drop(first);
    let again = async {
        loop {
            let (_open, commands) = tokio::sync::mpsc::channel(1);
            if client.telemetry(from_client("three", ReceiverStream::new(commands))).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("a place is free again");
}

#[tokio::test]
async fn a_socket_that_says_almost_nothing_is_closed() {
    let server = server(|config| {
        config.handshake_timeout = Duration::from_millis(300);
        config.idle_timeout = Duration::from_secs(60);
    })
    .await;
    for said in [&b"P"[..], &GREETING[..24], b"x"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        assert_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn a_connection_without_a_call_is_closed_in_time() {
    let server = server(|config| config.idle_timeout = Duration::from_millis(400)).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(GREETING).await.unwrap();
    let mut busy = server.client().await;
    let _telemetry = connect(&mut busy, "producer", producer_settings("orders")).await;
    assert_closed(&mut silent).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // One open call keeps a connection: it is the same one.
    query_route(&mut busy, "orders").await;
}

#[tokio::test]
async fn one_byte_does_not_hold_up_a_drain() {
    let server = server(|config| config.drain_timeout = Duration::from_secs(60)).await;
    let mut sockets = Vec::new();
    for said in [&b""[..], b"P", GREETING] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        sockets.push(stream);
    }
    query_route(&mut server.client().await, "orders").await;
    server.shut_down();
    tokio::time::timeout(Duration::from_secs(10), server.ended()).await.expect("it waits for them").unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_arrive_is_ended_and_its_memory_given_back() {
    let server = server(|config| {
        config.request_timeout = Duration::from_millis(300);
        config.memory_max = 8 << 20;
        config.memory_per_peer_percent = 100;
    })
    .await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let mut connection = RawConnection::open(&server).await;
    // The length of 8 MiB less a little, and then nothing.
    connection.call("SendMessage", &[0, 0, 0x7c, 0, 0]).await;
    let large = || {
        let mut large = message("orders", "large");
        large.body = vec![7; 4 << 20].into();
        vec![large]
    };
    assert_eq!(send_of(&mut client, large()).await.unwrap(), Code::TooManyRequests);
    assert_eq!(send_of(&mut client, vec![message("orders", "small")]).await.unwrap(), Code::Ok, "not kept out");
    let mut code = Code::TooManyRequests;
    for _ in 0..100 {
        code = send_of(&mut client, large()).await.unwrap();
        if code == Code::Ok {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(code, Code::Ok, "what was taken is given back");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_dropped_and_its_messages_go_back() {
    let server = server(|config| config.read_timeout = Duration::from_millis(300)).await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let mut large = message("orders", "large");
    large.body = vec![7; 1 << 20].into();
    assert_eq!(code(send(&mut client, vec![large]).await.status.as_ref()), Code::Ok);
    // Its stream has no room for any data.
    let mut connection = RawConnection::with_settings(&server, &[0, 4, 0, 0, 0, 0]).await;
    let request = crate::support::receive_request("orders", "group");
    let body = prost::Message::encode_to_vec(&request);
    let framed = [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat();
    connection.call_whole("ReceiveMessage", &framed).await;
    eventually("it is reset", || connection.is_reset()).await;
}

/// HTTP/2 by hand: a client that does what no library lets it do.
struct RawConnection {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl RawConnection {
    async fn open(server: &Server) -> RawConnection {
        RawConnection::with_settings(server, &[]).await
    }

    async fn with_settings(server: &Server, settings: &[u8]) -> RawConnection {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let frame = frame(4, 0, 0, settings);
        stream.write_all(&[&GREETING[..24], &frame].concat()).await.unwrap();
        RawConnection { stream, heard: Vec::new() }
    }

    /// Begins a call and sends part of its body.
    async fn call(&mut self, method: &str, part: &[u8]) {
        let bytes = [frame(1, 4, 1, &headers(method)), frame(0, 0, 1, part)].concat();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn call_whole(&mut self, method: &str, body: &[u8]) {
        let bytes = [frame(1, 4, 1, &headers(method)), frame(0, 1, 1, body)].concat();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Whether the first stream was reset.
    fn is_reset(&mut self) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.stream.try_read(&mut buffer) {
            self.heard.extend_from_slice(&buffer[..read]);
        }
        let mut rest = &self.heard[..];
        while rest.len() >= 9 {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            if rest[3] == 3 && rest[5..9] == [0, 0, 0, 1] {
                return true;
            }
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        false
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A call's headers, none of them compressed.
fn headers(method: &str) -> Vec<u8> {
    let path = format!("/apache.rocketmq.v2.MessagingService/{method}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-mq-client-id", "raw"),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

#[tokio::test]
async fn clients_that_are_known_have_a_number_and_their_ids_a_length() {
    let server = server(|config| config.sessions_max = 2).await;
    let mut client = server.client().await;
    let mut beat = async |id: &str| {
        let heartbeat = v2::HeartbeatRequest { group: None, client_type: v2::ClientType::Producer as i32 };
        let reply = client.heartbeat(from_client(id, heartbeat)).await.unwrap().into_inner();
        code(reply.status.as_ref())
    };
    assert_eq!((beat("one").await, beat("two").await), (Code::Ok, Code::Ok));
    assert_eq!(beat("three").await, Code::TooManyRequests);
    assert_eq!(beat("one").await, Code::Ok, "who is known stays");
    assert_eq!(beat(&"x".repeat(256)).await, Code::RequestHeaderFieldsTooLarge);
}

#[tokio::test]
async fn topics_are_created_on_first_use_only_so_fast_and_so_many() {
    let fast = server(|config| config.auto_create_rate = 1).await;
    let mut client = fast.client().await;
    let mut codes = Vec::new();
    for n in 0..20 {
        codes.push(code(query_route(&mut client, &format!("made-up-{n}")).await.status.as_ref()));
    }
    assert_eq!(codes[..10], [Code::Ok; 10], "an application that starts");
    assert_eq!(codes[19], Code::TooManyRequests);
    let many = server(|config| config.auto_create_max = 3).await;
    let mut client = many.client().await;
    let mut codes = Vec::new();
    for n in 0..5 {
        codes.push(code(query_route(&mut client, &format!("made-up-{n}")).await.status.as_ref()));
    }
    assert_eq!(codes.last(), Some(&Code::TooManyRequests), "{codes:?}");
    assert_eq!(code(query_route(&mut client, "made-up-0").await.status.as_ref()), Code::Ok, "what is there serves");
}

#[tokio::test]
async fn a_receive_names_only_so_many_tags() {
    let server = server(|_| {}).await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    for (count, expected) in [(64, Code::MessageNotFound), (65, Code::IllegalFilterExpression)] {
        let tags = (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join("||");
        let filter = v2::FilterExpression { r#type: v2::FilterType::Tag as i32, expression: tags };
        let request = v2::ReceiveMessageRequest {
            filter_expression: Some(filter),
            ..crate::support::receive_request("orders", "group")
        };
        let received = crate::support::receive(&mut client, from_client("c", request)).await;
        assert_eq!(received.code(), expected, "{count}");
    }
}

#[tokio::test]
async fn a_load_balancer_tells_where_a_client_is() {
    let server = server(|config| config.proxy_protocol = gantry_proxy::ProxyProtocol::Require).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 4000 8081\r\n").await.unwrap();
    let connection = gantry_client::Connection::over(stream, "h", |_| {}).await.unwrap();
    let mut client = connection.messaging();
    query_route(&mut client, "orders").await;
    let mut sent = message("orders", "id");
    sent.system_properties.as_mut().unwrap().born_host.clear();
    assert_eq!(code(send(&mut client, vec![sent]).await.status.as_ref()), Code::Ok);
    let request = crate::support::receive_request("orders", "group");
    let received = crate::support::receive(&mut client, from_client("c", request)).await;
    let born = received.messages[0].system_properties.as_ref().map(|properties| properties.born_host.as_str());
    assert_eq!(born, Some("203.0.113.7:4000"));
    let mut without = TcpStream::connect(server.address).await.unwrap();
    without.write_all(GREETING).await.unwrap();
    assert_closed(&mut without).await;
}
