//! One run: prepares it, starts producers and consumers, waits for its end, and sums it up.

use super::body::RunId;
use super::client;
use super::clock::{Moment, RunClock};
use super::consumers::Consumers;
use super::errors::ErrorTable;
use super::flags::Plan;
use super::producers::{Producers, Sent};
use super::progress::{ProgressOutput, Show};
use super::report::{Amount, ConsumeResult, EndedBy, Integrity, ProduceResult, Report, Seconds};
use super::stats::{Interval, Stats};
use super::stop::Stop;
use super::timing::Timing;
use super::tracker::Tracker;
use gantry_proto::env::Env;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a run looks whether enough has come.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// The topic counts as empty when nothing came for this long. By then a new group's position is fixed as well: it may
/// begin at the end of the topic.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
/// A topic that does not run dry within this time has other producers or too much in it.
const EMPTIED_WITHIN: Duration = Duration::from_secs(60);

/// What every task of a run shares.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) env: Env,
    /// Every message carries it.
    pub(crate) id: RunId,
    pub(crate) clock: RunClock,
    /// When preparations began.
    started: Moment,
    pub(crate) stop: Stop,
    /// Ends the sessions of its clients.
    pub(crate) closing: CancellationToken,
    pub(crate) progress: ProgressOutput,
    pub(crate) errors: ErrorTable,
    pub(crate) tracker: Mutex<Tracker>,
}

/// How the measured run ended.
struct Ended {
    by: EndedBy,
    at: Moment,
    /// False: nobody waited for messages in flight, so it is not known which are lost.
    settled: bool,
    sent: Option<Sent>,
}

impl Run {
    /// A run that has not begun.
    pub(crate) fn new(plan: Plan, env: &Env, stop: Stop, progress: ProgressOutput) -> Arc<Run> {
        let clock = RunClock::set_by(&*env.clock);
        let id = RunId(random_u64(env));
        // Whoever only receives takes what any run sent.
        let tracker = if plan.produce.is_some() { Tracker::of_run(id) } else { Tracker::of_any_run() };
        Arc::new(Run {
            plan,
            env: env.clone(),
            id,
            clock,
            started: clock.now(),
            stop,
            closing: CancellationToken::new(),
            progress,
            errors: ErrorTable::default(),
            tracker: Mutex::new(tracker),
        })
    }

    pub(crate) async fn execute(self: &Arc<Run>) -> anyhow::Result<Report> {
        client::prepare(self).await?;
        let mut sessions = JoinSet::new();
        let report = self.execute_with(&mut sessions).await;
        self.closing.cancel();
        sessions.join_all().await;
        report
    }

    pub(crate) fn random_u64(&self) -> u64 {
        random_u64(&self.env)
    }

    async fn execute_with(self: &Arc<Run>, sessions: &mut JoinSet<()>) -> anyhow::Result<Report> {
        let consumers = match &self.plan.consume {
            Some(group) => Some(Consumers::connect(self, sessions, group).await?),
            None => None,
        };
        let producers = match &self.plan.produce {
            Some(load) => Some(Producers::connect(self, sessions, load).await?),
            None => None,
        };
        if let (Some(consumers), Some(_)) = (&consumers, &producers) {
            self.empty_topic(consumers).await?;
        }
        Ok(self.measure(producers, consumers).await)
    }

    /// Takes what earlier runs left: our messages would have to wait behind it.
    async fn empty_topic(self: &Arc<Run>, consumers: &Consumers) -> anyhow::Result<()> {
        let started = self.clock.now();
        let stats = Arc::new(Stats::new(Interval { from: started, to: None }));
        let mut arrivals = Stagnation::since(started);
        let received = || self.tracker.lock().counts().received();
        let emptying = async {
            let receiving = consumers.start(self, &stats);
            let look = |now: Moment| match arrivals.lasts(received(), now) >= EMPTY_AFTER {
                false if now.since(started) < EMPTIED_WITHIN => None,
                emptied => Some(emptied),
            };
            let emptied = self.watch(self.stop.asked(), look).await;
            receiving.finish().await;
            emptied.unwrap_or(true)
        };
        let shown = Show { stats: &stats, sent: false, received: false, measured_from: started };
        anyhow::ensure!(
            shown.during(self, emptying).await,
            "the topic {:?} did not run dry: {} messages of others came within {}; name one that nobody else uses with \
             --topic",
            self.plan.target.topic(),
            received(),
            humantime::format_duration(EMPTIED_WITHIN)
        );
        Ok(())
    }

    async fn measure(self: &Arc<Run>, producers: Option<Producers>, consumers: Option<Consumers>) -> Report {
        let (plan, started) = (&self.plan, self.clock.now());
        let rate = plan.produce.as_ref().and_then(|load| load.rate);
        let timing = Timing::plan(started, &plan.span, plan.warmup, rate);
        let interval = if producers.is_some() { timing.interval } else { Interval { from: started, to: None } };
        let stats = Arc::new(Stats::new(interval));
        let working = async {
            let receiving = consumers.as_ref().map(|consumers| consumers.start(self, &stats));
            let (sent, ended_by) = match &producers {
                None => (None, self.wait_for_end(started).await),
                Some(producers) => {
                    let sent = producers.send(self, &stats, &timing).await;
                    let ended_by = timing.ended_by(self.stop.is_asked());
                    if receiving.is_some() {
                        self.wait_until_settled(&sent).await;
                    }
                    (Some(sent), ended_by)
                }
            };
            let (at, settled) = (self.clock.now(), !self.stop.is_insisted());
            if let Some(receiving) = receiving {
                receiving.finish().await;
            }
            Ended { by: ended_by, at, settled, sent }
        };
        let (sent, received) = (producers.is_some(), consumers.is_some());
        let shown = Show { stats: &stats, sent, received, measured_from: interval.from };
        let ended = shown.during(self, working).await;
        self.sum_up(&stats, &timing, started, ended)
    }

    fn sum_up(&self, stats: &Stats, timing: &Timing, started: Moment, ended: Ended) -> Report {
        let tracker = self.tracker.lock();
        let gaps = ended.sent.is_none().then(|| tracker.gaps());
        let (seconds, lost) = match &ended.sent {
            Some(sent) => (
                timing.seconds(sent.ended, ended.by == EndedBy::Interrupt),
                ended.settled.then(|| tracker.lost(self.id, &sent.acknowledged)),
            ),
            None => {
                let measured = measured_span(&tracker, ended.by, started, ended.at);
                // The topic has run dry: what is missing does not come any more.
                let lost = gaps.filter(|_| ended.by == EndedBy::Idle);
                (Seconds { warmup: Duration::ZERO, measured, total: ended.at.since(started) }, lost)
            }
        };
        let complete = if ended.sent.is_some() { lost == Some(0) } else { ended.by != EndedBy::Idle };
        let mut report = Report::new(self.plan.clone(), self.id, self.started, ended.by, seconds);
        report.consume = self.plan.consume.as_ref().map(|_| {
            let (arrivals, counts) = (stats.arrivals.measured(), tracker.counts());
            ConsumeResult {
                amount: Amount::new(&arrivals, seconds.measured),
                acknowledged: stats.acknowledged.load(Relaxed),
                empty_receives: stats.empty_receives.load(Relaxed),
                end_to_end_us: arrivals.quantiles(),
                receive_latency_us: stats.receives.measured().quantiles(),
                ack_latency_us: stats.acks.measured().quantiles(),
                integrity: Integrity { received: counts.received(), counts, gaps, lost, complete },
            }
        });
        report.produce = ended.sent.map(|sent| {
            let sends = stats.sends.measured();
            ProduceResult {
                amount: Amount::new(&sends, seconds.measured),
                acknowledged: sent.acknowledged_count(),
                unsent: sent.unsent,
                latency_us: sends.quantiles(),
                start_delay_us: stats.start_delays.measured().quantiles(),
            }
        });
        report.errors = self.errors.counts();
        report.judged()
    }

    /// Waits for the end of a run that only receives.
    async fn wait_for_end(&self, started: Moment) -> EndedBy {
        let (span, mut progress) = (&self.plan.span, Stagnation::since(started));
        let look = |now: Moment| {
            let unique = self.tracker.lock().counts().unique;
            let idle = progress.lasts(unique, now) >= self.plan.patience;
            match (span.duration, span.count) {
                (Some(duration), _) if now >= started.after(duration) => Some(EndedBy::Duration),
                (_, Some(count)) if unique >= count => Some(EndedBy::Count),
                (_, Some(_)) if idle => Some(EndedBy::Idle),
                _ => None,
            }
        };
        self.watch(self.stop.asked(), look).await.unwrap_or(EndedBy::Interrupt)
    }

    /// Returns when everything that the server accepted has come, or when nothing new comes any more.
    async fn wait_until_settled(&self, sent: &Sent) {
        let (accepted, mut progress) = (sent.acknowledged_count(), Stagnation::since(self.clock.now()));
        let look = |now| {
            let tracker = self.tracker.lock();
            let unique = tracker.counts().unique;
            // The sets are compared only when there is a chance: more may have come than was accepted.
            let all = unique >= accepted && tracker.lost(self.id, &sent.acknowledged) == 0;
            (all || progress.lasts(unique, now) >= self.plan.patience).then_some(())
        };
        self.watch(self.stop.insisted(), look).await;
    }

    /// Looks now and then until there is an answer; `None` when it is stopped before.
    async fn watch<T>(
        &self,
        stopped: impl Future<Output = ()>,
        mut look: impl FnMut(Moment) -> Option<T>,
    ) -> Option<T> {
        let looking = async {
            loop {
                if let Some(answer) = look(self.clock.now()) {
                    return answer;
                }
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        };
        tokio::select! {
            answer = looking => Some(answer),
            () = stopped => None,
        }
    }
}

fn random_u64(env: &Env) -> u64 {
    let mut bytes = [0; 8];
    env.random.fill(&mut bytes);
    u64::from_le_bytes(bytes)
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
struct Stagnation {
    value: u64,
    since: Moment,
}

impl Stagnation {
    fn since(now: Moment) -> Stagnation {
        Stagnation { value: 0, since: now }
    }

    /// Enters the number of now.
    fn lasts(&mut self, value: u64, now: Moment) -> Duration {
        if value != self.value {
            *self = Stagnation { value, since: now };
        }
        now.since(self.since)
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
