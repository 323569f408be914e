//! Errors of a run, counted by operation and code.

use gantry_client::Failure;
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct ErrorTable(Mutex<BTreeMap<(&'static str, String), ErrorCount>>);

/// One kind of error in a report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ErrorCount {
    /// What failed: `send`, `receive`, `ack`, `heartbeat`, `connection`, `telemetry`.
    pub(crate) operation: &'static str,
    pub(crate) code: String,
    /// Calls or, for `send` and `ack`, messages.
    pub(crate) count: u64,
    /// The text of the first.
    pub(crate) first: String,
}

/// Kinds told apart. A server could make up codes without end.
const ERROR_KINDS_MAX: usize = 64;
/// Bytes kept of an error's text.
const ERROR_TEXT_BYTES_MAX: usize = 300;

impl ErrorTable {
    /// Counts `count` failures of one kind.
    pub(crate) fn add(&self, operation: &'static str, failure: &Failure, count: u64) {
        let mut rows = self.0.lock();
        let code = if rows.len() < ERROR_KINDS_MAX { failure.code.clone() } else { "OTHER".to_owned() };
        let row = rows.entry((operation, code.clone())).or_insert_with(|| {
            let first = failure.text[..failure.text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)].to_owned();
            ErrorCount { operation, code, count: 0, first }
        });
        row.count += count;
    }

    /// Counts what failed of a call for `count` messages, and returns the positions of the others.
    pub(crate) fn accepted(&self, operation: &'static str, results: super::client::Results, count: u64) -> Vec<u64> {
        let results = results.unwrap_or_else(|failure| {
            self.add(operation, &failure, count);
            Vec::new()
        });
        let count = |(position, result): (u64, Result<(), Failure>)| {
            result.map(|()| position).inspect_err(|failure| self.add(operation, failure, 1)).ok()
        };
        (0..).zip(results).filter_map(count).collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.lock().values().map(|row| row.count).sum()
    }

    /// Every kind, by operation and code.
    pub(crate) fn counts(&self) -> Vec<ErrorCount> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_the_first_text_and_a_bounded_number_of_kinds() {
        let table = ErrorTable::default();
        table.add("send", &Failure::new("TOO_MANY_REQUESTS", "slow down"), 3);
        table.add("send", &Failure::new("TOO_MANY_REQUESTS", "again"), 1);
        table.add("ack", &Failure::new("TOO_MANY_REQUESTS", "é".repeat(400)), 1);
        let counts = table.counts();
        assert_eq!(counts[0].first.len(), 300);
        assert_eq!((counts[1].operation, counts[1].count, counts[1].first.as_str()), ("send", 4, "slow down"));
        for code in 0..1000 {
            table.add("receive", &Failure::new(format!("CODE_{code}"), ""), 1);
        }
        assert!(table.counts().len() <= ERROR_KINDS_MAX + 3);
        assert_eq!(table.total(), 1005);
    }
}
