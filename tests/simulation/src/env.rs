//! A simulated machine: the environment that the tiers are given, and the levers by which faults reach it.
//!
//! What must always hold: nothing of a machine depends on anything but its seed and the order of calls; once its power is
//! off, nothing that it does leaves it.

mod clock;
mod disk;
mod kernel;
mod network;
mod workers;

pub use clock::SimClock;
pub use disk::{DiskLies, SimFiles};
pub(crate) use kernel::dial;
pub use network::SimNetwork;
pub use workers::SimWorkers;

use crate::draw::Draw;
use crate::trace::Trace;
use gantry_proto::env::Env;
use gantry_proto::env::fake::FakeFiles;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// One machine, across all restarts of what runs on it.
pub struct Machine {
    /// Its host name.
    pub name: Arc<str>,
    /// Where its events are written.
    pub trace: Trace,
    /// Its disk.
    pub disk: FakeFiles,
    draw: Draw,
    /// Its wall clock's error in milliseconds.
    skew_millis: AtomicI64,
    /// Set while its power is off.
    off: AtomicBool,
    /// Changes of the disk that are left until the power goes off, if it is about to.
    cut_after: Mutex<Option<u64>>,
    /// How long slow work takes, in milliseconds. Zero: the disk is as fast as it should be.
    slow_millis: AtomicU64,
    /// Which calls of its disk do nothing.
    lies: DiskLies,
    /// How a process reaches the kernel.
    calls: Mutex<Option<mpsc::Sender<kernel::Call>>>,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(name: &str, seed: u64, lies: DiskLies, trace: Trace) -> Arc<Machine> {
        Arc::new(Machine {
            name: name.into(),
            trace,
            disk: FakeFiles::new(),
            draw: Draw::new(seed, name),
            skew_millis: AtomicI64::new(0),
            off: AtomicBool::new(false),
            cut_after: Mutex::new(None),
            slow_millis: AtomicU64::new(0),
            lies,
            calls: Mutex::new(None),
        })
    }

    /// What software on this machine is given. Each start draws anew.
    pub fn env(self: &Arc<Machine>) -> Env {
        Env {
            clock: Arc::new(SimClock::new(self.clone())),
            random: Arc::new(Draw::new(self.draw.bits(), "process")),
            files: Arc::new(SimFiles::new(self.clone())),
            network: Arc::new(SimNetwork::new(self.clone())),
            workers: Arc::new(SimWorkers::new(self.clone())),
        }
    }

    /// Whether its power is off.
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst)
    }

    /// Turns the power off in the middle of the change of the disk after `changes` more.
    pub fn cut_power_after(&self, changes: u64) {
        *self.cut_after.lock() = Some(changes);
    }

    /// The power stays on, unless it is off already.
    pub fn stop_cutting(&self) {
        *self.cut_after.lock() = None;
    }

    /// Power loss and restart of the machine: unsynced writes are lost as `seed` says, see [`FakeFiles::crash`].
    pub fn lose_power(&self, seed: u64) {
        self.disk.crash(seed);
        self.power_on();
    }

    /// The process dies, and the machine goes on.
    pub fn kill(&self) {
        self.disk.kill();
        self.power_on();
    }

    fn power_on(&self) {
        *self.cut_after.lock() = None;
        self.off.store(false, Ordering::SeqCst);
    }

    /// Moves the wall clock by `millis`.
    pub fn jump_clock(&self, millis: i64) {
        self.skew_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock right, and says by how many milliseconds it was ahead.
    pub fn set_clock_right(&self) -> i64 {
        self.skew_millis.swap(0, Ordering::SeqCst)
    }

    /// Makes work of the disk take up to `span`. Zero: as fast as it should be.
    pub fn slow_disk(&self, span: Duration) {
        self.slow_millis.store(span.as_millis() as u64, Ordering::SeqCst);
    }
}
