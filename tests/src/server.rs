//! The `gantry` binary as a child process.

use crate::PATIENCE;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running server with a data folder of its own. Killed when dropped.
pub struct Server {
    process: Child,
    listen: String,
    data: TempDir,
    log: PathBuf,
    flags: Vec<String>,
}

impl Server {
    /// Starts a server on a free port and waits until it is ready.
    pub fn start(flags: &[&str]) -> Server {
        let data = TempDir::new().expect("a temporary folder");
        let log = data.path().join("log");
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        let (process, listen) = launch("127.0.0.1:0", data.path(), &log, &flags);
        Server { process, listen, data, log, flags }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> &str {
        &self.listen
    }

    /// Kills the process without warning (SIGKILL) and starts it again on the same port and folder.
    pub fn kill_and_restart(&mut self) {
        self.process.kill().expect("the server can be killed");
        self.process.wait().expect("a killed process ends");
        let (process, listen) = launch(&self.listen, self.data.path(), &self.log, &self.flags);
        assert_eq!(listen, self.listen);
        self.process = process;
    }

    /// Runs `gantry admin …` against this server; it must succeed.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        let Output { status, stdout, stderr } = Command::new(binary())
            .arg("admin")
            .env_remove("GANTRY_CLIENTS_DIR")
            .args(arguments)
            .args(["--endpoint", &self.listen, "--output", "json"])
            .output()
            .expect("the binary runs");
        assert!(status.success(), "gantry admin {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        serde_json::from_slice(&stdout).expect("--output json prints one document")
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails if the server logged an error: somebody would have to look at it.
    pub fn assert_no_errors(&self) {
        let log = self.log();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
        assert!(errors.is_empty(), "the server logged errors:\n{}", errors.join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}

/// Starts the process and waits for its line that says ready. Returns where it listens.
fn launch(listen: &str, data: &Path, log: &Path, flags: &[String]) -> (Child, String) {
    let out = File::options().create(true).append(true).open(log).expect("the log file can be written");
    let mut seen = out.metadata().map_or(0, |metadata| metadata.len());
    let mut process = Command::new(binary())
        .args(["standalone", "--listen", listen, "--ops-listen", "127.0.0.1:0", "--log-format", "json", "--data"])
        .arg(data.join("data"))
        .args(flags)
        // Ours, and an unknown option to the server.
        .env_remove("GANTRY_CLIENTS_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .spawn()
        .unwrap_or_else(|error| panic!("starting {}: {error}", binary().display()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        let mut file = File::open(log).expect("the log file was just created");
        file.seek(SeekFrom::Start(seen)).expect("a file can be sought");
        file.read_to_string(&mut text).expect("a log is text");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        seen += whole as u64;
        let events = text[..whole].lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for event in events {
            if event["message"] == "ready" {
                let listen = event["listen"].as_str().expect("the ready line names the address").to_owned();
                return (process, listen);
            }
        }
        if let Some(status) = process.try_wait().expect("a child can be asked") {
            panic!("the server ended with {status}:\n{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        assert!(Instant::now() < deadline, "the server does not get ready");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn binary() -> PathBuf {
    let profile = std::env::current_exe().expect("a process knows its executable");
    let path = profile.ancestors().nth(2).expect("target/PROFILE/deps/NAME").join("gantry");
    assert!(path.exists(), "{} is missing: run `cargo test --workspace`, which builds it", path.display());
    path
}
