//! The run that sends and receives at the same time, and knows of every message what became of it.

use super::args::EndToEndArgs;
use super::consume::{Consumers, LOOK_PERIOD, Stagnation};
use super::produce::{Producers, Sent};
use super::progress::{Progress, Show};
use super::report::{Integrity, Report};
use super::run::Run;
use super::stats::Interval;
use super::timing::Timing;
use super::tracker::Tracker;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The topic counts as empty when nothing came for this long. By then a new group's position is fixed as well: it may
/// begin at the end of the topic.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
/// A topic that does not run dry within this time has other producers or too much in it.
const EMPTIED_WITHIN: Duration = Duration::from_secs(60);

/// Runs `gantry bench end-to-end`.
pub(super) async fn run(run: &Run, args: &EndToEndArgs) -> anyhow::Result<Report> {
    let load = args.load();
    let consumers = Consumers::connect(run.target(), args.reception()).await?;
    let producers = match Producers::connect(run.target(), &load).await {
        Ok(producers) => producers,
        Err(error) => {
            consumers.close().await;
            return Err(error);
        }
    };
    let tracker = Arc::new(Mutex::new(Tracker::of_run(run.id())));
    let emptied = empty_topic(run, &consumers, &tracker).await;
    let done = match emptied {
        Ok(()) => Ok(measure(run, args, &producers, &consumers, &tracker).await),
        Err(error) => Err(error),
    };
    producers.close().await;
    consumers.close().await;
    done
}

/// Takes what earlier runs left: our messages would have to wait behind it.
async fn empty_topic(run: &Run, consumers: &Consumers, tracker: &Arc<Mutex<Tracker>>) -> anyhow::Result<()> {
    let started = run.clock().now();
    let receiving = consumers.start(run, tracker, Interval { from: started, to: None });
    let show = Show { tracker: Some(tracker.clone()), ..Show::default() };
    let progress = Progress::start(run, show, started);
    let mut arrivals = Stagnation::since(started);
    let emptied = loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = run.stop().asked() => break true,
        }
        let now = run.clock().now();
        let received = tracker.lock().counts().received();
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
        "the topic {:?} did not run dry: {} messages of others came within {}; name one that nobody else uses with --topic",
        run.target().topic,
        tracker.lock().counts().received(),
        humantime::format_duration(EMPTIED_WITHIN)
    );
    Ok(())
}

async fn measure(
    run: &Run,
    args: &EndToEndArgs,
    producers: &Producers,
    consumers: &Consumers,
    tracker: &Arc<Mutex<Tracker>>,
) -> Report {
    let load = args.load();
    let timing = Timing::plan(run.clock().now(), &args.span, load.pace());
    let receiving = consumers.start(run, tracker, timing.interval());
    let sending = producers.start(run, &load, &timing);
    let show = Show { sent: sending.recorders(), received: receiving.recorders(), tracker: Some(tracker.clone()) };
    let progress = Progress::start(run, show, timing.interval().from);
    let sent = sending.finish().await;
    let interrupted = run.stop().is_asked();
    wait_until_settled(run, args.settle, &sent, tracker).await;
    // Somebody who does not wait for messages does not learn which are lost.
    let settled = !run.stop().is_insisted();
    let taken = receiving.finish().await;
    progress.stop().await;

    let tracker = tracker.lock();
    let lost = settled.then(|| tracker.lost(run.id(), &sent.acknowledged));
    let seconds = timing.seconds(sent.ended, interrupted);
    let integrity = Integrity { counts: tracker.counts(), gaps: None, lost, complete: lost == Some(0) };
    Report {
        produce: Some(sent.result(seconds.measured)),
        consume: Some(taken.result(seconds.measured, integrity)),
        ..run.report("end-to-end", timing.ended_by(interrupted), seconds, args.parameters(&run.target().topic))
    }
}

/// Returns when everything that the server accepted has come, or when nothing new comes any more.
async fn wait_until_settled(run: &Run, patience: Duration, sent: &Sent, tracker: &Mutex<Tracker>) {
    let accepted = sent.acknowledged_count();
    let mut progress = Stagnation::since(run.clock().now());
    loop {
        {
            let tracker = tracker.lock();
            let unique = tracker.counts().unique;
            // The sets are compared only when there is a chance: more may have come than was accepted.
            let all = unique >= accepted && tracker.lost(run.id(), &sent.acknowledged) == 0;
            if all || progress.lasts(unique, run.clock().now()) >= patience {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = run.stop().insisted() => return,
        }
    }
}
