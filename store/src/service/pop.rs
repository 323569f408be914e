//! Pop: leases messages to a consumer, waiting for some if there are none.

use super::{TopicReader, no_room};
use crate::commit_log::segment::Record;
use crate::commit_log::tail::NoRoom;
use crate::delivery::{DeliveryRecord, DeliveryState, PopParams};
use crate::progress::Shard;
use crate::queue_index::IndexEntry;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{PopError, PopReply, PopRequest, PoppedMessage, StoreError};
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Room for one delivery record of a full batch.
const RECORD_BYTES: usize = 4096;

impl Store {
    pub(crate) async fn pop_messages(&self, request: PopRequest) -> Result<PopReply, PopError> {
        let shard = self.shard(&request)?;
        let deadline = Instant::now() + request.wait;
        let waiting = shard.wait();
        if waiting.count() > self.config.waiting_max {
            return Err(PopError::PollingFull { waiting: waiting.count() - 1 });
        }
        loop {
            // Enabled before looking, so that nothing that arrives meanwhile is missed.
            let notified = waiting.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.stopping.is_cancelled() {
                return Ok(PopReply::default());
            }
            // Not even "there is nothing" is true of a store that does not lead.
            self.log.tenure.check()?;
            match self.try_pop(&shard, &request)? {
                Tried::Taken(taken) => return taken.confirmed().await,
                Tried::NoRoom => self.log.room_for(RECORD_BYTES).await.map_err(no_room)?,
                Tried::Nothing { due_in } => {
                    let wake_at = due_in.map_or(deadline, |due_in| deadline.min(Instant::now() + due_in));
                    let woken = tokio::time::timeout_at(wake_at, notified).await.is_ok();
                    if !woken && Instant::now() >= deadline {
                        self.log.tenure.check()?;
                        return Ok(PopReply::default());
                    }
                }
            }
        }
    }

    fn shard(&self, request: &PopRequest) -> Result<Arc<Shard>, PopError> {
        if let Some(shard) = self.progress.get(request.group, request.topic) {
            return Ok(shard);
        }
        self.view.group_by_id(request.group).ok_or(PopError::UnknownGroup(request.group))?;
        let topic = self.view.topic_by_id(request.topic).ok_or(PopError::UnknownTopic(request.topic))?;
        let queues = self.queues.open(topic.id, topic.placement.queues_on(self.home()?));
        let (shard, created) = self.progress.open(request.group, request.topic, DeliveryState::default());
        if created {
            queues.attach(shard.clone());
        }
        Ok(shard)
    }

    fn try_pop<'a>(&'a self, shard: &'a Arc<Shard>, request: &PopRequest) -> Result<Tried<'a>, PopError> {
        let group = self.view.group_by_id(request.group).ok_or(PopError::UnknownGroup(request.group))?;
        let queues = self.queues.get(request.topic).ok_or(PopError::UnknownTopic(request.topic))?;
        let reader = TopicReader::new(self, &queues);
        let now = self.log.now();
        let visible_at = now.after(request.invisible);
        let params = PopParams {
            batch_max: request.batch_max.max(1) as usize,
            visible_at,
            owner: request.owner,
            filter: &request.filter,
            max_attempts: group.max_attempts,
            inflight_max: self.config.inflight_max,
        };
        let mut state = shard.state.lock();
        let plan = state.plan_pop(now, &params, &reader)?;
        let Some(change) = plan.record else {
            if plan.inflight_full {
                return Err(PopError::InflightFull { inflight: state.inflight() });
            }
            let due_in = next_look(&state, now);
            return Ok(Tried::Nothing { due_in });
        };
        // Read before the lease is recorded: what cannot be read must not be taken.
        let read = |(entry, queue, attempt): (IndexEntry, QueueId, u32)| {
            self.read(&entry).map(|record| Delivery { record, queue, attempt })
        };
        let deliveries = plan.messages.into_iter().map(read).collect::<Result<Vec<_>, StoreError>>()?;
        let (lease, end) = match self.record(shard, &mut state, &change) {
            Ok(recorded) => recorded,
            Err(NoRoom::SegmentNotReady) => return Ok(Tried::NoRoom),
            Err(refused) => return Err(no_room(refused).into()),
        };
        let next_look = next_look(&state, now);
        drop(state);
        if plan.more {
            shard.wake_one();
        }
        if deliveries.is_empty() {
            // Only skipped messages that do not match; nothing to wait for.
            return Ok(Tried::Nothing { due_in: if plan.more { Some(Duration::ZERO) } else { next_look } });
        }
        Ok(Tried::Taken(Taken { store: self, shard, lease, end, deliveries, promised_until: visible_at }))
    }
}

/// When a receive that found nothing should look again by itself.
fn next_look(state: &DeliveryState, now: Timestamp) -> Option<Duration> {
    state.next_due_after(now).map(|due| due.since(now).max(Duration::from_millis(1)))
}

enum Tried<'a> {
    Taken(Taken<'a>),
    Nothing {
        /// When something becomes visible again.
        due_in: Option<Duration>,
    },
    NoRoom,
}

/// One message of a batch.
struct Delivery {
    record: Record,
    queue: QueueId,
    attempt: u32,
}

/// Leased, not yet confirmed. Dropping it gives everything back: the consumer went away.
struct Taken<'a> {
    store: &'a Store,
    shard: &'a Arc<Shard>,
    lease: LogOffset,
    end: LogOffset,
    deliveries: Vec<Delivery>,
    promised_until: Timestamp,
}

impl Taken<'_> {
    async fn confirmed(mut self) -> Result<PopReply, PopError> {
        self.store.log.acknowledged(self.end).await?;
        let mut messages = Vec::with_capacity(self.deliveries.len());
        for delivery in std::mem::take(&mut self.deliveries) {
            messages.push(self.popped(delivery)?);
        }
        Ok(PopReply { messages })
    }

    fn popped(&self, Delivery { record, queue, attempt }: Delivery) -> Result<PoppedMessage, StoreError> {
        let span = record.message_span().map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let receipt = Receipt {
            group: self.shard.group,
            topic: self.shard.topic,
            queue,
            queue_offset: record.header.queue_offset,
            lease: self.lease,
            promised_until: self.promised_until,
        };
        Ok(PoppedMessage {
            message: span.message(&record.bytes),
            queue,
            queue_offset: record.header.queue_offset,
            store_time: record.header.store_time,
            attempt,
            handle: self.store.sealer()?.seal(&receipt),
        })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        let now = self.store.log.now();
        let mut state = self.shard.state.lock();
        let held = |d: &&Delivery| state.check(d.queue, d.record.header.queue_offset, self.lease, now).is_ok();
        let entries: Vec<(QueueId, QueueOffset)> =
            self.deliveries.iter().filter(held).map(|d| (d.queue, d.record.header.queue_offset)).collect();
        // The consumer never saw them: the next delivery is not another attempt.
        let change = DeliveryRecord::VisibilityChanged { visible_at: now, counted: false, entries };
        // If the log takes nothing any more the lease ends by itself.
        let _ = self.store.record(self.shard, &mut state, &change);
        drop(state);
        self.shard.wake_one();
    }
}
