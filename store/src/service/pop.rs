//! Pop: leases messages to a consumer, waiting for some if there are none.
//!
//! Which messages those are is decided, and their lease recorded, under the shard's lock, by what the index says. They are
//! read after that, under no lock. What then turns out not to be deliverable is dealt with by another record: a damaged
//! message is set aside, one that is not wanted after all or has expired is dropped, and one that cannot be read at the
//! moment comes back a little later. None of them keeps the others from the consumer.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests;

use super::TopicReader;
use super::read::ReadMessage;
use crate::commit_log::record::MessageSpan;
use crate::commit_log::segment::Record;
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::delivery::{DeliveryRecord, DeliveryState, PopParams, Renewal};
use crate::progress::Shard;
use crate::queue_index::IndexEntry;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{PopError, PopReply, PopRequest, PoppedMessage, StoreError};
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{
    Epoch, FilterExpression, LogOffset, MessageHead, QueueId, QueueOffset, Removed, TagFilter, Timestamp,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Room for one delivery record of a full batch.
const RECORD_BYTES: usize = 4096;
/// When a message that could not be read is tried again.
const READ_RETRY: Duration = Duration::from_secs(10);

impl Store {
    /// See [`StoreService::pop`](gantry_proto::contract::StoreService::pop).
    pub async fn pop(&self, request: PopRequest) -> Result<PopReply, PopError> {
        self.check_understood(Removed::Topic(request.topic))?;
        self.check_understood(Removed::Group(request.group))?;
        let shard = self.shard(&request)?;
        let deadline = Instant::now() + request.wait;
        let waiting = shard.wait();
        if waiting.count() > self.config.waiting_max {
            return Err(PopError::PollingFull { waiting: waiting.count() - 1 });
        }
        let mut wake_up = WakeUp { shard: &shard, held: false };
        loop {
            // Enabled before looking, so that nothing that arrives meanwhile is missed.
            let notified = waiting.notified();
            tokio::pin!(notified);
            wake_up.held |= notified.as_mut().enable();
            if self.stopping.is_cancelled() {
                return Ok(PopReply::default());
            }
            // Not even "there is nothing" is true of a store that does not lead.
            self.log.tenure.check()?;
            let tried = self.try_pop(&shard, &request)?;
            wake_up.held &= matches!(tried, Tried::NoRoom);
            match tried {
                Tried::Leased(leased) => {
                    let messages = leased.read(&request.filter).await?;
                    if !messages.is_empty() {
                        return Ok(PopReply { messages });
                    }
                    // None of them could be delivered; others may.
                }
                Tried::NoRoom => self.log.room_for(Purpose::Progress, RECORD_BYTES).await.map_err(StoreError::from)?,
                Tried::Again => {}
                Tried::Full { inflight } => return Err(PopError::InflightFull { inflight }),
                // Whoever puts a message there wakes it, and so does the end of a delivery, and room for more of them.
                Tried::Nothing => {
                    if tokio::time::timeout_at(deadline, notified).await.is_err() {
                        self.log.tenure.check()?;
                        return Ok(PopReply::default());
                    }
                    wake_up.held = true;
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
        let state = DeliveryState::default();
        Ok(self.progress.open(request.group, request.topic, state, |shard| queues.attach(shard.clone())))
    }

    fn try_pop<'a>(&'a self, shard: &'a Arc<Shard>, request: &PopRequest) -> Result<Tried<'a>, PopError> {
        let group = self.view.group_by_id(request.group).ok_or(PopError::UnknownGroup(request.group))?;
        let queues = self.queues.get(request.topic).filter(|_| !shard.is_closed());
        let queues = queues.ok_or(PopError::UnknownTopic(request.topic))?;
        let now = self.log.now();
        let visible_at = now.after(request.invisible);
        // What is not known to have arrived is not renewed beyond its first lease.
        let latest = if request.once_arrived { visible_at } else { now.after(AUTO_RENEW_MAX) };
        let params = PopParams {
            batch_max: request.batch_max.max(1) as usize,
            bytes_max: request.bytes_max,
            visible_at,
            renewal: request.owner.map(|owner| Renewal { owner, latest }),
            filter: &request.filter,
            max_attempts: group.max_attempts,
            inflight_max: self.config.inflight_max,
        };
        let mut state = shard.lock();
        // Not before: it knows every queue that has grown by then.
        let reader = TopicReader::new(&queues);
        let plan = state.plan_pop(now, &params, &reader)?;
        if plan.inflight_full {
            state.is_full(params.inflight_max);
        }
        let Some(change) = plan.record else {
            let inflight = state.inflight();
            return Ok(if plan.inflight_full { Tried::Full { inflight } } else { Tried::Nothing });
        };
        let (lease, end) = match self.record(shard, &mut state, &change) {
            Ok(recorded) => recorded,
            Err(NoRoom::SegmentNotReady) => return Ok(Tried::NoRoom),
            Err(refused) => return Err(StoreError::from(refused).into()),
        };
        drop(state);
        if plan.more {
            shard.wake_one();
        }
        if plan.messages.is_empty() {
            // Only skipped messages that do not match; nothing to wait for.
            return Ok(if plan.more { Tried::Again } else { Tried::Nothing });
        }
        // If another epoch has begun since, this delivery is never called a success.
        let epoch = self.epoch();
        Ok(Tried::Leased(Leased {
            store: self,
            shard,
            lease,
            epoch,
            end,
            messages: plan.messages,
            promised_until: visible_at,
        }))
    }
}

enum Tried<'a> {
    Leased(Leased<'a>),
    Nothing,
    /// There is something, but the group may not hold more.
    Full {
        inflight: usize,
    },
    /// There may be something behind what was skipped.
    Again,
    /// It has not looked: the log has no room for a lease now.
    NoRoom,
}

/// What a receive owes to the others while it was woken and has not found out whether there is something: if it ends before,
/// because of an error or because its consumer went away, another one is woken.
struct WakeUp<'a> {
    shard: &'a Shard,
    held: bool,
}

impl Drop for WakeUp<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shard.wake_one();
        }
    }
}

/// Leased, not yet handed over. Dropping it gives everything back: the consumer went away.
struct Leased<'a> {
    store: &'a Store,
    shard: &'a Arc<Shard>,
    lease: LogOffset,
    epoch: Epoch,
    end: LogOffset,
    messages: Vec<(IndexEntry, QueueId, u32)>,
    promised_until: Timestamp,
}

/// What reading brought to light of messages that cannot be delivered.
#[derive(Default)]
struct Undeliverable {
    damaged: Vec<(QueueId, QueueOffset, String)>,
    dropped: Vec<(QueueId, QueueOffset)>,
    failed: Vec<(QueueId, QueueOffset)>,
}

impl Leased<'_> {
    /// The messages that the consumer gets, once their lease is written.
    async fn read(mut self, filter: &FilterExpression) -> Result<Vec<PoppedMessage>, PopError> {
        let entries = self.messages.iter().map(|(entry, queue, _)| (*queue, *entry)).collect();
        let found = self.store.read_messages(self.shard.topic, entries).await?;
        let mut undeliverable = Undeliverable::default();
        let mut messages = Vec::with_capacity(found.len());
        for ((entry, queue, attempt), found) in self.messages.iter().zip(found) {
            let place = (*queue, entry.queue_offset);
            match found {
                ReadMessage::Message(record, span) => match wants(filter, &record, &span) {
                    Ok(true) => messages.push(self.popped(&record, &span, *attempt)?),
                    Ok(false) => undeliverable.dropped.push(place),
                    Err(why) => undeliverable.damaged.push((place.0, place.1, why)),
                },
                ReadMessage::Gone => undeliverable.dropped.push(place),
                ReadMessage::Damaged(why) => undeliverable.damaged.push((place.0, place.1, why)),
                ReadMessage::Failed(why) => {
                    tracing::error!(queue = %place.0, offset = %place.1, why, "a message cannot be read now; it is tried again");
                    undeliverable.failed.push(place);
                }
            }
        }
        self.settle(undeliverable).await?;
        if !messages.is_empty() {
            self.store.log.promised(self.end).await?;
        }
        self.messages.clear();
        Ok(messages)
    }

    /// Records what cannot be delivered, so that it does not come again.
    async fn settle(&mut self, undeliverable: Undeliverable) -> Result<(), PopError> {
        let Undeliverable { damaged, dropped, failed } = undeliverable;
        if damaged.is_empty() && dropped.is_empty() && failed.is_empty() {
            return Ok(());
        }
        loop {
            match self.try_settle(&damaged, &dropped, &failed) {
                Err(NoRoom::SegmentNotReady) => {
                    self.store.log.room_for(Purpose::Progress, 3 * RECORD_BYTES).await.map_err(StoreError::from)?
                }
                settled => return Ok(settled.map_err(StoreError::from)?),
            }
        }
    }

    fn try_settle(
        &self,
        damaged: &[(QueueId, QueueOffset, String)],
        dropped: &[(QueueId, QueueOffset)],
        failed: &[(QueueId, QueueOffset)],
    ) -> Result<(), NoRoom> {
        let (store, shard) = (self.store, &**self.shard);
        let mut state = shard.lock();
        let now = store.log.now();
        // Reading may have taken so long that somebody else has them now.
        let held = |state: &DeliveryState, queue, offset| state.check(queue, offset, self.lease, now).is_ok();
        let damaged: Vec<_> =
            damaged.iter().filter(|(queue, offset, _)| held(&state, *queue, *offset)).cloned().collect();
        if !damaged.is_empty() {
            store.set_aside(shard, &mut state, damaged)?;
        }
        let mut entries: Vec<_> = dropped.to_vec();
        entries.retain(|(queue, offset)| held(&state, *queue, *offset));
        if !entries.is_empty() {
            store.record(shard, &mut state, &DeliveryRecord::Dropped { entries })?;
        }
        let mut entries: Vec<_> = failed.to_vec();
        entries.retain(|(queue, offset)| held(&state, *queue, *offset));
        if !entries.is_empty() {
            let visible_at = now.after(READ_RETRY);
            store.record(
                shard,
                &mut state,
                &DeliveryRecord::VisibilityChanged { visible_at, counted: false, entries },
            )?;
        }
        Ok(())
    }

    fn popped(&self, record: &Record, span: &MessageSpan, attempt: u32) -> Result<PoppedMessage, StoreError> {
        let header = &record.header;
        let receipt = Receipt {
            group: self.shard.group,
            topic: self.shard.topic,
            queue: header.queue,
            queue_offset: header.queue_offset,
            lease: self.lease,
            epoch: self.epoch,
            promised_until: self.promised_until,
        };
        Ok(PoppedMessage {
            message: span.message(&record.bytes),
            queue: header.queue,
            queue_offset: header.queue_offset,
            store_time: header.store_time,
            attempt,
            handle: self.store.sealer()?.seal(&receipt),
        })
    }
}

/// Whether the message's tag is wanted; the index knows only its hash. An error: the head cannot be read.
fn wants(filter: &FilterExpression, record: &Record, span: &MessageSpan) -> Result<bool, String> {
    if matches!(filter, FilterExpression::Tag(TagFilter::All)) {
        return Ok(true);
    }
    let head = MessageHead::parse(span.head(&record.bytes)).map_err(|error| error.to_string())?;
    Ok(filter.matches(head.tag))
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let now = self.store.log.now();
        let mut state = self.shard.lock();
        let places = self.messages.iter().map(|(entry, queue, _)| (*queue, entry.queue_offset));
        let held = |(queue, offset): &(QueueId, QueueOffset)| state.check(*queue, *offset, self.lease, now).is_ok();
        let entries: Vec<(QueueId, QueueOffset)> = places.filter(held).collect();
        if entries.is_empty() {
            return;
        }
        // The consumer never saw them: the next delivery is not another attempt.
        let change = DeliveryRecord::VisibilityChanged { visible_at: now, counted: false, entries };
        // If the log takes nothing any more the lease ends by itself.
        let _ = self.store.record(self.shard, &mut state, &change);
        drop(state);
        self.shard.wake_one();
    }
}
