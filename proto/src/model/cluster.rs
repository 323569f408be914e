//! What a cluster is made of: store groups, their replicas, proxies.

use super::{Epoch, InvalidName, MetadataVersion, StoreGroupId, Timestamp, name};
use std::fmt;
use std::sync::Arc;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identity! {
    /// A cluster's identity, drawn when its first controller starts. A disk of one cluster must not serve another.
    ClusterId
}

identity! {
    /// The identity of a store's data folder, drawn when the folder is made.
    FolderId
}

identity! {
    /// A process of a proxy, drawn when it starts.
    ProxyId
}

identity! {
    /// An opening of a store's data folder by a process, drawn each time.
    ProcessId
}

identity! {
    /// Where a lock on a data folder is held: the same only for the same file of the same running machine, so not for a
    /// copy of the folder. Who holds the lock there knows that nobody else does.
    PlaceId
}

/// What all replicas of a store group share and nobody else may know: receipt handles are sealed with it.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupSecret(pub [u8; 32]);

/// It is never shown.
impl fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSecret(..)")
    }
}

/// A store group's name, given by the operator: 1 to 63 characters of `a-z A-Z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreGroupName(Arc<str>);

impl StoreGroupName {
    /// Most characters of a name.
    pub const LEN_MAX: usize = 63;

    /// Checks a name that an operator gave.
    pub fn parse(text: &str) -> Result<StoreGroupName, InvalidName> {
        name::check_characters(text, StoreGroupName::LEN_MAX)?;
        match text.chars().find(|c| matches!(c, '%' | '|')) {
            Some(bad) => Err(InvalidName::Character(bad)),
            None => Ok(StoreGroupName(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreGroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreGroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Replicas of one commit log, of which one leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGroup {
    /// Identity, counted from 1, never reused.
    pub id: StoreGroupId,
    /// Name, unique.
    pub name: StoreGroupName,
    /// Whether it takes new queues and messages.
    pub state: StoreGroupState,
    /// Its replicas, in the order in which they joined.
    pub replicas: Vec<Replica>,
    /// Replicas that have every confirmed record: only they may lead.
    pub in_sync: Vec<FolderId>,
    /// The replica that holds the lease, or held it last if `epoch` was never ended. `None`: nobody may append.
    pub leader: Option<FolderId>,
    /// Counts leaderships. A leader of an older epoch is none.
    pub epoch: Epoch,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether a store group takes new messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreGroupState {
    Active,
    /// It gets no new queues, and messages only of topics that have no queue on an active group. Consumers empty it.
    Draining,
    /// It takes no messages any more, so that it can be removed: since that version of the metadata, which its leader has to
    /// have seen.
    Closing(MetadataVersion),
    /// Its leader has confirmed that it takes none, and holds none.
    Closed,
}

/// One copy of a store group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub folder: FolderId,
    /// Where proxies reach it, `host:port`.
    pub address: Arc<str>,
}

/// A proxy that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyMember {
    pub id: ProxyId,
    /// Where clients reach it, `host:port`.
    pub address: Arc<str>,
    pub version: Arc<str>,
    pub joined_at: Timestamp,
}

impl StoreGroup {
    /// The replica that leads.
    pub fn leading_replica(&self) -> Option<&Replica> {
        let leader = self.leader?;
        self.replicas.iter().find(|replica| replica.folder == leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_store_groups_have_letters_digits_and_dashes_only() {
        assert!(StoreGroupName::parse("store-1_A").is_ok());
        assert!(StoreGroupName::parse(&"x".repeat(63)).is_ok());
        for bad in ["", " ", "a|b", "%a", "a/b", "ä", &"x".repeat(64)] {
            assert!(StoreGroupName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", GroupSecret([0x41; 32])), "GroupSecret(..)");
    }

    #[test]
    fn identities_are_shown_in_hexadecimal() {
        assert_eq!(FolderId([0xab; 16]).to_string(), "ab".repeat(16));
    }
}
