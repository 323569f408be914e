//! Routes and assignments. Equal questions get equal answers in equal order: Go compares them element by element.
//!
//! Clients send to queues with the right to write and receive from those with the right to read. What is on a draining
//! store group is only read.

use gantry_proto::model::{MessageType, QueueId, Topic};
use gantry_proto::wire::v2::{self, Assignment, Broker, Endpoints, MessageQueue, Permission, Resource};

/// What clients call the store groups that have the queues. One name for all of them: clients spread their retries over
/// names and reach every queue through every proxy.
const BROKER_NAME: &str = "gantry-0";
/// "Any queue": what consumers of unordered groups are assigned.
const ANY_QUEUE: i32 = -1;

/// A topic's queues, by id, each with whether it takes messages.
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

/// What one consumer of a group polls: each queue of an ordered group, else one assignment for all queues. Every consumer
/// gets the same: the store shares the messages out.
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
