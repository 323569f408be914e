//! One client instance of the protocol, as a real one behaves: its own connection, route, settings handshake, heartbeats,
//! and a goodbye at the end.
//!
//! A [`Client`] is owned by its runner, which must close it; its [`Caller`] is shared and makes the calls. Calls are never
//! retried: a benchmark shows what the server answers.

mod caller;
mod connection;
mod headers;
mod message_id;
mod prepare;
mod session;

pub(super) use caller::{Caller, Received, every_tag, to_wire};
pub(super) use message_id::MessageIds;
pub(super) use prepare::prepare;

use super::clock::RunClock;
use super::joined;
use super::stats::ErrorTable;
use connection::{Link, Transport};
use gantry_proto::env::Random;
use gantry_proto::model::HostPort;
use gantry_proto::wire::v2;
use session::Session;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What all clients of a run have in common.
#[derive(Clone)]
pub(super) struct Target {
    /// Where clients connect, in turn.
    pub(super) endpoints: Vec<HostPort>,
    /// Of topic and group; may be empty.
    pub(super) namespace: String,
    /// Where messages go and come from.
    pub(super) topic: String,
    /// Deadline of a call, without the time of a long poll.
    pub(super) timeout: Duration,
    /// Stamps the calls.
    pub(super) clock: RunClock,
    /// Makes client ids.
    pub(super) random: Arc<dyn Random>,
    /// Takes what goes wrong outside of calls.
    pub(super) errors: Arc<ErrorTable>,
}

impl Target {
    /// A name within the namespace.
    pub(super) fn resource(&self, name: &str) -> v2::Resource {
        v2::Resource { resource_namespace: self.namespace.clone(), name: name.to_owned() }
    }

    /// The topic.
    pub(super) fn topic_resource(&self) -> v2::Resource {
        self.resource(&self.topic)
    }

    /// A random number.
    pub(super) fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random network address, marked as not being one of hardware.
    pub(super) fn random_node(&self) -> [u8; 6] {
        let mut node = [0; 6];
        self.random.fill(&mut node);
        node[0] |= 0x02;
        node
    }
}

/// What kind of client.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Sends.
    Producer,
    /// Receives when asked.
    SimpleConsumer {
        /// Its consumer group.
        group: String,
    },
    /// Receives with automatically renewed leases.
    PushConsumer {
        /// Its consumer group.
        group: String,
    },
}

impl Role {
    fn client_type(&self) -> v2::ClientType {
        match self {
            Role::Producer => v2::ClientType::Producer,
            Role::SimpleConsumer { .. } => v2::ClientType::SimpleConsumer,
            Role::PushConsumer { .. } => v2::ClientType::PushConsumer,
        }
    }

    fn group(&self) -> Option<&str> {
        match self {
            Role::Producer => None,
            Role::SimpleConsumer { group } | Role::PushConsumer { group } => Some(group),
        }
    }
}

/// A connected client.
pub(super) struct Client {
    caller: Arc<Caller>,
    route: Vec<v2::MessageQueue>,
    settings: v2::Settings,
    stop: CancellationToken,
    session: JoinHandle<()>,
}

impl Client {
    /// Connects the `index`th client of a run: route, settings handshake, first heartbeat.
    pub(super) async fn connect(target: &Arc<Target>, role: Role, index: usize) -> anyhow::Result<Client> {
        let endpoint = target.endpoints[index % target.endpoints.len()].clone();
        let link = dial(&endpoint, target.timeout).await?;
        let transport = Transport::over(&link);
        let caller = Arc::new(Caller::new(target, role, index, endpoint, &transport)?);
        let route = match caller.query_route().await {
            Ok(route) => route,
            Err(failure) => {
                link.close().await;
                return Err(caller.explain(failure));
            }
        };
        let stop = CancellationToken::new();
        let (session, settled) = Session::new(caller.clone(), transport, stop.clone());
        let session = tokio::spawn(session.run(link));
        let mut client = Client { caller, route, settings: v2::Settings::default(), stop, session };
        match settled.await {
            Ok(Ok(settings)) => client.settings = settings,
            Ok(Err(failure)) => {
                let error = client.caller.explain(failure);
                client.close().await;
                return Err(error);
            }
            Err(_) => anyhow::bail!("the session with {} ended unexpectedly", client.caller.endpoint),
        }
        Ok(client)
    }

    /// Connects `count` clients.
    pub(super) async fn connect_all(target: &Arc<Target>, role: &Role, count: u32) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::new();
        for index in 0..count as usize {
            match Client::connect(target, role.clone(), index).await {
                Ok(client) => clients.push(client),
                Err(error) => {
                    Client::close_all(clients).await;
                    return Err(error);
                }
            }
        }
        Ok(clients)
    }

    /// Makes the calls.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The topic's queues.
    pub(super) fn route(&self) -> &[v2::MessageQueue] {
        &self.route
    }

    /// The largest body that the server takes, if it said so.
    pub(super) fn body_bytes_max(&self) -> Option<u64> {
        match &self.settings.pub_sub {
            Some(v2::settings::PubSub::Publishing(publishing)) => {
                u64::try_from(publishing.max_body_size).ok().filter(|bytes| *bytes > 0)
            }
            _ => None,
        }
    }

    /// Says goodbye and closes the connection.
    pub(super) async fn close(self) {
        self.stop.cancel();
        // The session bounds every step of its end by a timeout.
        joined(self.session.await);
    }

    /// Closes clients side by side.
    pub(super) async fn close_all(clients: Vec<Client>) {
        futures_util::future::join_all(clients.into_iter().map(Client::close)).await;
    }
}

fn origin(endpoint: &HostPort) -> anyhow::Result<http::Uri> {
    Ok(format!("http://{endpoint}").parse()?)
}

async fn dial(endpoint: &HostPort, timeout: Duration) -> anyhow::Result<Link> {
    Link::dial(endpoint, timeout).await.map_err(|reason| {
        anyhow::anyhow!("cannot reach a server at {endpoint} ({reason}); start it, or name another with --endpoint")
    })
}
