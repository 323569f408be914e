//! Routes and assignments. Equal questions get equal answers in equal order: Go compares them element by element.

use gantry_proto::model::{MessageType, Topic};
use gantry_proto::wire::v2::{self, Assignment, Broker, Endpoints, MessageQueue, Permission, Resource};

/// What clients call the store group that holds the queues. One name for all of them: clients spread their retries over
/// names and reach every queue through every proxy.
const BROKER_NAME: &str = "gantry-0";
/// "Any queue": what consumers of unordered groups are assigned.
const ANY_QUEUE: i32 = -1;

/// A topic's queues, by id.
pub(crate) fn message_queues(topic: &Topic, named: &Resource, endpoints: &Endpoints) -> Vec<MessageQueue> {
    let accepted: Vec<i32> = topic.topic_type.accepted().iter().map(|kind| message_type(*kind) as i32).collect();
    (0..topic.queue_count).map(|id| queue(id as i32, named, endpoints, accepted.clone())).collect()
}

/// What one consumer of a group polls: each queue of an ordered group, else one assignment for all queues. Every consumer
/// gets the same: the store shares the messages out.
pub(crate) fn assignments(topic: &Topic, fifo: bool, named: &Resource, endpoints: &Endpoints) -> Vec<Assignment> {
    let ids = if fifo { 0..topic.queue_count as i32 } else { ANY_QUEUE..0 };
    ids.map(|id| Assignment { message_queue: Some(queue(id, named, endpoints, Vec::new())) }).collect()
}

fn queue(id: i32, named: &Resource, endpoints: &Endpoints, accept_message_types: Vec<i32>) -> MessageQueue {
    MessageQueue {
        topic: Some(named.clone()),
        id,
        permission: Permission::ReadWrite as i32,
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
