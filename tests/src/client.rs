//! One language's scenario program: a thin program over the unmodified official client, see `clients/README.md`.

use crate::{PATIENCE, target_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A built scenario program.
pub struct Client {
    program: PathBuf,
    language: &'static str,
}

/// What a scenario came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// The client cannot do that, for this reason.
    Skipped(String),
    /// It did not hold, for this reason.
    Failed(String),
}

/// A scenario that is under way. Killed when dropped.
pub struct Running {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Every line so far.
    pub seen: Vec<String>,
}

/// One language builds at a time: they share the machine.
static BUILDING: Mutex<()> = Mutex::new(());

impl Client {
    /// The program of a language, built if it is not up to date.
    pub fn build(language: &'static str) -> Client {
        let _turn = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/build");
        let folder = std::env::var_os("GANTRY_CLIENTS_DIR").map_or_else(|| target_dir().join("clients"), PathBuf::from);
        let status = Command::new(&script)
            .arg(language)
            .env("GANTRY_CLIENTS_DIR", &folder)
            // What cargo tells this test is not meant for the cargo that the script may call.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("running {}: {error}", script.display()));
        assert!(status.success(), "tests/clients/build {language} ended with {status}");
        Client { program: folder.join("bin").join(language), language }
    }

    /// Runs scenarios one after another. One outcome per scenario, in their names' order. No line may take longer than
    /// `limit`.
    pub fn run(
        &self,
        endpoint: &str,
        flags: &[&str],
        scenarios: &[&str],
        limit: Duration,
    ) -> BTreeMap<String, Outcome> {
        let mut running = self.start(endpoint, &[flags, scenarios].concat());
        drop(running.stdin.take());
        while running.next_line(limit).is_some() {}
        let outcomes = running.outcomes();
        for scenario in scenarios {
            let said = running.seen.join("\n");
            assert!(outcomes.contains_key(*scenario), "{} says nothing of {scenario}:\n{said}", self.language);
        }
        outcomes
    }

    /// Starts scenarios; the caller reads their lines.
    pub fn start(&self, endpoint: &str, arguments: &[&str]) -> Running {
        let mut process = Command::new(&self.program)
            .args(["--endpoint", endpoint])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", self.program.display()));
        let stdout = BufReader::new(process.stdout.take().expect("it was piped"));
        let stdin = process.stdin.take();
        let (sender, lines) = channel();
        // Ends with the process's output, or with the receiver.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { process, stdin, lines, seen: Vec::new() }
    }
}

impl Running {
    /// The next line, or `None` at the end. Panics when neither comes within `limit`.
    pub fn next_line(&mut self, limit: Duration) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing for {limit:?} after:\n{}", self.seen.join("\n")),
        }
    }

    /// Reads on until `count` more lines begin with `word`.
    pub fn wait_for(&mut self, word: &str, count: usize) {
        let mut found = 0;
        while found < count {
            let line = self.next_line(PATIENCE);
            let line = line.unwrap_or_else(|| panic!("it ended early:\n{}", self.seen.join("\n")));
            found += usize::from(line.split(' ').next() == Some(word));
        }
    }

    /// Reads what comes for a while.
    pub fn read_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(_) => return,
            }
        }
    }

    /// Lets a tool scenario end (its standard input closes) and reads the rest.
    pub fn finish(&mut self) {
        drop(self.stdin.take());
        while self.next_line(PATIENCE).is_some() {}
        let status = self.process.wait().expect("a child can be waited for");
        assert!(status.success(), "it ended with {status}:\n{}", self.seen.join("\n"));
    }

    /// The words after `word` of every line that begins with it.
    pub fn said(&self, word: &str) -> Vec<Vec<String>> {
        let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        self.seen.iter().map(words).filter(|words| words[0] == word).map(|words| words[1..].to_vec()).collect()
    }

    fn outcomes(&self) -> BTreeMap<String, Outcome> {
        let parse = |line: &String| {
            let mut words = line.splitn(3, ' ');
            let (word, scenario) = (words.next()?, words.next()?);
            let rest = words.next().unwrap_or_default().to_owned();
            let outcome = match word {
                "PASS" => Outcome::Passed,
                "SKIP" => Outcome::Skipped(rest),
                "FAIL" => Outcome::Failed(rest),
                _ => return None,
            };
            Some((scenario.to_owned(), outcome))
        };
        self.seen.iter().filter_map(parse).collect()
    }
}

/// Fails unless every message that was acknowledged to a producer (what it `said` as `ACKED`) is among those that consumers
/// `RECEIVED`, and none of these came twice.
pub fn assert_all_there_once(language: &str, acked: &[Vec<String>], received: &[Vec<String>]) {
    let ids: Vec<&String> = received.iter().map(|words| &words[1]).collect();
    let unique: BTreeSet<&String> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{language}: some messages came twice");
    let lost: Vec<_> = acked.iter().filter(|words| !unique.contains(&words[1])).collect();
    assert!(lost.is_empty(), "{language}: {} of {} answered messages are lost: {lost:?}", lost.len(), acked.len());
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
