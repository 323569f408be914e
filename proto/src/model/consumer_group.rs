use super::{BackoffPolicy, GroupId, GroupName, Timestamp, TopicId};

/// Consumers that share progress: each message goes to one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerGroup {
    /// Identity, never reused.
    pub id: GroupId,
    /// Name, unique at a time.
    pub name: GroupName,
    /// Ordered delivery per message group.
    pub fifo: bool,
    /// Deliveries of a message, the first included, before it goes to the dead-letter topic. At least 1.
    pub max_attempts: u32,
    /// How long a failed message stays hidden.
    pub backoff: BackoffPolicy,
    /// Where exhausted messages go. Created with the group.
    pub dead_letter_topic: TopicId,
    /// When it was created.
    pub created_at: Timestamp,
}
