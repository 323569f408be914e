//! How long test binaries and single tests take, from what `cargo test` prints.
//!
//! A test's line comes when it ends. When it began is not printed, but known: a binary starts its tests in the order of
//! their names, as many at once as it has threads, and the next one when one ends.

use std::fmt::Write as _;
use std::time::Duration;

const TESTS_SHOWN: usize = 15;

/// Reads the lines of a run of `cargo test`.
pub struct Durations {
    /// How many tests of a binary run at once.
    at_once: usize,
    /// Before the first binary ran.
    building: Option<Duration>,
    binaries: Vec<Binary>,
}

struct Binary {
    name: String,
    began: Duration,
    ended: Duration,
    /// Tests and when they ended, in the order in which they did.
    tests: Vec<(String, Duration)>,
}

impl Durations {
    pub fn new(at_once: usize) -> Durations {
        Durations { at_once: at_once.max(1), building: None, binaries: Vec::new() }
    }

    /// Enters a line that was printed at `now`, counted from the start of the run.
    pub fn enter(&mut self, line: &str, now: Duration) {
        if let Some(name) = binary_of(line) {
            self.building.get_or_insert(now);
            self.binaries.push(Binary { name, began: now, ended: now, tests: Vec::new() });
        } else if let Some(binary) = self.binaries.last_mut() {
            if line.starts_with("test result: ") {
                binary.ended = now;
            } else if let Some(test) = test_of(line) {
                binary.ended = now;
                binary.tests.push((test.to_owned(), now));
            }
        }
    }

    /// What was slow, for people. The run took `total`.
    pub fn finish(self, total: Duration) -> String {
        let building = self.building.unwrap_or(total);
        let mut tests = Vec::new();
        let mut binaries = Vec::new();
        for binary in &self.binaries {
            binaries.push((binary.ended.saturating_sub(binary.began), binary.name.clone()));
            let of_binary = durations(binary, self.at_once);
            tests.extend(of_binary.into_iter().map(|(test, took)| (took, format!("{}: {test}", binary.name))));
        }
        let rest = total.saturating_sub(building);
        let mut text = format!("\nbuilding {} s, testing {} s\n", rounded(building), rounded(rest));
        table(&mut text, "seconds  test binary", binaries, usize::MAX);
        table(&mut text, "seconds  slowest tests", tests, TESTS_SHOWN);
        text
    }
}

/// `Running tests/tidy.rs (target/debug/deps/tidy-0123)` is `tidy`, `Doc-tests gantry_proto` is `gantry_proto (doc)`.
fn binary_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (doc)"));
    }
    let path = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once(" (")?.1;
    let file = path.rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned())
}

/// The name in `test a::b - should panic ... ok`.
fn test_of(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some(name.strip_suffix(" - should panic").unwrap_or(name))
}

fn durations(binary: &Binary, at_once: usize) -> Vec<(&str, Duration)> {
    let mut in_order: Vec<_> = binary.tests.iter().map(|(name, ended)| (name.as_str(), *ended)).collect();
    in_order.sort();
    for (index, (_, duration)) in in_order.iter_mut().enumerate() {
        let began = index.checked_sub(at_once).map_or(binary.began, |freed_by| binary.tests[freed_by].1);
        *duration = duration.saturating_sub(began);
    }
    in_order
}

fn rounded(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// The longest first.
fn table(text: &mut String, title: &str, mut rows: Vec<(Duration, String)>, shown: usize) {
    rows.sort_by(|a, b| b.cmp(a));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{title}");
    for (duration, name) in rows.iter().take(shown) {
        let _ = writeln!(text, "{:>7}  {name}", rounded(*duration));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at_once: usize, lines: &[(u64, &str)]) -> String {
        let mut durations = Durations::new(at_once);
        for (second, line) in lines {
            durations.enter(line, Duration::from_secs(*second));
        }
        durations.finish(Duration::from_secs(30))
    }

    #[test]
    fn binaries_and_tests_are_listed_by_what_they_took() {
        let text = report(
            2,
            &[
                (1, "   Compiling gantry-proto v0.1.0"),
                (10, "     Running unittests src/lib.rs (target/debug/deps/gantry_proto-0a1b)"),
                (10, "running 4 tests"),
                // `b` and `c` begin at 10, `d` when `c` ends, `e` when `b` does.
                (12, "test c ... ok"),
                (15, "test b - should panic ... ok"),
                (16, "test e ... ignored, slow"),
                (19, "test d ... FAILED"),
                (19, "test result: FAILED. 2 passed; 1 failed"),
                (20, "     Running tests/tidy.rs (/target-x/debug/deps/tidy-77)"),
                (21, "test result: ok. 0 passed"),
                (22, "   Doc-tests gantry_proto"),
                (25, "test src/lib.rs - (line 3) ... ok"),
                (25, "test result: ok. 1 passed"),
            ],
        );
        let expected = "
building 10.0 s, testing 20.0 s

seconds  test binary
    9.0  gantry_proto
    3.0  gantry_proto (doc)
    1.0  tidy

seconds  slowest tests
    7.0  gantry_proto: d
    5.0  gantry_proto: b
    3.0  gantry_proto (doc): src/lib.rs - (line 3)
    2.0  gantry_proto: c
    1.0  gantry_proto: e
";
        assert_eq!(text, expected);
    }

    #[test]
    fn one_at_a_time_begins_where_the_one_before_ended() {
        let running = "     Running unittests src/lib.rs (target/debug/deps/x-0)";
        let text = report(1, &[(0, running), (4, "test a ... ok"), (5, "test b ... ok")]);
        assert!(text.contains("    4.0  x: a\n    1.0  x: b\n"), "{text}");
    }

    #[test]
    fn a_run_that_does_not_build_has_no_tests() {
        let text = report(2, &[(3, "error: could not compile `gantry-store`")]);
        assert!(text.starts_with("\nbuilding 30.0 s, testing 0.0 s\n"), "{text}");
    }
}
