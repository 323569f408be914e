//! Routes and assignments, as clients get them. The order is always the same: the Go client compares element by element.
//!
//! Clients send to queues with the permission to write, and receive from those with the permission to read. A queue on a
//! draining store group has only the latter.

use gantry_proto::model::{MessageType, QueueId, Topic};
use gantry_proto::wire::v2::{self, Assignment, Broker, Endpoints, MessageQueue, Permission, Resource};

/// The broker of all queues, as far as clients know. One for all: clients retry on another broker where there is one, but
/// every proxy serves every queue.
const BROKER_NAME: &str = "gantry-0";
/// The queue id for "any queue", which consumers of unordered groups are assigned.
const ANY_QUEUE: i32 = -1;

/// `queues`: in order, each with whether it takes messages.
pub(crate) fn message_queues(
    topic: &Topic,
    queues: &[(QueueId, bool)],
    named: &Resource,
    endpoints: &Endpoints,
) -> Vec<MessageQueue> {
    let accepted: Vec<i32> = topic.topic_type.accepted().iter().map(|kind| message_type(*kind) as i32).collect();
    let told = |(id, writable): &(QueueId, bool)| queue(id.0 as i32, *writable, named, endpoints, accepted.clone());
    queues.iter().map(told).collect()
}

/// What each consumer of a group polls: every queue if the group is ordered, else one assignment for any queue. All
/// consumers of the group get the same: the store distributes the messages among them.
pub(crate) fn assignments(
    queues: &[(QueueId, bool)],
    fifo: bool,
    named: &Resource,
    endpoints: &Endpoints,
) -> Vec<Assignment> {
    let told = |id, writable| Assignment { message_queue: Some(queue(id, writable, named, endpoints, Vec::new())) };
    if fifo {
        queues.iter().map(|(id, writable)| told(id.0 as i32, *writable)).collect()
    } else {
        vec![told(ANY_QUEUE, true)]
    }
}

fn queue(
    id: i32,
    writable: bool,
    named: &Resource,
    endpoints: &Endpoints,
    accept_message_types: Vec<i32>,
) -> MessageQueue {
    MessageQueue {
        topic: Some(named.clone()),
        id,
        permission: if writable { Permission::ReadWrite } else { Permission::Read } as i32,
        broker: Some(Broker { name: BROKER_NAME.to_owned(), id: 0, endpoints: Some(endpoints.clone()) }),
        accept_message_types,
    }
}

fn message_type(kind: MessageType) -> v2::MessageType {
    match kind {
        MessageType::Normal => v2::MessageType::Normal,
        MessageType::Fifo => v2::MessageType::Fifo,
        MessageType::Delay => v2::MessageType::Delay,
        MessageType::Transaction => v2::MessageType::Transaction,
    }
}
