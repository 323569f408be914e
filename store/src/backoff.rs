//! When a task of the store tries again what failed, and whether the failure is news.
//!
//! What must always hold: the pause between two attempts grows up to its bound, and a cause is told once until an attempt works
//! (`pauses_grow_to_a_minute_and_each_cause_is_told_once`).

use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// One thing that is tried again and again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// After the last failure, since something worked.
    pause: Option<Duration>,
    next: Option<Instant>,
    told: HashSet<String>,
}

impl Backoff {
    /// It may be tried.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// An attempt failed. True: of this cause nobody was told yet.
    pub(crate) fn failed(&mut self, now: Instant, cause: &str) -> bool {
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        (self.pause, self.next) = (Some(pause), Some(now + pause));
        self.told.insert(cause.to_owned())
    }

    pub(crate) fn worked(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_each_cause_is_told_once() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let (mut attempts, mut told, mut last) = (Vec::new(), 0, start);
        for tick in 0..1200 {
            let now = start + Duration::from_millis(500) * tick;
            if backoff.is_due(now) {
                attempts.push(now.duration_since(last).as_millis() as u64);
                last = now;
                told += u32::from(backoff.failed(now, if tick % 3 == 0 { "one" } else { "another" }));
            }
        }
        assert_eq!(attempts[..10], [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!((attempts.len(), told), (16, 2));
        backoff.worked();
        assert!(backoff.is_due(last));
        assert!(backoff.failed(last, "one"));
        assert!(backoff.is_due(last + PAUSE_MIN) && !backoff.is_due(last));
    }
}
