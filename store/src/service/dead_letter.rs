//! Dead letters: a message that a group gives up moves to the group's dead-letter topic. One record does both, so it is
//! in exactly one of the two places whatever happens.

use super::{Standing, no_room, standing};
use crate::commit_log::record::{Origin, RecordKind, dead_letter_record_len, write_message};
use crate::delivery::DeliveryState;
use crate::progress::Shard;
use crate::queue_index::{IndexEntry, Indexed};
use crate::store::Store;
use gantry_proto::contract::{DeadLetterRequest, HandleError, StoreError};
use gantry_proto::model::{Group, LogOffset, QueueId, QueueOffset, Timestamp};
use std::sync::Arc;

/// Dead letters made in one go, so that a shard is not locked for long.
const BATCH_MAX: usize = 64;

impl Store {
    pub(crate) async fn bury_delivery(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        let (shard, receipt) = self.open_handle(request.group, request.topic, &request.handle)?;
        let group = self.group(&shard)?;
        let end = {
            let mut state = shard.state.lock();
            match standing(&state, &receipt, self.log.now()) {
                Standing::Held => Some(self.bury(&shard, &group, &mut state, receipt.queue, receipt.queue_offset)?),
                // The client says it again because it did not hear the answer.
                Standing::Finished => None,
                Standing::Expired => return Err(HandleError::Expired),
            }
        };
        match end {
            Some(end) => Ok(self.log.acknowledged(end).await?),
            None => Ok(self.log.settled().await?),
        }
    }

    /// Moves every message whose last delivery has ended. Nobody waits for the result: what is not confirmed when the
    /// store dies is moved again after it.
    pub(crate) fn bury_exhausted(&self, shard: &Arc<Shard>, now: Timestamp) -> Result<(), StoreError> {
        let group = self.group(shard)?;
        let Some(reader) = self.reader(shard.topic) else {
            return Ok(());
        };
        loop {
            let mut state = shard.state.lock();
            let exhausted = state.exhausted(now, group.max_attempts, BATCH_MAX, &reader);
            for (queue, queue_offset) in &exhausted {
                self.bury(shard, &group, &mut state, *queue, *queue_offset)?;
            }
            drop(state);
            if exhausted.len() < BATCH_MAX {
                // What stood behind the buried ones may be visible, too.
                shard.wake_one();
                return Ok(());
            }
        }
    }

    /// The queue of this store group in every dead-letter topic: see [`Placement::EveryGroup`].
    ///
    /// [`Placement::EveryGroup`]: gantry_proto::model::Placement::EveryGroup
    fn dead_letter_queue(&self) -> Result<QueueId, StoreError> {
        Ok(QueueId(self.home()?.0 - 1))
    }

    fn group(&self, shard: &Shard) -> Result<Arc<Group>, StoreError> {
        let unknown = || StoreError::Busy(format!("consumer group {} is not known to the store", shard.group));
        self.view.group_by_id(shard.group).ok_or_else(unknown)
    }

    fn bury(
        &self,
        shard: &Shard,
        group: &Group,
        state: &mut DeliveryState,
        queue: QueueId,
        queue_offset: QueueOffset,
    ) -> Result<LogOffset, StoreError> {
        let unreadable = |why: String| StoreError::Unreadable(format!("making a dead letter: {why}"));
        let topic = self.view.topic_by_id(shard.topic).ok_or_else(|| unreadable("its topic is gone".into()))?;
        let source = self.queue(shard.topic, queue).map_err(|error| unreadable(error.to_string()))?;
        let target = self
            .queue(group.dead_letter_topic, self.dead_letter_queue()?)
            .map_err(|error| unreadable(error.to_string()))?;
        let mut found = Vec::with_capacity(1);
        source.scan(queue_offset, 1, &mut found)?;
        let entry = found.first().ok_or_else(|| unreadable("it has expired".into()))?;
        let record = self.read(entry)?;
        let span = record.message_span().map_err(|error| unreadable(error.to_string()))?;
        let letter = span.message(&record.bytes).into_dead_letter(topic.name.as_str());
        let letter = letter.map_err(|error| unreadable(error.to_string()))?;
        let head = letter.parse_head().map_err(|error| unreadable(error.to_string()))?;
        let Indexed { tag_hash, message_group_hash, hashes } = Indexed::of(target.topic, &head);

        let origin = Origin { group: shard.group, topic: shard.topic, queue, queue_offset };
        let _whole = self.log.whole();
        let mut appender = self.log.begin();
        appender.reserve(dead_letter_record_len(&letter)).map_err(no_room)?;
        let store_time = appender.store_time();
        let place = (target.topic, target.id, target.next());
        let (log_offset, len) = appender.push(RecordKind::DeadLetter, place, |out| {
            origin.write(out);
            write_message(out, &letter);
        });
        let entry = IndexEntry { queue_offset: place.2, log_offset, len, tag_hash, message_group_hash, store_time };
        self.queues.push(&target, appender.segment_base(), entry, &hashes);
        appender.arrival(&target, place.2.next());
        let end = appender.end();
        drop(appender);
        state.finish(queue, queue_offset);
        let (group, topic) = (group.name.to_string(), topic.name.to_string());
        metrics::counter!("rocketmq_send_to_dlq_messages_total", "consumer_group" => group, "topic" => topic)
            .increment(1);
        Ok(end)
    }
}
