//! One line each second, for whoever waits. It only reads: what the recorders took since its last look.

use super::clock::Moment;
use super::report::units;
use super::run::Run;
use super::stats::{Quantiles, Sample, Stats};
use parking_lot::Mutex;
use std::io::{IsTerminal as _, Write, stderr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const PERIOD: Duration = Duration::from_secs(1);

/// Where the lines go.
pub(crate) enum ProgressOutput {
    Quiet,
    /// A terminal: each line takes the place of the one before.
    Terminal(Arc<Mutex<dyn Write + Send>>),
    /// A file or a pipe: a line is a line.
    Lines(Arc<Mutex<dyn Write + Send>>),
}

/// What is shown.
pub(crate) struct Show<'a> {
    pub(crate) stats: &'a Stats,
    /// Sends; their latency, unless something is received.
    pub(crate) sent: bool,
    /// Received messages and their latency.
    pub(crate) received: bool,
    /// Before, lines say that the run warms up.
    pub(crate) measured_from: Moment,
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

    fn show(&self, line: &str) {
        match self {
            ProgressOutput::Quiet => {}
            ProgressOutput::Terminal(terminal) => write_now(terminal, &format!("\r{line}\x1b[K")),
            ProgressOutput::Lines(lines) => write_now(lines, &format!("{line}\n")),
        }
    }

    /// Leaves the line that is being rewritten.
    fn end(&self) {
        if let ProgressOutput::Terminal(terminal) = self {
            write_now(terminal, "\n");
        }
    }
}

/// Nobody listening is no failure.
fn write_now(output: &Mutex<dyn Write + Send>, text: &str) {
    let mut output = output.lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

impl Show<'_> {
    /// Shows while `work` goes on.
    pub(crate) async fn during<T>(self, run: &Run, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = run.clock.now();
        let mut last = started;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                done = &mut work => {
                    if last > started {
                        run.progress.end();
                    }
                    return done;
                }
            }
            let now = run.clock.now();
            let second = Second {
                at: now.since(started),
                length: now.since(last),
                warmup: now < self.measured_from,
                sent: self.sent.then(|| self.stats.sends.take_recent()),
                received: self.received.then(|| self.stats.arrivals.take_recent()),
                // Whoever only receives takes what anybody sent.
                foreign: run.plan.produce.as_ref().map_or(0, |_| run.tracker.lock().counts().foreign),
                errors: run.errors.total(),
            };
            run.progress.show(&second.to_line());
            last = now;
        }
    }
}

/// What one line says.
struct Second {
    at: Duration,
    length: Duration,
    warmup: bool,
    sent: Option<Sample>,
    received: Option<Sample>,
    foreign: u64,
    errors: u64,
}

impl Second {
    fn to_line(&self) -> String {
        let mut line = format!("{:>5}", format!("{}s", self.at.as_secs_f64().round()));
        for (name, sample) in [("sent", &self.sent), ("received", &self.received)] {
            let Some(sample) = sample else { continue };
            let per_second = |amount: u64| amount as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE);
            let messages = units::count(per_second(sample.messages).round() as u64);
            let mib = per_second(sample.bytes) / f64::from(1 << 20);
            line += &format!("  {name} {messages} msg/s {mib:.1} MiB/s");
        }
        let latency = self.received.as_ref().or(self.sent.as_ref()).and_then(Sample::quantiles);
        if let Some(Quantiles { p50, p99, .. }) = latency {
            line += &format!("  p50 {} p99 {}", units::micros(p50), units::micros(p99));
        }
        if self.foreign > 0 {
            line += &format!("  foreign {}", units::count(self.foreign));
        }
        line += &format!("  errors {}", units::count(self.errors));
        line + if self.warmup { "  (warm-up)" } else { "" }
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
        let mut second = Second {
            at: Duration::from_millis(3010),
            length: Duration::from_secs(1),
            warmup: false,
            sent: Some(sample(40_000, Duration::from_micros(312))),
            received: None,
            foreign: 0,
            errors: 0,
        };
        assert_eq!(second.to_line(), "   3s  sent 40,000 msg/s 39.1 MiB/s  p50 312 µs p99 312 µs  errors 0");
        second.received = Some(sample(500, Duration::from_millis(2)));
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
