//! Machines: crashes, restarts, bad disks, wrong clocks.

use super::{Fault, Nemesis, Repair, ms};
use crate::env::Machine;
use crate::hosts::Tier;
use crate::note;
use gantry_proto::env::fake::FakeOp;
use gantry_proto::env::{Files, OpenMode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// A machine of the cluster and what runs on it.
pub struct Host {
    /// The machine.
    pub machine: Arc<Machine>,
    /// Its purpose.
    pub tier: Tier,
    /// Whether it was stopped or has ended, and nobody has started it yet.
    pub down: bool,
}

impl Host {
    /// A machine that is up.
    pub fn new(machine: Arc<Machine>, tier: Tier) -> Host {
        Host { machine, tier, down: false }
    }
}

/// How a machine stops.
#[derive(Clone, Copy)]
enum Stop {
    Kill,
    LosePower,
}

impl Nemesis {
    /// Finds machines whose power is off and processes that ended, and has them started again a while later.
    pub(super) fn supervise(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let names: Vec<String> =
            self.hosts.iter().filter(|(_, host)| !host.down).map(|(name, _)| name.clone()).collect();
        for name in names {
            let stop = if self.hosts[&name].machine.is_off() {
                Stop::LosePower
            } else if !sim.is_host_running(name.as_str()) {
                Stop::Kill
            } else {
                continue;
            };
            self.stop(sim, now, &name, stop);
        }
    }

    fn stop(&mut self, sim: &mut Sim<'_>, now: Duration, name: &str, stop: Stop) {
        let restart = now + self.draw.span(ms(20)..ms(6000));
        let seed = 1 + self.draw.bits() % u64::MAX;
        sim.crash(name);
        let host = self.hosts.get_mut(name).expect("only machines of the cluster are stopped");
        host.down = true;
        match stop {
            Stop::Kill => host.machine.kill(),
            // Now and then nothing that was not synced survives.
            Stop::LosePower => host.machine.lose_power(if seed.is_multiple_of(4) { 0 } else { seed }),
        }
        self.later(restart, Repair::Start(name.to_owned()));
    }

    pub(super) fn start(&mut self, sim: &mut Sim<'_>, name: &str) {
        if let Some(host) = self.hosts.get_mut(name)
            && host.down
        {
            host.down = false;
            sim.bounce(name);
        }
    }

    pub(super) fn hosts_of(&self, kind: impl Fn(Tier) -> bool) -> Vec<String> {
        self.hosts.iter().filter(|(_, host)| kind(host.tier)).map(|(name, _)| name.clone()).collect()
    }

    fn up(&self) -> Vec<String> {
        self.hosts.iter().filter(|(_, host)| !host.down).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn stop_machines(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> bool {
        let up = self.up();
        if up.is_empty() {
            return false;
        }
        let one = self.draw.pick(&up).clone();
        let chosen = match fault {
            Fault::LosePowerTogether => {
                let other = self.draw.pick(&up).clone();
                if other == one { vec![one] } else { vec![one, other] }
            }
            Fault::LosePowerEverywhere => up,
            Fault::KillLeaders => {
                let leader = self.site.recorder.history(|history| history.statuses.last().and_then(|seen| seen.leader));
                let leader = leader.map_or(one, |number| format!("controller-{number}"));
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
                Fault::Kill => self.stop(sim, now, name, Stop::Kill),
                Fault::Vanish => self.mute(sim, name, |nemesis, sim| nemesis.stop(sim, now, name, Stop::LosePower)),
                Fault::KillLeaders if self.draw.chance(50) => self.stop(sim, now, name, Stop::Kill),
                _ => self.stop(sim, now, name, Stop::LosePower),
            }
        }
        !chosen.is_empty()
    }

    pub(super) fn spoil_disk(&mut self, now: Duration, fault: Fault) -> bool {
        // Proxies keep nothing.
        let up: Vec<String> = self.up().into_iter().filter(|name| self.hosts[name].tier != Tier::Proxy).collect();
        if up.is_empty() {
            return false;
        }
        let name = self.draw.pick(&up).clone();
        let machine = self.hosts[&name].machine.clone();
        let after = self.draw.below(30);
        let until = now + self.draw.span(ms(300)..ms(5000));
        note!(self.site.recorder.trace, &name, "FAULT {fault:?}");
        match fault {
            Fault::FailSync => {
                let op = if self.draw.chance(80) { FakeOp::Sync } else { FakeOp::SyncDir };
                machine.disk.fail_next(op, after, io::ErrorKind::Other);
            }
            Fault::FailWrite => {
                let op =
                    *self.draw.pick(&[FakeOp::Write, FakeOp::Write, FakeOp::Allocate, FakeOp::Rename, FakeOp::SetLen]);
                machine.disk.fail_next(op, after, io::ErrorKind::Other);
            }
            Fault::FailRead => machine.disk.fail_next(FakeOp::Read, after, io::ErrorKind::Other),
            Fault::SlowDisk => {
                machine.slow_disk(self.draw.span(ms(20)..ms(2000)));
                self.later(until, Repair::FastDisk(name));
            }
            _ => {
                let (all, free) = machine.disk.space(Path::new("/")).unwrap_or_default();
                machine.disk.set_capacity(Some(all - free + self.draw.below(64 << 10)));
                self.later(until, Repair::RoomyDisk(name));
            }
        }
        true
    }

    pub(super) fn move_clock(&mut self, fault: Fault) -> bool {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        let name = self.draw.pick(&names).clone();
        let most = if fault == Fault::JumpClock { 20_000 } else { 400 };
        let millis = self.draw.below(2 * most) as i64 - most as i64;
        note!(self.site.recorder.trace, &name, "FAULT {fault:?} by {millis} ms");
        self.hosts[&name].machine.jump_clock(millis);
        self.site.recorder.history(|history| history.clocks_moved += Duration::from_millis(millis.unsigned_abs()));
        true
    }
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
