//! How the system tells this process to stop: SIGTERM or SIGINT, asked politely the first time.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals that are closer together than this are one request.
const SAME_REQUEST: Duration = Duration::from_millis(300);

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

    /// Waits for somebody who insists, after a first signal came at `first`. Cancel-safe. One that follows at once is the
    /// same request: `timeout` and some shells send theirs to the process and to its group.
    pub async fn insisted(&mut self, first: Instant) -> &'static str {
        loop {
            let signal = self.next().await;
            if first.elapsed() >= SAME_REQUEST {
                return signal;
            }
        }
    }
}

/// Ends the process now, for somebody who asked a second time. What was acknowledged is in the log; the next start
/// recovers the rest.
#[expect(clippy::disallowed_methods, reason = "the one place that is asked not to wait for anything")]
pub fn exit_at_once() -> ! {
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    fn raise() {
        kill_process(getpid(), Signal::TERM).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_follows_at_once_is_the_same_request_and_a_later_one_insists() {
        let mut signals = StopSignals::listen().unwrap();
        raise();
        assert_eq!(signals.next().await, "SIGTERM");
        let first = Instant::now();
        raise();
        let insisted = tokio::time::timeout(SAME_REQUEST / 2, signals.insisted(first)).await;
        assert!(insisted.is_err(), "it came with the first one");
        tokio::time::advance(SAME_REQUEST).await;
        raise();
        assert_eq!(signals.insisted(first).await, "SIGTERM");
    }
}
