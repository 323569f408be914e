//! Runs named scenarios with the official Rust client; the contract is in ../README.md.

mod fixture;
mod scenarios;
mod tools;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use fixture::{Fixture, Outcome, Problem};
use tokio::time::Instant;

/// How much longer than its own waits a scenario may take before it counts as stuck.
const GRACE: Duration = Duration::from_secs(15);

/// What the command line says.
#[derive(Clone)]
pub struct Options {
    /// HOST:PORT of the server.
    endpoint: String,
    tls: bool,
    /// Certificate file to trust.
    ca: Option<String>,
    /// First part of topic and group names.
    prefix: String,
    /// How long a scenario may wait.
    timeout: Duration,
    /// Topic to use in place of the derived one.
    topic: Option<String>,
    /// Consumer group to use in place of the derived one.
    group: Option<String>,
    /// Sends at a time.
    inflight: usize,
    /// How long without a message until a consumer ends.
    quiet: Duration,
    scenarios: Vec<String>,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &options.ca {
        std::env::set_var("SSL_CERT_FILE", file); // the only way to tell this client
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let failed = runtime.block_on(run_all(options));
    // A plain drop would wait for a read of standard input.
    runtime.shutdown_background();
    ExitCode::from(u8::from(failed))
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            endpoint: String::new(),
            tls: false,
            ca: None,
            prefix: "e2e".into(),
            timeout: Duration::from_secs(30),
            topic: None,
            group: None,
            inflight: 8,
            quiet: Duration::from_secs(5),
            scenarios: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                options.scenarios.push(argument);
                continue;
            };
            if name == "tls" {
                options.tls = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
            match name {
                "endpoint" => options.endpoint = value,
                "ca" => options.ca = Some(value),
                "prefix" => options.prefix = value,
                "timeout" => options.timeout = seconds(&value)?,
                "topic" => options.topic = Some(value),
                "group" => options.group = Some(value),
                "inflight" => options.inflight = value.parse().map_err(|_| format!("{value} is not a number"))?,
                "quiet" => options.quiet = seconds(&value)?,
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        if options.endpoint.is_empty() || options.scenarios.is_empty() {
            return Err("needed: --endpoint HOST:PORT SCENARIO...".into());
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// Runs the scenarios and prints their result lines; tells whether one failed.
async fn run_all(options: Options) -> bool {
    let names = match options.scenarios.as_slice() {
        [all] if all == "all" => scenarios::NAMES.map(String::from).to_vec(),
        names => names.to_vec(),
    };
    let mut failed = false;
    for name in names {
        let started = Instant::now();
        // In a task of its own, because this client panics on some errors.
        let result = tokio::spawn(run(name.clone(), options.clone())).await;
        let line = match result.unwrap_or_else(|panic| Err(Problem::Failure(panic.to_string()))) {
            Ok(counts) => format!("PASS {name} {}ms {counts}", started.elapsed().as_millis()),
            Err(Problem::Skip(reason)) => format!("SKIP {name} {reason}"),
            Err(Problem::Failure(reason)) => format!("FAIL {name} {reason}"),
            Err(Problem::Client(error)) => format!("FAIL {name} {error}"),
        };
        println!("{}", one_line(&line));
        failed |= line.starts_with("FAIL");
    }
    failed
}

/// Runs one scenario; returns what a tool counted.
async fn run(name: String, options: Options) -> Result<String, Problem> {
    if options.tls && options.ca.is_none() {
        let reason = "this client verifies certificates: name one to trust with --ca";
        return Err(Problem::Skip(reason.into()));
    }
    let limit = options.timeout + GRACE;
    let mut fixture = Fixture::new(&name, options);
    let outcome = within(limit, scenarios::run(&name, &mut fixture)).await;
    let closed = within(limit, fixture.close()).await;
    outcome.and(closed)?;
    Ok(fixture.counts)
}

async fn within(limit: Duration, step: impl Future<Output = Outcome>) -> Outcome {
    let stuck = |_| Problem::Failure(format!("stuck for {} s", limit.as_secs()));
    tokio::time::timeout(limit, step).await.map_err(stuck)?
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
