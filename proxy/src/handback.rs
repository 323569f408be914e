//! Gives deliveries back to the store when the client they were for is gone: messages of an answer that was cut off, and
//! leases of a client that left. One owned task does it, so that a cancelled call can leave its work behind.
//!
//! Best effort, and bounded: what does not fit into the queue becomes visible when its invisible duration ends.

use crate::metrics::Metrics;
use futures_util::StreamExt as _;
use futures_util::stream;
use gantry_proto::contract::{ChangeInvisibleRequest, ReleaseRequest, StoreService};
use gantry_proto::model::{ClientHash, GroupId, ReceiptHandle, TopicId, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Jobs that may wait.
const QUEUE_MAX: usize = 4096;
/// Calls to the store at one time.
const CONCURRENCY: usize = 32;

/// What there is to give back.
enum Job {
    Unsent { group: GroupId, topic: TopicId, handles: Vec<ReceiptHandle> },
    Released { owner: ClientHash },
}

/// Leaves work for the task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handback {
    jobs: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// The task's end of the queue.
pub(crate) struct HandbackTask {
    jobs: mpsc::Receiver<Job>,
    store: Arc<dyn StoreService>,
}

/// A way to leave work and the task that does it.
pub(crate) fn handback(store: Arc<dyn StoreService>, metrics: Arc<Metrics>) -> (Handback, HandbackTask) {
    let (sender, jobs) = mpsc::channel(QUEUE_MAX);
    (Handback { jobs: sender, metrics }, HandbackTask { jobs, store })
}

impl Handback {
    /// These deliveries never reached their consumer: visible at once, and the attempt does not count.
    pub(crate) fn unsent(&self, group: GroupId, topic: TopicId, handles: Vec<ReceiptHandle>) {
        if !handles.is_empty() {
            self.leave(Job::Unsent { group, topic, handles });
        }
    }

    /// This client is gone: what it holds becomes visible soon.
    pub(crate) fn release(&self, owner: ClientHash) {
        self.leave(Job::Released { owner });
    }

    fn leave(&self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            self.metrics.handbacks_lost.increment(1);
        }
    }
}

impl HandbackTask {
    /// Works until `stop`, and then on what is left in the queue.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let store = &*self.store;
        let queue = stream::unfold((self.jobs, stop), |(mut jobs, stop)| async move {
            let job = tokio::select! {
                biased;
                job = jobs.recv() => job,
                () = stop.cancelled(), if !jobs.is_closed() => {
                    jobs.close();
                    jobs.recv().await
                }
            };
            Some((job?, (jobs, stop)))
        });
        queue.for_each_concurrent(CONCURRENCY, |job| carry_out(store, job)).await;
    }
}

async fn carry_out(store: &dyn StoreService, job: Job) {
    match job {
        Job::Unsent { group, topic, handles } => {
            for handle in handles {
                let request = ChangeInvisibleRequest { group, topic, handle, invisible: Duration::ZERO, suspend: true };
                if let Err(error) = store.change_invisible(request).await {
                    tracing::debug!(%group, %topic, %error, "a delivery could not be given back");
                }
            }
        }
        Job::Released { owner } => {
            let request = ReleaseRequest { owner, invisible: limits::ABANDONED_VISIBLE_AFTER };
            if let Err(error) = store.release(request).await {
                tracing::warn!(%owner, %error, "leases of a vanished client could not be released");
            }
        }
    }
}
