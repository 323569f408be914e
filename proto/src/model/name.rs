use super::limits::{DERIVED_TOPIC_NAME_LEN_MAX, GROUP_NAME_LEN_MAX, TOPIC_NAME_LEN_MAX};
use std::fmt;
use std::sync::Arc;

/// A topic's name: 1 to 127 characters of `% | a-z A-Z 0-9 _ -`, not one that the protocol reserves.
///
/// Names never become file names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A consumer group's name: 1 to 120 characters of `% | a-z A-Z 0-9 _ -`, without the reserved prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing but white space.
    #[error("the name is empty")]
    Empty,
    #[error("the name has {len} characters, at most {max} are allowed")]
    TooLong { len: usize, max: usize },
    /// A character outside the alphabet.
    #[error("the name contains {0:?}; allowed are letters, digits and % | _ -")]
    Character(char),
    /// A name that belongs to the system.
    #[error("the name {0:?} is reserved for the system")]
    Reserved(String),
}

/// Prefix of the topic that holds a group's exhausted messages.
const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// Prefix that legacy clients know from retry topics. We redeliver in place: no topic has it.
const RETRY_PREFIX: &str = "%RETRY%";

const RESERVED_TOPICS: [&str; 10] = [
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];
const RESERVED_TOPIC_PREFIX: &str = "rmq_sys_";
const RESERVED_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

impl TopicName {
    /// Checks a name that a client or an operator gave.
    pub fn parse(name: &str) -> Result<TopicName, InvalidName> {
        let max = if name.starts_with('%') { DERIVED_TOPIC_NAME_LEN_MAX } else { TOPIC_NAME_LEN_MAX };
        check_characters(name, max)?;
        if RESERVED_TOPICS.contains(&name) || name.starts_with(RESERVED_TOPIC_PREFIX) {
            return Err(InvalidName::Reserved(name.to_owned()));
        }
        Ok(TopicName(name.into()))
    }

    /// The topic that holds a group's exhausted messages.
    pub fn dead_letter_of(group: &GroupName) -> TopicName {
        TopicName(format!("{DEAD_LETTER_PREFIX}{group}").into())
    }

    /// True for names that only the server creates (`%DLQ%…`, `%RETRY%…`).
    pub fn is_derived(&self) -> bool {
        self.0.starts_with(DEAD_LETTER_PREFIX) || self.0.starts_with(RETRY_PREFIX)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GroupName {
    /// Checks a name that a client or an operator gave.
    pub fn parse(name: &str) -> Result<GroupName, InvalidName> {
        check_characters(name, GROUP_NAME_LEN_MAX)?;
        if name.starts_with(RESERVED_GROUP_PREFIX) {
            return Err(InvalidName::Reserved(name.to_owned()));
        }
        Ok(GroupName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) fn check_characters(name: &str, max: usize) -> Result<(), InvalidName> {
    if name.trim().is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-'))) {
        return Err(InvalidName::Character(bad));
    }
    if name.len() > max {
        return Err(InvalidName::TooLong { len: name.len(), max });
    }
    Ok(())
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        /// Lets maps keyed by names be searched with plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
text!(TopicName);
text!(GroupName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_alphabet_are_taken() {
        for name in ["a", "Orders_2026-11", "%DLQ%payments", "a|b", &"x".repeat(127)] {
            assert_eq!(TopicName::parse(name).map(|t| t.to_string()), Ok(name.to_owned()));
        }
        assert!(GroupName::parse(&"g".repeat(120)).is_ok());
    }

    #[test]
    fn paths_blanks_and_reserved_names_are_refused() {
        assert_eq!(TopicName::parse(" \t"), Err(InvalidName::Empty));
        assert_eq!(TopicName::parse("../etc"), Err(InvalidName::Character('.')));
        assert_eq!(TopicName::parse("a/b"), Err(InvalidName::Character('/')));
        assert_eq!(TopicName::parse("ünder"), Err(InvalidName::Character('ü')));
        assert_eq!(TopicName::parse(&"x".repeat(128)), Err(InvalidName::TooLong { len: 128, max: 127 }));
        assert_eq!(GroupName::parse(&"g".repeat(121)), Err(InvalidName::TooLong { len: 121, max: 120 }));
        assert!(matches!(TopicName::parse("TBW102"), Err(InvalidName::Reserved(_))));
        assert!(matches!(TopicName::parse("rmq_sys_x"), Err(InvalidName::Reserved(_))));
        assert!(matches!(GroupName::parse("CID_RMQ_SYS_x"), Err(InvalidName::Reserved(_))));
    }

    #[test]
    fn a_groups_dead_letter_topic_is_a_valid_derived_name() {
        let group = GroupName::parse(&"g".repeat(120)).unwrap();
        let topic = TopicName::dead_letter_of(&group);
        assert!(topic.is_derived());
        assert_eq!(TopicName::parse(topic.as_str()), Ok(topic));
    }
}
