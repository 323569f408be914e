//! The code under test never panics.

use super::{Invariant, Report};
use crate::history::History;

pub(super) const INVARIANT: Invariant = Invariant { name: "no panic", check };

fn check(history: &History, report: &mut Report) {
    for panic in &history.panics {
        report.add(None, panic.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_panic_is_reported() {
        let mut history = history();
        holds(&INVARIANT, &history);
        history.panics.push("store-a: index out of bounds".to_owned());
        is_broken(&INVARIANT, &history, "out of bounds");
    }
}
