//! One run: prepares it, starts producers and consumers, waits for its end, and sums it up.

use super::body::RunId;
use super::client;
use super::clock::{Moment, RunClock};
use super::consumers::Consumers;
use super::errors::ErrorTable;
use super::flags::{LoadArgs, Plan};
use super::producers::{Producers, Sent};
use super::progress::{Progress, ProgressOutput, Show};
use super::report::{EndedBy, Integrity, Report, Seconds};
use super::schedule::Pace;
use super::stats::Interval;
use super::stop::Stop;
use super::timing::Timing;
use super::tracker::Tracker;
use gantry_proto::env::Env;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

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
    pub(crate) progress: ProgressOutput,
    pub(crate) errors: ErrorTable,
    pub(crate) tracker: Mutex<Tracker>,
}

/// Who is connected, and must be closed.
#[derive(Default)]
struct Clients {
    consumers: Option<Consumers>,
    producers: Option<Producers>,
}

impl Run {
    /// A run that has not begun.
    pub(crate) fn new(plan: Plan, env: &Env, stop: Stop, progress: ProgressOutput) -> Arc<Run> {
        let clock = RunClock::set_by(&*env.clock);
        let id = RunId(random_u64(env));
        // Whoever only receives takes what any run sent.
        let tracker = if plan.produce.is_some() { Tracker::of_run(id) } else { Tracker::of_any_run() };
        let (errors, tracker) = (ErrorTable::default(), Mutex::new(tracker));
        Arc::new(Run { plan, env: env.clone(), id, clock, started: clock.now(), stop, progress, errors, tracker })
    }

    pub(crate) async fn execute(self: &Arc<Run>) -> anyhow::Result<Report> {
        client::prepare(self).await?;
        let mut clients = Clients::default();
        let report = self.execute_with(&mut clients).await;
        if let Some(producers) = clients.producers {
            producers.close().await;
        }
        if let Some(consumers) = clients.consumers {
            consumers.close().await;
        }
        report
    }

    pub(crate) fn random_u64(&self) -> u64 {
        random_u64(&self.env)
    }

    async fn execute_with(self: &Arc<Run>, clients: &mut Clients) -> anyhow::Result<Report> {
        if let Some(group) = &self.plan.consume {
            clients.consumers = Some(Consumers::connect(self, group).await?);
        }
        if let Some(load) = &self.plan.produce {
            clients.producers = Some(Producers::connect(self, load).await?);
        }
        if let (Some(consumers), Some(_)) = (&clients.consumers, &clients.producers) {
            self.empty_topic(consumers).await?;
        }
        Ok(self.measure(clients).await)
    }

    /// Takes what earlier runs left: our messages would have to wait behind it.
    async fn empty_topic(self: &Arc<Run>, consumers: &Consumers) -> anyhow::Result<()> {
        let started = self.clock.now();
        let receiving = consumers.start(self, Interval { from: started, to: None });
        let progress = Progress::start(self, Show::default(), started);
        let mut arrivals = Stagnation::since(started);
        let emptied = loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.stop.asked() => break true,
            }
            let now = self.clock.now();
            let received = self.tracker.lock().counts().received();
            if arrivals.lasts(received, now) >= EMPTY_AFTER {
                break true;
            }
            if now.since(started) >= EMPTIED_WITHIN {
                break false;
            }
        };
        receiving.finish().await;
        progress.stop().await;
        anyhow::ensure!(
            emptied,
            "the topic {:?} did not run dry: {} messages of others came within {}; name one that nobody else uses with \
             --topic",
            self.plan.target.topic(),
            self.tracker.lock().counts().received(),
            humantime::format_duration(EMPTIED_WITHIN)
        );
        Ok(())
    }

    async fn measure(self: &Arc<Run>, clients: &Clients) -> Report {
        let (plan, started) = (&self.plan, self.clock.now());
        let pace = plan.produce.as_ref().map_or(Pace::ClosedLoop, LoadArgs::pace);
        let timing = Timing::plan(started, &plan.span, plan.warmup, pace);
        let sends = clients.producers.is_some();
        let interval = if sends { timing.interval } else { Interval { from: started, to: None } };
        let receiving = clients.consumers.as_ref().map(|consumers| consumers.start(self, interval));
        let sending = clients.producers.as_ref().map(|producers| producers.start(self, &timing));
        let show = Show {
            sent: sending.as_ref().map(|sending| sending.recorders()).unwrap_or_default(),
            received: receiving.as_ref().map(|receiving| receiving.recorders()).unwrap_or_default(),
        };
        let progress = Progress::start(self, show, interval.from);

        let mut sent = None;
        let ended_by = match sending {
            None => self.wait_for_end(started).await,
            Some(sending) => {
                let done = sending.finish().await;
                let ended_by = timing.ended_by(self.stop.is_asked());
                if receiving.is_some() {
                    self.wait_until_settled(&done).await;
                }
                sent = Some(done);
                ended_by
            }
        };
        let ended = self.clock.now();
        // Somebody who does not wait for messages does not learn which are lost.
        let settled = !self.stop.is_insisted();
        let taken = match receiving {
            Some(receiving) => Some(receiving.finish().await),
            None => None,
        };
        progress.stop().await;

        let tracker = self.tracker.lock();
        let seconds = match &sent {
            Some(sent) => timing.seconds(sent.ended, ended_by == EndedBy::Interrupt),
            None => Seconds {
                warmup: Duration::ZERO,
                measured: measured_span(&tracker, ended_by, started, ended),
                total: ended.since(started),
            },
        };
        let gaps = sent.is_none().then(|| tracker.gaps());
        let lost = match &sent {
            Some(sent) => settled.then(|| tracker.lost(self.id, &sent.acknowledged)),
            // The topic has run dry: what is missing does not come any more.
            None => gaps.filter(|_| ended_by == EndedBy::Idle),
        };
        let complete = if sends { lost == Some(0) } else { ended_by != EndedBy::Idle };
        let integrity = Integrity { counts: tracker.counts(), gaps, lost, complete };
        let mut report = Report::new(plan.clone(), self.id, self.started, ended_by, seconds);
        report.produce = sent.map(|sent| sent.result(seconds.measured));
        report.consume = taken.map(|taken| taken.result(seconds.measured, integrity));
        report.errors = self.errors.counts();
        report.judged()
    }

    /// Waits for the end of a run that only receives.
    async fn wait_for_end(&self, started: Moment) -> EndedBy {
        let span = &self.plan.span;
        let mut progress = Stagnation::since(started);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.stop.asked() => return EndedBy::Interrupt,
            }
            let (now, unique) = (self.clock.now(), self.tracker.lock().counts().unique);
            if span.duration.is_some_and(|duration| now >= started.after(duration)) {
                return EndedBy::Duration;
            }
            match span.count {
                Some(count) if unique >= count => return EndedBy::Count,
                Some(_) if progress.lasts(unique, now) >= self.plan.patience => return EndedBy::Idle,
                _ => {}
            }
        }
    }

    /// Returns when everything that the server accepted has come, or when nothing new comes any more.
    async fn wait_until_settled(&self, sent: &Sent) {
        let accepted = sent.acknowledged_count();
        let mut progress = Stagnation::since(self.clock.now());
        loop {
            {
                let tracker = self.tracker.lock();
                let unique = tracker.counts().unique;
                // The sets are compared only when there is a chance: more may have come than was accepted.
                let all = unique >= accepted && tracker.lost(self.id, &sent.acknowledged) == 0;
                if all || progress.lasts(unique, self.clock.now()) >= self.plan.patience {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.stop.insisted() => return,
            }
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
