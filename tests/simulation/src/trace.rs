//! The trace: one line for every simulated event, in the order in which they happen. Two runs of one seed write the same
//! bytes.

use parking_lot::Mutex;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Where events are written. Clones write to the same place.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    line: String,
    /// What was written, for looking back.
    lines: u64,
    /// The time outside of hosts.
    now: Duration,
}

impl Trace {
    /// A trace that is written to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Trace {
        Trace { inner: Arc::new(Mutex::new(Inner { out, line: String::new(), lines: 0, now: Duration::ZERO })) }
    }

    /// A trace that nobody reads.
    pub fn silent() -> Trace {
        Trace::new(Box::new(std::io::sink()))
    }

    /// Writes one event of `who`.
    pub fn note(&self, who: &str, event: fmt::Arguments<'_>) {
        let now = self.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        inner.line.clear();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        // Writing to a string cannot fail.
        let _ = fmt::write(&mut inner.line, format_args!("{seconds:4}.{micros:06} {who:<14} {event}"));
        // One event, one line.
        let line = inner.line.replace(['\n', '\r'], " ");
        inner.lines += 1;
        if let Err(error) = writeln!(inner.out, "{line}") {
            panic!("the trace cannot be written: {error}");
        }
    }

    /// How many events there were.
    pub fn lines(&self) -> u64 {
        self.inner.lock().lines
    }

    /// Sets the time that is shown outside of hosts.
    pub fn advance_to(&self, elapsed: Duration) {
        self.inner.lock().now = elapsed;
    }

    /// True time since the simulation began: what no clock of a host shows.
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| self.inner.lock().now)
    }

    /// Writes out what is still held back.
    pub fn flush(&self) {
        let _ = self.inner.lock().out.flush();
    }
}

/// Writes an event: `note!(trace, who, "format", …)`.
#[macro_export]
macro_rules! note {
    ($trace:expr, $who:expr, $($text:tt)*) => {
        $trace.note($who, format_args!($($text)*))
    };
}

/// Adds what the tiers log to the trace. `filter`: as for `RUST_LOG`.
pub fn add_log(trace: &Trace, filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let trace = trace.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(false)
        .with_writer(move || LogLine { trace: trace.clone(), line: Vec::new() })
        .finish();
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

/// One line of the log, written when it is whole.
struct LogLine {
    trace: Trace,
    line: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.is_empty() {
            self.trace.note("log", format_args!("{}", line.trim_end()));
        }
    }
}
