//! The task of one call in HTTP/2, which ends when the client does not read its answer.
//!
//! hyper pulls an answer's next piece only when the client has room for the one before. The body notes each pull
//! ([`Reading::note`]) while its task is polled; when the last thing it did was to offer a piece, and the task waits, then it is the
//! client that everything waits for.

use metrics::Counter;
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

thread_local! {
    static NOTED: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The client has a piece to read.
    Offered,
    /// The answer has nothing for it at present.
    Waits,
}

pin_project_lite::pin_project! {
    /// A call's task with a deadline for its client.
    pub(super) struct StreamTask<F> {
        #[pin]
        task: F,
        unread: Option<Pin<Box<Sleep>>>,
        patience: Duration,
        given_up: Counter,
    }
}

impl Reading {
    pub(super) fn note(reading: Reading) {
        NOTED.set(Some(reading));
    }
}

impl<F> StreamTask<F> {
    pub(super) fn new(task: F, patience: Duration, given_up: Counter) -> StreamTask<F> {
        StreamTask { task, unread: None, patience, given_up }
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        NOTED.set(None);
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match NOTED.take() {
            Some(Reading::Offered) => *this.unread = Some(Box::pin(sleep(*this.patience))),
            Some(Reading::Waits) => *this.unread = None,
            // The body was not asked: it is as before.
            None => {}
        }
        if let Some(timer) = this.unread
            && timer.as_mut().poll(cx).is_ready()
        {
            this.given_up.increment(1);
            tracing::debug!(patience = ?this.patience, "a client does not read its answer, which is dropped");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;
    use tokio::sync::Notify;
    use tokio::time::{Instant, timeout};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn task<F: Future>(inner: F) -> StreamTask<F> {
        StreamTask::new(inner, PATIENCE, Counter::noop())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_in_time() {
        let start = Instant::now();
        task(poll_fn(|_| {
            if start.elapsed() < PATIENCE / 2 {
                Reading::note(Reading::Offered);
            }
            Poll::<()>::Pending
        }))
        .await;
        assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_gets_all_of_it() {
        let room = Arc::new(Notify::new());
        let slow = {
            let room = room.clone();
            async move {
                for _ in 0..5 {
                    Reading::note(Reading::Offered);
                    room.notified().await;
                }
            }
        };
        let reading = tokio::spawn(task(slow));
        for _ in 0..5 {
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            assert!(!reading.is_finished());
            room.notify_one();
        }
        timeout(Duration::from_secs(1), reading).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_say_waits_for_ever() {
        let silent = task(poll_fn(|_| {
            Reading::note(Reading::Waits);
            Poll::<()>::Pending
        }));
        assert!(timeout(PATIENCE * 100, silent).await.is_err());
    }
}
