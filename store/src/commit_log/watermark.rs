//! A position in the log that only grows, and the tasks that wait for it to pass theirs.

use gantry_proto::model::LogOffset;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// A growing position. Many wait, one advances.
#[derive(Default)]
pub(crate) struct Watermark {
    reached: AtomicU64,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    waiting: Vec<(LogOffset, Waker)>,
    /// Set when the position will never grow again.
    closed: bool,
}

/// The position will never be reached: the writer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Watermark {
    pub(crate) fn new(at: LogOffset) -> Watermark {
        Watermark { reached: AtomicU64::new(at.0), waiters: Mutex::default() }
    }

    /// Everything before this has passed.
    pub(crate) fn get(&self) -> LogOffset {
        LogOffset(self.reached.load(Ordering::Acquire))
    }

    /// Moves on and wakes whoever waited for it. Going back is a bug.
    pub(crate) fn advance(&self, to: LogOffset) {
        let before = self.reached.swap(to.0, Ordering::AcqRel);
        assert!(before <= to.0, "a watermark went back from {before} to {to}");
        let mut ready = Vec::new();
        let mut waiters = self.waiters.lock();
        let mut index = 0;
        while index < waiters.waiting.len() {
            if waiters.waiting[index].0 <= to {
                ready.push(waiters.waiting.swap_remove(index).1);
            } else {
                index += 1;
            }
        }
        drop(waiters);
        for waker in ready {
            waker.wake();
        }
    }

    /// Fails all waits for positions that were not reached, now and later.
    pub(crate) fn close(&self) {
        let mut waiters = self.waiters.lock();
        waiters.closed = true;
        let waiting = std::mem::take(&mut waiters.waiting);
        drop(waiters);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Waits until everything before `target` has passed. Cancel-safe.
    pub(crate) fn wait(&self, target: LogOffset) -> Wait<'_> {
        Wait { watermark: self, target }
    }
}

/// See [`Watermark::wait`].
pub(crate) struct Wait<'a> {
    watermark: &'a Watermark,
    target: LogOffset,
}

impl Future for Wait<'_> {
    type Output = Result<(), Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.watermark.get() >= self.target {
            return Poll::Ready(Ok(()));
        }
        let mut waiters = self.watermark.waiters.lock();
        // Again under the lock: `advance` stores first and locks then, so one of the two sees the other.
        if self.watermark.get() >= self.target {
            return Poll::Ready(Ok(()));
        }
        if waiters.closed {
            return Poll::Ready(Err(Closed));
        }
        // A wait polled twice leaves two entries; the second wake is harmless and rare.
        waiters.waiting.push((self.target, context.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn waiters_pass_in_any_order_once_their_position_is_reached() {
        let mark = Arc::new(Watermark::new(LogOffset(10)));
        let wait = |target| {
            let mark = mark.clone();
            tokio::spawn(async move { mark.wait(LogOffset(target)).await })
        };
        let (far, near) = (wait(30), wait(20));
        assert_eq!(mark.wait(LogOffset(10)).await, Ok(()));
        tokio::task::yield_now().await;
        mark.advance(LogOffset(25));
        assert_eq!(near.await.unwrap(), Ok(()));
        assert!(!far.is_finished());
        mark.advance(LogOffset(30));
        assert_eq!(far.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn closing_fails_those_who_wait_and_those_who_come() {
        let mark = Arc::new(Watermark::new(LogOffset(0)));
        let waiting = tokio::spawn({
            let mark = mark.clone();
            async move { mark.wait(LogOffset(1)).await }
        });
        tokio::task::yield_now().await;
        mark.close();
        assert_eq!(waiting.await.unwrap(), Err(Closed));
        assert_eq!(mark.wait(LogOffset(2)).await, Err(Closed));
        assert_eq!(mark.wait(LogOffset(0)).await, Ok(()));
    }
}
