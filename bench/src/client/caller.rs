//! The calls of a client, and what their answers mean.

use super::connection::Transport;
use super::headers::{self, Headers};
use super::{Role, Target, origin};
use crate::stats::Failure;
use gantry_proto::model::HostPort;
use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use gantry_proto::wire::v2::messaging_service_client::MessagingServiceClient;
use gantry_proto::wire::v2::receive_message_response::Content;
use gantry_proto::wire::v2::{self, Code};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response};

/// How long after the server's own deadline we give a call up.
pub(super) const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// Makes the calls of one client.
pub(crate) struct Caller {
    pub(super) target: Arc<Target>,
    pub(super) role: Role,
    pub(super) id: String,
    pub(super) endpoint: HostPort,
    pub(super) headers: Headers,
    pub(super) stub: Stub,
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
    /// A caller over a transport.
    pub(super) fn new(
        target: &Arc<Target>,
        role: Role,
        index: usize,
        endpoint: HostPort,
        transport: &Transport,
    ) -> anyhow::Result<Caller> {
        let nonce = target.random_u64();
        let id = format!("gantry-bench@{}@{index}@{nonce:016x}", std::process::id());
        let headers = Headers::new(&id, &target.namespace, nonce)?;
        let stub = MessagingServiceClient::with_origin(transport.clone(), origin(&endpoint)?)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(Caller { target: target.clone(), role, id, endpoint, headers, stub })
    }

    /// The client's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What it has in common with others.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The queues of the topic.
    pub(crate) async fn query_route(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let topic = Some(self.target.topic_resource());
        let request = v2::QueryRouteRequest { topic, endpoints: Some(endpoints_of(&self.endpoint)) };
        let reply = self.call(request, |mut stub, request| async move { stub.query_route(request).await }).await?;
        check(reply.status.as_ref())?;
        Ok(reply.message_queues)
    }

    /// The queues that this consumer should receive from.
    pub(crate) async fn query_assignment(&self) -> Result<Vec<v2::MessageQueue>, Failure> {
        let request = v2::QueryAssignmentRequest {
            topic: Some(self.target.topic_resource()),
            group: self.group_resource(),
            endpoints: Some(endpoints_of(&self.endpoint)),
        };
        let reply = self.call(request, |mut stub, request| async move { stub.query_assignment(request).await }).await?;
        check(reply.status.as_ref())?;
        Ok(reply.assignments.into_iter().filter_map(|assignment| assignment.message_queue).collect())
    }

    /// Sends messages and returns one result for each.
    pub(crate) async fn send(&self, messages: Vec<v2::Message>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let wanted = messages.len();
        let request = v2::SendMessageRequest { messages };
        let reply = self.call(request, |mut stub, request| async move { stub.send_message(request).await }).await?;
        if reply.entries.len() == wanted {
            return Ok(reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect());
        }
        check(reply.status.as_ref())?;
        // Apache's servers answer a stored batch with a single entry.
        match reply.entries.as_slice() {
            [entry] => Ok(vec![check(entry.status.as_ref()); wanted]),
            entries => Err(Failure::new("BAD_REPLY", format!("{} results for {wanted} messages", entries.len()))),
        }
    }

    /// Receives one batch, after waiting `long_poll` at most. Nothing to receive is no failure.
    pub(crate) async fn receive(&self, mut request: v2::ReceiveMessageRequest, long_poll: Duration) -> Received {
        request.group = self.group_resource();
        request.long_polling_timeout = Some(to_wire(long_poll));
        let timeout = long_poll + self.target.timeout;
        let mut received = Received::default();
        let receiving = self.receive_into(request, timeout, &mut received.messages);
        let outcome = match tokio::time::timeout(timeout + DEADLINE_MARGIN, receiving).await {
            Ok(outcome) => outcome,
            Err(_) => Err(no_answer(timeout)),
        };
        received.failure = outcome.err();
        received
    }

    /// Acknowledges messages by id and receipt handle, and returns one result for each.
    pub(crate) async fn ack(&self, entries: Vec<v2::AckMessageEntry>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let wanted = entries.len();
        let topic = Some(self.target.topic_resource());
        let request = v2::AckMessageRequest { group: self.group_resource(), topic, entries };
        let reply = self.call(request, |mut stub, request| async move { stub.ack_message(request).await }).await?;
        if reply.entries.len() == wanted {
            return Ok(reply.entries.iter().map(|entry| check(entry.status.as_ref())).collect());
        }
        check(reply.status.as_ref())?;
        Err(Failure::new("BAD_REPLY", format!("{} results for {wanted} receipts", reply.entries.len())))
    }

    /// Says that the client lives.
    pub(super) async fn heartbeat(&self) -> Result<(), Failure> {
        let client_type = self.role.client_type().into();
        let request = v2::HeartbeatRequest { group: self.group_resource(), client_type };
        let reply = self.call(request, |mut stub, request| async move { stub.heartbeat(request).await }).await?;
        check(reply.status.as_ref())
    }

    /// Says that the client goes.
    pub(super) async fn notify_termination(&self) -> Result<(), Failure> {
        let request = v2::NotifyClientTerminationRequest { group: self.group_resource() };
        let call = |mut stub: Stub, request| async move { stub.notify_client_termination(request).await };
        check(self.call(request, call).await?.status.as_ref())
    }

    async fn receive_into(
        &self,
        request: v2::ReceiveMessageRequest,
        timeout: Duration,
        messages: &mut Vec<v2::Message>,
    ) -> Result<(), Failure> {
        let mut stub = self.stub.clone();
        let reply = stub.receive_message(self.request(request, timeout)).await.map_err(grpc_failure)?;
        let mut stream = reply.into_inner();
        let mut status = None;
        while let Some(part) = stream.message().await.map_err(grpc_failure)? {
            match part.content {
                Some(Content::Message(message)) => messages.push(message),
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        match status {
            Some(status) if status.code == i32::from(Code::MessageNotFound) => Ok(()),
            status => check(status.as_ref()),
        }
    }

    /// Turns what stopped a client from starting into words that help.
    pub(crate) fn explain(&self, failure: Failure) -> anyhow::Error {
        let (topic, endpoint) = (&self.target.topic, &self.endpoint);
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

    fn group_resource(&self) -> Option<v2::Resource> {
        self.role.group().map(|group| self.target.resource(group))
    }

    /// What the client tells of itself.
    pub(super) fn settings(&self) -> v2::Settings {
        let topic = Some(self.target.topic_resource());
        let pub_sub = match &self.role {
            Role::Producer => v2::settings::PubSub::Publishing(v2::Publishing {
                topics: topic.into_iter().collect(),
                max_body_size: 0,
                validate_message_type: true,
            }),
            Role::SimpleConsumer { .. } | Role::PushConsumer { .. } => {
                v2::settings::PubSub::Subscription(v2::Subscription {
                    group: self.group_resource(),
                    subscriptions: vec![v2::SubscriptionEntry { topic, expression: Some(every_tag()) }],
                    ..Default::default()
                })
            }
        };
        v2::Settings {
            client_type: Some(self.role.client_type().into()),
            access_point: Some(endpoints_of(&self.endpoint)),
            request_timeout: Some(to_wire(self.target.timeout)),
            pub_sub: Some(pub_sub),
            user_agent: Some(v2::Ua {
                language: v2::Language::Rust.into(),
                version: headers::CLIENT_VERSION.to_owned(),
                platform: std::env::consts::OS.to_owned(),
                hostname: "gantry-bench".to_owned(),
            }),
            ..Default::default()
        }
    }

    async fn call<T, R, F>(&self, message: T, call: impl FnOnce(Stub, Request<T>) -> F) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        let timeout = self.target.timeout;
        let calling = call(self.stub.clone(), self.request(message, timeout));
        match tokio::time::timeout(timeout + DEADLINE_MARGIN, calling).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(grpc_failure(status)),
            Err(_) => Err(no_answer(timeout)),
        }
    }

    fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        self.headers.write(request.metadata_mut(), self.target.clock.now());
        request.set_timeout(timeout);
        request
    }
}

type Stub = MessagingServiceClient<Transport>;

/// Every message of a topic.
pub(crate) fn every_tag() -> v2::FilterExpression {
    v2::FilterExpression { r#type: v2::FilterType::Tag.into(), expression: "*".to_owned() }
}

/// A span as the protocol writes it.
pub(crate) fn to_wire(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    // Less than 10^9, which fits.
    prost_types::Duration { seconds, nanos: span.subsec_nanos() as i32 }
}

/// An endpoint as clients tell it to servers.
fn endpoints_of(endpoint: &HostPort) -> v2::Endpoints {
    let scheme = match endpoint.host.parse() {
        Ok(IpAddr::V4(_)) => v2::AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => v2::AddressScheme::IPv6,
        Err(_) => v2::AddressScheme::DomainName,
    };
    let address = v2::Address { host: endpoint.host.clone(), port: i32::from(endpoint.port) };
    v2::Endpoints { scheme: scheme.into(), addresses: vec![address] }
}

pub(super) fn check(status: Option<&v2::Status>) -> Result<(), Failure> {
    match status {
        Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
        Some(status) => {
            let code = Code::try_from(status.code).map(|code| code.as_str_name().to_owned());
            Err(Failure::new(code.unwrap_or_else(|_| format!("CODE_{}", status.code)), status.message.clone()))
        }
        None => Err(Failure::new("BAD_REPLY", "the reply has no status")),
    }
}

pub(super) fn grpc_failure(status: tonic::Status) -> Failure {
    // "DeadlineExceeded" becomes "GRPC_DEADLINE_EXCEEDED".
    let mut code = "GRPC".to_owned();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() {
            code.push('_');
        }
        code.push(letter.to_ascii_uppercase());
    }
    Failure::new(code, status.message())
}

pub(super) fn no_answer(timeout: Duration) -> Failure {
    Failure::new("GRPC_DEADLINE_EXCEEDED", format!("no answer within {}", humantime::format_duration(timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_the_protocol_names_them() {
        let status = |code| v2::Status { code, message: "why".to_owned() };
        assert_eq!(check(Some(&status(20_000))), Ok(()));
        assert_eq!(check(Some(&status(42_900))), Err(Failure::new("TOO_MANY_REQUESTS", "why")));
        assert_eq!(check(Some(&status(1))), Err(Failure::new("CODE_1", "why")));
        assert_eq!(check(None).unwrap_err().code, "BAD_REPLY");
        let status = tonic::Status::deadline_exceeded("late");
        assert_eq!(grpc_failure(status), Failure::new("GRPC_DEADLINE_EXCEEDED", "late"));
    }
}
