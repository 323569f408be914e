//! A client's life: it picks a proxy, connects, opens its telemetry stream with its settings, sends heartbeats, and goes on
//! with another proxy when one does not serve it.

use super::connection::Connection;
use super::to_wire;
use crate::draw::Draw;
use crate::env::Machine;
use crate::note;
use crate::site::{CHOOSY, CHOSEN, PROXY_PORT, Site};
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::cluster_service_client::ClusterServiceClient;
use gantry_proto::wire::v2;
use gantry_proto::wire::v2::messaging_service_client::MessagingServiceClient;
use gantry_proto::wire::v2::telemetry_command::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

/// How long a client waits for an answer, beyond what it asked the server to wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
const HEARTBEAT: Duration = Duration::from_secs(5);

pub(super) type Messaging = MessagingServiceClient<Connection>;

/// What operators call.
pub(super) struct Admin {
    pub(super) topics: AdminServiceClient<Connection>,
    pub(super) cluster: ClusterServiceClient<Connection>,
}

/// What a client is.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Producer,
    Consumer { group: Arc<str> },
    Push { group: Arc<str> },
}

/// One client.
pub(super) struct Session {
    pub(super) site: Arc<Site>,
    pub(super) machine: Arc<Machine>,
    pub(super) draw: Draw,
    role: Role,
    /// The id by which servers know it.
    id: Arc<str>,
    requests: u64,
    current: Option<Current>,
}

/// Where it is connected.
struct Current {
    connection: Connection,
    heartbeat_due: Instant,
    _commands: mpsc::Sender<v2::TelemetryCommand>,
    _listening: AbortOnDropHandle<()>,
}

/// What became of a call.
pub(super) enum Reply<T> {
    /// An answer.
    Answer(T),
    /// It was not sent.
    NotSent,
    /// Nobody knows.
    Unknown,
}

impl Session {
    pub(super) fn new(site: Arc<Site>, machine: Arc<Machine>, role: Role) -> Session {
        let draw = Draw::new(site.seed, &format!("client {}", machine.name));
        let id = machine.name.clone();
        Session { site, machine, draw, role, id, requests: 0, current: None }
    }

    /// The id by which servers know the client.
    pub(super) fn id(&self) -> Arc<str> {
        self.id.clone()
    }

    /// The client is gone without a word; another one takes its place, under another id.
    pub(super) fn be_replaced_by(&mut self, id: Arc<str>) {
        self.leave();
        self.id = id;
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.machine.name.clone()
    }

    /// Leaves the proxy without a word.
    pub(super) fn leave(&mut self) {
        self.current = None;
    }

    /// The connection in use, or a new one to any proxy. `None`: there is none now; time has passed.
    async fn connection(&mut self) -> Option<Connection> {
        if let Some(current) = &self.current {
            if !current.connection.is_closed() {
                return Some(current.connection.clone());
            }
            self.current = None;
        }
        let proxies = self.site.proxies();
        let proxy = self.draw.pick(&proxies).clone();
        match self.open(&proxy).await {
            Ok(current) => {
                let connection = current.connection.clone();
                self.current = Some(current);
                Some(connection)
            }
            Err(why) => {
                note!(self.site.recorder.trace, &self.machine.name, "not served by {proxy}: {why}");
                let pause = self.draw.span(Duration::from_millis(100)..Duration::from_millis(800));
                tokio::time::sleep(pause).await;
                None
            }
        }
    }

    /// A client for the messaging service.
    pub(super) async fn messaging(&mut self) -> Option<Messaging> {
        let connection = self.connection().await?;
        let origin = connection.origin.clone();
        Some(MessagingServiceClient::with_origin(connection, origin).max_decoding_message_size(64 << 20))
    }

    /// Clients for the operators' services.
    pub(super) async fn admin(&mut self) -> Option<Admin> {
        let connection = self.connection().await?;
        let origin = connection.origin.clone();
        let topics = AdminServiceClient::with_origin(connection.clone(), origin.clone());
        Some(Admin { topics, cluster: ClusterServiceClient::with_origin(connection, origin) })
    }

    async fn open(&mut self, proxy: &str) -> Result<Current, String> {
        let connection = Connection::open(&self.machine, &format!("{proxy}:{PROXY_PORT}")).await?;
        let origin = connection.origin.clone();
        let mut stub = MessagingServiceClient::with_origin(connection.clone(), origin);
        let (commands, mut outgoing) = mpsc::channel(4);
        let settings = v2::TelemetryCommand { status: None, command: Some(Command::Settings(self.settings())) };
        commands.try_send(settings).map_err(|error| error.to_string())?;
        let outgoing = futures_util::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
        let request = self.request(outgoing);
        let opening = async {
            let mut stream = stub.telemetry(request).await?.into_inner();
            while let Some(command) = stream.message().await? {
                if let Some(Command::Settings(_)) = command.command {
                    return Ok(stream);
                }
            }
            Err(Status::aborted("the telemetry stream ended without settings"))
        };
        let opened = timeout(PATIENCE, opening).await.map_err(|_| "no settings".to_owned())?;
        let mut stream = opened.map_err(|status| status.message().to_owned())?;
        let listening = tokio::spawn(async move { while let Ok(Some(_)) = stream.message().await {} });
        let _listening = AbortOnDropHandle::new(listening);
        Ok(Current { connection, heartbeat_due: Instant::now(), _commands: commands, _listening })
    }

    /// Sends a heartbeat if it is time.
    pub(super) async fn keep_alive(&mut self) {
        let due = self.current.as_ref().is_some_and(|current| current.heartbeat_due <= Instant::now());
        if !due {
            return;
        }
        let group = match &self.role {
            Role::Producer => None,
            Role::Consumer { group } | Role::Push { group } => Some(resource(group)),
        };
        let request = v2::HeartbeatRequest { group, client_type: self.client_type().into() };
        self.call(PATIENCE, request, |mut stub, request| async move { stub.heartbeat(request).await }).await;
        if let Some(current) = &mut self.current {
            current.heartbeat_due = Instant::now() + HEARTBEAT;
        }
    }

    /// Makes a call. After one that was not answered the client changes its connection.
    pub(super) async fn call<T, R, F>(
        &mut self,
        patience: Duration,
        message: T,
        call: impl FnOnce(Messaging, tonic::Request<T>) -> F,
    ) -> Reply<R>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let Some(stub) = self.messaging().await else { return Reply::NotSent };
        let mut request = self.request(message);
        request.set_timeout(patience);
        match timeout(patience + Duration::from_millis(500), call(stub, request)).await {
            Ok(Ok(answer)) => Reply::Answer(answer.into_inner()),
            Ok(Err(status)) => {
                note!(self.site.recorder.trace, &self.machine.name, "call failed: {:?}", status.code());
                if status.code() != Code::DeadlineExceeded {
                    self.leave();
                }
                Reply::Unknown
            }
            Err(_) => {
                note!(self.site.recorder.trace, &self.machine.name, "call not answered");
                self.leave();
                Reply::Unknown
            }
        }
    }

    /// A request with the headers that clients send.
    pub(super) fn request<T>(&mut self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        self.requests += 1;
        let (name, number) = (self.id.clone(), self.requests);
        let metadata = request.metadata_mut();
        let texts = [
            ("x-mq-language", "JAVA".to_owned()),
            ("x-mq-protocol", "v2".to_owned()),
            ("x-mq-client-version", "5.0.7".to_owned()),
            ("x-mq-client-id", name.to_string()),
            ("x-mq-namespace", String::new()),
            ("x-mq-date-time", "20260601T000000Z".to_owned()),
            ("x-mq-request-id", format!("{name}-{number}")),
        ];
        for (key, text) in texts {
            // All of it is ASCII.
            if let Ok(value) = text.parse() {
                metadata.insert(key, value);
            }
        }
        request
    }

    fn client_type(&self) -> v2::ClientType {
        match self.role {
            Role::Producer => v2::ClientType::Producer,
            Role::Consumer { .. } => v2::ClientType::SimpleConsumer,
            Role::Push { .. } => v2::ClientType::PushConsumer,
        }
    }

    fn settings(&self) -> v2::Settings {
        let topics = self.site.topics();
        let pub_sub = match &self.role {
            Role::Producer => v2::settings::PubSub::Publishing(v2::Publishing {
                topics: topics.iter().map(|topic| resource(topic)).collect(),
                max_body_size: 0,
                validate_message_type: true,
            }),
            Role::Consumer { group } | Role::Push { group } => v2::settings::PubSub::Subscription(v2::Subscription {
                group: Some(resource(group)),
                subscriptions: topics
                    .iter()
                    .map(|topic| v2::SubscriptionEntry {
                        topic: Some(resource(topic)),
                        expression: Some(filter_of(group)),
                    })
                    .collect(),
                ..Default::default()
            }),
        };
        v2::Settings {
            client_type: Some(self.client_type().into()),
            request_timeout: Some(to_wire(PATIENCE)),
            pub_sub: Some(pub_sub),
            user_agent: Some(v2::Ua {
                language: v2::Language::Java.into(),
                version: "5.0.7".to_owned(),
                platform: "simulation".to_owned(),
                hostname: self.machine.name.to_string(),
            }),
            ..Default::default()
        }
    }
}

pub(super) fn resource(name: &str) -> v2::Resource {
    v2::Resource { resource_namespace: String::new(), name: name.to_owned() }
}

/// What a consumer group subscribes to.
pub(super) fn filter_of(group: &str) -> v2::FilterExpression {
    let expression = if group == CHOOSY { CHOSEN } else { "*" };
    v2::FilterExpression { r#type: v2::FilterType::Tag.into(), expression: expression.to_owned() }
}
