//! Gives deliveries back to their store group when the client they were for is gone: messages of an answer that was cut off, and
//! leases of a client that left. One owned task does it, so that a cancelled call can leave its work behind.
//!
//! Best effort, and bounded: what does not fit into the queue becomes visible when its invisible duration ends.

use crate::metrics::Metrics;
use crate::stores::{Deadline, StoreGroups};
use futures_util::StreamExt as _;
use futures_util::stream;
use gantry_proto::model::{ClientHash, GroupId, ReceiptHandle, TopicId, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Jobs that may wait.
const QUEUE_MAX: usize = 4096;
/// Jobs that are worked on at one time.
const CONCURRENCY: usize = 32;
/// How long one delivery may take to be given back.
const PATIENCE: Duration = Duration::from_secs(3);

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
    stores: Arc<StoreGroups>,
}

/// A way to leave work and the task that does it.
pub(crate) fn handback(stores: Arc<StoreGroups>, metrics: Arc<Metrics>) -> (Handback, HandbackTask) {
    let (sender, jobs) = mpsc::channel(QUEUE_MAX);
    (Handback { jobs: sender, metrics }, HandbackTask { jobs, stores })
}

impl Handback {
    /// These deliveries never reached their consumer: visible at once, and the attempt does not count.
    pub(crate) fn unsent(&self, group: GroupId, topic: TopicId, handles: Vec<ReceiptHandle>) {
        if !handles.is_empty() {
            self.leave(Job::Unsent { group, topic, handles });
        }
    }

    /// This client said goodbye: what it holds becomes visible soon. Not for one that merely fell silent: it may be
    /// alive at another proxy.
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
        let stores = &*self.stores;
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
        queue.for_each_concurrent(CONCURRENCY, |job| carry_out(stores, job)).await;
    }
}

async fn carry_out(stores: &StoreGroups, job: Job) {
    match job {
        Job::Unsent { group, topic, handles } => {
            for handle in handles {
                let (at_once, deadline) = ((Duration::ZERO, true), Deadline::after(PATIENCE));
                if let Err(error) = stores.change_invisible(group, topic, &handle, at_once, deadline).await {
                    tracing::debug!(%group, %topic, %error, "a delivery could not be given back");
                }
            }
        }
        Job::Released { owner } => {
            for (group, answer) in stores.release(owner, limits::ABANDONED_VISIBLE_AFTER).await {
                if let Err(error) = answer {
                    let store_group = &group.name;
                    tracing::warn!(%owner, %store_group, %error, "leases of a client that left could not be released");
                }
            }
        }
    }
}
