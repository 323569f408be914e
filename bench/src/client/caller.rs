//! The calls of one client, and what their answers mean for a benchmark.

use crate::run::Run;
use gantry_client::{Agent, Connection, Failure, Identity, Messaging, Telemetry, check, endpoints, tags, to_wire};
use gantry_proto::model::HostPort;
use gantry_proto::wire::v2::{self, ClientType, Code};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;

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

/// What became of a call: a result for each of its messages.
pub(crate) type Results = Result<Vec<Result<(), Failure>>, Failure>;

/// The answer to `caller.rpc(request)`, within the deadline of a call.
macro_rules! call {
    ($caller:ident.$rpc:ident($request:expr)) => {{
        let call = |mut stub: Messaging, request| async move { stub.$rpc(request).await };
        let (connection, timeout) = ($caller.connection()?, $caller.run.plan.target.timeout);
        gantry_client::call(&$caller.identity, &connection, timeout, $request, call).await
    }};
}

impl Caller {
    pub(super) async fn connect(run: &Arc<Run>, client_type: ClientType, index: usize) -> anyhow::Result<Caller> {
        let target = &run.plan.target;
        let endpoint = target.endpoint[index % target.endpoint.len()].clone();
        let id = format!("gantry-bench@{}@{index}@{:016x}", std::process::id(), run.random_u64());
        let group = run.plan.consume.as_ref().filter(|_| client_type != ClientType::Producer);
        let group = group.map(|group| group.group.as_str());
        let identity = Identity::new(AGENT, client_type, &id, &target.namespace, group, run.env.clock.clone())?;
        let caller = Caller { run: run.clone(), identity, endpoint, connection: Mutex::new(Err(String::new())) };
        caller.dial().await.map_err(|reason| {
            let endpoint = &caller.endpoint;
            anyhow::anyhow!("cannot reach a server at {endpoint} ({reason}); start it, or name another with --endpoint")
        })?;
        Ok(caller)
    }

    /// A new connection, over which calls go from now on.
    pub(super) async fn dial(&self) -> Result<(), String> {
        let (within, address) = (self.run.plan.target.timeout, self.endpoint.to_string());
        let dialing = async {
            let stream = self.run.env.network.connect(&address).await.map_err(|error| error.to_string())?;
            let windows = |http2: &mut gantry_client::Http2Builder| {
                http2.initial_stream_window_size(STREAM_WINDOW_BYTES);
                http2.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            };
            Connection::over(stream, &address, windows).await
        };
        let dialed = timeout(within, dialing).await.unwrap_or_else(|_| Err(Failure::no_answer(within).text));
        *self.connection.lock() = dialed.clone();
        dialed.map(drop)
    }

    /// Calls fail from now on, for this reason.
    pub(super) fn disconnect(&self, reason: &str) {
        *self.connection.lock() = Err(reason.to_owned());
    }

    pub(super) fn connection(&self) -> Result<Connection, Failure> {
        let unavailable = |reason| Status::unavailable(format!("not connected: {reason}")).into();
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
        timeout(HANDSHAKE_TIMEOUT, opening).await.unwrap_or_else(|_| Err(Failure::no_answer(HANDSHAKE_TIMEOUT)))
    }

    /// The queues of the topic.
    pub(super) async fn query_route(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let request = v2::QueryRouteRequest { topic: self.topic(), endpoints: self.endpoints() };
        let reply = call!(self.query_route(request))?;
        check(reply.status.as_ref())?;
        Ok(reply.message_queues)
    }

    /// The queues that this consumer should receive from.
    pub(crate) async fn query_assignment(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let (topic, group) = (self.topic(), self.identity.group());
        let request = v2::QueryAssignmentRequest { topic, group, endpoints: self.endpoints() };
        let reply = call!(self.query_assignment(request))?;
        check(reply.status.as_ref())?;
        Ok(reply.assignments.into_iter().filter_map(|assignment| assignment.message_queue).collect())
    }

    pub(crate) async fn send(&self, messages: Vec<v2::Message>) -> Results {
        let wanted = messages.len();
        let reply = call!(self.send_message(v2::SendMessageRequest { messages }))?;
        let mut results: Vec<_> = reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect();
        if let [of_all] = &results[..] {
            // Apache's servers answer a stored batch with a single entry.
            results = vec![of_all.clone(); wanted];
        }
        whole(results, wanted, reply.status)
    }

    /// Acknowledges messages by id and receipt handle.
    pub(crate) async fn ack(&self, entries: Vec<v2::AckMessageEntry>) -> Results {
        let wanted = entries.len();
        let request = v2::AckMessageRequest { group: self.identity.group(), topic: self.topic(), entries };
        let reply = call!(self.ack_message(request))?;
        whole(reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect(), wanted, reply.status)
    }

    /// Receives one batch, after waiting `long_poll` at most: what came, and whether it failed afterwards. Nothing to
    /// receive is no failure.
    pub(crate) async fn receive(
        &self,
        request: v2::ReceiveMessageRequest,
        long_poll: Duration,
    ) -> (Vec<v2::Message>, Result<(), Failure>) {
        let request = v2::ReceiveMessageRequest {
            group: self.identity.group(),
            filter_expression: Some(tags("*")),
            long_polling_timeout: Some(to_wire(long_poll)),
            ..request
        };
        let within = long_poll + self.run.plan.target.timeout;
        let mut messages = Vec::new();
        let receiving = async {
            let take = |message| messages.push(message);
            let told = gantry_client::receive(&self.identity, &self.connection()?, within, request, take).await?;
            let nothing = told.as_ref().is_some_and(|status| status.code == i32::from(Code::MessageNotFound));
            if nothing { Ok(()) } else { check(told.as_ref()) }
        };
        let outcome = receiving.await;
        (messages, outcome)
    }

    pub(super) async fn heartbeat(&self) -> Result<(), Failure> {
        let client_type = self.identity.client_type().into();
        let request = v2::HeartbeatRequest { group: self.identity.group(), client_type };
        check(call!(self.heartbeat(request))?.status.as_ref())
    }

    pub(super) async fn say_goodbye(&self) -> Result<(), Failure> {
        let request = v2::NotifyClientTerminationRequest { group: self.identity.group() };
        check(call!(self.notify_client_termination(request))?.status.as_ref())
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
}

/// There must be a result for each message, or the status says why not.
fn whole(results: Vec<Result<(), Failure>>, wanted: usize, status: Option<v2::Status>) -> Results {
    if results.len() == wanted {
        return Ok(results);
    }
    check(status.as_ref())?;
    Err(Failure::new("BAD_REPLY", format!("{} results for {wanted} messages", results.len())))
}
