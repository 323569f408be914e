//! The calls of one client, and what their answers mean for a benchmark.

use crate::run::Run;
use gantry_client::{Agent, Connection, Failure, Identity, Messaging, Telemetry, check, endpoints, tags, to_wire};
use gantry_proto::model::HostPort;
use gantry_proto::wire::v2::{self, ClientType, Code};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

const AGENT: Agent = Agent { language: v2::Language::Rust, version: "5.2.0", name: "gantry-bench" };
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a response on the wire before the server has to wait for us.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all calls of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

pub(crate) struct Caller {
    pub(crate) run: Arc<Run>,
    pub(crate) identity: Identity,
    pub(super) endpoint: HostPort,
    /// Where calls go, or why they fail at once.
    connection: Mutex<Result<Connection, String>>,
}

/// What a receive brought. Messages may have come before it failed.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// In order of arrival.
    pub(crate) messages: Vec<v2::Message>,
    /// Why it ended early.
    pub(crate) failure: Option<Failure>,
}

impl Caller {
    pub(super) async fn connect(run: &Arc<Run>, client_type: ClientType, index: usize) -> anyhow::Result<Caller> {
        let target = &run.plan.target;
        let endpoint = target.endpoint[index % target.endpoint.len()].clone();
        let id = format!("gantry-bench@{}@{index}@{:016x}", std::process::id(), run.random_u64());
        let group = run.plan.consume.as_ref().filter(|_| client_type != ClientType::Producer);
        let group = group.map(|group| group.group.as_str());
        let identity = Identity::new(AGENT, client_type, &id, &target.namespace, group, run.env.clock.clone())?;
        let connection = Mutex::new(Err(String::new()));
        let caller = Caller { run: run.clone(), identity, endpoint, connection };
        caller.dial().await.map_err(|reason| {
            let endpoint = &caller.endpoint;
            anyhow::anyhow!("cannot reach a server at {endpoint} ({reason}); start it, or name another with --endpoint")
        })?;
        Ok(caller)
    }

    /// A new connection, over which calls go from now on.
    pub(super) async fn dial(&self) -> Result<Connection, String> {
        let (timeout, address) = (self.run.plan.target.timeout, self.endpoint.to_string());
        let dialing = async {
            let stream = self.run.env.network.connect(&address).await.map_err(|error| error.to_string())?;
            let windows = |http2: &mut gantry_client::Http2Builder| {
                http2
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            };
            Connection::over(stream, &address, windows).await
        };
        let dialed =
            tokio::time::timeout(timeout, dialing).await.unwrap_or_else(|_| Err(Failure::no_answer(timeout).text));
        *self.connection.lock() = dialed.clone();
        dialed
    }

    /// Calls fail from now on, for this reason.
    pub(super) fn disconnect(&self, reason: String) {
        *self.connection.lock() = Err(reason);
    }

    pub(super) fn connection(&self) -> Result<Connection, Failure> {
        let unavailable = |reason| Failure::from(Status::unavailable(format!("not connected: {reason}")));
        self.connection.lock().clone().map_err(unavailable)
    }

    /// Opens the telemetry stream with our settings, and introduces the client with a heartbeat.
    pub(super) async fn introduce(&self) -> Result<Telemetry, Failure> {
        let target = &self.run.plan.target;
        let settings = self.identity.settings([(target.topic(), tags("*"))], self.endpoints(), target.timeout);
        let opening = async {
            let telemetry = Telemetry::open(&self.identity, &self.connection()?, settings).await?;
            self.heartbeat().await?;
            Ok(telemetry)
        };
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await;
        opened.unwrap_or_else(|_| Err(Failure::no_answer(HANDSHAKE_TIMEOUT)))
    }

    /// The queues of the topic.
    pub(super) async fn query_route(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let request = v2::QueryRouteRequest { topic: self.topic(), endpoints: self.endpoints() };
        let reply = self.call(request, |mut stub, request| async move { stub.query_route(request).await }).await?;
        check(reply.status.as_ref())?;
        Ok(reply.message_queues)
    }

    /// The queues that this consumer should receive from.
    pub(crate) async fn query_assignment(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let (topic, group) = (self.topic(), self.identity.group());
        let request = v2::QueryAssignmentRequest { topic, group, endpoints: self.endpoints() };
        let reply = self.call(request, |mut stub, request| async move { stub.query_assignment(request).await }).await?;
        check(reply.status.as_ref())?;
        Ok(reply.assignments.into_iter().filter_map(|assignment| assignment.message_queue).collect())
    }

    /// Sends messages and returns one result for each.
    pub(crate) async fn send(&self, messages: Vec<v2::Message>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let wanted = messages.len();
        let request = v2::SendMessageRequest { messages };
        let reply = self.call(request, |mut stub, request| async move { stub.send_message(request).await }).await?;
        let mut results: Vec<_> = reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect();
        if results.len() != wanted {
            check(reply.status.as_ref())?;
        }
        match results.len() {
            count if count == wanted => Ok(results),
            // Apache's servers answer a stored batch with a single entry.
            1 => Ok(vec![results.remove(0); wanted]),
            count => Err(Failure::new("BAD_REPLY", format!("{count} results for {wanted} messages"))),
        }
    }

    /// Receives one batch, after waiting `long_poll` at most. Nothing to receive is no failure.
    pub(crate) async fn receive(&self, request: v2::ReceiveMessageRequest, long_poll: Duration) -> Received {
        let request = v2::ReceiveMessageRequest {
            group: self.identity.group(),
            filter_expression: Some(tags("*")),
            long_polling_timeout: Some(to_wire(long_poll)),
            ..request
        };
        let timeout = long_poll + self.run.plan.target.timeout;
        let mut messages = Vec::new();
        let outcome = match self.connection() {
            Ok(connection) => {
                let take = |message| messages.push(message);
                gantry_client::receive(&self.identity, &connection, timeout, request, take).await
            }
            Err(failure) => Err(failure),
        };
        let outcome = outcome.and_then(|status| match status {
            Some(status) if status.code == i32::from(Code::MessageNotFound) => Ok(()),
            status => check(status.as_ref()),
        });
        Received { messages, failure: outcome.err() }
    }

    /// Acknowledges messages by id and receipt handle, and returns one result for each.
    pub(crate) async fn ack(&self, entries: Vec<v2::AckMessageEntry>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let wanted = entries.len();
        let request = v2::AckMessageRequest { group: self.identity.group(), topic: self.topic(), entries };
        let reply = self.call(request, |mut stub, request| async move { stub.ack_message(request).await }).await?;
        if reply.entries.len() == wanted {
            return Ok(reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect());
        }
        check(reply.status.as_ref())?;
        Err(Failure::new("BAD_REPLY", format!("{} results for {wanted} receipts", reply.entries.len())))
    }

    pub(super) async fn heartbeat(&self) -> Result<(), Failure> {
        let client_type = self.identity.client_type().into();
        let request = v2::HeartbeatRequest { group: self.identity.group(), client_type };
        let reply = self.call(request, |mut stub, request| async move { stub.heartbeat(request).await }).await?;
        check(reply.status.as_ref())
    }

    pub(super) async fn say_goodbye(&self) -> Result<(), Failure> {
        let request = v2::NotifyClientTerminationRequest { group: self.identity.group() };
        let call = |mut stub: Messaging, request| async move { stub.notify_client_termination(request).await };
        check(self.call(request, call).await?.status.as_ref())
    }

    /// Turns what stopped a client from starting into words that help.
    pub(crate) fn explain(&self, failure: Failure) -> anyhow::Error {
        let (topic, endpoint) = (self.run.plan.target.topic(), &self.endpoint);
        match failure.code.as_str() {
            "TOPIC_NOT_FOUND" => anyhow::anyhow!(
                "the topic {topic:?} does not exist at {endpoint}; create it with `gantry admin topic create {topic}`, \
                 or let this command do it with --create-topic"
            ),
            "GRPC_UNIMPLEMENTED" => {
                anyhow::anyhow!("the server at {endpoint} does not speak apache.rocketmq.v2: {}", failure.text)
            }
            code if code.starts_with("GRPC_") => anyhow::anyhow!("cannot talk to the server at {endpoint}: {failure}"),
            _ => anyhow::anyhow!("the server at {endpoint} refused this client: {failure}"),
        }
    }

    pub(crate) fn topic(&self) -> Option<v2::Resource> {
        Some(self.identity.resource(self.run.plan.target.topic()))
    }

    fn endpoints(&self) -> Option<v2::Endpoints> {
        Some(endpoints(&self.endpoint.host, self.endpoint.port))
    }

    async fn call<T, R, F>(&self, message: T, call: impl FnOnce(Messaging, Request<T>) -> F) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        gantry_client::call(&self.identity, &self.connection()?, self.run.plan.target.timeout, message, call).await
    }
}
