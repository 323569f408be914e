//! A bounded number of runs, the determinism of the simulation, and that it would notice.

use std::path::PathBuf;
use std::process::{Command, Output};

fn gantry_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gantry-sim")).args(arguments).output().expect("the program starts")
}

fn trace_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a seed and returns its trace, with everything that the tiers logged.
fn trace_of(seed: &str, name: &str) -> Vec<u8> {
    let file = trace_file(name);
    let path = file.to_str().expect("a path that is text");
    let arguments = ["--seed", seed, "--scenario", "everything", "--time", "4", "--log", "info", "--trace", path];
    let output = gantry_sim(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::read(file).expect("the trace was written")
}

#[test]
fn a_seed_determines_every_byte_of_the_trace_and_another_seed_gives_another_one() {
    let (first, again) = (trace_of("7", "first.txt"), trace_of("7", "again.txt"));
    let differs = first.iter().zip(&again).position(|(a, b)| a != b);
    assert!(first == again, "the traces differ from byte {differs:?} on");
    assert!(first.len() > 100_000, "the trace has {} bytes", first.len());
    assert_ne!(first, trace_of("8", "other.txt"));
}

#[test]
fn nothing_is_violated_in_a_bounded_number_of_runs() {
    // Every scenario but the first two, which the other tests run, or what is in them.
    let output = gantry_sim(&["--scenario", "all", "--seed", "2", "--seeds", "21", "--time", "4", "--jobs", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("21 runs, 0 failed"), "{text}");
}

#[test]
fn a_disk_that_only_pretends_to_sync_is_noticed() {
    let mut noticed = 0;
    for seed in ["1", "2"] {
        let output = gantry_sim(&["--scenario", "crashes", "--seed", seed, "--time", "10", "--lie", "sync-data"]);
        noticed += usize::from(String::from_utf8_lossy(&output.stdout).contains("violated "));
    }
    assert!(noticed > 0, "two runs on lying disks violated nothing");
}

#[test]
fn the_symbols_of_the_system_are_the_simulations() {
    let output = gantry_sim(&["--here", "--scenario", "steady", "--seed", "3", "--time", "3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let reads = |what: &str| {
        let after = text.split(what).nth(1).and_then(|rest| rest.split_whitespace().next());
        after.and_then(|number| number.parse::<u64>().ok()).expect("the summary says it")
    };
    assert!(reads("system time ") > 0, "std asks elsewhere for the time");
    assert!(reads("system randomness ") > 0, "std asks elsewhere for randomness");
}
