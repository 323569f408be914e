//! What must hold in every history. One file per invariant; each looks at a whole [`History`] and reports what broke it.
//!
//! The checks are sound: they use only what the history proves, so a violation is a bug of the product or of the
//! simulation, never a matter of luck. An operation whose outcome is unknown is taken as both.

mod arrived;
mod attempts;
mod delivered;
mod drained;
mod filtered;
mod finished;
mod gave_up;
mod invented;
mod kept;
mod leases;
mod members;
mod monotonic;
mod once;
mod ordered;
mod panics;
mod positions;
mod refused;
mod served;
mod settled;
mod single_writer;
mod states;
#[cfg(test)]
mod testing;
mod whole;

use crate::history::History;
use std::fmt;
use std::time::Duration;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When it became visible, if that can be said.
    pub at: Option<Duration>,
    /// How.
    pub what: String,
    /// Why the product is known not to hold this yet. Said by every run that meets it, and no run fails for it.
    pub known: Option<&'static str>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)?;
        self.at.map_or(Ok(()), |at| write!(f, " (at {:.3} s)", at.as_secs_f64()))
    }
}

/// An invariant: its name and its check.
pub struct Invariant {
    pub name: &'static str,
    /// Finds what breaks it.
    pub check: fn(&History, &mut Report),
}

/// All of them.
pub const ALL: [Invariant; 22] = [
    panics::INVARIANT,
    delivered::INVARIANT,
    invented::INVARIANT,
    leases::INVARIANT,
    arrived::INVARIANT,
    settled::INVARIANT,
    served::INVARIANT,
    once::INVARIANT,
    ordered::INVARIANT,
    whole::INVARIANT,
    filtered::INVARIANT,
    drained::INVARIANT,
    states::INVARIANT,
    finished::INVARIANT,
    positions::INVARIANT,
    monotonic::INVARIANT,
    single_writer::INVARIANT,
    attempts::INVARIANT,
    members::INVARIANT,
    refused::INVARIANT,
    kept::INVARIANT,
    gave_up::INVARIANT,
];

/// What is reported of one invariant at most; one broken promise breaks many.
const REPORTED_MAX: usize = 5;

/// Collects what breaks one invariant.
pub struct Report {
    name: &'static str,
    violations: Vec<Violation>,
    suppressed: usize,
}

impl Report {
    /// Adds a violation.
    pub fn add(&mut self, at: Option<Duration>, what: String) {
        self.push(Violation { invariant: self.name, at, what, known: None });
    }

    /// Adds a violation that is known, and why it is there.
    pub fn add_known(&mut self, at: Option<Duration>, what: String, why: &'static str) {
        self.push(Violation { invariant: self.name, at, what, known: Some(why) });
    }

    fn push(&mut self, violation: Violation) {
        let alike = self.violations.iter().filter(|other| other.known.is_some() == violation.known.is_some()).count();
        if alike < REPORTED_MAX {
            self.violations.push(violation);
        } else if violation.known.is_none() {
            self.suppressed += 1;
        }
    }
}

/// Checks one invariant.
pub fn check_one(invariant: &Invariant, history: &History) -> Vec<Violation> {
    let mut report = Report { name: invariant.name, violations: Vec::new(), suppressed: 0 };
    (invariant.check)(history, &mut report);
    if report.suppressed > 0 {
        let what = format!("and {} more", report.suppressed);
        report.violations.push(Violation { invariant: invariant.name, at: None, what, known: None });
    }
    report.violations
}

/// Checks everything.
pub fn check(history: &History) -> Vec<Violation> {
    ALL.iter().flat_map(|invariant| check_one(invariant, history)).collect()
}
