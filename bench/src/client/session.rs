//! Keeps one client connected: settings handshake, heartbeats, reconnection, goodbye.
//!
//! One task per client, spawned and awaited by [`super::Client`]. It owns the connection; while there is none, calls fail
//! at once and are counted by whoever makes them.

use super::caller::{Caller, check, grpc_failure, no_answer};
use super::connection::{Link, Transport};
use crate::stats::Failure;
use gantry_proto::wire::v2;
use gantry_proto::wire::v2::telemetry_command::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before each attempt to get a connection or a telemetry stream back.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The state of the task.
pub(super) struct Session {
    caller: Arc<Caller>,
    transport: Transport,
    stop: CancellationToken,
    /// Taken by the end of the first handshake.
    settled: Option<oneshot::Sender<Result<v2::Settings, Failure>>>,
}

/// How serving a telemetry stream ended.
enum Ended {
    Stopped,
    /// The first handshake failed: the client will not start.
    Refused,
    StreamLost(Failure),
    ConnectionLost(String),
}

impl Session {
    /// A session, and the outcome of its first handshake.
    pub(super) fn new(
        caller: Arc<Caller>,
        transport: Transport,
        stop: CancellationToken,
    ) -> (Session, oneshot::Receiver<Result<v2::Settings, Failure>>) {
        let (settled, outcome) = oneshot::channel();
        (Session { caller, transport, stop, settled: Some(settled) }, outcome)
    }

    /// Runs until stopped, or until the first handshake fails.
    pub(super) async fn run(mut self, mut link: Link) {
        loop {
            let lost = match self.serve(&mut link).await {
                Ended::Stopped => {
                    let _ = self.caller.notify_termination().await;
                    break;
                }
                Ended::Refused => break,
                Ended::ConnectionLost(reason) => reason,
                // A connection that breaks ends the stream first.
                Ended::StreamLost(failure) => tokio::select! {
                    reason = link.ended() => reason,
                    () = self.pause() => {
                        self.caller.target.errors.add("telemetry", &failure, 1);
                        continue;
                    }
                },
            };
            self.transport.down(lost.clone());
            self.caller.target.errors.add("connection", &Failure::new("LOST", lost), 1);
            match self.redial().await {
                Some(new) => std::mem::replace(&mut link, new).close().await,
                None => break,
            }
            self.transport.up(&link);
        }
        self.transport.down("the client was closed".to_owned());
        link.close().await;
    }

    async fn serve(&mut self, link: &mut Link) -> Ended {
        // Held until the stream is given up: closing it would close the stream.
        let (commands, outgoing) = mpsc::channel(1);
        let mut stream = tokio::select! {
            biased;
            reason = link.ended() => return self.connection_lost(reason),
            opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.open(&commands, outgoing)) => match opened {
                Ok(Ok((stream, settings))) => {
                    if let Some(settled) = self.settled.take() {
                        let _ = settled.send(Ok(settings));
                    }
                    stream
                }
                Ok(Err(failure)) => return self.handshake_failed(failure),
                Err(_) => return self.handshake_failed(no_answer(HANDSHAKE_TIMEOUT)),
            },
            () = self.stop.cancelled() => return Ended::Stopped,
        };
        let mut heartbeats = tokio::time::interval_at(Instant::now() + HEARTBEAT_PERIOD, HEARTBEAT_PERIOD);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = stream.message() => match command {
                    // Settings sent again change nothing for us; other commands are for applications.
                    Ok(Some(_)) => {}
                    Ok(None) => return Ended::StreamLost(Failure::new("CLOSED", "the server closed the stream")),
                    Err(status) => return Ended::StreamLost(grpc_failure(status)),
                },
                reason = link.ended() => return Ended::ConnectionLost(reason),
                _ = heartbeats.tick() => {
                    if let Err(failure) = self.caller.heartbeat().await {
                        self.caller.target.errors.add("heartbeat", &failure, 1);
                    }
                }
                () = self.stop.cancelled() => return Ended::Stopped,
            }
        }
    }

    /// Opens the stream, sends our settings, waits for the server's, and introduces the client with a heartbeat.
    async fn open(
        &self,
        commands: &mpsc::Sender<v2::TelemetryCommand>,
        outgoing: mpsc::Receiver<v2::TelemetryCommand>,
    ) -> Result<(Streaming<v2::TelemetryCommand>, v2::Settings), Failure> {
        let settings = v2::TelemetryCommand { status: None, command: Some(Command::Settings(self.caller.settings())) };
        let _ = commands.send(settings).await;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        self.caller.headers.write(request.metadata_mut(), self.caller.target.clock.now());
        let reply = self.caller.stub.clone().telemetry(request).await.map_err(grpc_failure)?;
        let mut stream = reply.into_inner();
        loop {
            let command = stream.message().await.map_err(grpc_failure)?;
            let Some(command) = command else {
                return Err(Failure::new("CLOSED", "the server closed the telemetry stream without settings"));
            };
            match command.command {
                Some(Command::Settings(settings)) => {
                    self.caller.heartbeat().await?;
                    return Ok((stream, settings));
                }
                // A command that is only a status refuses the client.
                None => check(command.status.as_ref())?,
                Some(_) => {}
            }
        }
    }

    fn handshake_failed(&mut self, failure: Failure) -> Ended {
        match self.settled.take() {
            Some(settled) => {
                let _ = settled.send(Err(failure));
                Ended::Refused
            }
            None => Ended::StreamLost(failure),
        }
    }

    fn connection_lost(&mut self, reason: String) -> Ended {
        match self.settled.take() {
            Some(settled) => {
                let _ = settled.send(Err(Failure::new("LOST", reason)));
                Ended::Refused
            }
            None => Ended::ConnectionLost(reason),
        }
    }

    /// A new connection, or `None` when stopped.
    async fn redial(&self) -> Option<Link> {
        loop {
            self.pause().await;
            if self.stop.is_cancelled() {
                return None;
            }
            match Link::dial(&self.caller.endpoint, self.caller.target.timeout).await {
                Ok(link) => return Some(link),
                Err(reason) => self.transport.down(reason),
            }
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
