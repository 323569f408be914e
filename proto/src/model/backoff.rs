use super::limits::{BACKOFF_LEVELS_MAX, BACKOFF_MULTIPLIER_MAX};
use std::time::Duration;

/// How long a failed message stays hidden before its next delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum BackoffPolicy {
    /// The n-th failure waits for the n-th duration, later ones for the last. Never empty.
    Customized(Vec<Duration>),
    /// `min(max, initial × multiplier^(n-1))`.
    Exponential {
        /// After the first failure.
        initial: Duration,
        max: Duration,
        /// At least 1.
        multiplier: f64,
    },
}

/// Why a backoff policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// No duration in the list.
    #[error("the list of backoff durations is empty")]
    Empty,
    #[error("the list of backoff durations has {0} entries, at most {BACKOFF_LEVELS_MAX} are allowed")]
    TooMany(usize),
    /// Shrinking or not a number.
    #[error("the backoff multiplier must be between 1 and {BACKOFF_MULTIPLIER_MAX}")]
    Multiplier,
    /// The bounds are crossed.
    #[error("the initial backoff is longer than the longest")]
    InitialAboveMax,
}

/// The 18 classic levels, in seconds.
const CLASSIC_SECONDS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

impl Default for BackoffPolicy {
    /// 1 s, 5 s, 10 s, 30 s, 1 m … 10 m, 20 m, 30 m, 1 h, 2 h.
    fn default() -> BackoffPolicy {
        BackoffPolicy::Customized(CLASSIC_SECONDS.map(Duration::from_secs).to_vec())
    }
}

impl BackoffPolicy {
    /// Refuses policies that cannot be told to clients, with these limits: how many durations, and which multiplier.
    pub fn validate(&self, levels_max: usize, multiplier_max: f64) -> Result<(), InvalidBackoff> {
        match self {
            BackoffPolicy::Customized(next) if next.is_empty() => Err(InvalidBackoff::Empty),
            BackoffPolicy::Customized(next) if next.len() > levels_max => Err(InvalidBackoff::TooMany(next.len())),
            BackoffPolicy::Customized(_) => Ok(()),
            BackoffPolicy::Exponential { initial, max, multiplier } => {
                if !(1.0..=multiplier_max).contains(multiplier) {
                    Err(InvalidBackoff::Multiplier)
                } else if initial > max {
                    Err(InvalidBackoff::InitialAboveMax)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// How long to wait after delivery attempt `attempt` (counted from 1) failed.
    pub fn after_attempt(&self, attempt: u32) -> Duration {
        let failures = attempt.max(1);
        match self {
            BackoffPolicy::Customized(next) => {
                let index = (failures as usize - 1).min(next.len().saturating_sub(1));
                next.get(index).copied().unwrap_or_default()
            }
            BackoffPolicy::Exponential { initial, max, multiplier } => {
                let factor = multiplier.powi((failures - 1).min(32) as i32);
                let seconds = (initial.as_secs_f64() * factor).min(max.as_secs_f64());
                Duration::from_secs_f64(seconds)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customized_backoff_walks_the_list_and_stays_on_its_last_entry() {
        let policy = BackoffPolicy::default();
        assert_eq!(policy.after_attempt(1), Duration::from_secs(1));
        assert_eq!(policy.after_attempt(2), Duration::from_secs(5));
        assert_eq!(policy.after_attempt(18), Duration::from_secs(7200));
        assert_eq!(policy.after_attempt(1000), Duration::from_secs(7200));
    }

    #[test]
    fn exponential_backoff_doubles_up_to_its_maximum() {
        let policy = BackoffPolicy::Exponential {
            initial: Duration::from_secs(5),
            max: Duration::from_secs(7200),
            multiplier: 2.0,
        };
        assert_eq!(policy.after_attempt(1), Duration::from_secs(5));
        assert_eq!(policy.after_attempt(3), Duration::from_secs(20));
        assert_eq!(policy.after_attempt(u32::MAX), Duration::from_secs(7200));
    }

    #[test]
    fn policies_that_cannot_be_told_to_clients_are_refused() {
        let checked = |policy: BackoffPolicy| policy.validate(2, 10.0);
        assert_eq!(checked(BackoffPolicy::Customized(vec![])), Err(InvalidBackoff::Empty));
        assert_eq!(checked(BackoffPolicy::Customized(vec![Duration::ZERO; 2])), Ok(()));
        assert_eq!(checked(BackoffPolicy::Customized(vec![Duration::ZERO; 3])), Err(InvalidBackoff::TooMany(3)));
        for (multiplier, expected) in
            [(f64::NAN, Err(InvalidBackoff::Multiplier)), (10.0, Ok(())), (10.1, Err(InvalidBackoff::Multiplier))]
        {
            let growing = BackoffPolicy::Exponential { initial: Duration::ZERO, max: Duration::ZERO, multiplier };
            assert_eq!(checked(growing), expected);
        }
    }
}
