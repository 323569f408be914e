//! A server with one topic in memory: every message goes once to every group, in order of arrival.

use gantry_proto::wire::v2::messaging_service_server::{MessagingService, MessagingServiceServer};
use gantry_proto::wire::v2::receive_message_response::Content;
use gantry_proto::wire::v2::telemetry_command::Command;
use gantry_proto::wire::v2::*;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Streaming};

/// How the server misbehaves. Messages are counted from 0 in order of arrival.
#[derive(Clone, Default)]
pub(super) struct Faults {
    /// It knows no topic.
    pub(super) unknown_topic: bool,
    /// It refuses the first sends.
    pub(super) refuse_send: Option<u64>,
    /// It answers nobody for a second when this message came.
    pub(super) stall_at: Option<u64>,
    /// It accepts this message and forgets it.
    pub(super) lose: Option<u64>,
    /// It keeps this message twice.
    pub(super) repeat: Option<u64>,
    /// It changes a bit of this message.
    pub(super) damage: Option<u64>,
}

/// What it saw.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) message_ids: BTreeSet<String>,
    pub(super) handshakes: u32,
    pub(super) terminations: u32,
    pub(super) acks: usize,
    /// Calls without the headers of a client.
    pub(super) unsigned: u32,
}

pub(super) struct FakeServer {
    address: SocketAddr,
    faults: Faults,
    service: Arc<Service>,
    /// Of its own: ending it drops the connections, as a killed server does.
    runtime: Option<Runtime>,
}

impl FakeServer {
    pub(super) async fn start(faults: Faults) -> FakeServer {
        FakeServer::listen("127.0.0.1:0".parse().unwrap(), faults).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn seen(&self) -> Seen {
        self.service.state.lock().seen.clone()
    }

    /// Drops every connection.
    pub(super) async fn stop(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(|| runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    }

    /// Drops every connection and everything it knew, and serves again at the same address.
    pub(super) async fn restart(self) -> FakeServer {
        let (address, faults) = (self.address, self.faults.clone());
        self.stop().await;
        FakeServer::listen(address, faults).await
    }

    async fn listen(address: SocketAddr, faults: Faults) -> FakeServer {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Service {
            faults: faults.clone(),
            state: Mutex::default(),
            arrived: Notify::new(),
            stalling: tokio::sync::Mutex::new(()),
        });
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let served = service.clone();
        let listener = listener.into_std().unwrap();
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            let server = tonic::transport::Server::builder().add_service(MessagingServiceServer::from_arc(served));
            server.serve_with_incoming(incoming).await
        });
        FakeServer { address, faults, service, runtime: Some(runtime) }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service {
    faults: Faults,
    state: Mutex<State>,
    arrived: Notify,
    stalling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    sends: u64,
    accepted: u64,
    refused: u64,
    positions: HashMap<String, usize>,
    seen: Seen,
}

impl Service {
    fn note<T>(&self, request: &Request<T>) {
        let headers = ["x-mq-client-id", "x-mq-language", "x-mq-date-time", "x-mq-request-id"];
        if headers.iter().any(|name| request.metadata().get(*name).is_none()) {
            self.state.lock().seen.unsigned += 1;
        }
    }

    fn queues(&self, topic: Option<Resource>) -> Vec<MessageQueue> {
        let queue = |id| MessageQueue {
            topic: topic.clone(),
            id,
            permission: Permission::ReadWrite.into(),
            broker: None,
            accept_message_types: vec![MessageType::Normal.into()],
        };
        (0..2).map(queue).collect()
    }

    /// Holds every send up while one of them stalls.
    async fn stall(&self) {
        let _turn = self.stalling.lock().await;
        let stalls = {
            let mut state = self.state.lock();
            state.sends += 1;
            self.faults.stall_at == Some(state.sends)
        };
        if stalls {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn accept(&self, message: Message) -> SendResultEntry {
        let mut state = self.state.lock();
        let id = message.system_properties.as_ref().unwrap().message_id.clone();
        if self.faults.refuse_send.is_some_and(|count| state.refused < count) {
            state.refused += 1;
            return SendResultEntry { status: status(Code::TooManyRequests, "busy"), ..Default::default() };
        }
        let number = Some(state.accepted);
        state.accepted += 1;
        state.seen.message_ids.insert(id.clone());
        if number != self.faults.lose {
            let mut message = message;
            if number == self.faults.damage {
                let mut body = message.body.to_vec();
                body[100] ^= 4;
                message.body = body.into();
            }
            if number == self.faults.repeat {
                state.messages.push(message.clone());
            }
            state.messages.push(message);
        }
        SendResultEntry { status: ok(), message_id: id, ..Default::default() }
    }

    fn take(&self, group: &str, count: usize) -> Vec<Message> {
        let mut state = self.state.lock();
        let from = state.positions.get(group).copied().unwrap_or(0);
        let to = state.messages.len().min(from + count);
        state.positions.insert(group.to_owned(), to);
        let mut taken = state.messages[from..to].to_vec();
        for message in &mut taken {
            message.system_properties.as_mut().unwrap().receipt_handle = Some("handle".to_owned());
        }
        taken
    }
}

fn ok() -> Option<Status> {
    status(Code::Ok, "")
}

fn status(code: Code, message: &str) -> Option<Status> {
    Some(Status { code: code.into(), message: message.to_owned() })
}

type Reply<T> = Result<Response<T>, tonic::Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

fn reply<T>(message: T) -> Reply<T> {
    Ok(Response::new(message))
}

fn unused<T>() -> Reply<T> {
    Err(tonic::Status::unimplemented("not for benchmarks"))
}

#[tonic::async_trait]
impl MessagingService for Service {
    type ReceiveMessageStream = Items<ReceiveMessageResponse>;
    type PullMessageStream = Items<PullMessageResponse>;
    type TelemetryStream = Items<TelemetryCommand>;

    async fn query_route(&self, request: Request<QueryRouteRequest>) -> Reply<QueryRouteResponse> {
        self.note(&request);
        if self.faults.unknown_topic {
            return reply(QueryRouteResponse { status: status(Code::TopicNotFound, "no"), message_queues: Vec::new() });
        }
        reply(QueryRouteResponse { status: ok(), message_queues: self.queues(request.into_inner().topic) })
    }

    async fn query_assignment(&self, request: Request<QueryAssignmentRequest>) -> Reply<QueryAssignmentResponse> {
        self.note(&request);
        let queues = self.queues(request.into_inner().topic).into_iter();
        let assignments = queues.map(|queue| Assignment { message_queue: Some(queue) }).collect();
        reply(QueryAssignmentResponse { status: ok(), assignments })
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Reply<HeartbeatResponse> {
        self.note(&request);
        reply(HeartbeatResponse { status: ok() })
    }

    async fn send_message(&self, request: Request<SendMessageRequest>) -> Reply<SendMessageResponse> {
        self.note(&request);
        self.stall().await;
        let entries: Vec<_> = request.into_inner().messages.into_iter().map(|message| self.accept(message)).collect();
        self.arrived.notify_waiters();
        reply(SendMessageResponse { status: ok(), entries })
    }

    async fn receive_message(&self, request: Request<ReceiveMessageRequest>) -> Reply<Self::ReceiveMessageStream> {
        self.note(&request);
        let request = request.into_inner();
        let group = request.group.unwrap().name;
        let patience = Duration::from_secs(request.long_polling_timeout.unwrap().seconds.unsigned_abs());
        let deadline = tokio::time::Instant::now() + patience;
        let messages = loop {
            let arrived = self.arrived.notified();
            let messages = self.take(&group, request.batch_size as usize);
            if !messages.is_empty() || tokio::time::timeout_at(deadline, arrived).await.is_err() {
                break messages;
            }
        };
        let first = if messages.is_empty() { status(Code::MessageNotFound, "none") } else { ok() };
        let contents = first.map(Content::Status).into_iter().chain(messages.into_iter().map(Content::Message));
        let parts: Vec<_> = contents.map(|content| Ok(ReceiveMessageResponse { content: Some(content) })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn ack_message(&self, request: Request<AckMessageRequest>) -> Reply<AckMessageResponse> {
        self.note(&request);
        let result = |entry: AckMessageEntry| AckMessageResultEntry {
            status: if entry.receipt_handle == "handle" { ok() } else { status(Code::InvalidReceiptHandle, "no") },
            message_id: entry.message_id,
            receipt_handle: entry.receipt_handle,
        };
        let entries: Vec<_> = request.into_inner().entries.into_iter().map(result).collect();
        self.state.lock().seen.acks += entries.len();
        reply(AckMessageResponse { status: ok(), entries })
    }

    async fn telemetry(&self, request: Request<Streaming<TelemetryCommand>>) -> Reply<Self::TelemetryStream> {
        self.note(&request);
        self.state.lock().seen.handshakes += 1;
        let answers = request.into_inner().filter_map(|command| match command.ok()?.command? {
            Command::Settings(mut settings) => {
                if let Some(settings::PubSub::Publishing(publishing)) = &mut settings.pub_sub {
                    publishing.max_body_size = 1 << 20;
                }
                Some(Ok(TelemetryCommand { status: ok(), command: Some(Command::Settings(settings)) }))
            }
            _ => None,
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Reply<NotifyClientTerminationResponse> {
        self.note(&request);
        self.state.lock().seen.terminations += 1;
        reply(NotifyClientTerminationResponse { status: ok() })
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Reply<ForwardMessageToDeadLetterQueueResponse> {
        unused()
    }

    async fn pull_message(&self, _: Request<PullMessageRequest>) -> Reply<Self::PullMessageStream> {
        unused()
    }

    async fn update_offset(&self, _: Request<UpdateOffsetRequest>) -> Reply<UpdateOffsetResponse> {
        unused()
    }

    async fn get_offset(&self, _: Request<GetOffsetRequest>) -> Reply<GetOffsetResponse> {
        unused()
    }

    async fn query_offset(&self, _: Request<QueryOffsetRequest>) -> Reply<QueryOffsetResponse> {
        unused()
    }

    async fn end_transaction(&self, _: Request<EndTransactionRequest>) -> Reply<EndTransactionResponse> {
        unused()
    }

    async fn change_invisible_duration(
        &self,
        _: Request<ChangeInvisibleDurationRequest>,
    ) -> Reply<ChangeInvisibleDurationResponse> {
        unused()
    }

    async fn recall_message(&self, _: Request<RecallMessageRequest>) -> Reply<RecallMessageResponse> {
        unused()
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<SyncLiteSubscriptionRequest>,
    ) -> Reply<SyncLiteSubscriptionResponse> {
        unused()
    }
}
