//! One run: a cluster comes up, is worked with while faults happen, settles, is drained, and its history is judged.

use crate::draw::Draw;
use crate::env::{DiskLies, Machine};
use crate::faults::{Host, Nemesis, copy_disk};
use crate::history::{History, Outcome};
use crate::hosts::Tier;
use crate::invariants::{self, Violation};
use crate::note;
use crate::outside;
use crate::recorder::Recorder;
use crate::scenario::Scenario;
use crate::site::{CAREFUL, CHOOSY, GRAVES, PATIENT, PUSHED, Shape, Site, Stage};
use crate::trace::Trace;
use crate::workload;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use turmoil::Sim;

/// The cluster is up, with topics and groups, within this time, or never.
const PREPARE_MAX: Duration = Duration::from_secs(60);
/// After the faults are over every topic works again within this time.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// What was acknowledged has been delivered within this time after the last send.
const DRAIN_MAX: Duration = Duration::from_secs(150);
/// How long nothing comes before nothing more is to come, if all clocks are right: longer than any lease and any backoff.
const QUIET: Duration = Duration::from_secs(12);
/// A step: the network and the clients first, then all processes.
const TICK: Duration = Duration::from_millis(1);
/// How often the stages are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The machine with a copy of the first store's disk.
const TWIN: &str = "store-twin";
/// When the disk is copied, counted from when work begins: before or after the first faults.
const TWIN_AFTER: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(3000);

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What determines it.
    pub seed: u64,
    /// What goes wrong.
    pub scenario: Scenario,
    /// How long there are faults.
    pub time: Duration,
    /// Which calls of disks do nothing.
    pub lies: DiskLies,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Broken invariants.
    pub violations: Vec<Violation>,
    /// Why the run proves nothing, if so.
    pub vacuous: Option<String>,
    /// What was done, for people.
    pub summary: String,
}

/// Runs one simulation in this process.
pub fn run(plan: &Plan, trace: Trace) -> Verdict {
    let recorder = Recorder::new(trace.clone());
    let site = Site::new(plan.seed, &plan.scenario, recorder.clone());
    report_panics(&recorder);
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .epoch(UNIX_EPOCH + Duration::from_millis(outside::EPOCH_MILLIS))
        .simulation_duration(Duration::from_secs(1 << 30))
        .tick_duration(TICK)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis(10))
        // Segments that wait to be read, and connections that wait to be accepted.
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let machines = machines(plan, &site, &trace);
    for host in machines.values() {
        let machine = host.machine.clone();
        sim.host(machine.name.clone().as_ref(), move || {
            let kernel = machine.kernel();
            async move {
                kernel.await;
                Ok(())
            }
        });
    }
    add_clients(&mut sim, plan, &site, &trace);
    let mut driver = Driver {
        plan: plan.clone(),
        nemesis: Nemesis::new(site.clone(), plan.scenario.clone(), machines),
        site,
        entered: Duration::ZERO,
        looked: Duration::ZERO,
        quiet: QUIET,
        twin_is_due: plan.scenario.twin,
        twin_after: Draw::new(plan.seed, "twin").span(TWIN_AFTER),
        violations: Vec::new(),
    };
    driver.nemesis.prepare(&sim);
    driver.nemesis.let_clocks_drift(plan.scenario.drift_ppm);
    let spares = driver.site.controllers().split_off(driver.site.shape.controllers);
    driver.nemesis.start_all(&[spares, vec![TWIN.to_owned()]].concat());
    driver.drive(&mut sim, &trace);
    let verdict = driver.judge();
    // Nothing may run any more, not even what ends a machine.
    std::mem::forget(driver);
    std::mem::forget(sim);
    verdict
}

/// A panic of the code under test is a violation, wherever it is caught.
fn report_panics(recorder: &Recorder) {
    let recorder = recorder.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string().replace('\n', " ");
        note!(recorder.trace, "-", "PANIC {text}");
        recorder.history(|history| history.panics.push(text));
    }));
}

fn machines(plan: &Plan, site: &Arc<Site>, trace: &Trace) -> BTreeMap<String, Host> {
    let machine = |name: &str| Machine::new(name, plan.seed, plan.lies, trace.clone());
    let controllers = (1..).zip(site.controllers()).map(|(number, name)| (name, Tier::Controller(number)));
    let stores = site.stores().into_iter().map(|name| (name, Tier::Store));
    let proxies = site.proxies().into_iter().map(|name| (name, Tier::Proxy));
    let first: Arc<str> = site.stores()[0].as_str().into();
    let twin = plan.scenario.twin.then(|| (TWIN.to_owned(), Tier::Store));
    (controllers.chain(stores).chain(proxies).chain(twin))
        .map(|(name, tier)| {
            let group = if name == TWIN { first.clone() } else { name.as_str().into() };
            (name.clone(), Host::new(machine(&name), tier, group, plan.scenario.older))
        })
        .collect()
}

fn add_clients(sim: &mut Sim<'_>, plan: &Plan, site: &Arc<Site>, trace: &Trace) {
    let Shape { producers, consumers, .. } = site.shape;
    let machine = |name: &str| Machine::new(name, plan.seed, DiskLies::default(), trace.clone());
    let graves: Arc<str> = History::dead_letters_of(CAREFUL).into();
    for number in 1..=producers {
        let name = format!("producer-{number}");
        let work = workload::produce(site.clone(), machine(&name));
        sim.client(name.as_str(), async move {
            work.await;
            Ok(())
        });
    }
    for number in 1..=consumers {
        let name = format!("{PUSHED}-{number}");
        let work = workload::push(site.clone(), machine(&name));
        sim.client(name.as_str(), async move {
            work.await;
            Ok(())
        });
    }
    for (group, count) in [(CAREFUL, consumers), (PATIENT, consumers), (CHOOSY, 1), (GRAVES, 1)] {
        for number in 1..=count {
            let name = format!("{group}-{number}");
            let graves = graves.clone();
            let topics = move |site: &Site| if group == GRAVES { vec![graves.clone()] } else { site.topics() };
            let work = workload::consume(site.clone(), machine(&name), group, topics);
            sim.client(name.as_str(), async move {
                work.await;
                Ok(())
            });
        }
    }
    for number in 1..=site.hurried {
        let name = format!("hurried-{number}");
        let work = workload::hurry(site.clone(), machine(&name));
        sim.client(name.as_str(), async move {
            work.await;
            Ok(())
        });
    }
    let work = workload::operate(site.clone(), machine("operator"), plan.scenario.reshape);
    sim.client("operator", async move {
        work.await;
        Ok(())
    });
}

struct Driver {
    plan: Plan,
    nemesis: Nemesis,
    site: Arc<Site>,
    /// When the stage began.
    entered: Duration,
    looked: Duration,
    /// Nothing more is to come when nothing came for this long.
    quiet: Duration,
    /// Whether there is to be a twin and is none yet.
    twin_is_due: bool,
    /// When there is to be one.
    twin_after: Duration,
    violations: Vec<Violation>,
}

impl Driver {
    fn drive(&mut self, sim: &mut Sim<'_>, trace: &Trace) {
        let mut stage = self.site.stage();
        while self.site.stage() != Stage::Done {
            let now = sim.elapsed();
            self.nemesis.step(sim, now);
            if let Err(error) = sim.step() {
                self.violated(now, format!("the simulation broke: {error}"));
                return;
            }
            outside::advance_to(sim.elapsed());
            trace.advance_to(sim.elapsed());
            self.nemesis.drive(TICK);
            if self.site.stage() != stage {
                (stage, self.entered) = (self.site.stage(), now);
            }
            if now >= self.looked + LOOK_INTERVAL {
                self.looked = now;
                self.look(sim, now);
            }
        }
    }

    fn look(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let here = now - self.entered;
        match self.site.stage() {
            Stage::Prepare if here > PREPARE_MAX => {
                self.violated(now, format!("the cluster did not come up within {PREPARE_MAX:?}"));
                self.site.enter(Stage::Done);
            }
            Stage::Run if here > self.plan.time => {
                self.quiet = QUIET + self.nemesis.heal(sim);
                let recorder = self.site.recorder.clone();
                let healed = recorder.moment();
                recorder.history(|history| history.healed = Some(healed));
                self.site.enter(Stage::Settle);
            }
            Stage::Run if here > self.twin_after && self.twin_is_due => self.copy_a_disk(sim),
            Stage::Settle => match self.unserved() {
                None => self.site.enter(Stage::Drain),
                Some(missing) if here > SETTLE_MAX => {
                    self.violated(now, format!("not back within {SETTLE_MAX:?} after the faults were over: {missing}"));
                    self.site.enter(Stage::Drain);
                }
                Some(_) => {}
            },
            Stage::Drain => self.look_whether_drained(now, here),
            Stage::Prepare | Stage::Run | Stage::Done => {}
        }
    }

    /// The first store's disk on another machine, with a store on it.
    fn copy_a_disk(&mut self, sim: &mut Sim<'_>) {
        self.twin_is_due = false;
        let first = &self.site.stores()[0];
        let (from, to) = (&self.nemesis.hosts[first].machine, &self.nemesis.hosts[TWIN].machine);
        note!(self.site.recorder.trace, first, "FAULT the disk is copied to {TWIN}");
        self.site.recorder.history(|history| history.disk_was_copied = true);
        if let Err(error) = copy_disk(&from.disk, &to.disk, Path::new("/data")) {
            self.violated(self.looked, format!("the disk could not be copied: {error}"));
        }
        self.nemesis.enlist(sim, TWIN);
    }

    /// A topic that nobody could use since the faults were over.
    fn unserved(&self) -> Option<String> {
        let topics = self.site.topics();
        self.site.recorder.history(|history| {
            let healed = history.healed?;
            if !history.statuses.iter().any(|seen| seen.began > healed) {
                return Some("the controller did not tell the operator how the cluster is".to_owned());
            }
            let fresh: BTreeMap<&str, &str> = (history.sends.iter())
                .filter(|send| send.began > healed && send.outcome == Outcome::Done)
                .map(|send| (&*send.id, &*send.topic))
                .collect();
            let received: BTreeSet<(&str, &str)> = (history.deliveries.iter())
                .filter(|delivery| fresh.contains_key(&*delivery.id))
                .map(|delivery| (&*delivery.group, &*delivery.position.topic))
                .collect();
            for name in self.nemesis.controllers() {
                match history.members.get(&*name).filter(|seen| seen.at > healed) {
                    Some(seen) if seen.why.is_none() => {}
                    Some(seen) => return Some(format!("{name} does not serve: {:?}", seen.why)),
                    None => return Some(format!("{name} does not run")),
                }
            }
            for topic in &topics {
                if !fresh.values().any(|sent| **sent == **topic) {
                    return Some(format!("nothing could be sent to {topic}"));
                }
                for group in [CAREFUL, PATIENT, PUSHED] {
                    if !received.contains(&(group, &**topic)) {
                        return Some(format!("nothing new was received from {topic} by {group}"));
                    }
                }
            }
            None
        })
    }

    fn look_whether_drained(&mut self, now: Duration, here: Duration) {
        let last = self.site.recorder.history(|history| history.deliveries.last().map(|last| last.received.at));
        let quiet = here > self.quiet && last.is_none_or(|last| now > last + self.quiet);
        if !quiet && here <= DRAIN_MAX {
            return;
        }
        if !quiet {
            self.violated(now, format!("messages still came {DRAIN_MAX:?} after the last send"));
        }
        let recorder = self.site.recorder.clone();
        let drained = recorder.moment();
        recorder.history(|history| history.drained = Some(drained));
        self.site.enter(Stage::Done);
    }

    fn violated(&mut self, at: Duration, what: String) {
        self.violations.push(Violation { invariant: "liveness", at: Some(at), what, known: None });
    }

    fn judge(&mut self) -> Verdict {
        let faults: u64 = self.nemesis.injected().values().sum();
        let seconds = self.plan.time.as_secs_f64();
        self.site.recorder.history(|history| {
            self.violations.extend(invariants::check(history));
            let done = |outcome| history.sends.iter().filter(|send| send.outcome == outcome).count();
            let acks = history.acks.iter().filter(|ack| ack.outcome == Outcome::Done).count();
            let (sent, deliveries) = (done(Outcome::Done), history.deliveries.len());
            let graves = history.deliveries.iter().filter(|delivery| *delivery.group == *GRAVES).count();
            let unknown = done(Outcome::Unknown);
            let (time_reads, entropy_reads) = outside::reads();
            let summary = format!(
                "{:?} {:?} {:?} members {} sends {sent} unknown {unknown} refused {} deliveries {deliveries} acknowledgements {acks} dead letters \
                 {graves} leaderships {} members reopened {} faults {faults} {:?} system time {time_reads} system randomness {entropy_reads}",
                self.site.lease,
                self.site.habits,
                self.site.retention,
                history.member_changes.iter().filter(|change| change.ended.is_some()).count(),
                done(Outcome::Refused),
                history.leases.iter().filter(|lease| lease.begins).count(),
                history.members_reopened,
                self.nemesis.injected(),
            );
            let floor = (seconds * 1.5) as usize;
            let faults_floor = if self.plan.scenario.faults.is_empty() { 0 } else { (seconds / 12.0) as u64 };
            let vacuous = if sent < floor || deliveries < floor || acks < floor {
                Some(format!("{sent} sends, {deliveries} deliveries and {acks} acknowledgements; {floor} are the least"))
            } else if faults < faults_floor {
                Some(format!("{faults} faults; {faults_floor} are the least"))
            } else {
                None
            };
            Verdict { violations: std::mem::take(&mut self.violations), vacuous, summary }
        })
    }
}
