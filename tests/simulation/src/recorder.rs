//! Writes what happens into the history and, as lines, into the trace.

use crate::history::{History, Moment};
use crate::trace::Trace;
use parking_lot::Mutex;
use std::sync::Arc;

/// Records. Clones record into the same history.
#[derive(Clone)]
pub struct Recorder {
    /// Where lines go.
    pub trace: Trace,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// An empty history.
    pub fn new(trace: Trace) -> Recorder {
        Recorder { trace, history: Arc::default() }
    }

    /// Now.
    pub fn moment(&self) -> Moment {
        self.history.lock().moment(self.trace.now())
    }

    /// Changes or reads the history.
    pub fn history<T>(&self, with: impl FnOnce(&mut History) -> T) -> T {
        with(&mut self.history.lock())
    }
}
