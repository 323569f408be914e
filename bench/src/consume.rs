//! Receiving: the consumers of a run, and the run that only receives.
//!
//! One poller per connection, assigned queue and `--pollers`: a task that receives, enters what came into the shared
//! tracker, and has a bounded number of acknowledgements in flight.

mod poller;

use super::args::{ConsumeArgs, Reception};
use super::client::{Client, Role, Target};
use super::clock::Moment;
use super::joined;
use super::progress::{Progress, Show};
use super::report::{Amount, ConsumeResult, EndedBy, Integrity, Report, Seconds};
use super::run::Run;
use super::stats::{Interval, Recorder, Sample};
use super::tracker::Tracker;
use gantry_proto::wire::v2;
use parking_lot::Mutex;
use poller::{ConnectionRecords, Poller};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a runner looks whether enough has come.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Runs `gantry bench consume`.
pub(super) async fn run(run: &Run, args: &ConsumeArgs) -> anyhow::Result<Report> {
    let consumers = Consumers::connect(run.target(), args.reception()).await?;
    let tracker = Arc::new(Mutex::new(Tracker::of_any_run()));
    let started = run.clock().now();
    let receiving = consumers.start(run, &tracker, Interval { from: started, to: None });
    let progress = Progress::start(run, Show { received: receiving.recorders(), ..Show::default() }, started);
    let ended_by = wait_for_end(run, args, started, &tracker).await;
    let ended = run.clock().now();
    let taken = receiving.finish().await;
    progress.stop().await;
    consumers.close().await;

    let tracker = tracker.lock();
    let measured = measured_span(&tracker, ended_by, started, ended);
    let seconds = Seconds { warmup: Duration::ZERO, measured, total: ended.since(started) };
    let gaps = tracker.gaps();
    let integrity = Integrity {
        counts: tracker.counts(),
        gaps: Some(gaps),
        // The topic has run dry: what is missing does not come any more.
        lost: (ended_by == EndedBy::Idle).then_some(gaps),
        complete: ended_by != EndedBy::Idle,
    };
    Ok(Report {
        consume: Some(taken.result(measured, integrity)),
        ..run.report("consume", ended_by, seconds, args.parameters(&run.target().topic))
    })
}

async fn wait_for_end(run: &Run, args: &ConsumeArgs, started: Moment, tracker: &Mutex<Tracker>) -> EndedBy {
    let mut progress = Stagnation::since(started);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = run.stop().asked() => return EndedBy::Interrupt,
        }
        let (now, unique) = (run.clock().now(), tracker.lock().counts().unique);
        match args.count {
            None if now >= started.after(args.duration) => return EndedBy::Duration,
            None => {}
            Some(count) if unique >= count => return EndedBy::Count,
            Some(_) if progress.lasts(unique, now) >= args.idle_timeout => return EndedBy::Idle,
            Some(_) => {}
        }
    }
}

/// From the first message: a consumer may wait long for a producer that was started after it.
fn measured_span(tracker: &Tracker, ended_by: EndedBy, started: Moment, ended: Moment) -> Duration {
    let Some((first, last)) = tracker.span() else {
        return ended.since(started);
    };
    let to = match ended_by {
        EndedBy::Count | EndedBy::Idle => last,
        EndedBy::Duration | EndedBy::Interrupt => ended,
    };
    match to.since(first) {
        // Everything came at once: the time until then is all there is to divide by.
        Duration::ZERO => to.since(started),
        span => span,
    }
}

/// How long a number has not changed.
pub(super) struct Stagnation {
    value: u64,
    since: Moment,
}

impl Stagnation {
    /// Nothing yet.
    pub(super) fn since(now: Moment) -> Stagnation {
        Stagnation { value: 0, since: now }
    }

    /// Enters the number of now.
    pub(super) fn lasts(&mut self, value: u64, now: Moment) -> Duration {
        if value != self.value {
            *self = Stagnation { value, since: now };
        }
        now.since(self.since)
    }
}

/// Connected consumers.
pub(super) struct Consumers {
    clients: Vec<Client>,
    /// By client: the queues it receives from.
    assignments: Vec<Vec<v2::MessageQueue>>,
    reception: Arc<Reception>,
}

impl Consumers {
    /// Connects all of them, then asks for their queues.
    pub(super) async fn connect(target: &Arc<Target>, reception: Reception) -> anyhow::Result<Consumers> {
        let group = reception.group.clone();
        let role = if reception.push { Role::PushConsumer { group } } else { Role::SimpleConsumer { group } };
        let clients = Client::connect_all(target, &role, reception.connections).await?;
        let mut consumers = Consumers { clients, assignments: Vec::new(), reception: Arc::new(reception) };
        match consumers.assign().await {
            Ok(()) => Ok(consumers),
            Err(error) => {
                consumers.close().await;
                Err(error)
            }
        }
    }

    /// Starts receiving.
    pub(super) fn start(&self, run: &Run, tracker: &Arc<Mutex<Tracker>>, interval: Interval) -> Receiving {
        let mut receiving =
            Receiving { pollers: JoinSet::new(), connections: Vec::new(), close: CancellationToken::new() };
        for (client, queues) in self.clients.iter().zip(&self.assignments) {
            let connection = Arc::new(ConnectionRecords::new(interval));
            receiving.connections.push(connection.clone());
            for (queue, index) in queues.iter().flat_map(|queue| (0..self.reception.pollers).map(move |n| (queue, n))) {
                let poller = Poller {
                    caller: client.caller().clone(),
                    clock: *run.clock(),
                    reception: self.reception.clone(),
                    queue: queue.clone(),
                    index,
                    batches: 0,
                    records: connection.clone(),
                    tracker: tracker.clone(),
                    errors: run.target().errors.clone(),
                };
                receiving.pollers.spawn(poller.run(receiving.close.clone(), run.stop().clone()));
            }
        }
        receiving
    }

    /// Closes all of them.
    pub(super) async fn close(self) {
        Client::close_all(self.clients).await;
    }

    async fn assign(&mut self) -> anyhow::Result<()> {
        for client in &self.clients {
            let queues =
                client.caller().query_assignment().await.map_err(|failure| client.caller().explain(failure))?;
            anyhow::ensure!(
                !queues.is_empty(),
                "the server assigned no queue of {:?} to the group {:?}",
                client.caller().target().topic,
                self.reception.group
            );
            self.assignments.push(queues);
        }
        Ok(())
    }
}

/// Consumers at work.
pub(super) struct Receiving {
    pollers: JoinSet<()>,
    connections: Vec<Arc<ConnectionRecords>>,
    close: CancellationToken,
}

impl Receiving {
    /// What messages are recorded into.
    pub(super) fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.connections.iter().map(|connection| connection.arrivals.clone()).collect()
    }

    /// Stops receiving and waits for the acknowledgements in flight. Each is bounded by its deadline.
    pub(super) async fn finish(mut self) -> Taken {
        self.close.cancel();
        while let Some(poller) = self.pollers.join_next().await {
            joined(poller);
        }
        let merged = |pick: fn(&ConnectionRecords) -> &Recorder| {
            Sample::merged(self.connections.iter().map(|records| pick(records).measured()))
        };
        let sum = |pick: fn(&ConnectionRecords) -> &AtomicU64| {
            self.connections.iter().map(|records| pick(records).load(Ordering::Relaxed)).sum()
        };
        Taken {
            arrivals: merged(|records| &records.arrivals),
            receives: merged(|records| &records.receives),
            acks: merged(|records| &records.acks),
            acknowledged: sum(|records| &records.acknowledged),
            empty_receives: sum(|records| &records.empty_receives),
        }
    }
}

/// What was received.
pub(super) struct Taken {
    arrivals: Sample,
    receives: Sample,
    acks: Sample,
    acknowledged: u64,
    empty_receives: u64,
}

impl Taken {
    /// For the report.
    pub(super) fn result(&self, measured: Duration, integrity: Integrity) -> ConsumeResult {
        ConsumeResult {
            amount: Amount::new(&self.arrivals, measured),
            acknowledged: self.acknowledged,
            empty_receives: self.empty_receives,
            end_to_end_us: self.arrivals.quantiles(),
            receive_latency_us: self.receives.quantiles(),
            ack_latency_us: self.acks.quantiles(),
            integrity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn throughput_counts_from_the_first_message() {
        let mut tracker = Tracker::of_any_run();
        assert_eq!(measured_span(&tracker, EndedBy::Duration, at(0), at(15)).as_secs(), 15);
        tracker.observe(b"", at(10));
        assert_eq!(measured_span(&tracker, EndedBy::Count, at(0), at(11)).as_secs(), 10, "all at once");
        tracker.observe(b"", at(12));
        assert_eq!(measured_span(&tracker, EndedBy::Count, at(0), at(13)).as_secs(), 2);
        assert_eq!(measured_span(&tracker, EndedBy::Idle, at(0), at(52)).as_secs(), 2, "the idle tail is no work");
        assert_eq!(measured_span(&tracker, EndedBy::Duration, at(0), at(15)).as_secs(), 5);
    }

    #[test]
    fn stagnation_starts_anew_with_each_change() {
        let mut stagnation = Stagnation::since(at(0));
        assert_eq!(stagnation.lasts(0, at(3)).as_secs(), 3);
        assert_eq!(stagnation.lasts(1, at(4)).as_secs(), 0);
        assert_eq!(stagnation.lasts(1, at(9)).as_secs(), 5);
    }
}
