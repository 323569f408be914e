//! Sending: the producers of a run, and the run that only sends.
//!
//! One lane per connection: a task that owns its sequence numbers, its calls in flight and what was acknowledged, and
//! shares only the schedule with the others.

mod lane;

use super::args::{Load, ProduceArgs};
use super::client::{Client, MessageIds, Role, Target};
use super::clock::{Moment, RunClock};
use super::joined;
use super::progress::{Progress, Show};
use super::report::{Amount, ProduceResult, Report};
use super::run::Run;
use super::schedule::Schedule;
use super::stats::{Recorder, Sample};
use super::timer::PreciseTimer;
use super::timing::Timing;
use super::tracker::SequenceSet;
use gantry_proto::wire::v2;
use lane::{Lane, LaneEnd, LaneRecorders, Sender};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Runs `gantry bench produce`.
pub(super) async fn run(run: &Run, args: &ProduceArgs) -> anyhow::Result<Report> {
    let load = args.load();
    let producers = Producers::connect(run.target(), &load).await?;
    let timing = Timing::plan(run.clock().now(), &args.span, load.pace());
    let sending = producers.start(run, &load, &timing);
    let progress = Progress::start(run, Show { sent: sending.recorders(), ..Show::default() }, timing.interval().from);
    let sent = sending.finish().await;
    progress.stop().await;
    producers.close().await;
    let interrupted = run.stop().is_asked();
    let seconds = timing.seconds(sent.ended, interrupted);
    Ok(Report {
        produce: Some(sent.result(seconds.measured)),
        ..run.report("produce", timing.ended_by(interrupted), seconds, args.parameters(&run.target().topic))
    })
}

/// Connected producers.
pub(super) struct Producers {
    clients: Vec<Client>,
    queues: Arc<[i32]>,
}

impl Producers {
    /// Connects all of them, and checks that the topic takes what they will send.
    pub(super) async fn connect(target: &Arc<Target>, load: &Load) -> anyhow::Result<Producers> {
        let clients = Client::connect_all(target, &Role::Producer, load.connections).await?;
        match writable_queues(target, &clients[0], load) {
            Ok(queues) => Ok(Producers { clients, queues: queues.into() }),
            Err(error) => {
                Client::close_all(clients).await;
                Err(error)
            }
        }
    }

    /// Starts sending.
    pub(super) fn start(&self, run: &Run, load: &Load, timing: &Timing) -> Sending {
        let schedule = Arc::new(Schedule::new(load.pace(), load.batch, timing.start(), timing.limit()));
        let mut sending =
            Sending { lanes: JoinSet::new(), recorders: Vec::new(), schedule: schedule.clone(), clock: *run.clock() };
        for (index, client) in self.clients.iter().enumerate() {
            let recorders = LaneRecorders {
                sends: Arc::new(Recorder::new(timing.interval())),
                start_delay: Arc::new(Recorder::new(timing.interval())),
            };
            sending.recorders.push(recorders.clone());
            let lane = Lane {
                sender: Sender {
                    caller: client.caller().clone(),
                    run: run.id(),
                    producer: index as u32,
                    body_bytes: load.size,
                    queues: self.queues.clone(),
                    next_queue: index,
                    next_sequence: 0,
                    ids: MessageIds::new(run.target().random_node(), std::process::id()),
                },
                slots: load.slots_of(index),
                schedule: schedule.clone(),
                clock: *run.clock(),
                timer: PreciseTimer::new(*run.clock()),
                recorders,
                errors: run.target().errors.clone(),
                acknowledged: SequenceSet::default(),
            };
            sending.lanes.spawn(lane.run(index, run.stop().clone()));
        }
        sending
    }

    /// Closes all of them.
    pub(super) async fn close(self) {
        Client::close_all(self.clients).await;
    }
}

/// Producers at work.
pub(super) struct Sending {
    lanes: JoinSet<LaneEnd>,
    recorders: Vec<LaneRecorders>,
    schedule: Arc<Schedule>,
    clock: RunClock,
}

impl Sending {
    /// What the lanes record into.
    pub(super) fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.recorders.iter().map(|lane| lane.sends.clone()).collect()
    }

    /// Waits until every call has ended. Each is bounded by its deadline.
    pub(super) async fn finish(mut self) -> Sent {
        let mut acknowledged = vec![SequenceSet::default(); self.recorders.len()];
        let mut stopped_at = None;
        while let Some(lane) = self.lanes.join_next().await {
            let LaneEnd { index, acknowledged: accepted, stopped_at: stopped } = joined(lane);
            acknowledged[index] = accepted;
            stopped_at = stopped_at.or(stopped);
        }
        let merged = |pick: fn(&LaneRecorders) -> &Recorder| {
            Sample::merged(self.recorders.iter().map(|lane| pick(lane).measured()))
        };
        let ended = self.clock.now();
        Sent {
            ended,
            acknowledged,
            sends: merged(|lane| &lane.sends),
            start_delay: merged(|lane| &lane.start_delay),
            unsent: self.schedule.unsent(stopped_at.unwrap_or(ended)),
        }
    }
}

/// What was sent.
pub(super) struct Sent {
    /// When the last call ended.
    pub(super) ended: Moment,
    /// By producer, over the whole run: what the server accepted.
    pub(super) acknowledged: Vec<SequenceSet>,
    sends: Sample,
    start_delay: Sample,
    unsent: u64,
}

impl Sent {
    /// How many messages the server accepted over the whole run.
    pub(super) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().map(SequenceSet::len).sum()
    }

    /// For the report.
    pub(super) fn result(&self, measured: Duration) -> ProduceResult {
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
fn writable_queues(target: &Target, client: &Client, load: &Load) -> anyhow::Result<Vec<i32>> {
    let (topic, normal) = (&target.topic, i32::from(v2::MessageType::Normal));
    if let Some(max) = client.body_bytes_max().filter(|max| load.size as u64 > *max) {
        anyhow::bail!("--size {} is more than the {max} bytes that the server takes", load.size);
    }
    let writable =
        |queue: &&v2::MessageQueue| matches!(queue.permission(), v2::Permission::Write | v2::Permission::ReadWrite);
    let queues: Vec<&v2::MessageQueue> = client.route().iter().filter(writable).collect();
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
