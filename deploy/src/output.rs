//! What the user sees: results on standard output, failures on standard error. Nothing else writes there.

use std::io::{self, Write as _};

/// Prints a result. A reader that has gone (`gantry … | head`) is not a failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Says why a command failed, or something about a result that is no part of it.
pub fn note(text: &str) {
    // When standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "gantry: {text}");
}

/// Passes on a line that another process logged.
pub fn log_of(process: &str, line: &str) {
    let _ = writeln!(io::stderr(), "{process:>13} │ {line}");
}
