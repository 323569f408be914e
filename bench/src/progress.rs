//! One line each second, for whoever waits.
//!
//! A task of its own, started and stopped by the runner. It only reads: what the recorders took since its last look.

use super::clock::Moment;
use super::joined;
use super::report::units;
use super::run::Run;
use super::stats::{Quantiles, Recorder, Sample};
use parking_lot::Mutex;
use std::io::{IsTerminal as _, Write, stderr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone)]
pub(crate) enum ProgressOutput {
    Quiet,
    /// A terminal: each line takes the place of the one before.
    Terminal(Arc<Mutex<dyn Write + Send>>),
    /// A file or a pipe: a line is a line.
    Lines(Arc<Mutex<dyn Write + Send>>),
}

/// What is shown.
#[derive(Default)]
pub(crate) struct Show {
    /// Sends; their latency, unless something is received.
    pub(crate) sent: Vec<Arc<Recorder>>,
    /// Received messages and their latency.
    pub(crate) received: Vec<Arc<Recorder>>,
}

/// The task that shows.
pub(crate) struct Progress {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Progress {
    /// Shows from now on. Before `measured_from` lines say that the run warms up.
    pub(crate) fn start(run: &Arc<Run>, show: Show, measured_from: Moment) -> Progress {
        let stop = CancellationToken::new();
        Progress { task: tokio::spawn(show_seconds(run.clone(), show, measured_from, stop.clone())), stop }
    }

    /// Ends the line and the task.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        joined(self.task.await);
    }
}

impl ProgressOutput {
    /// Standard error, unless nothing is to be shown.
    pub(crate) fn to_stderr(quiet: bool) -> ProgressOutput {
        match quiet {
            true => ProgressOutput::Quiet,
            false if stderr().is_terminal() => ProgressOutput::Terminal(Arc::new(Mutex::new(stderr()))),
            false => ProgressOutput::Lines(Arc::new(Mutex::new(stderr()))),
        }
    }

    /// Shows a line. Nobody listening is no failure.
    fn show(&self, line: &str) {
        let _ = match self {
            ProgressOutput::Quiet => Ok(()),
            ProgressOutput::Terminal(terminal) => write_now(terminal, &format!("\r{line}\x1b[K")),
            ProgressOutput::Lines(lines) => write_now(lines, &format!("{line}\n")),
        };
    }

    /// Leaves the line that is being rewritten.
    fn end(&self) {
        if let ProgressOutput::Terminal(terminal) = self {
            let _ = write_now(terminal, "\n");
        }
    }
}

fn write_now(output: &Mutex<dyn Write + Send>, text: &str) -> std::io::Result<()> {
    let mut output = output.lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

async fn show_seconds(run: Arc<Run>, show: Show, measured_from: Moment, stop: CancellationToken) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = run.clock.now();
    let (mut last, mut shown) = (started, false);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let now = run.clock.now();
        let [sent, received] = [&show.sent, &show.received].map(|recorders| {
            let recent = || Sample::merged(recorders.iter().map(|recorder| recorder.take_recent()));
            (!recorders.is_empty()).then(recent)
        });
        // Whoever only receives takes what anybody sent.
        let foreign = if run.plan.produce.is_some() { run.tracker.lock().counts().foreign } else { 0 };
        let second = Second {
            at: now.since(started),
            length: now.since(last),
            warmup: now < measured_from,
            sent: sent.as_ref(),
            received: received.as_ref(),
            foreign,
            errors: run.errors.total(),
        };
        run.progress.show(&second.to_line());
        (last, shown) = (now, true);
    }
    if shown {
        run.progress.end();
    }
}

/// What one line says.
struct Second<'a> {
    at: Duration,
    length: Duration,
    warmup: bool,
    sent: Option<&'a Sample>,
    received: Option<&'a Sample>,
    foreign: u64,
    errors: u64,
}

impl Second<'_> {
    fn to_line(&self) -> String {
        let mut line = format!("{:>5}", format!("{}s", self.at.as_secs_f64().round()));
        for (name, sample) in [("sent", self.sent), ("received", self.received)] {
            let Some(sample) = sample else { continue };
            let per_second = |amount: u64| amount as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE);
            let messages = units::count(per_second(sample.messages).round() as u64);
            let mib = per_second(sample.bytes) / f64::from(1 << 20);
            line += &format!("  {name} {messages} msg/s {mib:.1} MiB/s");
        }
        if let Some(Quantiles { p50, p99, .. }) = self.received.or(self.sent).and_then(Sample::quantiles) {
            line += &format!("  p50 {} p99 {}", units::micros(p50), units::micros(p99));
        }
        if self.foreign > 0 {
            line += &format!("  foreign {}", units::count(self.foreign));
        }
        line += &format!("  errors {}", units::count(self.errors));
        if self.warmup {
            line += "  (warm-up)";
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(messages: u64, latency: Duration) -> Sample {
        let mut sample = Sample::default();
        (sample.messages, sample.bytes) = (messages, messages << 10);
        sample.record(latency);
        sample
    }

    #[test]
    fn a_line_tells_rates_of_the_last_second() {
        let sent = sample(40_000, Duration::from_micros(312));
        let mut second = Second {
            at: Duration::from_millis(3010),
            length: Duration::from_secs(1),
            warmup: false,
            sent: Some(&sent),
            received: None,
            foreign: 0,
            errors: 0,
        };
        assert_eq!(second.to_line(), "   3s  sent 40,000 msg/s 39.1 MiB/s  p50 312 µs p99 312 µs  errors 0");
        let received = sample(500, Duration::from_millis(2));
        second.received = Some(&received);
        second.length = Duration::from_millis(500);
        second.warmup = true;
        second.foreign = 1024;
        second.errors = 1200;
        assert_eq!(
            second.to_line(),
            "   3s  sent 80,000 msg/s 78.1 MiB/s  received 1,000 msg/s 1.0 MiB/s  p50 2.00 ms p99 2.00 ms  foreign 1,024  errors 1,200  \
             (warm-up)"
        );
    }

    #[test]
    fn a_terminal_line_is_rewritten_and_a_file_gets_lines() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let terminal = ProgressOutput::Terminal(written.clone());
        terminal.show("one");
        terminal.show("two");
        terminal.end();
        assert_eq!(String::from_utf8_lossy(&written.lock()), "\rone\x1b[K\rtwo\x1b[K\n");
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = ProgressOutput::Lines(written.clone());
        lines.show("one");
        lines.show("two");
        lines.end();
        assert_eq!(String::from_utf8_lossy(&written.lock()), "one\ntwo\n");
    }
}
