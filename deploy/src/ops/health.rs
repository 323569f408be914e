//! What probes are told.

use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether this process works and wants traffic. Cheap to clone; the composition root tells it what happens.
#[derive(Clone, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    work: RwLock<Vec<Box<WorkCheck>>>,
    serves: RwLock<Vec<Box<WorkCheck>>>,
}

/// Says why the process cannot work any more, or cannot serve for the time being, if so.
type WorkCheck = dyn Fn() -> Result<(), String> + Send + Sync;

/// Where in its life the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Opening its state.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what it has begun.
    Draining,
}

impl Health {
    /// Enters another phase.
    pub fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Says how to find out whether a part of the process can still work.
    pub fn check_with(&self, work: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.shared.work.write().push(Box::new(work));
    }

    /// Says how to find out whether a part of the process serves now. One that will again by itself is alive, not ready.
    pub fn ready_with(&self, serves: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.shared.serves.write().push(Box::new(serves));
    }

    /// Whether a restart would not help: the process can work, or is still opening its state.
    pub fn live(&self) -> Result<(), String> {
        self.shared.work.read().iter().try_for_each(|work| work())
    }

    /// Whether clients should be sent here.
    pub fn ready(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Starting => Err("starting".to_owned()),
            Phase::Draining => Err("draining".to_owned()),
            Phase::Ready => {
                self.live()?;
                self.shared.serves.read().iter().try_for_each(|serves| serves())
            }
        }
    }

    fn phase(&self) -> Phase {
        match self.shared.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn ready_between_start_and_drain_only() {
        let health = Health::default();
        assert_eq!((health.live(), health.ready()), (Ok(()), Err("starting".to_owned())));
        health.enter(Phase::Ready);
        assert_eq!((health.live(), health.ready()), (Ok(()), Ok(())));
        health.enter(Phase::Draining);
        assert_eq!((health.live(), health.ready()), (Ok(()), Err("draining".to_owned())));
    }

    #[test]
    fn who_serves_nothing_for_a_while_is_alive_but_not_ready() {
        let full = Arc::new(AtomicBool::new(true));
        let health = Health::default();
        let seen = full.clone();
        health.ready_with(move || if seen.load(Ordering::Relaxed) { Err("disk full".to_owned()) } else { Ok(()) });
        assert_eq!((health.live(), health.ready()), (Ok(()), Err("starting".to_owned())));
        health.enter(Phase::Ready);
        assert_eq!((health.live(), health.ready()), (Ok(()), Err("disk full".to_owned())));
        full.store(false, Ordering::Relaxed);
        assert_eq!((health.live(), health.ready()), (Ok(()), Ok(())));
    }

    #[test]
    fn neither_live_nor_ready_once_work_is_impossible() {
        let broken = Arc::new(AtomicBool::new(false));
        let health = Health::default();
        health.enter(Phase::Ready);
        let seen = broken.clone();
        health.check_with(move || if seen.load(Ordering::Relaxed) { Err("disk".to_owned()) } else { Ok(()) });
        assert_eq!((health.live(), health.ready()), (Ok(()), Ok(())));
        broken.store(true, Ordering::Relaxed);
        assert_eq!((health.live(), health.ready()), (Err("disk".to_owned()), Err("disk".to_owned())));
        health.check_with(|| Ok(()));
        assert!(health.live().is_err(), "every part must work");
    }
}
