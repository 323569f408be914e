//! Keeps one client connected: heartbeats, reconnection, goodbye. While there is no connection, calls fail at once and are
//! counted by whoever makes them.

use super::Caller;
use gantry_client::{Failure, Telemetry};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);
/// Before each attempt to get a connection or a telemetry stream back.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Runs until the run closes its clients.
pub(super) async fn keep(caller: Arc<Caller>, mut telemetry: Telemetry) {
    let connected = async {
        loop {
            serve(&caller, &mut telemetry).await;
            telemetry = come_back(&caller).await;
        }
    };
    tokio::select! {
        () = connected => {}
        () = caller.run.closing.cancelled() => {}
    }
    // Without a connection there is nobody to tell.
    let _ = caller.say_goodbye().await;
    caller.disconnect("the client was closed");
}

/// Sends heartbeats until the stream or the connection is lost, and counts which of them was.
async fn serve(caller: &Caller, telemetry: &mut Telemetry) {
    let errors = &caller.run.errors;
    let Ok(connection) = caller.connection() else { return };
    let mut heartbeats = interval_at(Instant::now() + HEARTBEAT_PERIOD, HEARTBEAT_PERIOD);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lost = loop {
        tokio::select! {
            failure = telemetry.ended() => match timeout(RETRY_PAUSE, connection.closed()).await {
                // A connection that breaks ends the stream first.
                Ok(reason) => break reason,
                Err(_) => return errors.add("telemetry", &failure, 1),
            },
            reason = connection.closed() => break reason,
            _ = heartbeats.tick() => {
                if let Err(failure) = caller.heartbeat().await {
                    errors.add("heartbeat", &failure, 1);
                }
            }
        }
    };
    caller.disconnect(&lost);
    errors.add("connection", &Failure::new("LOST", lost), 1);
}

/// Connects again if need be, and introduces the client again.
async fn come_back(caller: &Caller) -> Telemetry {
    loop {
        sleep(RETRY_PAUSE).await;
        let connected = caller.connection().is_ok_and(|connection| !connection.is_closed());
        // A server that is not there yet is no further error.
        if connected || caller.dial().await.is_ok() {
            match caller.introduce().await {
                Ok(telemetry) => return telemetry,
                Err(failure) => caller.run.errors.add("telemetry", &failure, 1),
            }
        }
    }
}
