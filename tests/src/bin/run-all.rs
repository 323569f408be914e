//! Runs all tests, also when some fail, and says at the end what was slow. The exit code is that of `cargo test`.
//!
//! Arguments take the place of `--workspace`: `run-all -p gantry-store`.

#![allow(clippy::disallowed_methods, reason = "it is about real time, and is told what to do by its environment")]

use gantry_tests::Durations;
use std::io::{BufRead as _, BufReader, Write as _, pipe, stdout};
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;
use std::time::Instant;

fn main() -> std::io::Result<ExitCode> {
    let started = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut asked: Vec<_> = std::env::args_os().skip(1).collect();
    if asked.is_empty() {
        asked.push("--workspace".into());
    }
    // Both outputs in one pipe: which tests belong to which binary is seen from the order.
    let (output, writer) = pipe()?;
    let mut command = Command::new(cargo);
    command.args(["test", "--no-fail-fast"]).args(asked).stdout(writer.try_clone()?).stderr(writer);
    let mut testing = command.spawn()?;
    // It holds our ends of the pipe, which would keep it open.
    drop(command);

    let at_once = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    let at_once = at_once.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let mut durations = Durations::new(at_once);
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        durations.enter(&String::from_utf8_lossy(&line), started.elapsed());
        stdout().write_all(&line)?;
        stdout().write_all(b"\n")?;
    }
    let status = testing.wait()?;
    stdout().write_all(durations.finish(started.elapsed()).as_bytes())?;
    // Without a code it was killed.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
