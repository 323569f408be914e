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

/// A failure with its causes. Most errors name their cause themselves: nothing is said twice.
pub fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Passes on a line that another process logged.
pub fn log_of(process: &str, line: &str) {
    let _ = writeln!(io::stderr(), "{process:>13} │ {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[derive(Debug, thiserror::Error)]
    #[error("reading x: {source}")]
    struct Reading {
        source: io::Error,
    }

    #[test]
    fn every_cause_is_named_once() {
        let source = io::Error::other("bad sector");
        let named: anyhow::Result<()> = Err(Reading { source }.into());
        let error = named.context("cannot open the store").context("it ended").unwrap_err();
        assert_eq!(in_one_line(&error), "it ended: cannot open the store: reading x: bad sector");
    }
}
