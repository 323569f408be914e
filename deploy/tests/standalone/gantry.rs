//! A `gantry` process, and short runs of it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A server that has said it is ready. Killed when dropped.
pub(crate) struct Gantry {
    process: Child,
    ready: Value,
    log: String,
    lines: Receiver<String>,
}

/// How long anything may take before a test gives up. A machine that builds at the same time is slow.
const PATIENCE: Duration = Duration::from_secs(30);

impl Gantry {
    /// Starts a server on free ports and waits until it is ready.
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Gantry {
        let defaults = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 --log-format json --store-segment-bytes 16MiB";
        let mut command = command();
        command.args(defaults.split(' ')).arg("--data").arg(data).args(flags);
        Gantry::spawn(command)
    }

    /// Starts another role, and waits until it is ready.
    pub(crate) fn start_role(role: &str, flags: &[&str]) -> Gantry {
        let mut command = command();
        command.arg(role).args(flags).args(["--log-format", "json"]);
        Gantry::spawn(command)
    }

    fn spawn(mut command: Command) -> Gantry {
        let started = command.stderr(Stdio::piped()).spawn();
        let (sender, lines) = channel();
        let mut gantry = Gantry { process: started.unwrap(), ready: Value::Null, log: String::new(), lines };
        let stderr = BufReader::new(gantry.process.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        while gantry.ready.is_null() {
            let line = gantry.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not get ready:\n{}", gantry.log));
            gantry.log += &format!("{line}\n");
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "ready" {
                gantry.ready = event;
            }
        }
        gantry
    }

    /// The line that says ready.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> String {
        self.ready["listen"].as_str().unwrap().to_owned()
    }

    /// Where operators' calls go.
    pub(crate) fn admin_address(&self) -> String {
        self.ready["admin"].as_str().unwrap().to_owned()
    }

    /// Where operators look.
    pub(crate) fn ops_address(&self) -> String {
        self.ready["ops"].as_str().unwrap().to_owned()
    }

    /// Runs `gantry admin COMMAND --output json` on this server. The document and what was printed, or exit code and
    /// standard error.
    pub(crate) fn admin(&self, command_line: &str) -> Result<(Value, String), (Option<i32>, String)> {
        let output = command()
            .arg("admin")
            .args(command_line.split_whitespace())
            .args(["--output", "json", "--endpoint", &self.admin_address()])
            .output()
            .unwrap();
        if !output.status.success() {
            return Err((output.status.code(), String::from_utf8(output.stderr).unwrap()));
        }
        let stdout = String::from_utf8(output.stdout).unwrap();
        Ok((serde_json::from_str(&stdout).unwrap(), stdout))
    }

    /// Sends SIGTERM or SIGINT and waits for the end. Exit code and all of standard error.
    pub(crate) fn stop(self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        self.wait()
    }

    /// Sends SIGTERM or SIGINT until the process ends, as somebody does who does not want to wait: one that follows the
    /// first request at once is taken for a part of it. Exit code and all of standard error.
    pub(crate) fn insist(mut self, signal: &str) -> (Option<i32>, String) {
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
            self.signal(signal);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.wait()
    }

    /// Waits for the end. Exit code and all of standard error.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut log = std::mem::take(&mut self.log);
        // The channel ends with the process's standard error, that is, with the process.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            log += &format!("{line}\n");
        }
        (self.process.wait().unwrap().code(), log)
    }

    /// Sends SIGTERM or SIGINT.
    pub(crate) fn signal(&self, signal: &str) {
        let signal = if signal == "TERM" { Signal::TERM } else { Signal::INT };
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Gantry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command that is expected to end by itself. Exit code and standard error.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String) {
    run_command(command().args(arguments))
}

/// The same, with so many files that it may open.
pub(crate) fn run_with_files(files: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let gantry = command();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(gantry.get_program()).args(arguments);
    gantry.get_envs().for_each(|(name, _)| {
        shell.env_remove(name);
    });
    run_command(&mut shell)
}

fn run_command(command: &mut Command) -> (Option<i32>, String) {
    let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = process.stderr.take().unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let text = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = process.kill();
        "it did not end".to_owned()
    });
    (process.wait().unwrap().code(), text)
}

/// Runs a command to its end. Exit code, standard output and standard error.
pub(crate) fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The binary, without settings from this test's environment.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("GANTRY_"));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command
}
