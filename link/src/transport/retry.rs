use gantry_proto::env::{Env, Random};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait before the first new attempt.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait before any.
const LAST: Duration = Duration::from_secs(5);
/// A connection that lasted this long counts as a success: the waits begin anew.
const LASTING: Duration = Duration::from_secs(5);

/// When to try again. Each wait is twice as long as the one before, less a random part of up to half, so that peers that
/// lost the same server do not come back all at once.
pub(crate) struct Retry {
    random: Arc<dyn Random>,
    wait_max: Duration,
}

impl Retry {
    pub(crate) fn new(env: &Env) -> Retry {
        Retry { random: env.random.clone(), wait_max: FIRST }
    }

    /// Whether a connection that was made at `since` has lasted.
    pub(crate) fn has_lasted(since: Instant) -> bool {
        since.elapsed() >= LASTING
    }

    /// Waits until the next attempt is due. `since`: when the last attempt made a connection, if it did.
    pub(crate) async fn wait(&mut self, since: Option<Instant>) {
        if since.is_some_and(Retry::has_lasted) {
            self.wait_max = FIRST;
        }
        let wait = self.next();
        tokio::time::sleep(wait).await;
    }

    fn next(&mut self) -> Duration {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        let wait = self.wait_max.mul_f64(0.5 + part / 2.0);
        self.wait_max = LAST.min(self.wait_max * 2);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_never_shorter_than_half_of_it() {
        let (env, _, _) = gantry_proto::env::fake::env(1);
        let mut retry = Retry::new(&env);
        for expected_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let (wait, bound) = (retry.next(), Duration::from_millis(expected_ms));
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasted_a_while_is_tried_again_soon() {
        let (env, _, _) = gantry_proto::env::fake::env(2);
        let mut retry = Retry::new(&env);
        for _ in 0..10 {
            retry.wait(None).await;
        }
        let since = Instant::now();
        tokio::time::advance(LASTING).await;
        retry.wait(Some(since)).await;
        assert!(since.elapsed() <= LASTING + FIRST);
    }
}
