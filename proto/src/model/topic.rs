use super::{GroupName, Placement, Timestamp, TopicId, TopicName};

/// What kind a message is. Derived from its content (see [`TopicType::accepts`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// No order, no delay.
    Normal,
    /// Ordered within its message group.
    Fifo,
    /// Delivered at a time.
    Delay,
    /// Invisible until its transaction commits.
    Transaction,
}

/// What kinds of messages a topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicType {
    /// Only [`MessageType::Normal`].
    Normal,
    /// Only [`MessageType::Fifo`].
    Fifo,
    /// Only [`MessageType::Delay`].
    Delay,
    /// Only [`MessageType::Transaction`].
    Transaction,
    /// Every kind.
    Mixed,
}

/// A named stream of messages, spread over queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Identity, never reused.
    pub id: TopicId,
    /// Name, unique at a time.
    pub name: TopicName,
    pub topic_type: TopicType,
    /// Its queues, and where they are.
    pub placement: Placement,
    /// The group whose exhausted messages it holds; such a topic lives and dies with its group.
    pub dead_letter_of: Option<GroupName>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl TopicType {
    /// Whether a message of that kind may be sent to such a topic.
    pub fn accepts(self, message_type: MessageType) -> bool {
        match self {
            TopicType::Mixed => true,
            TopicType::Normal => message_type == MessageType::Normal,
            TopicType::Fifo => message_type == MessageType::Fifo,
            TopicType::Delay => message_type == MessageType::Delay,
            TopicType::Transaction => message_type == MessageType::Transaction,
        }
    }

    /// What clients are told, in the order the reference server tells it.
    pub fn accepted(self) -> &'static [MessageType] {
        match self {
            TopicType::Normal => &[MessageType::Normal],
            TopicType::Fifo => &[MessageType::Fifo],
            TopicType::Delay => &[MessageType::Delay],
            TopicType::Transaction => &[MessageType::Transaction],
            TopicType::Mixed => &[MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction],
        }
    }
}
