//! What one renewal costs where there are many shards and many owners, and how long it keeps its thread to itself.
//!
//! `cargo run --release -p gantry-store --example renewal`. The disk is in memory: what is measured is the store's own work.

#![allow(clippy::unwrap_used, reason = "a measurement ends with its first surprise")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use gantry_proto::contract::{AppendRequest, PopRequest, RenewRequest};
use gantry_proto::model::{ClientHash, GroupId, QueueId, TopicId};
use std::time::Duration;
use support::*;
use tokio::time::Instant;

const GROUPS: u32 = 10;
const OWNERS: u64 = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("shards  owners renewed  all of them    one of them");
    for topics in [10, 100, 1_000] {
        let mut machine = Machine::new(1);
        machine.config.segment_bytes = 1 << 30;
        machine.add_topics_and_groups(topics, GROUPS);
        let store = machine.must_open();
        for topic in 0..topics {
            let topic = TopicId(FIRST_TOPIC.0 + topic);
            let messages = vec![message(&format!("m{topic}"), None)];
            store.append(AppendRequest { topic, queue: QueueId(0), messages }).await.unwrap();
            for group in 0..GROUPS {
                let owner = ClientHash(u64::from((topic.0 - FIRST_TOPIC.0) * GROUPS + group) % OWNERS);
                let group = GroupId(FIRST_GROUP.0 + group);
                store.pop(PopRequest { group, topic, owner: Some(owner), ..pop_request(1) }).await.unwrap();
            }
        }
        machine.clock.advance(Duration::from_secs(15));
        let renew = async |owners: Vec<ClientHash>| {
            let begun = Instant::now();
            store
                .renew(RenewRequest { owners, invisible: Duration::from_secs(60), arrived: Vec::new() })
                .await
                .unwrap();
            begun.elapsed()
        };
        let all = renew((0..OWNERS).map(ClientHash).collect()).await;
        machine.clock.advance(Duration::from_secs(15));
        let one = renew(vec![ClientHash(3)]).await;
        println!("{:>6}  {OWNERS:>14}  {all:>11.1?}  {one:>13.1?}", topics * GROUPS);
        store.shutdown().await.unwrap();
    }
}
