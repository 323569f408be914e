//! How many bytes of messages may be on their way to the store at one time. Asked by every send; over the limit the
//! answer is quick and says so.

use crate::translate::Refusal;
use gantry_proto::wire::v2;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget of bytes, shared by all sends.
pub(crate) struct BytesInflight {
    used: AtomicUsize,
    max: usize,
}

/// Bytes taken from the budget, until dropped.
pub(crate) struct BytesPermit<'a> {
    budget: &'a BytesInflight,
    bytes: usize,
}

impl BytesInflight {
    pub(crate) fn new(max: usize) -> BytesInflight {
        BytesInflight { used: AtomicUsize::new(0), max }
    }

    /// Takes `bytes`. A request larger than the whole budget is let in when it is alone.
    pub(crate) fn admit(&self, bytes: usize) -> Result<BytesPermit<'_>, Refusal> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let permit = BytesPermit { budget: self, bytes };
        if before != 0 && before.saturating_add(bytes) > self.max {
            return Err(Refusal::new(
                v2::Code::TooManyRequests,
                format!("{before} bytes of messages are being sent already, at most {} may be; try again", self.max),
            ));
        }
        Ok(permit)
    }
}

impl Drop for BytesPermit<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_over_the_budget_are_refused_until_others_are_done() {
        let budget = BytesInflight::new(100);
        let first = budget.admit(60).unwrap();
        let refusal = budget.admit(60).map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, v2::Code::TooManyRequests);
        assert!(refusal.message.contains("100"), "{}", refusal.message);
        let second = budget.admit(40).unwrap();
        drop(first);
        assert!(budget.admit(60).is_ok());
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_request_larger_than_the_budget_passes_alone() {
        let budget = BytesInflight::new(100);
        assert!(budget.admit(1000).is_ok());
        let _small = budget.admit(1).unwrap();
        assert!(budget.admit(1000).is_err());
    }
}
