//! Hands deliveries back to their store group when their client is gone: messages of an answer that was cut off, and leases
//! of a client that said goodbye. A task of its own does it: a call that was cancelled cannot wait for it.
//!
//! Best effort, and bounded: deliveries that do not fit into the queue, or cannot be handed back, become visible when their
//! invisible duration ends. Nobody renews them: they did not arrive.

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
/// How long handing one delivery back may take.
const PATIENCE: Duration = Duration::from_secs(3);

enum Job {
    Unsent { group: GroupId, topic: TopicId, handles: Vec<ReceiptHandle> },
    Released { owner: ClientHash },
}

/// Puts jobs into the task's queue. Cheap to clone.
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

/// The queue and the task that works on it.
pub(crate) fn handback(stores: Arc<StoreGroups>, metrics: Arc<Metrics>) -> (Handback, HandbackTask) {
    let (sender, jobs) = mpsc::channel(QUEUE_MAX);
    (Handback { jobs: sender, metrics }, HandbackTask { jobs, stores })
}

impl Handback {
    /// These deliveries never reached their consumer: visible at once, and the attempt does not count.
    pub(crate) fn unsent(&self, group: GroupId, topic: TopicId, handles: Vec<ReceiptHandle>) {
        if !handles.is_empty() {
            self.put(Job::Unsent { group, topic, handles });
        }
    }

    /// This client said goodbye: the messages that it holds become visible soon. Not for a client that merely fell silent: it
    /// may be alive at another proxy.
    pub(crate) fn release(&self, owner: ClientHash) {
        self.put(Job::Released { owner });
    }

    fn put(&self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            self.metrics.handbacks_lost.increment(1);
        }
    }
}

impl HandbackTask {
    /// Works until `stop`, and then finishes the jobs in the queue.
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
            for (store_group, answer) in stores.release(owner, limits::ABANDONED_VISIBLE_AFTER).await {
                if let Err(error) = answer {
                    let store_group = &store_group.name;
                    tracing::warn!(%owner, %store_group, %error, "leases of a client that left could not be released");
                }
            }
        }
    }
}
