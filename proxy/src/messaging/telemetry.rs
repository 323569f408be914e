//! Telemetry: a client's long-lived stream. The client sends its settings, gets the server's, and receives commands.
//!
//! Clients do not start before they got settings, and several never open a second stream. So the first settings are
//! answered at once, the stream stays open, and it ends only with gRPC's OK. If the client made a mistake, the last command
//! says which.

use super::call::{Answer, Caller, RequestContext, rejected, with_stream};
use super::request::{self, MessageReader, Rejected};
use crate::connection::OpenCall;
use crate::memory::Held;
use crate::metrics::Rpc;
use crate::session::Session;
use crate::stores::Deadline;
use crate::translate::{self, ClientKind, Refusal};
use futures_util::stream::{self, Stream};
use gantry_proto::wire::v2::telemetry_command::Command;
use gantry_proto::wire::v2::{Code, Settings, TelemetryCommand};
use hyper::body::Incoming;
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tonic::Status;
use tonic::codec::BufferSettings;
use tonic::metadata::MetadataMap;
use tonic_prost::ProstEncoder;

/// What a session takes besides the texts of its settings.
const SETTINGS_WEIGHT: usize = 2 << 10;
/// Commands that may wait for a client that reads slowly.
const COMMANDS_MAX: usize = 16;

/// Opens a stream. The response headers are sent at once: some clients wait for them before they send anything.
pub(super) async fn call(call: OpenCall, request: http::Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(head.headers);
    let caller = call.caller.clone();
    let Ok(place) = caller.messaging.telemetry_streams.clone().try_acquire_owned() else {
        let full = Status::resource_exhausted("too many telemetry streams are open; try again later");
        return Ok(rejected(Rpc::Telemetry, &caller.messaging, &full));
    };
    let stream = TelemetryStream::new(caller, metadata, MessageReader::new(body), call.held.beside(), place);
    Ok(with_stream(ProstEncoder::new(BufferSettings::new(256, 32 << 10)), commands(stream), call))
}

struct TelemetryStream {
    caller: Arc<Caller>,
    metadata: MetadataMap,
    inbound: MessageReader<Incoming>,
    /// What its settings take.
    held: Held,
    _place: OwnedSemaphorePermit,
    /// When it must have settings.
    deadline: Instant,
    /// Boxed: a channel keeps room for 32 of them, which for idle clients was a quarter of their memory.
    commands: mpsc::Sender<Box<TelemetryCommand>>,
    waiting_commands: mpsc::Receiver<Box<TelemetryCommand>>,
    session: Option<Arc<Session>>,
    resend: Resend,
    /// The last command was sent.
    finished: bool,
}

/// The second sending of the settings, once per stream.
enum Resend {
    NotDue,
    At(Instant),
    Done,
}

/// What a stream wakes up for.
enum Event {
    Drain,
    Inbound(Option<TelemetryCommand>),
    Rejected(Refusal),
    Late,
    Outbound(TelemetryCommand),
    ResendDue,
}

fn commands(stream: TelemetryStream) -> impl Stream<Item = Result<TelemetryCommand, tonic::Status>> + Send + 'static {
    stream::unfold(stream, |mut stream| async move {
        let command = stream.next().await?;
        Some((Ok(command), stream))
    })
}

impl TelemetryStream {
    fn new(
        caller: Arc<Caller>,
        metadata: MetadataMap,
        inbound: MessageReader<Incoming>,
        held: Held,
        place: OwnedSemaphorePermit,
    ) -> TelemetryStream {
        let (commands, waiting_commands) = mpsc::channel(COMMANDS_MAX);
        let deadline = Instant::now() + caller.messaging.config.settings_timeout;
        TelemetryStream {
            caller,
            metadata,
            inbound,
            held,
            _place: place,
            deadline,
            commands,
            waiting_commands,
            session: None,
            resend: Resend::NotDue,
            finished: false,
        }
    }

    /// The next command for the client; `None` ends the stream with OK.
    async fn next(&mut self) -> Option<TelemetryCommand> {
        if self.finished {
            return None;
        }
        if let Err(refusal) = RequestContext::new(&self.metadata, &self.caller.connection, Instant::now()) {
            return Some(self.finish(refusal));
        }
        loop {
            match self.event().await {
                // The client closed its side, or its connection broke.
                Event::Drain | Event::Inbound(None) => return None,
                Event::Rejected(refusal) => return Some(self.finish(refusal)),
                Event::Late => {
                    let patience = self.caller.messaging.config.settings_timeout;
                    let why = format!("no settings came within {patience:?}");
                    return Some(self.finish(Refusal::new(Code::RequestTimeout, why)));
                }
                Event::Inbound(Some(command)) => {
                    // Other commands answer commands that this release does not send, or are of newer clients: ignored.
                    if let Some(Command::Settings(settings)) = command.command {
                        // Boxed: it is large and short, and the stream that would hold it lives as long as the client.
                        return Some(Box::pin(self.settings(settings)).await);
                    }
                }
                Event::Outbound(command) => return Some(command),
                Event::ResendDue => {
                    self.resend = Resend::Done;
                    if let Some(command) = self.settings_again() {
                        return Some(command);
                    }
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let due = match self.resend {
            Resend::At(due) => Some(due),
            Resend::NotDue | Resend::Done => None,
        };
        tokio::select! {
            biased;
            () = self.caller.messaging.drain.cancelled() => Event::Drain,
            inbound = inbound(&mut self.inbound, &mut self.held) => inbound,
            Some(command) = self.waiting_commands.recv() => Event::Outbound(*command),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::ResendDue,
            () = tokio::time::sleep_until(self.deadline), if self.session.is_none() => Event::Late,
        }
    }

    async fn settings(&mut self, settings: Settings) -> TelemetryCommand {
        let started = Instant::now();
        let answer =
            self.register(settings, started).await.map_or_else(|refusal| self.finish(refusal), settings_command);
        let code = answer.status.as_ref().map(|status| status.code).unwrap_or_default();
        self.caller.messaging.metrics.answered(Rpc::Telemetry, code, started.elapsed());
        answer
    }

    async fn register(&mut self, settings: Settings, arrived: Instant) -> Result<Settings, Refusal> {
        let messaging = &self.caller.messaging;
        let context = RequestContext::new(&self.metadata, &self.caller.connection, arrived)?;
        let kind = translate::client_kind(&settings).map_err(|refusal| context.as_client_knows_it(refusal))?;
        // The stream has the deadline of a life. Its client waits for settings as for any answer.
        let deadline = Deadline::of_call(arrived, None);
        if let ClientKind::Consumer { group, .. } = &kind {
            // A consumer whose group cannot be created starts nevertheless, with the defaults.
            let _ = messaging.directory.group_or_create(group, deadline).await;
        }
        let settings = Arc::new(settings);
        let commands = self.commands.clone();
        // As long as the session, which may outlive this stream.
        let held = self.held.beside_with(SETTINGS_WEIGHT + 2 * settings.encoded_len())?;
        let kept = (settings.clone(), held);
        let session = messaging.sessions.register(&context, kind, kept, commands, &messaging.metrics)?;
        // Looked up once the session is there: whoever alters the group from now on finds it.
        let group = session.group().and_then(|group| messaging.directory.view().group(group.as_str()));
        let reply = translate::settings_reply(&settings, group.as_deref(), messaging.config.long_polling_max);
        session.told(group);
        self.session = Some(session);
        if let Resend::NotDue = self.resend {
            self.resend = Resend::At(Instant::now() + messaging.config.settings_resend_after);
        }
        Ok(reply)
    }

    /// For clients that begin to listen only after the first settings were sent.
    fn settings_again(&self) -> Option<TelemetryCommand> {
        let session = self.session.as_ref().filter(|session| !session.ended.is_cancelled())?;
        let messaging = &self.caller.messaging;
        let group = session.group().and_then(|group| messaging.directory.view().group(group.as_str()));
        let reply =
            translate::settings_reply(&*session.settings()?, group.as_deref(), messaging.config.long_polling_max);
        Some(settings_command(reply))
    }

    /// The last command: why the stream ends.
    fn finish(&mut self, refusal: Refusal) -> TelemetryCommand {
        tracing::debug!(rpc = "Telemetry", code = ?refusal.code, reason = %refusal.message, "refused");
        self.finished = true;
        TelemetryCommand { status: Some(refusal.into_status()), command: None }
    }
}

/// The next command of the client. What it takes replaces what the one before took.
async fn inbound(reader: &mut MessageReader<Incoming>, held: &mut Held) -> Event {
    let limits = request::TELEMETRY;
    let message = match reader.next(limits.bytes_max, held).await {
        Ok(Some(message)) => message,
        Ok(None) => return Event::Inbound(None),
        Err(unread) => return Event::rejected(unread.into()),
    };
    // What is held besides this message is of the command before.
    held.shrink_to(message.len());
    match request::decode(message, limits, held) {
        Ok(command) => Event::Inbound(Some(command)),
        Err(rejected) => Event::rejected(rejected),
    }
}

impl Event {
    /// Clients do not start if the stream ends with an error of gRPC: they are told by a command.
    fn rejected(rejected: Rejected) -> Event {
        match rejected {
            Rejected::Refused(refusal) => Event::Rejected(refusal),
            Rejected::Status(status) => match status.code() {
                tonic::Code::Cancelled => Event::Inbound(None),
                tonic::Code::ResourceExhausted => {
                    Event::Rejected(Refusal::new(Code::PayloadTooLarge, status.message().to_owned()))
                }
                _ => Event::Rejected(Refusal::new(Code::BadRequest, status.message().to_owned())),
            },
        }
    }
}

impl Drop for TelemetryStream {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.detach(&self.commands);
        }
    }
}

/// A client's settings, as a command to it.
pub(crate) fn settings_command(settings: Settings) -> TelemetryCommand {
    TelemetryCommand { status: Some(translate::ok()), command: Some(Command::Settings(settings)) }
}
