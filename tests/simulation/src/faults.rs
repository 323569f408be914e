//! What goes wrong, when, and how it is made good again. Also the supervisor that starts processes that
//! ended, and who lets all of them run.
//!
//! Works between the steps of the simulation, when nobody runs. What must always hold: every fault is written to the trace,
//! and [`Nemesis::heal`] undoes all of them.

mod damage;
mod machines;
mod network;

use crate::draw::Draw;
use crate::history::ClockMove;
use crate::hosts::Tier;
use crate::note;
use crate::scenario::Scenario;
use crate::site::{Site, Stage};
pub use machines::{Host, copy_disk};
use network::Links;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies; its machine goes on.
    Kill,
    /// A proxy does.
    KillProxy,
    /// A process is asked to end, and does so in its own time.
    Terminate,
    /// A machine gets the next version of what runs on it, if it has an older one.
    Upgrade,
    /// A process does nothing for a while, then goes on as if no time had passed, except on its clocks.
    Pause,
    /// A machine loses power between two steps.
    LosePower,
    /// A machine loses power in the middle of a change of its disk.
    CutPower,
    /// Two machines lose power at the same time.
    LosePowerTogether,
    /// All machines of the cluster lose power at the same time.
    LosePowerEverywhere,
    /// The leading controller and a store die at the same time.
    KillLeaders,
    /// The leading controller is cut off from the other members until they have elected another one; then those die, and it
    /// reaches them when they start again.
    OldLeader,
    /// The leading controller is cut off from the other members; its own clock runs slow meanwhile, and theirs fast.
    SlowLeader,
    /// The machines fall into two parts that do not hear each other.
    Partition,
    /// One machine hears nobody and nobody hears it.
    Isolate,
    /// A store is cut off from the controller, and perhaps a proxy, too, which still reaches the store.
    IsolateStore,
    /// A proxy is cut off from the controller: it goes on with what it knows.
    IsolateProxy,
    /// A store is cut off from the controller for about as long as its lease lasts, and its disk is very slow meanwhile.
    StallCutOff,
    /// One machine does not hear another one, which hears it.
    CutOneWay,
    /// What two machines say to each other is held back for a while.
    Hold,
    /// A link gets slow.
    Delay,
    /// A link loses segments.
    Lose,
    /// A machine loses power, and its peers' connections stay open.
    Vanish,
    /// A sync fails.
    FailSync,
    /// A write fails.
    FailWrite,
    /// A read fails.
    FailRead,
    /// A disk is slow for a while.
    SlowDisk,
    /// The disk of a store is.
    SlowStore,
    /// A disk is full for a while.
    FullDisk,
    /// A byte changes on a store's disk, within a message that was acknowledged.
    FlipMessage,
    /// A byte changes within an index of a store.
    FlipIndex,
    /// A byte changes within a checkpoint of a store.
    FlipCheckpoint,
    /// All that is on a store's disk is lost.
    LoseDisk,
    /// A wall clock jumps.
    JumpClock,
    /// A wall clock is a little wrong for a while.
    SkewClock,
}

impl Fault {
    /// All kinds.
    const ALL: [Fault; 34] = [
        Fault::Kill,
        Fault::KillProxy,
        Fault::Terminate,
        Fault::Upgrade,
        Fault::Pause,
        Fault::LosePower,
        Fault::CutPower,
        Fault::LosePowerTogether,
        Fault::LosePowerEverywhere,
        Fault::KillLeaders,
        Fault::OldLeader,
        Fault::SlowLeader,
        Fault::Partition,
        Fault::Isolate,
        Fault::IsolateStore,
        Fault::IsolateProxy,
        Fault::StallCutOff,
        Fault::CutOneWay,
        Fault::Hold,
        Fault::Delay,
        Fault::Lose,
        Fault::Vanish,
        Fault::FailSync,
        Fault::FailWrite,
        Fault::FailRead,
        Fault::SlowDisk,
        Fault::SlowStore,
        Fault::FullDisk,
        Fault::FlipMessage,
        Fault::FlipIndex,
        Fault::FlipCheckpoint,
        Fault::LoseDisk,
        Fault::JumpClock,
        Fault::SkewClock,
    ];

    /// The kind of that name, as it is printed.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name)
    }
}

/// What is due later.
#[derive(Clone, Debug)]
enum Repair {
    Start(String),
    GoOn(String),
    Links(network::Broken),
    FastDisk(String),
    RoomyDisk(String),
    /// These die, and start at once.
    Restart(Vec<String>),
    /// Rates of processes' own clocks.
    Rates(Vec<(String, i64)>),
}

/// Injects faults.
pub struct Nemesis {
    pub(crate) site: Arc<Site>,
    pub(crate) draw: Draw,
    scenario: Scenario,
    pub(crate) hosts: BTreeMap<String, Host>,
    links: Links,
    repairs: Vec<(Duration, Repair)>,
    /// In which order processes run.
    order: Draw,
    next: Duration,
    injected: BTreeMap<Fault, u64>,
}

impl Nemesis {
    /// Nothing is wrong yet.
    pub fn new(site: Arc<Site>, scenario: Scenario, hosts: BTreeMap<String, Host>) -> Nemesis {
        let draw = Draw::new(site.seed, "faults");
        let links = Links::new(hosts.keys().cloned().chain(site.clients()).collect());
        let order = Draw::new(site.seed, "order");
        let (repairs, next, injected) = (Vec::new(), Duration::ZERO, BTreeMap::new());
        Nemesis { site, draw, scenario, hosts, links, repairs, order, next, injected }
    }

    /// How often each fault was injected.
    pub fn injected(&self) -> &BTreeMap<Fault, u64> {
        &self.injected
    }

    /// Gives every link a character of its own.
    pub fn prepare(&self, sim: &Sim<'_>) {
        for (a, b) in self.links.pairs() {
            sim.set_link_max_message_latency(a.as_str(), b.as_str(), self.draw.span(ms(1)..ms(15)));
        }
    }

    /// One step.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.follow_orders(sim, now);
        self.supervise(sim, now);
        let (due, later): (Vec<_>, Vec<_>) = self.repairs.drain(..).partition(|(at, _)| *at <= now);
        self.repairs = later;
        for (_, repair) in due {
            match repair {
                Repair::Restart(hosts) => self.restart(sim, now, &hosts),
                repair => self.repair(sim, repair),
            }
        }
        if self.site.stage() != Stage::Run || self.scenario.faults.is_empty() || now < self.next {
            return;
        }
        if self.next.is_zero() {
            // Let work begin.
            self.next = now + self.draw.span(ms(500)..ms(2500));
            return;
        }
        let fault = self.choose();
        if self.inject(sim, now, fault) {
            *self.injected.entry(fault).or_default() += 1;
        }
        self.next = now + self.draw.span(ms(100)..2 * self.scenario.pause);
    }

    /// Undoes everything, at once. Says how far a store's clock was wrong at most: it does not go back, it waits.
    pub fn heal(&mut self, sim: &mut Sim<'_>) -> Duration {
        let mut wrong = Duration::ZERO;
        note!(self.site.recorder.trace, "-", "all faults are over");
        for (_, repair) in std::mem::take(&mut self.repairs) {
            self.repair(sim, repair);
        }
        for (name, host) in &self.hosts {
            let millis = host.machine.set_clock_right();
            if millis != 0 {
                let (machine, at) = (name.as_str().into(), self.site.recorder.moment());
                self.site
                    .recorder
                    .history(|history| history.clock_moves.push(ClockMove { machine, millis: -millis, at }));
            }
            host.machine.stop_cutting();
            if host.tier == Tier::Store {
                wrong = wrong.max(Duration::from_millis(millis.unsigned_abs()));
            }
        }
        wrong
    }

    /// Notes that a fault concerns one of the controller's members, if that machine is one.
    pub(super) fn concerns(&self, machine: &str) {
        if self.hosts.get(machine).is_some_and(|host| matches!(host.tier, Tier::Controller(_))) {
            let at = self.site.recorder.moment();
            self.site.recorder.history(|history| history.disturbed.push(at));
        }
    }

    fn choose(&self) -> Fault {
        let total = self.scenario.faults.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.draw.below(total);
        for (fault, weight) in &self.scenario.faults {
            if drawn < *weight {
                return *fault;
            }
            drawn -= weight;
        }
        self.scenario.faults[0].0
    }

    /// Whether a leading member of the controller is cut off and the others are still to be dealt with.
    fn leader_is_cut_off(&self) -> bool {
        self.repairs.iter().any(|(_, repair)| matches!(repair, Repair::Restart(_) | Repair::Rates(_)))
    }

    fn later(&mut self, at: Duration, repair: Repair) {
        self.repairs.push((at, repair));
    }

    fn repair(&mut self, sim: &mut Sim<'_>, repair: Repair) {
        match repair {
            Repair::Start(host) => self.start(sim, &host),
            Repair::GoOn(host) => self.go_on(&host),
            Repair::Links(broken) => {
                note!(self.site.recorder.trace, "-", "repaired {broken}");
                self.links.repair(sim, &broken);
            }
            Repair::FastDisk(host) => {
                note!(self.site.recorder.trace, &host, "repaired the disk is fast again");
                self.hosts[&host].machine.slow_disk(Duration::ZERO);
            }
            Repair::RoomyDisk(host) => {
                note!(self.site.recorder.trace, &host, "repaired the disk has room again");
                self.hosts[&host].machine.disk.set_capacity(None);
            }
            Repair::Rates(rates) => {
                for (name, ppm) in rates {
                    self.set_rate(&name, ppm);
                }
            }
            // All faults are over.
            Repair::Restart(_) => {}
        }
    }

    /// False: this fault cannot be injected now.
    fn inject(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> bool {
        match fault {
            Fault::Pause => self.pause(sim, now),
            Fault::Terminate => self.terminate(),
            Fault::Upgrade => self.upgrade(),
            Fault::Kill
            | Fault::KillProxy
            | Fault::LosePower
            | Fault::CutPower
            | Fault::LosePowerTogether
            | Fault::LosePowerEverywhere
            | Fault::KillLeaders
            | Fault::Vanish => self.stop_machines(sim, now, fault),
            Fault::OldLeader | Fault::SlowLeader => self.cut_off_the_leader(sim, now, fault),
            Fault::Partition
            | Fault::Isolate
            | Fault::IsolateStore
            | Fault::IsolateProxy
            | Fault::StallCutOff
            | Fault::CutOneWay
            | Fault::Hold
            | Fault::Delay
            | Fault::Lose => self.break_links(sim, now, fault),
            Fault::FailSync
            | Fault::FailWrite
            | Fault::FailRead
            | Fault::SlowDisk
            | Fault::SlowStore
            | Fault::FullDisk => self.spoil_disk(now, fault),
            Fault::FlipMessage | Fault::FlipIndex | Fault::FlipCheckpoint => self.flip_a_byte(fault),
            Fault::LoseDisk => self.lose_a_disk(sim, now),
            Fault::JumpClock | Fault::SkewClock => self.move_clock(fault),
        }
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
