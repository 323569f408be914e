//! Machines: crashes, restarts, bad disks, wrong clocks.

use super::{Fault, Nemesis, Repair, ms};
use crate::env::Machine;
use crate::history::{ClockMove, Stall};
use crate::hosts::{self, Running, Signals, Start, Tier};
use crate::note;
use crate::site::{Order, Site};
use gantry_proto::env::fake::FakeOp;
use gantry_proto::env::{Files, OpenMode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// A machine of the cluster and what runs on it.
pub struct Host {
    pub machine: Arc<Machine>,
    /// Its purpose.
    pub tier: Tier,
    /// What a store serves.
    group: Arc<str>,
    /// Whether what runs on it is of the version before.
    older: bool,
    /// Whether its process stays stopped until the operator has it started.
    retired: bool,
    /// How often its process was started.
    starts: u64,
    /// Its process. `None`: it was stopped or has ended, and nobody has started it yet.
    running: Option<Running>,
    /// How its process is spoken to.
    signals: Signals,
    /// Whether the process is paused.
    paused: bool,
    /// How much faster than true time its own clock runs, in millionths.
    drift_ppm: i64,
    /// What its process's clock has not gone yet.
    owed: Duration,
}

impl Host {
    /// A machine on which nothing runs yet.
    pub fn new(machine: Arc<Machine>, tier: Tier, group: Arc<str>, older: bool) -> Host {
        Host {
            machine,
            tier,
            group,
            older,
            retired: false,
            starts: 0,
            running: None,
            signals: Signals::default(),
            paused: false,
            drift_ppm: 0,
            owed: Duration::ZERO,
        }
    }

    /// How far its process's clock goes within `span`. In whole milliseconds, as timers have them; the rest comes later.
    fn felt(&mut self, span: Duration) -> Duration {
        let nanos = span.as_nanos() as i64;
        self.owed += Duration::from_nanos((nanos + nanos / 1000 * self.drift_ppm / 1000) as u64);
        let felt = Duration::from_millis(self.owed.as_millis() as u64);
        self.owed -= felt;
        felt
    }

    fn start(&mut self, site: &Arc<Site>) {
        self.starts += 1;
        self.signals = Signals::default();
        let start = Start {
            machine: self.machine.clone(),
            tier: self.tier,
            number: self.starts,
            group: self.group.clone(),
            older: self.older,
            signals: self.signals.clone(),
        };
        let main = hosts::run(site.clone(), start);
        self.running = Some(Running::start(main));
    }
}

/// How a machine stops.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    Kill,
    LosePower,
}

impl Nemesis {
    /// Starts everything but `except`, for the first time.
    pub fn start_all(&mut self, except: &[String]) {
        for (name, host) in &mut self.hosts {
            if except.contains(name) {
                host.retired = true;
            } else {
                host.start(&self.site);
            }
        }
    }

    /// Does what the operator wants to have done at machines.
    pub(super) fn follow_orders(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for order in self.site.take_orders() {
            note!(self.site.recorder.trace, "operator", "{order:?}");
            match order {
                Order::Retire { host } => {
                    if self.hosts.get(&host).is_some_and(|host| host.running.is_some()) {
                        self.stop(sim, now, &host, Stop::Kill);
                    }
                    if let Some(host) = self.hosts.get_mut(&host) {
                        host.retired = true;
                    }
                }
                Order::Enlist { host, number } => {
                    if let Some(host) = self.hosts.get_mut(&host) {
                        host.tier = Tier::Controller(number);
                    }
                    self.enlist(sim, &host);
                }
            }
        }
    }

    /// Lets all processes do what they do within `span`, in any order, except those that are paused.
    pub fn drive(&mut self, span: Duration) {
        let mut order: Vec<&mut Host> = self.hosts.values_mut().collect();
        while !order.is_empty() {
            let host = order.swap_remove(self.order.below(order.len() as u64) as usize);
            let felt = host.felt(span);
            match &mut host.running {
                Some(process) if host.paused => process.miss(felt),
                Some(process) if !felt.is_zero() => process.drive(felt),
                Some(_) | None => {}
            }
        }
    }

    /// Finds machines whose power is off and processes that ended, and has them started again a while later.
    pub(super) fn supervise(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for name in self.up() {
            let host = &self.hosts[&name];
            let stop = if host.machine.is_off() {
                Stop::LosePower
            } else if host.running.as_ref().is_some_and(Running::has_ended) {
                Stop::Kill
            } else {
                continue;
            };
            self.stop(sim, now, &name, stop);
        }
    }

    pub(super) fn stop(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str, stop: Stop) {
        let restart = now + self.draw.span(ms(20)..ms(6000));
        self.stop_until(sim, restart, name, stop);
    }

    /// All of them die, and start again at once.
    pub(super) fn restart(&mut self, sim: &mut Sim<'_>, now: Duration, names: &[String]) {
        for name in names {
            if self.hosts.get(name).is_some_and(|host| host.running.is_some()) {
                note!(self.site.recorder.trace, name, "FAULT Kill, to start again at once");
                self.stop_until(sim, now + ms(20), name, Stop::Kill);
            }
        }
    }

    fn stop_until(&mut self, sim: &mut Sim<'_>, restart: Duration, name: &str, stop: Stop) {
        let seed = 1 + self.draw.bits() % u64::MAX;
        sim.crash(name);
        self.concerns(name);
        let host = self.hosts.get_mut(name).expect("only machines of the cluster are stopped");
        host.signals.die();
        (host.running, host.paused) = (None, false);
        goes_on(&self.site, name);
        match stop {
            Stop::Kill => host.machine.kill(),
            // Now and then nothing that was not synced survives.
            Stop::LosePower => {
                host.machine.lose_power(if seed.is_multiple_of(4) { 0 } else { seed });
                let failed = (name.into(), self.site.recorder.moment());
                self.site.recorder.history(|history| history.power_failures.push(failed));
            }
        }
        self.later(restart, Repair::Start(name.to_owned()));
    }

    /// Starts the process of a machine that was kept for later.
    pub(crate) fn enlist(&mut self, sim: &mut Sim<'_>, name: &str) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.retired = false;
        }
        self.start(sim, name);
    }

    pub(super) fn start(&mut self, sim: &mut Sim<'_>, name: &str) {
        if let Some(host) = self.hosts.get_mut(name)
            && host.running.is_none()
            && !host.retired
        {
            sim.bounce(name);
            host.start(&self.site);
        }
    }

    /// Pauses a process for a while: only it, or its whole machine with the network's end of it.
    pub(super) fn pause(&mut self, sim: &mut Sim<'_>, now: Duration) -> bool {
        let up = self.hosts.iter().filter(|(_, host)| host.running.is_some() && !host.paused);
        let up: Vec<String> = up.map(|(name, _)| name.clone()).collect();
        if up.is_empty() {
            return false;
        }
        let name = self.draw.pick(&up).clone();
        // Shorter than a lease, and much longer.
        let until = now + self.draw.span(ms(100)..ms(9000));
        self.concerns(&name);
        note!(self.site.recorder.trace, &name, "FAULT Pause, for {:?}", until - now);
        if self.draw.chance(40) {
            self.hold_links(sim, until, &name);
        }
        if let Some(host) = self.hosts.get_mut(&name) {
            host.paused = true;
        }
        let (machine, from) = (name.as_str().into(), self.site.recorder.moment());
        self.site.recorder.history(|history| history.stalls.push(Stall { machine, from, to: None }));
        self.later(until, Repair::GoOn(name));
        true
    }

    /// A paused process goes on.
    pub(super) fn go_on(&mut self, name: &str) {
        if let Some(host) = self.hosts.get_mut(name)
            && host.paused
        {
            note!(self.site.recorder.trace, name, "repaired the process goes on");
            host.paused = false;
            goes_on(&self.site, name);
        }
    }

    /// Asks a process to end, as whoever manages it does.
    pub(super) fn terminate(&mut self) -> bool {
        let up: Vec<String> = self.up().into_iter().filter(|name| !self.hosts[name].paused).collect();
        if up.is_empty() {
            return false;
        }
        let name = self.draw.pick(&up).clone();
        self.concerns(&name);
        note!(self.site.recorder.trace, &name, "FAULT Terminate");
        self.hosts[&name].signals.terminate();
        true
    }

    /// A machine gets the next version of what runs on it: its process is asked to end, and the next one is of that.
    pub(super) fn upgrade(&mut self) -> bool {
        let older = self.hosts.iter().filter(|(_, host)| host.older && !host.paused);
        let older: Vec<String> = older.map(|(name, _)| name.clone()).collect();
        if older.is_empty() {
            return false;
        }
        let name = self.draw.pick(&older).clone();
        self.concerns(&name);
        note!(self.site.recorder.trace, &name, "FAULT Upgrade");
        if let Some(host) = self.hosts.get_mut(&name) {
            host.older = false;
            host.signals.terminate();
        }
        true
    }

    /// Lets the clocks of processes run at rates of their own from the beginning: no two quartzes are equal.
    pub fn let_clocks_drift(&mut self, most_ppm: u64) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            let ppm = self.draw.below(2 * most_ppm + 1) as i64 - most_ppm as i64;
            self.set_rate(&name, ppm);
            self.site.recorder.history(|history| history.drift_ppm.insert(name.as_str().into(), ppm));
        }
    }

    /// Lets the clock of a process run at another rate from now on. What it runs fast for a while only is no part of the
    /// history: of a store that would matter.
    pub(super) fn set_rate(&mut self, name: &str, ppm: i64) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.drift_ppm = ppm;
            note!(self.site.recorder.trace, name, "its own clock runs {ppm} ppm fast");
        }
    }

    /// Stores: those of the group that two of them serve, if there is one.
    pub(super) fn contenders(&self) -> Vec<String> {
        let stores = self.hosts_of(|tier| tier == Tier::Store);
        let group = |name: &String| self.hosts.get(name).map(|host| host.group.clone());
        let twice = |name: &&String| stores.iter().filter(|other| group(other) == group(name)).count() > 1;
        let contenders: Vec<String> = stores.iter().filter(twice).cloned().collect();
        if contenders.is_empty() { stores } else { contenders }
    }

    /// The one of these stores that got a lease last.
    pub(super) fn leading(&self, stores: &[String]) -> Option<String> {
        self.site.recorder.history(|history| {
            let of = |process: &str| stores.iter().find(|store| process.split('#').next() == Some(store)).cloned();
            history.leases.iter().rev().find_map(|lease| of(&lease.process))
        })
    }

    pub(super) fn rate(&self, name: &str) -> i64 {
        self.hosts.get(name).map_or(0, |host| host.drift_ppm)
    }

    /// The machine whose member of the controller led when the operator looked last.
    pub(super) fn leader(&self) -> Option<String> {
        let leader = self.site.recorder.history(|history| history.statuses.last().and_then(|seen| seen.leader))?;
        self.hosts_of(|tier| matches!(tier, Tier::Controller(number) if number == leader)).pop()
    }

    pub(super) fn hosts_of(&self, kind: impl Fn(Tier) -> bool) -> Vec<String> {
        self.hosts.iter().filter(|(_, host)| kind(host.tier)).map(|(name, _)| name.clone()).collect()
    }

    /// Machines with a member of the controller that the operator has not retired.
    pub(crate) fn controllers(&self) -> Vec<String> {
        let at_work = |host: &Host| matches!(host.tier, Tier::Controller(_)) && !host.retired;
        self.hosts.iter().filter(|(_, host)| at_work(host)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn up(&self) -> Vec<String> {
        self.hosts.iter().filter(|(_, host)| host.running.is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn stop_machines(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> bool {
        let up = self.up();
        if up.is_empty() {
            return false;
        }
        let one = self.draw.pick(&up).clone();
        let chosen = match fault {
            Fault::KillProxy => {
                let proxy = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Proxy)).clone();
                if up.contains(&proxy) { vec![proxy] } else { vec![] }
            }
            Fault::LosePowerTogether => {
                let other = self.draw.pick(&up).clone();
                if other == one { vec![one] } else { vec![one, other] }
            }
            Fault::LosePowerEverywhere => up,
            Fault::KillLeaders => {
                let leader = self.leader().unwrap_or(one);
                let store = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Store)).clone();
                [leader, store].into_iter().filter(|host| up.contains(host)).collect()
            }
            _ => vec![one],
        };
        for name in &chosen {
            note!(self.site.recorder.trace, name, "FAULT {fault:?}");
            match fault {
                Fault::CutPower => {
                    let changes = self.draw.below(40);
                    self.hosts[name].machine.cut_power_after(changes);
                }
                Fault::Kill | Fault::KillProxy => self.stop(sim, now, name, Stop::Kill),
                Fault::Vanish => self.mute(sim, name, |nemesis, sim| nemesis.stop(sim, now, name, Stop::LosePower)),
                Fault::KillLeaders if self.draw.chance(50) => self.stop(sim, now, name, Stop::Kill),
                _ => self.stop(sim, now, name, Stop::LosePower),
            }
        }
        !chosen.is_empty()
    }

    pub(super) fn spoil_disk(&mut self, now: Duration, fault: Fault) -> bool {
        // Proxies keep nothing.
        let has_it = |tier| if fault == Fault::SlowStore { tier == Tier::Store } else { tier != Tier::Proxy };
        let up: Vec<String> = self.up().into_iter().filter(|name| has_it(self.hosts[name].tier)).collect();
        if up.is_empty() {
            return false;
        }
        let name = self.draw.pick(&up).clone();
        let machine = self.hosts[&name].machine.clone();
        let after = self.draw.below(30);
        let until = now + self.draw.span(ms(300)..ms(5000));
        note!(self.site.recorder.trace, &name, "FAULT {fault:?}");
        self.concerns(&name);
        if !matches!(fault, Fault::SlowDisk | Fault::SlowStore) {
            let (spoiled, at) = (name.as_str().into(), self.site.recorder.moment());
            self.site.recorder.history(|history| history.spoiled.push((spoiled, at)));
        }
        match fault {
            Fault::FailSync => {
                let op = if self.draw.chance(80) { FakeOp::Sync } else { FakeOp::SyncDir };
                machine.disk.fail_next(op, after, io::ErrorKind::Other);
            }
            Fault::FailWrite => {
                let op =
                    *self.draw.pick(&[FakeOp::Write, FakeOp::Write, FakeOp::Allocate, FakeOp::Rename, FakeOp::SetLen]);
                // EIO, or ENOSPC at any one call: a full disk alone seldom meets a file that has reserved its room.
                let kind = *self.draw.pick(&[io::ErrorKind::Other, io::ErrorKind::StorageFull]);
                machine.disk.fail_next(op, after, kind);
            }
            Fault::FailRead => machine.disk.fail_next(FakeOp::Read, after, io::ErrorKind::Other),
            Fault::SlowDisk | Fault::SlowStore => {
                let slow = self.draw.span(ms(20)..ms(2000));
                self.slow_down(now, until, &name, slow);
            }
            _ => {
                let (all, free) = machine.disk.space(Path::new("/")).unwrap_or_default();
                machine.disk.set_capacity(Some(all - free + self.draw.below(64 << 10)));
                self.later(until, Repair::RoomyDisk(name));
            }
        }
        true
    }

    /// A disk takes long for everything that it is asked for until then.
    pub(super) fn stall_disk(&mut self, now: Duration, until: Duration, name: &str) {
        let slow = self.draw.span(ms(3000)..ms(6000));
        self.slow_down(now, until, name, slow);
    }

    /// Work of a disk that begins between those takes up to `slow`, and a quarter.
    fn slow_down(&mut self, now: Duration, until: Duration, name: &str, slow: Duration) {
        self.hosts[name].machine.slow_disk(slow);
        // A write that was asked for in the end, and the flush behind it.
        let done = until + 3 * slow;
        self.site.recorder.history(|history| history.slow_disks.push((name.into(), now, done)));
        self.later(until, Repair::FastDisk(name.to_owned()));
    }

    pub(super) fn move_clock(&mut self, fault: Fault) -> bool {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        let name = self.draw.pick(&names).clone();
        let most = if fault == Fault::JumpClock { 20_000 } else { 400 };
        let millis = self.draw.below(2 * most) as i64 - most as i64;
        note!(self.site.recorder.trace, &name, "FAULT {fault:?} by {millis} ms");
        self.hosts[&name].machine.jump_clock(millis);
        let (machine, at) = (name.as_str().into(), self.site.recorder.moment());
        self.site.recorder.history(|history| history.clock_moves.push(ClockMove { machine, millis, at }));
        true
    }
}

/// Whatever stood still on that machine does so no more.
fn goes_on(site: &Site, machine: &str) {
    let now = site.recorder.moment();
    site.recorder.history(|history| {
        let stalls = history.stalls.iter_mut().filter(|stall| *stall.machine == *machine && stall.to.is_none());
        stalls.for_each(|stall| stall.to = Some(now));
    });
}

/// Copies everything that is on one disk to another one.
pub fn copy_disk(from: &dyn Files, to: &dyn Files, dir: &Path) -> io::Result<()> {
    to.create_dir_all(dir)?;
    for entry in from.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            copy_disk(from, to, &path)?;
        } else {
            let bytes = from.open(&path, OpenMode::Read)?.read_at(0, entry.len as usize)?;
            let file = to.open(&path, OpenMode::CreateNew)?;
            file.write_all_at(&bytes, 0)?;
            file.set_len(entry.len)?;
            file.sync_data()?;
        }
    }
    to.sync_dir(dir)
}
