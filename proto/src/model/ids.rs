use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A topic's identity. Never reused: a topic that is deleted and created again is another one.
    TopicId(u32)
}
number! {
    /// A consumer group's identity. Never reused.
    GroupId(u32)
}
number! {
    /// A message queue of a topic, counted from 0.
    QueueId(u32)
}
number! {
    /// Position in a message queue, counted from 0. (topic id, queue, offset) means one message for ever.
    QueueOffset(u64)
}
number! {
    /// Byte position in a store group's commit log, counted from 0 over all segments.
    LogOffset(u64)
}
number! {
    /// A store group's identity, counted from 1. Never reused.
    StoreGroupId(u32)
}

number! {
    /// Leadership term of a store group.
    Epoch(u32)
}
number! {
    /// A client id, hashed: owner of automatically renewed leases.
    ClientHash(u64)
}

impl QueueOffset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> QueueOffset {
        QueueOffset(self.0 + 1)
    }
}

impl LogOffset {
    /// `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> LogOffset {
        LogOffset(self.0 + bytes)
    }
}

impl ClientHash {
    /// FNV-1a of the id's bytes: stable across processes and versions, because it is written to the log.
    pub fn of(client_id: &str) -> ClientHash {
        ClientHash(fnv1a(client_id.bytes()))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Stable: its results are on disk.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
