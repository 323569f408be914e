//! Sending: the producers of a run, one [`lane`] per connection.

mod lane;

use super::client::{Client, MessageIds};
use super::clock::Moment;
use super::flags::LoadArgs;
use super::joined;
use super::report::{Amount, ProduceResult};
use super::run::Run;
use super::schedule::Schedule;
use super::stats::{Recorder, Sample};
use super::timer::PreciseTimer;
use super::timing::Timing;
use super::tracker::SequenceSet;
use gantry_proto::wire::v2;
use lane::{Lane, LaneEnd};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Connected producers.
pub(crate) struct Producers {
    clients: Vec<Client>,
    load: LoadArgs,
    queues: Arc<[i32]>,
}

/// Producers at work.
pub(crate) struct Sending {
    run: Arc<Run>,
    schedule: Arc<Schedule>,
    lanes: Vec<JoinHandle<LaneEnd>>,
    /// Calls, from their intended time.
    sends: Vec<Arc<Recorder>>,
    /// From a call's intended time to its beginning.
    start_delays: Vec<Arc<Recorder>>,
}

/// What was sent.
pub(crate) struct Sent {
    /// When the last call ended.
    pub(crate) ended: Moment,
    /// By producer, over the whole run: what the server accepted.
    pub(crate) acknowledged: Vec<SequenceSet>,
    sends: Sample,
    start_delay: Sample,
    unsent: u64,
}

impl Producers {
    /// Connects all of them, and checks that the topic takes what they will send.
    pub(crate) async fn connect(run: &Arc<Run>, load: &LoadArgs) -> anyhow::Result<Producers> {
        let clients = Client::connect_all(run, v2::ClientType::Producer, load.connections).await?;
        match writable_queues(run.plan.target.topic(), &clients[0], load) {
            Ok(queues) => Ok(Producers { clients, load: load.clone(), queues: queues.into() }),
            Err(error) => {
                Client::close_all(clients).await;
                Err(error)
            }
        }
    }

    pub(crate) fn start(&self, run: &Arc<Run>, timing: &Timing) -> Sending {
        let schedule = Arc::new(Schedule::new(self.load.pace(), self.load.batch, timing.start, timing.limit));
        let (mut lanes, mut sends, mut start_delays) = (Vec::new(), Vec::new(), Vec::new());
        for (index, client) in self.clients.iter().enumerate() {
            let [send, delay] = [(); 2].map(|()| Arc::new(Recorder::new(timing.interval)));
            sends.push(send.clone());
            start_delays.push(delay.clone());
            let lane = Lane {
                run: run.clone(),
                caller: client.caller.clone(),
                producer: index as u32,
                body_bytes: self.load.size,
                queues: self.queues.clone(),
                next_queue: index,
                next_sequence: 0,
                ids: MessageIds::new(run.random_u64(), std::process::id()),
                slots: self.load.slots_of(index),
                schedule: schedule.clone(),
                timer: PreciseTimer::new(run.clock),
                sends: send,
                start_delay: delay,
                acknowledged: SequenceSet::default(),
            };
            lanes.push(tokio::spawn(lane.run()));
        }
        Sending { run: run.clone(), schedule, lanes, sends, start_delays }
    }

    pub(crate) async fn close(self) {
        Client::close_all(self.clients).await;
    }
}

impl Sending {
    /// What sends are recorded into.
    pub(crate) fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.sends.clone()
    }

    /// Waits until every call has ended. Each is bounded by its deadline.
    pub(crate) async fn finish(self) -> Sent {
        let (mut acknowledged, mut stopped_at) = (Vec::new(), None);
        for lane in self.lanes {
            let end = joined(lane.await);
            acknowledged.push(end.acknowledged);
            stopped_at = stopped_at.or(end.stopped_at);
        }
        let ended = self.run.clock.now();
        Sent {
            ended,
            acknowledged,
            sends: Recorder::merged(&self.sends),
            start_delay: Recorder::merged(&self.start_delays),
            unsent: self.schedule.unsent(stopped_at.unwrap_or(ended)),
        }
    }
}

impl Sent {
    /// How many messages the server accepted over the whole run.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().map(SequenceSet::len).sum()
    }

    pub(crate) fn result(&self, measured: Duration) -> ProduceResult {
        ProduceResult {
            amount: Amount::new(&self.sends, measured),
            acknowledged: self.acknowledged_count(),
            unsent: self.unsent,
            latency_us: self.sends.quantiles(),
            start_delay_us: self.start_delay.quantiles(),
        }
    }
}

/// The ids of the queues that take what `load` will send.
fn writable_queues(topic: &str, client: &Client, load: &LoadArgs) -> anyhow::Result<Vec<i32>> {
    let normal = i32::from(v2::MessageType::Normal);
    if let Some(max) = client.body_bytes_max.filter(|max| load.size as u64 > *max) {
        anyhow::bail!("--size {} is more than the {max} bytes that the server takes", load.size);
    }
    let writable =
        |queue: &&v2::MessageQueue| matches!(queue.permission(), v2::Permission::Write | v2::Permission::ReadWrite);
    let queues: Vec<&v2::MessageQueue> = client.route.iter().filter(writable).collect();
    anyhow::ensure!(!queues.is_empty(), "the topic {topic:?} has no queue that may be written");
    let takes_normal = |queue: &&v2::MessageQueue| {
        queue.accept_message_types.is_empty() || queue.accept_message_types.contains(&normal)
    };
    let ids: Vec<i32> = queues.iter().copied().filter(takes_normal).map(|queue| queue.id).collect();
    anyhow::ensure!(
        !ids.is_empty(),
        "the topic {topic:?} takes no normal messages, and this command sends no others; name another with --topic"
    );
    Ok(ids)
}
