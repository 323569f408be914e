//! What a store costs where there is much and little happens: start-up, checkpoints, memory, and doing nothing.
//!
//! `cargo run --release -p gantry-store --example scale -- 1000 10000 100000`: one topic of one queue for each, and one group
//! that has consumed from all of them. The disk is in memory: what is measured is the store's own work, and memory is what
//! opening adds to what the disk and the metadata take. Times are of the CPU, for other work beside it; a machine that is quiet
//! shows the same.

#![allow(clippy::unwrap_used, reason = "a measurement ends with its first surprise")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use gantry_proto::contract::{AckRequest, AppendRequest, PopRequest};
use gantry_proto::model::{GroupId, QueueId, TopicId};
use gantry_store::Store;
use std::fs;
use std::time::Duration;
use support::*;

const BUSY: u32 = 1_000;
const IDLE: Duration = Duration::from_secs(10);

/// Resident memory in MiB.
fn memory() -> u64 {
    let memory = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = memory.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1024
}

/// CPU time that the process has used.
fn cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |thread: fs::DirEntry| {
        let spent = fs::read_to_string(thread.path().join("schedstat")).unwrap();
        spent.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(threads.map(|thread| of_thread(thread.unwrap())).sum())
}

fn checkpoint_bytes(machine: &Machine) -> u64 {
    let entries = machine.env.files.list(&machine.dir).unwrap().into_iter();
    let lens = entries.filter(|entry| entry.name.starts_with("checkpoint-")).map(|entry| entry.len);
    lens.sum()
}

/// Sends, receives and acknowledges a message on each of the first `count` topics.
async fn consume(store: &Store, count: u32, round: u32) {
    for number in 0..count {
        let (group, topic) = (GroupId(FIRST_GROUP.0), TopicId(FIRST_TOPIC.0 + number));
        let messages = vec![message(&format!("m{round}-{number}"), None)];
        store.append(AppendRequest { topic, queue: QueueId(0), messages }).await.unwrap();
        let popped = store.pop(PopRequest { group, topic, ..pop_request(1) }).await.unwrap().messages;
        let handles = popped.iter().map(|message| message.handle.clone()).collect();
        store.ack(AckRequest { group, topic, handles }).await.unwrap();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let counts: Vec<u32> = std::env::args().skip(1).map(|count| count.parse().unwrap()).collect();
    println!(" queues  first save      start  memory   save of {BUSY}   idle receive   idle CPU");
    for count in counts {
        let mut machine = Machine::new(1);
        machine.config.segment_bytes = 1 << 30;
        machine.config.checkpoint_interval = Duration::from_secs(3600);
        machine.config.dedup_window = Duration::ZERO;
        machine.add_topics_and_groups(count, 1);
        let store = machine.must_open();
        consume(&store, count, 0).await;
        store.shutdown().await.unwrap();
        drop(store);
        let first = checkpoint_bytes(&machine);

        let (before, begun) = (memory(), cpu());
        let store = machine.must_open();
        let start = cpu() - begun;
        let memory = memory().saturating_sub(before);

        consume(&store, BUSY.min(count), 1).await;
        let topic = TopicId(FIRST_TOPIC.0);
        let receive = || PopRequest { group: GroupId(FIRST_GROUP.0), topic, ..pop_request(1) };
        let begun = cpu();
        for _ in 0..1_000 {
            store.pop(receive()).await.unwrap();
        }
        let receive = (cpu() - begun) / 1_000;
        let begun = cpu();
        tokio::time::sleep(IDLE).await;
        let idle = (cpu() - begun).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        let begun = cpu();
        store.shutdown().await.unwrap();
        let (save, bytes) = (cpu() - begun, checkpoint_bytes(&machine) - first);
        println!(
            "{count:>7}  {:>6} KiB  {start:>9.1?}  {memory:>2} MiB  {:>3} KiB {save:>8.1?}  {receive:>10.1?}  {idle:>7.2} %",
            first / 1024,
            bytes / 1024
        );
    }
}
