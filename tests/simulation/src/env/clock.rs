use super::Machine;
use crate::outside::EPOCH_MILLIS;
use gantry_proto::env::Clock;
use gantry_proto::model::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A machine's wall clock: the true time and the machine's error.
pub struct SimClock {
    machine: Arc<Machine>,
}

impl SimClock {
    pub(crate) fn new(machine: Arc<Machine>) -> SimClock {
        SimClock { machine }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let right = EPOCH_MILLIS + self.machine.trace.now().as_millis() as u64;
        Timestamp::from_millis(right.saturating_add_signed(self.machine.skew_millis.load(Ordering::SeqCst)))
    }
}
