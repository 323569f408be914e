//! A client's life: it picks a proxy, connects, opens its telemetry stream with its settings, sends heartbeats, and goes on
//! with another proxy when one does not serve it.

use crate::draw::Draw;
use crate::env::{Machine, SimClock, dial};
use crate::note;
use crate::site::{ADMIN_PORT, CHOOSY, CHOSEN, PROXY_PORT, Site};
use gantry_client::{Agent, Connection, Identity, Telemetry, tags};
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::cluster_service_client::ClusterServiceClient;
use gantry_proto::wire::v2::{self, ClientType};
use hyper_util::rt::TokioTimer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Response, Status};

pub(super) use crate::site::PATIENCE;
pub(super) use gantry_client::Messaging;

const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a client waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const AGENT: Agent = Agent { language: v2::Language::Java, version: "5.0.7", name: "simulation" };

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
    pub(super) identity: Identity,
    current: Option<Current>,
}

/// Where it is connected.
struct Current {
    proxy: Arc<str>,
    connection: Connection,
    /// To the proxy's port for operators, once that was needed.
    admin: Option<Connection>,
    heartbeat_due: Instant,
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

impl Role {
    /// Whom servers take the client for.
    fn identity(&self, machine: &Arc<Machine>, id: &str) -> Identity {
        let (client_type, group) = match self {
            Role::Producer => (ClientType::Producer, None),
            Role::Consumer { group } => (ClientType::SimpleConsumer, Some(group)),
            Role::Push { group } => (ClientType::PushConsumer, Some(group)),
        };
        let clock = Arc::new(SimClock::new(machine.clone()));
        let identity = Identity::new(AGENT, client_type, id, "", group.map(|group| &**group), clock);
        identity.expect("machines have names of ASCII characters")
    }
}

impl Session {
    pub(super) fn new(site: Arc<Site>, machine: Arc<Machine>, role: Role) -> Session {
        let draw = Draw::new(site.seed, &format!("client {}", machine.name));
        let id = machine.name.clone();
        let identity = role.identity(&machine, &id);
        Session { site, machine, draw, role, id, identity, current: None }
    }

    /// The id by which servers know the client.
    pub(super) fn id(&self) -> Arc<str> {
        self.id.clone()
    }

    /// The client is gone without a word; another one takes its place, under another id.
    pub(super) fn be_replaced_by(&mut self, id: Arc<str>) {
        self.leave();
        self.identity = self.role.identity(&self.machine, &id);
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
    pub(super) async fn connection(&mut self) -> Option<Connection> {
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

    /// Clients for the operators' services, at the proxy in use.
    pub(super) async fn admin(&mut self) -> Option<Admin> {
        self.connection().await?;
        let current = self.current.as_mut()?;
        let open = current.admin.take().filter(|connection| !connection.is_closed());
        let connection = match open {
            Some(connection) => connection,
            None => match connect(&self.machine, &format!("{}:{ADMIN_PORT}", current.proxy)).await {
                Ok(connection) => connection,
                Err(why) => {
                    note!(self.site.recorder.trace, &self.machine.name, "no port for operators: {why}");
                    self.leave();
                    return None;
                }
            },
        };
        current.admin = Some(connection.clone());
        let origin = connection.origin();
        let topics = AdminServiceClient::with_origin(connection.clone(), origin.clone());
        Some(Admin { topics, cluster: ClusterServiceClient::with_origin(connection, origin) })
    }

    async fn open(&mut self, proxy: &str) -> Result<Current, String> {
        let connection = connect(&self.machine, &format!("{proxy}:{PROXY_PORT}")).await?;
        let (filter, topics) = (self.filter(), self.site.topics());
        let topics = topics.iter().map(|topic| (&**topic, filter.clone()));
        let settings = self.identity.settings(topics, None, PATIENCE);
        let opened = timeout(PATIENCE, Telemetry::open(&self.identity, &connection, settings)).await;
        let mut telemetry = opened.map_err(|_| "no settings".to_owned())?.map_err(|failure| failure.text)?;
        let _listening = AbortOnDropHandle::new(tokio::spawn(async move {
            telemetry.ended().await;
        }));
        Ok(Current { proxy: proxy.into(), connection, admin: None, heartbeat_due: Instant::now(), _listening })
    }

    /// Sends a heartbeat if it is time.
    pub(super) async fn keep_alive(&mut self) {
        let due = self.current.as_ref().is_some_and(|current| current.heartbeat_due <= Instant::now());
        if !due {
            return;
        }
        let (group, client_type) = (self.identity.group(), self.identity.client_type().into());
        let request = v2::HeartbeatRequest { group, client_type };
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
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let Some(connection) = self.connection().await else { return Reply::NotSent };
        match gantry_client::call(&self.identity, &connection, patience, message, call).await {
            Ok(answer) => Reply::Answer(answer),
            Err(failure) => {
                note!(self.site.recorder.trace, &self.machine.name, "call failed: {}", failure.code);
                if !failure.is_deadline() {
                    self.leave();
                }
                Reply::Unknown
            }
        }
    }

    /// What it subscribes to.
    fn filter(&self) -> v2::FilterExpression {
        match &self.role {
            Role::Producer => tags("*"),
            Role::Consumer { group } | Role::Push { group } => filter_of(group),
        }
    }
}

async fn connect(machine: &Arc<Machine>, address: &str) -> Result<Connection, String> {
    let connecting = async {
        let stream = dial(machine, address).await.map_err(|error| error.to_string())?;
        let keep_alive = |http2: &mut gantry_client::Http2Builder| {
            http2
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(3))
                .keep_alive_while_idle(true);
        };
        Connection::over(stream, address, keep_alive).await
    };
    let connected = timeout(CONNECT_PATIENCE, connecting).await;
    connected.unwrap_or_else(|_| Err("no answer".to_owned()))
}

pub(super) fn resource(name: &str) -> v2::Resource {
    gantry_client::resource("", name)
}

/// What a consumer group subscribes to.
pub(super) fn filter_of(group: &str) -> v2::FilterExpression {
    tags(if group == CHOOSY { CHOSEN } else { "*" })
}
