//! What a test wants to go wrong, and when.

use std::io;

/// Kinds of calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeOp {
    /// Opening, creating, listing, locking.
    Open,
    Read,
    Write,
    Sync,
    Allocate,
    SetLen,
    Rename,
    Remove,
    SyncDir,
}

/// What is to become of one call.
pub(super) enum Fate {
    Proceed,
    /// The power fails during it: it may have reached the disk, but nobody hears of it.
    Vanish(io::Error),
    Fail(io::Error),
}

/// Planned failures and the power switch.
#[derive(Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    /// Calls left that may change the disk; the one after the last is interrupted.
    power_left: Option<u64>,
    off: bool,
    mutations: u64,
}

struct Planned {
    op: FakeOp,
    after: u64,
    kind: io::ErrorKind,
}

impl Faults {
    pub(super) fn fail_next(&mut self, op: FakeOp, after: u64, kind: io::ErrorKind) {
        self.planned.push(Planned { op, after, kind });
    }

    pub(super) fn power_off_after(&mut self, mutations: u64) {
        self.power_left = Some(mutations);
    }

    pub(super) fn mutations(&self) -> u64 {
        self.mutations
    }

    /// Power on, nothing planned.
    pub(super) fn clear(&mut self) {
        *self = Faults { mutations: self.mutations, ..Faults::default() };
    }

    /// Decides one call. `mutates` is false for calls that cannot change the disk.
    pub(super) fn decide(&mut self, op: FakeOp, mutates: bool) -> Fate {
        if self.off {
            return Fate::Fail(power_is_off());
        }
        if mutates {
            self.mutations += 1;
            match &mut self.power_left {
                Some(0) => {
                    self.off = true;
                    return Fate::Vanish(power_is_off());
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        let mut due = None;
        for (index, planned) in self.planned.iter_mut().enumerate().filter(|(_, planned)| planned.op == op) {
            if planned.after == 0 {
                due = due.or(Some(index));
            } else {
                planned.after -= 1;
            }
        }
        match due {
            Some(index) => {
                let kind = self.planned.remove(index).kind;
                Fate::Fail(io::Error::new(kind, format!("planned failure of {op:?}")))
            }
            None => Fate::Proceed,
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the machine's power is off")
}
