//! One receiving task: its receive call, and its acknowledgements in flight, of which there is a bounded number. What came
//! it enters into the shared tracker.

use crate::client::{Caller, Received};
use crate::clock::Moment;
use crate::flags::GroupArgs;
use crate::run::Run;
use crate::stats::{Interval, Recorder};
use crate::tracker::Sighting;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gantry_client::{Failure, to_wire};
use gantry_proto::wire::v2;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Acknowledging calls of one poller at which it stops receiving.
const ACKS_IN_FLIGHT_MAX: usize = 64;
/// A poller whose call failed rests this long: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// A server that answers "nothing" at once, instead of waiting, is not asked again sooner.
const EMPTY_POLL_MIN: Duration = Duration::from_millis(5);

/// What the pollers of a connection record into.
pub(super) struct Records {
    /// Messages, from their intended send time to reception.
    pub(super) arrivals: Arc<Recorder>,
    /// Receive calls that brought messages.
    pub(super) receives: Arc<Recorder>,
    pub(super) acks: Arc<Recorder>,
    pub(super) acknowledged: AtomicU64,
    pub(super) empty_receives: AtomicU64,
}

impl Records {
    pub(super) fn new(interval: Interval) -> Records {
        let [arrivals, receives, acks] = [(); 3].map(|()| Arc::new(Recorder::new(interval)));
        Records { arrivals, receives, acks, acknowledged: AtomicU64::new(0), empty_receives: AtomicU64::new(0) }
    }
}

pub(super) struct Poller {
    pub(super) run: Arc<Run>,
    pub(super) caller: Arc<Caller>,
    pub(super) group: Arc<GroupArgs>,
    pub(super) queue: v2::MessageQueue,
    pub(super) index: u32,
    /// Batches received so far.
    pub(super) batches: u64,
    pub(super) records: Arc<Records>,
}

/// A receive that ended.
struct Delivery {
    began: Moment,
    ended: Moment,
    received: Received,
}

/// An acknowledging call that ended.
struct Acknowledged {
    began: Moment,
    ended: Moment,
    messages: u64,
    results: Result<Vec<Result<(), Failure>>, Failure>,
}

impl Poller {
    /// Receives until closed, then waits for its acknowledgements.
    pub(super) async fn run(mut self, close: CancellationToken) {
        let stop = self.run.stop.clone();
        let mut acks = FuturesUnordered::new();
        let mut receive = None;
        let mut open = true;
        loop {
            if open && receive.is_none() && acks.len() < ACKS_IN_FLIGHT_MAX {
                receive = Some(Box::pin(self.receive()));
            }
            if receive.is_none() && acks.is_empty() {
                break;
            }
            let delivery = async {
                match &mut receive {
                    Some(receive) => receive.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(acknowledged) = acks.next() => self.settle(acknowledged),
                delivery = delivery => {
                    receive = None;
                    let messages = self.enter(delivery);
                    if let Some(batch) = self.group.ack_batch {
                        acks.extend(messages.chunks(batch as usize).map(|entries| self.ack(entries.to_vec())));
                    }
                }
                // The call in flight is given up: what it may have taken comes back to the group.
                () = close.cancelled(), if open => (open, receive) = (false, None),
                () = stop.insisted() => break,
            }
        }
    }

    fn receive(&self) -> impl Future<Output = Delivery> + use<> {
        let (caller, clock, group) = (self.caller.clone(), self.run.clock, self.group.clone());
        // Kept until a batch came, so that a server can tell a repeated attempt.
        let attempt = || format!("{}-{}-{}-{}", caller.identity.id(), self.queue.id, self.index, self.batches);
        let request = v2::ReceiveMessageRequest {
            message_queue: Some(self.queue.clone()),
            batch_size: group.receive_batch.cast_signed(),
            invisible_duration: group.invisible.map(to_wire),
            auto_renew: group.push,
            attempt_id: group.push.then(attempt),
            ..Default::default()
        };
        async move {
            let began = clock.now();
            let received = caller.receive(request, group.long_poll).await;
            let ended = clock.now();
            if received.failure.is_some() {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            } else if received.messages.is_empty() && ended.since(began) < EMPTY_POLL_MIN {
                tokio::time::sleep(EMPTY_POLL_MIN).await;
            }
            Delivery { began, ended, received }
        }
    }

    /// Counts what came, and returns what there is to acknowledge.
    fn enter(&mut self, delivery: Delivery) -> Vec<v2::AckMessageEntry> {
        let Delivery { began, ended, received } = delivery;
        if let Some(failure) = &received.failure {
            self.run.errors.add("receive", failure, 1);
        }
        if received.messages.is_empty() {
            self.records.empty_receives.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        self.batches += 1;
        let mut arrivals = Vec::with_capacity(received.messages.len());
        {
            let mut tracker = self.run.tracker.lock();
            for message in &received.messages {
                if let Sighting::First(intended) = tracker.observe(&message.body, ended) {
                    arrivals.push((intended, 1, message.body.len() as u64));
                }
            }
        }
        self.records.receives.record(ended, [(began, 0, 0)]);
        self.records.arrivals.record(ended, arrivals);
        received.messages.into_iter().map(to_ack_entry).collect()
    }

    fn ack(&self, entries: Vec<v2::AckMessageEntry>) -> impl Future<Output = Acknowledged> + use<> {
        let (caller, clock, messages) = (self.caller.clone(), self.run.clock, entries.len() as u64);
        async move {
            let began = clock.now();
            let results = caller.ack(entries).await;
            Acknowledged { began, ended: clock.now(), messages, results }
        }
    }

    fn settle(&self, acknowledged: Acknowledged) {
        let Acknowledged { began, ended, messages, results } = acknowledged;
        let results = match results {
            Ok(results) => results,
            Err(failure) => return self.run.errors.add("ack", &failure, messages),
        };
        let mut accepted = 0;
        for result in &results {
            match result {
                Ok(()) => accepted += 1,
                Err(failure) => self.run.errors.add("ack", failure, 1),
            }
        }
        self.records.acknowledged.fetch_add(accepted, Ordering::Relaxed);
        self.records.acks.record(ended, [(began, accepted, 0)]);
    }
}

fn to_ack_entry(message: v2::Message) -> v2::AckMessageEntry {
    let properties = message.system_properties.unwrap_or_default();
    v2::AckMessageEntry {
        message_id: properties.message_id,
        // A server that sends none will refuse the entry, which is then counted.
        receipt_handle: properties.receipt_handle.unwrap_or_default(),
        lite_topic: properties.lite_topic,
    }
}
