//! A proxy under test and the client that tests it.

mod membership;
mod metadata;
mod store;
mod stores;

pub(crate) use membership::FakeMembership;
pub(crate) use metadata::FakeMetadata;
pub(crate) use store::FakeStore;
pub(crate) use stores::{FakeStores, store_group};

pub(crate) use gantry_client::Messaging as Client;

use gantry_client::{Agent, Connection, Identity};
use gantry_proto::env::{Env, fake};
use gantry_proto::model::{MetadataView, StoreGroupId, StoreGroupState, fnv1a};
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::cluster_service_client::ClusterServiceClient;
use gantry_proto::wire::v2::receive_message_response::Content;
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::telemetry_command::Command;
use gantry_proto::wire::v2::{
    self, Address, AddressScheme, ClientType, Code, Endpoints, Message, MessageQueue, Publishing,
    ReceiveMessageRequest, Resource, SendMessageRequest, SendMessageResponse, Settings, Status, Subscription,
    SystemProperties, TelemetryCommand,
};
use gantry_proxy::{Proxy, ProxyConfig, ProxyDeps, ServeError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};

/// The store groups under test.
pub(crate) const FIRST: StoreGroupId = StoreGroupId(1);
pub(crate) const SECOND: StoreGroupId = StoreGroupId(2);

type Fakes = (Arc<FakeStores>, Arc<FakeStore>, Arc<FakeMetadata>, Arc<FakeMembership>);

/// A proxy that serves, and what is behind it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Where operators connect.
    pub(crate) admin_address: SocketAddr,
    pub(crate) stores: Arc<FakeStores>,
    /// The store of the first group.
    pub(crate) store: Arc<FakeStore>,
    pub(crate) membership: Arc<FakeMembership>,
    pub(crate) metadata: Arc<FakeMetadata>,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_with(|_, _| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ProxyConfig, &mut ProxyDeps)) -> Server {
        let deps = Server::deps();
        Server::start_over(deps, change).await
    }

    /// Another proxy of the same cluster.
    pub(crate) async fn sibling(&self, change: impl FnOnce(&mut ProxyConfig, &mut ProxyDeps)) -> Server {
        let deps = (self.stores.clone(), self.store.clone(), self.metadata.clone(), self.membership.clone());
        Server::start_over(deps, change).await
    }

    /// A second store group, and the topics that are made from now on are on both.
    pub(crate) fn add_store_group(&self) -> Arc<FakeStore> {
        let store = Arc::new(FakeStore::of_group(SECOND));
        self.stores.add(SECOND, store.clone());
        self.metadata.set_store_group(SECOND, StoreGroupState::Active);
        store
    }

    fn deps() -> Fakes {
        let stores = Arc::new(FakeStores::default());
        let store = Arc::new(FakeStore::of_group(FIRST));
        stores.add(FIRST, store.clone());
        let view = Arc::new(MetadataView::default());
        let metadata = Arc::new(FakeMetadata::new(view.clone()));
        (stores, store, metadata, Arc::new(FakeMembership::new(view)))
    }

    async fn start_over(
        (stores, store, metadata, membership): Fakes,
        change: impl FnOnce(&mut ProxyConfig, &mut ProxyDeps),
    ) -> Server {
        let (env, _, _) = fake::env(7);
        let mut config = ProxyConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            drain_timeout: Duration::from_secs(3),
            invisible_duration_min: Duration::from_millis(100),
            ..ProxyConfig::default()
        };
        let mut deps = ProxyDeps {
            env: Env { network: Arc::new(fake::Loopback), ..env },
            metadata: metadata.clone(),
            view: metadata.view.clone(),
            membership: membership.clone(),
            stores: stores.clone(),
            tls: None,
        };
        change(&mut config, &mut deps);
        let proxy = Proxy::build(config, deps).await.unwrap();
        let address = proxy.local_addr();
        let admin_address = proxy.admin_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(proxy.serve(shutdown.clone().cancelled_owned()));
        Server { address, admin_address, stores, store, membership, metadata, shutdown, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        self.connection().await.messaging()
    }

    pub(crate) async fn admin(&self) -> AdminServiceClient<Connection> {
        let connection = self.admin_connection().await;
        AdminServiceClient::with_origin(connection.clone(), connection.origin())
    }

    pub(crate) async fn cluster(&self) -> ClusterServiceClient<Connection> {
        let connection = self.admin_connection().await;
        ClusterServiceClient::with_origin(connection.clone(), connection.origin())
    }

    pub(crate) async fn connection(&self) -> Connection {
        Server::connect(self.address).await
    }

    async fn admin_connection(&self) -> Connection {
        Server::connect(self.admin_address).await
    }

    async fn connect(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.unwrap();
        // Official Java clients write this literal.
        Connection::over(stream, "IPAuthority", |_| {}).await.unwrap()
    }

    /// Begins the shutdown.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits for the end of the shutdown.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        self.serving.await.unwrap()
    }
}

/// The request of one client, with the headers that official clients send.
pub(crate) fn from_client<T>(client_id: &str, message: T) -> Request<T> {
    let agent = Agent { language: v2::Language::Java, version: "5.2.0", name: "test" };
    let clock = Arc::new(fake::FakeClock::new());
    Identity::new(agent, ClientType::Unspecified, client_id, "", None, clock).unwrap().request(message)
}

pub(crate) fn resource(name: &str) -> Resource {
    gantry_client::resource("", name)
}

pub(crate) fn endpoints(host: &str, port: i32) -> Endpoints {
    Endpoints { scheme: AddressScheme::DomainName as i32, addresses: vec![Address { host: host.to_owned(), port }] }
}

/// An id beginning with `name` that makes the proxy try queue `queue` of `count` first: it goes by FNV-1a of the id.
pub(crate) fn id_for_queue(name: &str, queue: u64, count: u64) -> String {
    let ids = (0..).map(|n| format!("{name}-{n}"));
    ids.into_iter().find(|id| fnv1a(id.bytes()) % count == queue).unwrap()
}

pub(crate) fn message(topic: &str, id: &str) -> Message {
    Message {
        topic: Some(resource(topic)),
        system_properties: Some(SystemProperties {
            message_id: id.to_owned(),
            message_type: v2::MessageType::Normal as i32,
            born_host: "producer".to_owned(),
            born_timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 2_000_000 }),
            ..SystemProperties::default()
        }),
        body: format!("body of {id}").into_bytes().into(),
        ..Message::default()
    }
}

pub(crate) fn code(status: Option<&Status>) -> Code {
    status.expect("every answer has a status").code()
}

/// Creates the topic by asking for its route, as clients do.
pub(crate) async fn query_route(client: &mut Client, topic: &str) -> v2::QueryRouteResponse {
    let request = v2::QueryRouteRequest { topic: Some(resource(topic)), endpoints: Some(endpoints("mq", 80)) };
    client.query_route(from_client("route", request)).await.unwrap().into_inner()
}

pub(crate) async fn send(client: &mut Client, messages: Vec<Message>) -> SendMessageResponse {
    client.send_message(from_client("producer", SendMessageRequest { messages })).await.unwrap().into_inner()
}

pub(crate) fn receive_request(topic: &str, group: &str) -> ReceiveMessageRequest {
    ReceiveMessageRequest {
        group: Some(resource(group)),
        message_queue: Some(MessageQueue { topic: Some(resource(topic)), ..MessageQueue::default() }),
        batch_size: 32,
        invisible_duration: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        long_polling_timeout: Some(prost_types::Duration::default()),
        ..ReceiveMessageRequest::default()
    }
}

/// A whole answer to a receive.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) status: Option<Status>,
    pub(crate) messages: Vec<Message>,
    /// What came, in order: s, m, t.
    pub(crate) shape: String,
}

impl Received {
    pub(crate) fn code(&self) -> Code {
        code(self.status.as_ref())
    }

    pub(crate) fn handles(&self) -> Vec<String> {
        let properties = self.messages.iter().filter_map(|message| message.system_properties.as_ref());
        properties.map(|properties| properties.receipt_handle.clone().unwrap()).collect()
    }
}

pub(crate) async fn receive(client: &mut Client, request: Request<ReceiveMessageRequest>) -> Received {
    let mut stream = client.receive_message(request).await.unwrap().into_inner();
    let mut received = Received::default();
    while let Some(response) = stream.message().await.expect("receives end with OK") {
        match response.content.unwrap() {
            Content::Status(status) => {
                received.status = Some(status);
                received.shape.push('s');
            }
            Content::Message(message) => {
                received.messages.push(message);
                received.shape.push('m');
            }
            Content::DeliveryTimestamp(_) => received.shape.push('t'),
        }
    }
    received
}

pub(crate) fn producer_settings(topic: &str) -> Settings {
    Settings {
        client_type: Some(ClientType::Producer as i32),
        access_point: Some(endpoints("mq", 80)),
        pub_sub: Some(PubSub::Publishing(Publishing { topics: vec![resource(topic)], ..Publishing::default() })),
        ..Settings::default()
    }
}

pub(crate) fn consumer_settings(client_type: ClientType, group: &str) -> Settings {
    Settings {
        client_type: Some(client_type as i32),
        pub_sub: Some(PubSub::Subscription(Subscription { group: Some(resource(group)), ..Subscription::default() })),
        ..Settings::default()
    }
}

/// A client's telemetry stream.
pub(crate) struct Telemetry {
    pub(crate) commands: Option<mpsc::Sender<TelemetryCommand>>,
    pub(crate) inbound: Streaming<TelemetryCommand>,
}

impl Telemetry {
    pub(crate) async fn open(client: &mut Client, client_id: &str) -> Telemetry {
        let (commands, outbound) = mpsc::channel(4);
        let request = from_client(client_id, ReceiverStream::new(outbound));
        let inbound = client.telemetry(request).await.unwrap().into_inner();
        Telemetry { commands: Some(commands), inbound }
    }

    pub(crate) async fn tell(&mut self, settings: Settings) {
        let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        self.commands.as_ref().unwrap().send(command).await.unwrap();
    }

    /// The next command; `None` when the stream ended with OK.
    pub(crate) async fn hear(&mut self) -> Option<TelemetryCommand> {
        let next = self.inbound.message();
        tokio::time::timeout(Duration::from_secs(5), next).await.expect("an answer").expect("no gRPC error")
    }

    pub(crate) async fn settings(&mut self) -> Settings {
        let heard = self.hear().await.expect("a command");
        assert_eq!(code(heard.status.as_ref()), Code::Ok, "{heard:?}");
        match heard.command {
            Some(Command::Settings(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }
}

/// A client with settings, its stream open.
pub(crate) async fn connect(client: &mut Client, client_id: &str, settings: Settings) -> Telemetry {
    let mut telemetry = Telemetry::open(client, client_id).await;
    telemetry.tell(settings).await;
    telemetry.settings().await;
    telemetry
}

/// Waits until something becomes true, for a moment.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
