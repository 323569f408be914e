//! How fast topics and consumer groups may come into being because somebody names them: each is durable, and costs the whole
//! cluster something for ever.

use std::time::Duration;
use tokio::time::Instant;

/// So many seconds' worth may come at once: an application that starts names all its topics.
const BURST: Duration = Duration::from_secs(10);

/// A bucket of tokens, one for each creation.
pub(super) struct CreationRate {
    /// Time that one of them costs.
    cost: Duration,
    /// When all are paid for.
    paid_at: Instant,
}

impl CreationRate {
    pub(super) fn new(per_second: u32, now: Instant) -> CreationRate {
        CreationRate { cost: Duration::from_secs(1) / per_second.max(1), paid_at: now }
    }

    /// Whether one more may be made now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let paid_at = self.paid_at.max(now) + self.cost;
        let fits = paid_at <= now + BURST;
        if fits {
            self.paid_at = paid_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        let start = Instant::now();
        let mut rate = CreationRate::new(20, start);
        let admitted = |rate: &mut CreationRate, now| std::iter::from_fn(|| rate.admit(now).then_some(())).count();
        assert_eq!(admitted(&mut rate, start), 200);
        let later = start + Duration::from_secs(3);
        assert_eq!(admitted(&mut rate, later), 60);
        let rested = later + Duration::from_secs(3600);
        assert_eq!(admitted(&mut rate, rested), 200, "rest is not saved up");
    }
}
