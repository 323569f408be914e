//! What there is: topics, groups, stores, proxies.

use super::{Malformed, Wire, nanos, required};
use crate::model::{
    BackoffPolicy, ClusterId, ConsumerGroup, Epoch, FolderId, GroupId, GroupName, GroupSecret, MetadataVersion,
    PlaceId, Placement, ProcessId, ProxyId, ProxyMember, QueueId, Replica, StoreGroup, StoreGroupId, StoreGroupName,
    StoreGroupState, Timestamp, Topic, TopicId, TopicName, TopicType,
};
use crate::wire::controller::v1 as wire;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

macro_rules! names {
    ($($name:ident, $what:literal;)*) => {$(
        impl Wire for $name {
            type Message = String;

            fn to_wire(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_wire(text: String) -> Result<$name, Malformed> {
                $name::parse(&text).map_err(|_| Malformed($what))
            }
        }
    )*};
}

names! {
    TopicName, "name of a topic";
    GroupName, "name of a consumer group";
    StoreGroupName, "name of a store group";
}

macro_rules! identities {
    ($($name:ident, $what:literal;)*) => {$(
        impl Wire for $name {
            type Message = Bytes;

            fn to_wire(&self) -> Bytes {
                Bytes::copy_from_slice(&self.0)
            }

            fn from_wire(bytes: Bytes) -> Result<$name, Malformed> {
                bytes[..].try_into().map($name).map_err(|_| Malformed($what))
            }
        }
    )*};
}

identities! {
    ClusterId, "identity of a cluster";
    FolderId, "identity of a data folder";
    ProxyId, "identity of a proxy";
    ProcessId, "identity of a process";
    PlaceId, "place of a lock";
    GroupSecret, "secret of a store group";
}

/// Shared and plain values travel alike.
impl<T: Wire> Wire for Arc<T> {
    type Message = T::Message;

    fn to_wire(&self) -> T::Message {
        T::to_wire(self)
    }

    fn from_wire(message: T::Message) -> Result<Arc<T>, Malformed> {
        T::from_wire(message).map(Arc::new)
    }
}

impl Wire for BackoffPolicy {
    type Message = wire::BackoffPolicy;

    fn to_wire(&self) -> wire::BackoffPolicy {
        use wire::backoff_policy::{Customized, Exponential, Policy};
        let policy = match self {
            BackoffPolicy::Customized(next) => {
                Policy::Customized(Customized { next_ns: next.iter().map(|wait| nanos(*wait)).collect() })
            }
            BackoffPolicy::Exponential { initial, max, multiplier } => Policy::Exponential(Exponential {
                initial_ns: nanos(*initial),
                max_ns: nanos(*max),
                multiplier: *multiplier,
            }),
        };
        wire::BackoffPolicy { policy: Some(policy) }
    }

    /// Policies that are not possible come through: the controller says why it refuses them.
    fn from_wire(message: wire::BackoffPolicy) -> Result<BackoffPolicy, Malformed> {
        use wire::backoff_policy::Policy;
        Ok(match message.policy.ok_or(Malformed("backoff policy"))? {
            Policy::Customized(customized) => {
                BackoffPolicy::Customized(customized.next_ns.into_iter().map(Duration::from_nanos).collect())
            }
            Policy::Exponential(exponential) => BackoffPolicy::Exponential {
                initial: Duration::from_nanos(exponential.initial_ns),
                max: Duration::from_nanos(exponential.max_ns),
                multiplier: exponential.multiplier,
            },
        })
    }
}

impl Wire for TopicType {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let kind = match self {
            TopicType::Normal => wire::TopicType::Normal,
            TopicType::Fifo => wire::TopicType::Fifo,
            TopicType::Delay => wire::TopicType::Delay,
            TopicType::Transaction => wire::TopicType::Transaction,
            TopicType::Mixed => wire::TopicType::Mixed,
        };
        kind.into()
    }

    fn from_wire(message: i32) -> Result<TopicType, Malformed> {
        match wire::TopicType::try_from(message) {
            Ok(wire::TopicType::Normal) => Ok(TopicType::Normal),
            Ok(wire::TopicType::Fifo) => Ok(TopicType::Fifo),
            Ok(wire::TopicType::Delay) => Ok(TopicType::Delay),
            Ok(wire::TopicType::Transaction) => Ok(TopicType::Transaction),
            Ok(wire::TopicType::Mixed) => Ok(TopicType::Mixed),
            Ok(wire::TopicType::Unspecified) | Err(_) => Err(Malformed("type of a topic")),
        }
    }
}

impl Wire for Placement {
    type Message = wire::Placement;

    fn to_wire(&self) -> wire::Placement {
        use wire::placement::{EveryGroup, Placement as Kind, Spread};
        let placement = match self {
            Placement::Spread { store_groups: groups, message_group_queues: lanes } => Kind::Spread(Spread {
                groups: groups.iter().map(|group| group.0).collect(),
                lanes: lanes.iter().map(|queue| queue.0).collect(),
            }),
            Placement::EveryGroup => Kind::EveryGroup(EveryGroup {}),
        };
        wire::Placement { placement: Some(placement) }
    }

    fn from_wire(message: wire::Placement) -> Result<Placement, Malformed> {
        use wire::placement::Placement as Kind;
        Ok(match message.placement.ok_or(Malformed("placement"))? {
            Kind::Spread(spread) => Placement::Spread {
                store_groups: spread.groups.into_iter().map(StoreGroupId).collect(),
                message_group_queues: spread.lanes.into_iter().map(QueueId).collect(),
            },
            Kind::EveryGroup(_) => Placement::EveryGroup,
        })
    }
}

impl Wire for Topic {
    type Message = wire::Topic;

    fn to_wire(&self) -> wire::Topic {
        wire::Topic {
            id: self.id.0,
            name: self.name.to_wire(),
            r#type: self.topic_type.to_wire(),
            placement: Some(self.placement.to_wire()),
            dead_letter_of: self.dead_letter_of.as_ref().map(Wire::to_wire),
            created_at_ms: self.created_at.as_millis(),
        }
    }

    fn from_wire(message: wire::Topic) -> Result<Topic, Malformed> {
        Ok(Topic {
            id: TopicId(message.id),
            name: TopicName::from_wire(message.name)?,
            topic_type: TopicType::from_wire(message.r#type)?,
            placement: required(message.placement, "placement of a topic")?,
            dead_letter_of: message.dead_letter_of.map(GroupName::from_wire).transpose()?,
            created_at: Timestamp::from_millis(message.created_at_ms),
        })
    }
}

impl Wire for ConsumerGroup {
    type Message = wire::Group;

    fn to_wire(&self) -> wire::Group {
        wire::Group {
            id: self.id.0,
            name: self.name.to_wire(),
            fifo: self.fifo,
            max_attempts: self.max_attempts,
            backoff: Some(self.backoff.to_wire()),
            dead_letter_topic: self.dead_letter_topic.0,
            created_at_ms: self.created_at.as_millis(),
        }
    }

    fn from_wire(message: wire::Group) -> Result<ConsumerGroup, Malformed> {
        Ok(ConsumerGroup {
            id: GroupId(message.id),
            name: GroupName::from_wire(message.name)?,
            fifo: message.fifo,
            max_attempts: message.max_attempts,
            backoff: required(message.backoff, "backoff policy of a group")?,
            dead_letter_topic: TopicId(message.dead_letter_topic),
            created_at: Timestamp::from_millis(message.created_at_ms),
        })
    }
}

/// As it stands in a store group: the state, and since when it is closing.
fn state_to_wire(state: StoreGroupState) -> (i32, u64) {
    let (state, since) = match state {
        StoreGroupState::Active => (wire::StoreGroupState::Active, 0),
        StoreGroupState::Draining => (wire::StoreGroupState::Draining, 0),
        StoreGroupState::Closing(since) => (wire::StoreGroupState::Closing, since.0),
        StoreGroupState::Closed => (wire::StoreGroupState::Closed, 0),
    };
    (state.into(), since)
}

fn state_from_wire(state: i32, since: u64) -> Result<StoreGroupState, Malformed> {
    match wire::StoreGroupState::try_from(state) {
        Ok(wire::StoreGroupState::Active) => Ok(StoreGroupState::Active),
        Ok(wire::StoreGroupState::Draining) => Ok(StoreGroupState::Draining),
        Ok(wire::StoreGroupState::Closing) => Ok(StoreGroupState::Closing(MetadataVersion(since))),
        Ok(wire::StoreGroupState::Closed) => Ok(StoreGroupState::Closed),
        Ok(wire::StoreGroupState::Unspecified) | Err(_) => Err(Malformed("state of a store group")),
    }
}

impl Wire for Replica {
    type Message = wire::Replica;

    fn to_wire(&self) -> wire::Replica {
        wire::Replica { folder: self.folder.to_wire(), address: self.address.to_string() }
    }

    fn from_wire(message: wire::Replica) -> Result<Replica, Malformed> {
        Ok(Replica { folder: FolderId::from_wire(message.folder)?, address: message.address.into() })
    }
}

impl Wire for StoreGroup {
    type Message = wire::StoreGroup;

    fn to_wire(&self) -> wire::StoreGroup {
        let (state, closing_since) = state_to_wire(self.state);
        wire::StoreGroup {
            id: self.id.0,
            name: self.name.to_wire(),
            state,
            replicas: self.replicas.iter().map(Wire::to_wire).collect(),
            in_sync: self.in_sync.iter().map(Wire::to_wire).collect(),
            leader: self.leader.as_ref().map(Wire::to_wire),
            epoch: self.epoch.0,
            created_at_ms: self.created_at.as_millis(),
            closing_since,
        }
    }

    fn from_wire(message: wire::StoreGroup) -> Result<StoreGroup, Malformed> {
        Ok(StoreGroup {
            id: StoreGroupId(message.id),
            name: StoreGroupName::from_wire(message.name)?,
            state: state_from_wire(message.state, message.closing_since)?,
            replicas: message.replicas.into_iter().map(Replica::from_wire).collect::<Result<_, _>>()?,
            in_sync: message.in_sync.into_iter().map(FolderId::from_wire).collect::<Result<_, _>>()?,
            leader: message.leader.map(FolderId::from_wire).transpose()?,
            epoch: Epoch(message.epoch),
            created_at: Timestamp::from_millis(message.created_at_ms),
        })
    }
}

impl Wire for ProxyMember {
    type Message = wire::ProxyMember;

    fn to_wire(&self) -> wire::ProxyMember {
        wire::ProxyMember {
            id: self.id.to_wire(),
            address: self.address.to_string(),
            version: self.version.to_string(),
            joined_at_ms: self.joined_at.as_millis(),
        }
    }

    fn from_wire(message: wire::ProxyMember) -> Result<ProxyMember, Malformed> {
        Ok(ProxyMember {
            id: ProxyId::from_wire(message.id)?,
            address: message.address.into(),
            version: message.version.into(),
            joined_at: Timestamp::from_millis(message.joined_at_ms),
        })
    }
}
