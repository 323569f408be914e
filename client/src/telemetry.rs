//! The stream on which client and server tell each other their settings. While it is open the server knows the client.

use super::{Connection, Failure, Identity, check};
use futures_util::{StreamExt as _, stream};
use gantry_proto::wire::v2;
use gantry_proto::wire::v2::telemetry_command::Command;
use tonic::Streaming;

pub struct Telemetry {
    stream: Streaming<v2::TelemetryCommand>,
    /// What the server answered.
    pub settings: v2::Settings,
}

impl Telemetry {
    /// Opens it, tells `settings`, and waits for the server's.
    pub async fn open(
        identity: &Identity,
        connection: &Connection,
        settings: v2::Settings,
    ) -> Result<Telemetry, Failure> {
        let told = v2::TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        // Our side stays open until the answer is dropped: its end would end the stream.
        let outgoing = stream::iter([told]).chain(stream::pending());
        let mut stream = connection.messaging().telemetry(identity.request(outgoing)).await?.into_inner();
        while let Some(command) = stream.message().await? {
            match command.command {
                Some(Command::Settings(settings)) => return Ok(Telemetry { stream, settings }),
                // A command that is only a status refuses the client.
                None => check(command.status.as_ref())?,
                Some(_) => {}
            }
        }
        Err(Failure::new("CLOSED", "the server closed the telemetry stream without settings"))
    }

    /// Passes over what the server commands, and returns why the stream ended. Cancel safe.
    pub async fn ended(&mut self) -> Failure {
        loop {
            match self.stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Failure::new("CLOSED", "the server closed the stream"),
                Err(status) => return status.into(),
            }
        }
    }
}
