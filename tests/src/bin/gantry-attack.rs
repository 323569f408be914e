//! Plays attacks against the real binary and prints what came of each: peak memory, what an honest client measured meanwhile,
//! and how long the server needed to be idle again. `cargo build --release -p gantry-deploy -p gantry-tests`, then
//! `target/release/gantry-attack [SECONDS [NAME...]]`. What follows `--` are flags of the server.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that reports")]

use gantry_tests::attack::{ATTACKS, Attack, Field, Measured, Outcome};
use std::time::Duration;

/// Everything has to be idle again by then.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (own, flags) = match arguments.iter().position(|argument| argument == "--") {
        Some(end) => (&arguments[..end], &arguments[end + 1..]),
        None => (&arguments[..], &[][..]),
    };
    let seconds = own.first().map_or(5, |text| text.parse().expect("the first argument is a number of seconds"));
    let chosen = |attack: &&Attack| own.len() < 2 || own[1..].iter().any(|name| name == attack.name);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut field = Field::start(&flags);
    let duration = Duration::from_secs(seconds);
    let peace = field.peace(duration);
    println!(
        "{:<14} {:>9} {:>9} {:>8} {:>7} {:>10} {:>10}",
        "attack", "peak MiB", "+MiB", "p99 ms", "failed", "sent", "idle after"
    );
    show("peace", &peace, None);
    for attack in ATTACKS.iter().filter(chosen) {
        let outcome = field.attack(&[attack], duration, RECOVERY_MAX);
        show(attack.name, &outcome.honest, Some(&outcome));
    }
    if own.len() < 2 {
        let all: Vec<&Attack> = ATTACKS.iter().collect();
        let outcome = field.attack(&all, duration, RECOVERY_MAX);
        show("all at once", &outcome.honest, Some(&outcome));
    }
}

fn show(name: &str, honest: &Measured, outcome: Option<&Outcome>) {
    let mib = |bytes: u64| bytes >> 20;
    let peak = outcome.and_then(|outcome| outcome.peak);
    let more = outcome.zip(peak).map(|(outcome, peak)| mib(peak.saturating_sub(outcome.before.resident)));
    let text = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let idle = match outcome.map(|outcome| outcome.recovered) {
        None => "-".to_owned(),
        Some(Some(recovered)) => format!("{:.1} s", recovered.as_secs_f64()),
        Some(None) => "never".to_owned(),
    };
    let p99 = honest.quantile(0.99).as_secs_f64() * 1000.0;
    let (peak, more) = (text(peak.map(mib)), text(more));
    println!("{name:<14} {peak:>9} {more:>9} {p99:>8.2} {:>7} {:>10} {idle:>10}", honest.failed, honest.took.len());
}
