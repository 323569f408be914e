//! Bounds the bytes of calls that one process holds: calls that wait for a connection in a proxy, calls under way in a
//! store. One budget for all links, or all streams, however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
}

/// Bytes of a budget, taken until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget { bytes_max, used: AtomicUsize::new(0) })
    }

    /// Takes bytes, up to `beyond` more than the bound. `None`: that many are not left. A call that is larger than the whole
    /// budget gets it when nothing else is taken.
    pub(super) fn take(self: &Arc<Budget>, bytes: usize, beyond: usize) -> Option<Reservation> {
        let bound = self.bytes_max.saturating_add(beyond);
        let add = |used: usize| used.checked_add(bytes).filter(|sum| used == 0 || *sum <= bound);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.ok().map(|_| Reservation { budget: self.clone(), bytes })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let first = budget.take(60, 0).unwrap();
        assert!(budget.take(41, 0).is_none());
        let second = budget.take(40, 0).unwrap();
        assert!(budget.take(1, 0).is_none());
        let reserve = budget.take(10, 10).unwrap();
        assert!(budget.take(1, 10).is_none());
        drop((second, reserve));
        assert!(budget.take(40, 0).is_some());
        drop(first);
        assert!(budget.take(1000, 0).is_some(), "one that is larger goes alone");
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
