//! One `gantry` process as a child.

use crate::PATIENCE;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A running process of ours. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    role: &'static str,
    flags: Vec<String>,
    log: PathBuf,
    /// Where the log of its last start begins.
    log_from: u64,
    listen: String,
    /// Where it takes operators' calls, if it does.
    admin: Option<String>,
    /// Where it answers probes.
    ops: String,
}

impl Process {
    /// Starts a process of a role and waits until it is ready. It keeps its data and its log in `folder`.
    pub(crate) fn start(role: &'static str, folder: &Path, flags: Vec<String>) -> Process {
        let mut process = Process::launch(role, folder, flags);
        process.await_ready();
        process
    }

    /// Starts a process without waiting: others may have to start before it can be ready.
    pub(crate) fn launch(role: &'static str, folder: &Path, flags: Vec<String>) -> Process {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let own = ["--ops-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--data"]
            .map(str::to_owned);
        let data = folder.join("data").display().to_string();
        let flags = own.into_iter().chain([data]).chain(flags).collect();
        let log = folder.join("log");
        let child = spawn(role, &log, &flags);
        Process { child, role, flags, log, log_from: 0, listen: String::new(), admin: None, ops: String::new() }
    }

    /// Waits until it is ready, counted from its last start.
    pub(crate) fn await_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.log_from;
        loop {
            for event in events(&self.log, &mut seen) {
                if event["message"] == "ready" {
                    self.listen = event["listen"].as_str().expect("the ready line names the address").to_owned();
                    self.ops = event["ops"].as_str().expect("the ready line names it").to_owned();
                    self.admin = event["admin"].as_str().map(str::to_owned);
                    return;
                }
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("the {} ended with {status}:\n{}", self.role, self.log());
            }
            assert!(Instant::now() < deadline, "the {} does not get ready:\n{}", self.role, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens, once it is ready.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// Where it takes operators' calls, once it is ready.
    pub(crate) fn admin(&self) -> &str {
        self.admin.as_deref().expect("operators call proxies")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it answers probes, once it is ready.
    pub(crate) fn ops(&self) -> &str {
        &self.ops
    }

    /// Kills it without warning (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Starts it again as it was started, on the same data, after [`Process::kill`].
    pub(crate) fn start_again(&mut self) {
        self.launch_again();
        self.await_ready();
    }

    /// As [`Process::start_again`], without waiting.
    pub(crate) fn launch_again(&mut self) {
        self.log_from = std::fs::metadata(&self.log).expect("it has a log").len();
        self.child = spawn(self.role, &self.log, &self.flags);
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lines of its log that somebody would have to look at.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = self.log();
        let errors = log.lines().filter(|line| line.contains(r#""level":"ERROR""#));
        errors.map(|line| format!("{}: {line}", self.role)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the {}\n{}", self.role, self.log());
        }
    }
}

/// Runs `gantry admin …`. What it printed, or its standard error if it failed.
pub(crate) fn admin(endpoint: &str, arguments: &[&str]) -> Result<Value, String> {
    let Output { status, stdout, stderr } = Command::new(binary())
        .arg("admin")
        .env_remove("GANTRY_CLIENTS_DIR")
        .args(arguments)
        .args(["--endpoint", endpoint, "--output", "json"])
        .output()
        .expect("the binary runs");
    match status.success() {
        true => Ok(serde_json::from_slice(&stdout).expect("--output json prints one document")),
        false => Err(String::from_utf8_lossy(&stderr).into_owned()),
    }
}

/// What `gantry … --help` prints.
pub fn help(command: &[&str]) -> String {
    said(&[command, &["--help"]].concat(), Path::new("."))
}

/// What a command that ends by itself prints, run in `folder`; it must succeed.
pub fn said(command: &[&str], folder: &Path) -> String {
    let mut program = Command::new(binary());
    program.args(command).current_dir(folder).env_remove("GANTRY_CLIENTS_DIR");
    let Output { status, stdout, stderr } = program.output().expect("the binary runs");
    assert!(status.success(), "gantry {command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

fn spawn(role: &str, log: &Path, flags: &Vec<String>) -> Child {
    let out = File::options().create(true).append(true).open(log).expect("the log file can be written");
    let mut command = Command::new(binary());
    // `GANTRY_CLIENTS_DIR` is ours, and an unknown option to the server.
    command.arg(role).args(flags).env_remove("GANTRY_CLIENTS_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
    command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", binary().display()))
}

/// Whole lines of the log from `seen` on.
fn events(log: &Path, seen: &mut u64) -> Vec<Value> {
    let mut text = String::new();
    let mut file = File::open(log).expect("the log file was just created");
    file.seek(SeekFrom::Start(*seen)).expect("a file can be sought");
    file.read_to_string(&mut text).expect("a log is text");
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    *seen += whole as u64;
    text[..whole].lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
}

fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its executable");
    // A test is target/PROFILE/deps/NAME, a program target/PROFILE/NAME.
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let path = folder.expect("it lies in a folder").join("gantry");
    assert!(path.exists(), "{} is missing: run `cargo test --workspace`, which builds it", path.display());
    path
}
