//! How a run is asked to end before its time.
//!
//! The first request lets calls in flight finish; the second gives them up. Every task of a run holds a clone.

use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    insisted: CancellationToken,
}

impl Stop {
    /// Asks, and the second time insists.
    pub(crate) fn ask(&self) {
        if self.is_asked() {
            self.insisted.cancel();
        }
        self.asked.cancel();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub(crate) fn is_insisted(&self) -> bool {
        self.insisted.is_cancelled()
    }

    /// Returns when the run should end. Cancel safe.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Returns when nothing should be waited for. Cancel safe.
    pub(crate) async fn insisted(&self) {
        self.insisted.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_request_insists() {
        let stop = Stop::default();
        stop.ask();
        stop.asked().await;
        assert!(!stop.is_insisted());
        stop.clone().ask();
        stop.insisted().await;
    }
}
