//! One process of a local cluster: started, listened to, started again when it ends.

use super::layout::Process;
use crate::output;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long to wait before a process that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Between two questions whether a process is ready, and how long one may take.
const READY_PAUSE: Duration = Duration::from_millis(100);
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// A process that is kept running.
pub(super) struct Child {
    process: Process,
}

impl Child {
    pub(super) fn new(process: Process) -> Child {
        Child { process }
    }

    /// Starts the process, and starts it again whenever it ends, until told to stop. Then it is asked to end, and waited
    /// for; dropping the future kills it.
    pub(super) async fn keep_running(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let ended = match self.run_once(&stop).await {
                Ok(how) => how,
                Err(error) => format!("{error:#}"),
            };
            if stop.is_cancelled() {
                return;
            }
            let again = format!("{} ended ({ended}); it is started again", self.process.name);
            output::note(&again);
            let _ = stop.run_until_cancelled(sleep(RESTART_PAUSE)).await;
        }
    }

    async fn run_once(&self, stop: &CancellationToken) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(&self.process.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What is set for a server of its own must not reach the members of this cluster.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GANTRY_")) {
            command.env_remove(name);
        }
        let mut child = command.kill_on_drop(true).process_group(0).spawn().context("cannot start it")?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
        let log = child.stderr.take().context("its log cannot be read")?;
        let passed_on = self.pass_on(BufReader::new(log));
        tokio::pin!(passed_on);
        let mut asked = false;
        loop {
            tokio::select! {
                () = &mut passed_on => break,
                () = stop.cancelled(), if !asked => {
                    asked = true;
                    if let Some(pid) = pid {
                        // It may have ended this moment.
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
            }
        }
        Ok(child.wait().await.context("its end cannot be told")?.to_string())
    }

    async fn pass_on(&self, log: impl tokio::io::AsyncBufRead + Unpin) {
        let mut lines = log.lines();
        while let Ok(Some(line)) = lines.next_line().await {
            output::log_of(&self.process.name, &line);
        }
    }
}

/// Waits until a process says that it is ready.
pub(super) async fn await_ready(ops: SocketAddr) {
    while !timeout(READY_PATIENCE, is_ready(ops)).await.is_ok_and(|asked| asked.unwrap_or(false)) {
        sleep(READY_PAUSE).await;
    }
}

async fn is_ready(ops: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(ops).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
