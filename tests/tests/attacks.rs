//! Whatever clients do: the server stays within its memory, everything is idle again soon, and an honest client is served.

#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a real process in real time")]

use gantry_tests::attack::{ATTACKS, Attack, Field};
use std::time::Duration;

const MEMORY: u64 = 64 << 20;
/// Beside what clients hold: what the allocator keeps, the log's pages, what threads need.
const SLACK: u64 = 160 << 20;

/// Deadlines that a test can wait for.
const FLAGS: &[&str] = &[
    "--limits-memory",
    "64MiB",
    "--listen-handshake-timeout",
    "2s",
    "--listen-idle-timeout",
    "3s",
    "--limits-request-timeout",
    "2s",
    "--limits-settings-timeout",
    "2s",
    "--limits-read-timeout",
    "2s",
];

#[test]
fn all_attacks_at_once_tire_nobody() {
    let mut field = Field::start(FLAGS);
    let attacks: Vec<&Attack> = ATTACKS.iter().collect();
    let outcome = field.attack(&attacks, Duration::from_secs(5), Duration::from_secs(30));
    assert!(outcome.recovered.is_some(), "not idle again: {:?}, before {:?}", field.state(), outcome.before);
    if let Some(peak) = outcome.peak {
        let more = peak.saturating_sub(outcome.before.resident);
        assert!(more < MEMORY + SLACK, "{} MiB more than before", more >> 20);
    }
    let honest = &outcome.honest;
    assert!(10 * honest.failed <= honest.took.len(), "{} answered, {} not", honest.took.len(), honest.failed);
    // Afterwards it is as if nothing had been.
    let after = field.peace(Duration::from_secs(1));
    assert!(after.failed == 0 && !after.took.is_empty(), "{} failed", after.failed);
    field.assert_no_errors();
}
