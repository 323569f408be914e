//! Which messages became dead letters lately: a late acknowledgement of one of them is not to be called a success.
//!
//! In a group's progress a finished message leaves nothing behind, so who finished it cannot be seen there. Here the last
//! dead letters are remembered, kept up by [`crate::apply`]. Asked when a consumer acknowledges what is finished already
//! ([`crate::service`]); of what came before, the dead-letter topic tells whether there was any.
//!
//! What must always hold: all dead letters are held whose records lie at or behind [`GivenUp::known_from`], where recovery
//! began to read or the oldest one was forgotten (`what_was_forgotten_is_not_said_to_be_none`,
//! `a_late_acknowledgement_of_a_dead_letter_is_refused_also_after_a_restart`).

use crate::commit_log::record::Origin;
use gantry_proto::model::LogOffset;
use std::collections::{HashSet, VecDeque};

/// Dead letters that are remembered, some 70 bytes each.
const LETTERS_MAX: usize = 1 << 16;

/// The last dead letters.
#[derive(Debug)]
pub(crate) struct GivenUp {
    /// By the place of their records, in the order of the log.
    letters: VecDeque<(LogOffset, Origin)>,
    origins: HashSet<Origin>,
    known_from: LogOffset,
}

/// What is known of a message that is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is a dead letter.
    GivenUp,
    /// It is none.
    Not,
    /// It is none of those from there on.
    OnlyFrom(LogOffset),
}

impl GivenUp {
    /// All that come from `at` on will be told.
    pub(crate) fn known_from(at: LogOffset) -> GivenUp {
        GivenUp { letters: VecDeque::new(), origins: HashSet::new(), known_from: at }
    }

    /// The message became a dead letter with the record at `at`.
    pub(crate) fn insert(&mut self, at: LogOffset, origin: Origin) {
        if !self.origins.insert(origin) {
            return;
        }
        self.letters.push_back((at, origin));
        if self.letters.len() > LETTERS_MAX
            && let Some((at, origin)) = self.letters.pop_front()
        {
            self.origins.remove(&origin);
            self.known_from = self.known_from.max(at.plus(1));
        }
    }

    /// What is known of a finished message of which there was a delivery at `lease`: it became a dead letter only after
    /// that, if ever.
    pub(crate) fn look_up(&self, origin: &Origin, lease: LogOffset) -> Known {
        if self.origins.contains(origin) {
            Known::GivenUp
        } else if lease < self.known_from {
            Known::OnlyFrom(self.known_from)
        } else {
            Known::Not
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::model::{GroupId, QueueId, QueueOffset, TopicId};

    #[test]
    fn what_was_forgotten_is_not_said_to_be_none() {
        let origin = |number: u64| Origin {
            group: GroupId(1),
            topic: TopicId(2),
            queue: QueueId(3),
            queue_offset: QueueOffset(number),
        };
        let start = LogOffset(1_000);
        let mut given_up = GivenUp::known_from(start);
        assert_eq!(given_up.look_up(&origin(0), LogOffset(999)), Known::OnlyFrom(start));
        assert_eq!(given_up.look_up(&origin(0), start), Known::Not);
        let count = LETTERS_MAX as u64 + 10;
        let place = |number: u64| LogOffset(1_000 + number * 100);
        for number in 0..count {
            given_up.insert(place(number), origin(number));
            // Told twice: it is known.
            given_up.insert(place(number + 1), origin(number));
        }
        assert_eq!((given_up.letters.len(), given_up.origins.len()), (LETTERS_MAX, LETTERS_MAX));
        assert!((10..count).all(|number| given_up.look_up(&origin(number), place(count)) == Known::GivenUp));
        let known_from = place(9).plus(1);
        assert_eq!(given_up.look_up(&origin(9), place(8)), Known::OnlyFrom(known_from));
        assert_eq!(given_up.look_up(&origin(count), known_from), Known::Not);
    }
}
