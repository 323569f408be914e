//! Sending: one [`Producer`] per connection, and as many tasks as there may be calls in flight. Each task makes one call
//! after another; those of a connection take turns in waiting for the next call to be due.

use super::body::{self, BodyHeader};
use super::client::{Caller, Client, MessageIds};
use super::clock::Moment;
use super::flags::LoadArgs;
use super::run::Run;
use super::schedule::{Schedule, Ticket};
use super::stats::Stats;
use super::timer::PreciseTimer;
use super::timing::Timing;
use super::tracker::SequenceSet;
use gantry_proto::wire::v2;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A task whose call failed rests this long: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Connected producers.
pub(crate) struct Producers {
    clients: Vec<Client>,
    load: LoadArgs,
    queues: Arc<[i32]>,
}

/// What was sent.
pub(crate) struct Sent {
    /// When the last call ended.
    pub(crate) ended: Moment,
    /// By producer, over the whole run: what the server accepted.
    pub(crate) acknowledged: Vec<SequenceSet>,
    pub(crate) unsent: u64,
}

struct Producer {
    run: Arc<Run>,
    stats: Arc<Stats>,
    caller: Arc<Caller>,
    schedule: Arc<Schedule>,
    index: u32,
    body_bytes: usize,
    queues: Arc<[i32]>,
    /// Locked by the task whose turn it is.
    next: tokio::sync::Mutex<Next>,
    acknowledged: Mutex<SequenceSet>,
}

/// What the next call begins with.
struct Next {
    timer: PreciseTimer,
    ids: MessageIds,
    sequence: u64,
}

impl Producers {
    /// Connects all of them, and checks that the topic takes what they will send.
    pub(crate) async fn connect(
        run: &Arc<Run>,
        sessions: &mut JoinSet<()>,
        load: &LoadArgs,
    ) -> anyhow::Result<Producers> {
        let clients = Client::connect_all(run, sessions, v2::ClientType::Producer, load.connections).await?;
        let queues = writable_queues(run.plan.target.topic(), &clients[0], load)?.into();
        Ok(Producers { clients, load: load.clone(), queues })
    }

    /// Sends until the schedule ends or somebody asks to stop, and waits until every call has ended. Each is bounded by
    /// its deadline.
    pub(crate) async fn send(&self, run: &Arc<Run>, stats: &Arc<Stats>, timing: &Timing) -> Sent {
        let schedule = Arc::new(Schedule::new(self.load.rate, self.load.batch, timing.start, timing.limit));
        let producer = |(index, client): (u32, &Client)| {
            let ids = MessageIds::new(run.random_u64(), std::process::id());
            Arc::new(Producer {
                run: run.clone(),
                stats: stats.clone(),
                caller: client.caller.clone(),
                schedule: schedule.clone(),
                index,
                body_bytes: self.load.size,
                queues: self.queues.clone(),
                next: Next { timer: PreciseTimer::new(run.clock), ids, sequence: 0 }.into(),
                acknowledged: Mutex::default(),
            })
        };
        let producers: Vec<_> = (0..).zip(&self.clients).map(producer).collect();
        let mut calls = JoinSet::new();
        for producer in &producers {
            (0..self.load.slots_of(producer.index)).for_each(|_| drop(calls.spawn(producer.clone().send())));
        }
        let mut finished = std::pin::pin!(calls.join_all());
        let stopped_at = tokio::select! {
            _ = &mut finished => None,
            () = run.stop.asked() => Some(run.clock.now()),
        };
        if stopped_at.is_some() {
            finished.await;
        }
        let ended = run.clock.now();
        let acknowledged =
            producers.iter().map(|producer| std::mem::take(&mut *producer.acknowledged.lock())).collect();
        Sent { ended, acknowledged, unsent: schedule.unsent(stopped_at.unwrap_or(ended)) }
    }
}

impl Sent {
    /// How many messages the server accepted over the whole run.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().map(SequenceSet::len).sum()
    }
}

impl Producer {
    async fn send(self: Arc<Producer>) {
        let (stop, clock) = (&self.run.stop, self.run.clock);
        loop {
            let (ticket, first_sequence, messages) = {
                let mut next = self.next.lock().await;
                if stop.is_asked() {
                    return;
                }
                let Some(ticket) = self.schedule.take(clock.now()) else { return };
                tokio::select! {
                    () = next.timer.until(ticket.due) => {}
                    () = stop.asked() => return,
                }
                let now = clock.now();
                self.stats.start_delays.record(now, [(ticket.due, 0, 0)]);
                let first_sequence = next.sequence;
                (ticket, first_sequence, (0..ticket.messages).map(|_| self.message(&mut next, ticket, now)).collect())
            };
            let results = tokio::select! {
                results = self.caller.send(messages) => results,
                () = stop.insisted() => return,
            };
            let ended = clock.now();
            let accepted = self.run.errors.accepted("send", results, ticket.messages);
            if accepted.is_empty() {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                continue;
            }
            let messages = accepted.len() as u64;
            self.stats.sends.record(ended, [(ticket.due, messages, messages * self.body_bytes as u64)]);
            self.acknowledged.lock().extend(accepted.iter().map(|position| first_sequence + position));
        }
    }

    fn message(&self, next: &mut Next, ticket: Ticket, now: Moment) -> v2::Message {
        let sequence = next.sequence;
        next.sequence += 1;
        let header = BodyHeader { run: self.run.id, producer: self.index, sequence, intended: ticket.due };
        // Each producer begins with another queue.
        let queue = (sequence + u64::from(self.index)) % self.queues.len() as u64;
        let born = now.since_epoch();
        v2::Message {
            topic: self.caller.topic(),
            user_properties: Default::default(),
            system_properties: Some(v2::SystemProperties {
                message_id: next.ids.next(now),
                body_encoding: v2::Encoding::Identity.into(),
                message_type: v2::MessageType::Normal.into(),
                // Clients tell milliseconds.
                born_timestamp: Some(prost_types::Timestamp {
                    seconds: born.as_secs().cast_signed(),
                    nanos: born.subsec_millis().cast_signed() * 1_000_000,
                }),
                born_host: "gantry-bench".to_owned(),
                queue_id: self.queues[queue as usize],
                ..Default::default()
            }),
            body: body::encode(header, self.body_bytes),
        }
    }
}

/// The ids of the queues that take what `load` will send.
fn writable_queues(topic: &str, client: &Client, load: &LoadArgs) -> anyhow::Result<Vec<i32>> {
    if let Some(max) = client.body_bytes_max.filter(|max| load.size as u64 > *max) {
        anyhow::bail!("--size {} is more than the {max} bytes that the server takes", load.size);
    }
    let mut queues = client.route.clone();
    queues.retain(|queue| matches!(queue.permission(), v2::Permission::Write | v2::Permission::ReadWrite));
    anyhow::ensure!(!queues.is_empty(), "the topic {topic:?} has no queue that may be written");
    let normal = i32::from(v2::MessageType::Normal);
    queues.retain(|queue| queue.accept_message_types.is_empty() || queue.accept_message_types.contains(&normal));
    anyhow::ensure!(
        !queues.is_empty(),
        "the topic {topic:?} takes no normal messages, and this command sends no others; name another with --topic"
    );
    Ok(queues.iter().map(|queue| queue.id).collect())
}
