//! When a client's call must be answered, and the pauses between its attempts.

use std::time::Duration;
use tokio::time::Instant;

/// How long calls may take whose clients name no deadline, and most for all others.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(30);
/// Answers leave this long before the client gives up, or a quarter of its timeout if that is less: an answer that comes
/// too late is of no use.
const MARGIN: Duration = Duration::from_millis(200);

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// When a call must be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Of a call that arrived at `arrived` and whose client waits for `timeout`, if it told.
    pub(crate) fn of_call(arrived: Instant, timeout: Option<Duration>) -> Deadline {
        let patience = timeout.unwrap_or(PATIENCE_DEFAULT).min(PATIENCE_MAX);
        Deadline(arrived + (patience - MARGIN.min(patience / 4)))
    }

    pub(crate) fn at(time: Instant) -> Deadline {
        Deadline(time)
    }

    pub(crate) fn after(patience: Duration) -> Deadline {
        Deadline(Instant::now() + patience)
    }

    /// This one, or in `patience` if that is earlier.
    pub(crate) fn within(self, patience: Duration) -> Deadline {
        Deadline(self.0.min(Instant::now() + patience))
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }
}

/// Pauses between attempts, each twice as long as the one before it.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    pause_max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::from_to(PAUSE_FIRST, PAUSE_MAX)
    }
}

impl Backoff {
    /// Pauses of `first` to `max`.
    pub(crate) fn from_to(first: Duration, max: Duration) -> Backoff {
        Backoff { pause: first, pause_max: max }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.pause_max);
        pause
    }

    /// Waits before the next attempt. False: there is no time for another one.
    pub(crate) async fn wait(&mut self, deadline: Deadline) -> bool {
        let again = Instant::now() + self.next();
        if again >= deadline.0 {
            return false;
        }
        tokio::time::sleep_until(again).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_second_and_end_before_the_deadline() {
        let started = Instant::now();
        let deadline = Deadline::of_call(started, Some(Duration::from_secs(3)));
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        while backoff.wait(deadline).await {
            waits.push(started.elapsed().as_millis());
        }
        assert_eq!(waits, [50, 150, 350, 750, 1550, 2550]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_the_clients_own_less_a_margin_within_bounds() {
        let now = Instant::now();
        let patience = |timeout: Option<u64>| Deadline::of_call(now, timeout.map(Duration::from_millis)).0 - now;
        assert_eq!(patience(None), Duration::from_millis(2_800));
        assert_eq!(patience(Some(1_000)), Duration::from_millis(800));
        assert_eq!(patience(Some(100)), Duration::from_millis(75));
        assert_eq!(patience(Some(0)), Duration::ZERO);
        assert_eq!(patience(Some(1 << 50)), PATIENCE_MAX - MARGIN);
    }
}
