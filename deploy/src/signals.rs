//! How the system tells this process to stop: SIGTERM or SIGINT, asked politely the first time.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for the signals that stop a server. From its creation on they no longer kill the process.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub fn listen() -> io::Result<StopSignals> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Ends the process now, for somebody who asked a second time. What was acknowledged is in the log; the next start
/// recovers the rest.
#[expect(clippy::disallowed_methods, reason = "the one place that is asked not to wait for anything")]
pub fn exit_at_once() -> ! {
    std::process::exit(1)
}
