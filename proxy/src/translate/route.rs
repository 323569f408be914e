//! Routes and assignments, as clients get them. The order is always the same: the Go client compares element by element.
//!
//! The queues that clients see are as many as the topic has, and all alike: contiguous ids from 0, readable and writable,
//! whatever becomes of store groups. The server ignores the ids that clients send; which queue takes a message is decided
//! with each send. (Node uses queue 0 only, so there must always be one that takes messages.)

use super::message::is_served;
use gantry_proto::model::{MessageType, Topic};
use gantry_proto::wire::v2::{self, Assignment, Broker, Endpoints, MessageQueue, Permission, Resource};

/// The broker of all queues, as far as clients know. One for all: clients retry on another broker where there is one, but
/// every proxy serves every queue.
const BROKER_NAME: &str = "gantry-0";
/// The queue id for "any queue", which consumers of unordered groups are assigned.
const ANY_QUEUE: i32 = -1;

/// `count`: the topic's queues.
pub(crate) fn message_queues(topic: &Topic, count: u32, named: &Resource, endpoints: &Endpoints) -> Vec<MessageQueue> {
    let accepted = accepted(topic);
    (0..count as i32).map(|id| queue(id, named, endpoints, accepted.clone())).collect()
}

/// What producers are told that the topic takes: what sends to it are accepted for. Clients need at least one type; so a topic
/// that is made for messages that are not served yet names them, and sends say why not.
fn accepted(topic: &Topic) -> Vec<i32> {
    let all = topic.topic_type.accepted();
    let served: Vec<i32> = all.iter().filter(|kind| is_served(**kind)).map(|kind| message_type(*kind) as i32).collect();
    if served.is_empty() { all.iter().map(|kind| message_type(*kind) as i32).collect() } else { served }
}

/// What each consumer of a group polls: every queue if the group is ordered, else one assignment for any queue. All
/// consumers of the group get the same: the store distributes the messages among them.
pub(crate) fn assignments(count: u32, fifo: bool, named: &Resource, endpoints: &Endpoints) -> Vec<Assignment> {
    let told = |id| Assignment { message_queue: Some(queue(id, named, endpoints, Vec::new())) };
    if fifo { (0..count as i32).map(told).collect() } else { vec![told(ANY_QUEUE)] }
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
