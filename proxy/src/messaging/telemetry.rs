//! Telemetry: a client's long-lived stream. The client sends its settings, gets the server's, and receives commands.
//!
//! Clients do not start before they got settings, and several never open a second stream. So the first settings are
//! answered at once, the stream stays open, and it ends only with gRPC's OK. If the client made a mistake, the last command
//! says which.

use super::call::{Answer, Caller, ProtobufCodec, RequestContext};
use crate::metrics::Rpc;
use crate::session::Session;
use crate::stores::Deadline;
use crate::translate::{self, ClientKind, Refusal};
use futures_util::stream::{self, Stream};
use gantry_proto::wire::v2::telemetry_command::Command;
use gantry_proto::wire::v2::{Settings, TelemetryCommand};
use hyper::body::Incoming;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;

/// Commands that may wait for a client that reads slowly.
const COMMANDS_MAX: usize = 16;

/// Opens a stream. The response headers are sent at once: some clients wait for them before they send anything.
pub(super) async fn call(caller: Arc<Caller>, request: http::Request<Incoming>) -> Answer {
    let service = tower::service_fn(async |request: tonic::Request<tonic::Streaming<TelemetryCommand>>| {
        let (metadata, _, inbound) = request.into_parts();
        Ok::<_, tonic::Status>(tonic::Response::new(commands(TelemetryStream::new(caller.clone(), metadata, inbound))))
    });
    Ok(Grpc::new(ProtobufCodec::<TelemetryCommand, TelemetryCommand>::new()).streaming(service, request).await)
}

struct TelemetryStream {
    caller: Arc<Caller>,
    metadata: MetadataMap,
    inbound: tonic::Streaming<TelemetryCommand>,
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
    Inbound(Result<Option<TelemetryCommand>, tonic::Status>),
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
    fn new(caller: Arc<Caller>, metadata: MetadataMap, inbound: tonic::Streaming<TelemetryCommand>) -> TelemetryStream {
        let (commands, waiting_commands) = mpsc::channel(COMMANDS_MAX);
        TelemetryStream {
            caller,
            metadata,
            inbound,
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
                Event::Drain | Event::Inbound(Ok(None) | Err(_)) => return None,
                Event::Inbound(Ok(Some(command))) => {
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
            inbound = self.inbound.message() => Event::Inbound(inbound),
            Some(command) = self.waiting_commands.recv() => Event::Outbound(*command),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::ResendDue,
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
        let session = messaging.sessions.register(&context, kind, settings.clone(), commands, &messaging.metrics);
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
