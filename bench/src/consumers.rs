//! Receiving: one [`Poller`] per connection, assigned queue and `--pollers`. Each has one receive call in flight, and
//! a bounded number of acknowledging ones.

use super::client::{Caller, Client};
use super::flags::GroupArgs;
use super::run::Run;
use super::stats::Stats;
use super::tracker::Sighting;
use gantry_client::to_wire;
use gantry_proto::wire::v2::{self, ClientType, MessageQueue};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Acknowledging calls of one poller at which it stops receiving.
const ACKS_IN_FLIGHT_MAX: usize = 64;
/// A poller whose call failed rests this long: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// A server that answers "nothing" at once, instead of waiting, is not asked again sooner.
const EMPTY_POLL_MIN: Duration = Duration::from_millis(5);

/// Connected consumers, each with the queues that it receives from.
pub(crate) struct Consumers {
    assigned: Vec<(Client, Vec<MessageQueue>)>,
    group: GroupArgs,
}

/// Consumers at work.
pub(crate) struct Receiving {
    pollers: JoinSet<()>,
    close: CancellationToken,
}

struct Poller {
    run: Arc<Run>,
    stats: Arc<Stats>,
    caller: Arc<Caller>,
    group: GroupArgs,
    queue: MessageQueue,
    index: u32,
}

impl Consumers {
    /// Connects all of them, then asks for their queues.
    pub(crate) async fn connect(
        run: &Arc<Run>,
        sessions: &mut JoinSet<()>,
        group: &GroupArgs,
    ) -> anyhow::Result<Consumers> {
        let client_type = if group.push { ClientType::PushConsumer } else { ClientType::SimpleConsumer };
        let (topic, group) = (run.plan.target.topic(), group.clone());
        let mut assigned = Vec::new();
        for client in Client::connect_all(run, sessions, client_type, group.consumers).await? {
            let queues = client.caller.query_assignment().await.map_err(|failure| client.caller.explain(failure))?;
            let name = &group.group;
            anyhow::ensure!(!queues.is_empty(), "the server assigned no queue of {topic:?} to the group {name:?}");
            assigned.push((client, queues));
        }
        Ok(Consumers { assigned, group })
    }

    pub(crate) fn start(&self, run: &Arc<Run>, stats: &Arc<Stats>) -> Receiving {
        let mut receiving = Receiving { pollers: JoinSet::new(), close: CancellationToken::new() };
        for (client, queue) in self.assigned.iter().flat_map(|(client, queues)| queues.iter().map(move |q| (client, q)))
        {
            for index in 0..self.group.pollers {
                let (run, stats, caller) = (run.clone(), stats.clone(), client.caller.clone());
                let poller = Poller { run, stats, caller, group: self.group.clone(), queue: queue.clone(), index };
                receiving.pollers.spawn(Arc::new(poller).run(receiving.close.clone()));
            }
        }
        receiving
    }
}

impl Receiving {
    /// Stops receiving and waits for the acknowledgements in flight. Each is bounded by its deadline.
    pub(crate) async fn finish(self) {
        self.close.cancel();
        self.pollers.join_all().await;
    }
}

impl Poller {
    /// Receives until closed, then waits for its acknowledgements.
    async fn run(self: Arc<Poller>, close: CancellationToken) {
        let (mut acks, mut batches) = (JoinSet::new(), 0);
        loop {
            let receiving = async {
                while acks.len() >= ACKS_IN_FLIGHT_MAX
                    && let Some(acknowledged) = acks.join_next().await
                {
                    acknowledged.expect("acknowledging does not panic");
                }
                self.receive(batches).await
            };
            let messages = tokio::select! {
                biased;
                // The call in flight is given up: what it may have taken comes back to the group.
                () = close.cancelled() => break,
                messages = receiving => messages,
            };
            batches += u64::from(!messages.is_empty());
            let entries: Vec<_> = messages.into_iter().map(to_ack_entry).collect();
            for entries in self.group.ack_batch.iter().flat_map(|batch| entries.chunks(*batch as usize)) {
                acks.spawn(self.clone().ack(entries.to_vec()));
            }
        }
        tokio::select! {
            _ = acks.join_all() => {}
            () = self.run.stop.insisted() => {}
        }
    }

    /// Receives once and counts what came. `batches` came before.
    async fn receive(&self, batches: u64) -> Vec<v2::Message> {
        let (run, group, began) = (&self.run, &self.group, self.run.clock.now());
        // Kept until a batch came, so that a server can tell a repeated attempt.
        let attempt = || format!("{}-{}-{}-{batches}", self.caller.identity.id(), self.queue.id, self.index);
        let request = v2::ReceiveMessageRequest {
            message_queue: Some(self.queue.clone()),
            batch_size: group.receive_batch.cast_signed(),
            invisible_duration: group.invisible.map(to_wire),
            auto_renew: group.push,
            attempt_id: group.push.then(attempt),
            ..Default::default()
        };
        let (messages, outcome) = self.caller.receive(request, group.long_poll).await;
        let ended = run.clock.now();
        if messages.is_empty() {
            self.stats.empty_receives.fetch_add(1, Relaxed);
        } else {
            let mut tracker = run.tracker.lock();
            let arrival = |message: &v2::Message| match tracker.observe(&message.body, ended) {
                Sighting::First(intended) => Some((intended, 1, message.body.len() as u64)),
                _ => None,
            };
            self.stats.receives.record(ended, [(began, 0, 0)]);
            self.stats.arrivals.record(ended, messages.iter().filter_map(arrival));
        }
        if let Err(failure) = outcome {
            run.errors.add("receive", &failure, 1);
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        } else if messages.is_empty() && ended.since(began) < EMPTY_POLL_MIN {
            tokio::time::sleep(EMPTY_POLL_MIN).await;
        }
        messages
    }

    async fn ack(self: Arc<Poller>, entries: Vec<v2::AckMessageEntry>) {
        let (began, messages) = (self.run.clock.now(), entries.len() as u64);
        let results = self.caller.ack(entries).await;
        let (ended, answered) = (self.run.clock.now(), results.is_ok());
        let accepted = self.run.errors.accepted("ack", results, messages).len() as u64;
        self.stats.acknowledged.fetch_add(accepted, Relaxed);
        if answered {
            self.stats.acks.record(ended, [(began, accepted, 0)]);
        }
    }
}

fn to_ack_entry(message: v2::Message) -> v2::AckMessageEntry {
    let properties = message.system_properties.unwrap_or_default();
    v2::AckMessageEntry {
        message_id: properties.message_id,
        // A server that sends none will refuse the entry, which is then counted.
        receipt_handle: properties.receipt_handle.unwrap_or_default(),
        lite_topic: properties.lite_topic,
    }
}
