//! The rules by which commands are decided. Members of different versions must decide alike, so what a command does is
//! fixed by the rules that the replicated state names, not by the program that carries it out.
//!
//! What must always hold:
//! - What is decided under a version of the rules never changes. Another limit, another way to deal queues out, a new
//!   command or a new field of one that changes what it does is a new version of the rules.
//! - Rules are raised by a command, which the leading member proposes once every member can follow (see `comparing`). They
//!   never go back. Whoever does not know the rules of a command stops before it carries it out.

use gantry_proto::model::limits::{BACKOFF_LEVELS_MAX, BACKOFF_MULTIPLIER_MAX, MAX_ATTEMPTS_MAX, QUEUE_COUNT_MAX};

/// A version of the rules that this program knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rules {
    #[default]
    First,
    /// What a controller that was put back to an earlier state is told: identities that were given, and how far logs reached.
    PutBack,
    /// What a later program could bring: topics may have twice as many queues, retry policies twice as many durations.
    #[cfg(test)]
    Later,
}

impl Rules {
    /// What members can follow that are not told otherwise.
    pub(crate) const NEWEST: Rules = Rules::PutBack;

    pub(crate) fn of(number: u32) -> Option<Rules> {
        match number {
            // What was written before rules were named is under the first ones.
            0 | 1 => Some(Rules::First),
            2 => Some(Rules::PutBack),
            #[cfg(test)]
            3 => Some(Rules::Later),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> u32 {
        match self {
            Rules::First => 1,
            Rules::PutBack => 2,
            #[cfg(test)]
            Rules::Later => 3,
        }
    }

    /// Queues of one topic.
    pub(crate) fn queue_count_max(self) -> u32 {
        match self {
            Rules::First | Rules::PutBack => 4096,
            #[cfg(test)]
            Rules::Later => 8192,
        }
    }

    /// Deliveries that a group may ask for.
    pub(crate) fn max_attempts_max(self) -> u32 {
        match self {
            Rules::First | Rules::PutBack => 10_000,
            #[cfg(test)]
            Rules::Later => 10_000,
        }
    }

    /// Durations that a group's retry policy may list.
    pub(crate) fn backoff_levels_max(self) -> usize {
        match self {
            Rules::First | Rules::PutBack => 64,
            #[cfg(test)]
            Rules::Later => 128,
        }
    }

    /// Factor between the retries of a group.
    pub(crate) fn backoff_multiplier_max(self) -> f64 {
        match self {
            Rules::First | Rules::PutBack => 1000.0,
            #[cfg(test)]
            Rules::Later => 1000.0,
        }
    }
}

// Where a limit is told to clients before the controller is asked, it is the newest one.
const _: () = assert!(QUEUE_COUNT_MAX == 4096, "another limit is another version of the rules");
const _: () = assert!(BACKOFF_LEVELS_MAX == 64, "another limit is another version of the rules");
const _: () = assert!(BACKOFF_MULTIPLIER_MAX == 1000.0, "another limit is another version of the rules");
const _: () = assert!(MAX_ATTEMPTS_MAX == 10_000, "another limit is another version of the rules");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_rules_and_unknown_ones_none() {
        for rules in [Rules::First, Rules::PutBack, Rules::Later] {
            assert_eq!(Rules::of(rules.number()), Some(rules));
        }
        assert_eq!(Rules::of(4), None);
    }
}
