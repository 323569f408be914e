//! Messages that groups had set aside as damaged and that are whole again, because a file was put back or the disk gives
//! them again: the groups get them.
//!
//! Maintenance calls it where the store leads. Must always hold: only what lies where damage was found to be gone comes back.
//! What was set aside for another reason stays.

use crate::commit_log::damage::{DamagedRange, Standing};
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, TopicId};

impl Store {
    /// Gives groups back what they had set aside and is whole again. Blocks.
    pub(crate) fn give_back_restored(&self) -> Result<(), StoreError> {
        let mut ranges = self.log.damage.ever_in(LogOffset(0), LogOffset(u64::MAX));
        ranges.retain(|range| matches!(range.standing, Standing::WholeAgain(_)));
        if ranges.is_empty() {
            return Ok(());
        }
        self.progress.each_set_aside(|shard, set_aside| self.give_back(shard, set_aside, &ranges))
    }

    /// Gives a group back those of the messages that are whole again.
    fn give_back(
        &self,
        shard: &Shard,
        set_aside: Vec<(QueueId, QueueOffset)>,
        whole_again: &[DamagedRange],
    ) -> Result<(), StoreError> {
        let mut deliveries = Vec::new();
        for (queue, offset) in set_aside {
            if self.is_restored(shard.topic, queue, offset, whole_again)? {
                // Of its attempts none is known.
                deliveries.push((queue, offset, 0));
            }
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let count = deliveries.len();
        let (dropped, cursors) = Default::default();
        // A delivery that has ended already.
        let visible_at = self.log.now();
        let change = DeliveryRecord::Delivered { visible_at, renewal: None, deliveries, dropped, cursors };
        let mut state = shard.lock();
        self.record(shard, &mut state, &change).map_err(StoreError::from)?;
        drop(state);
        shard.wake_all();
        tracing::info!(group = %shard.group, topic = %shard.topic, count, "a group gets messages that it had set aside and that are whole again");
        Ok(())
    }

    fn is_restored(
        &self,
        topic: TopicId,
        queue: QueueId,
        offset: QueueOffset,
        whole_again: &[DamagedRange],
    ) -> Result<bool, StoreError> {
        let Some(queue) = self.queues.get(topic).and_then(|topic| topic.queue(queue)) else { return Ok(false) };
        let mut found = Vec::with_capacity(1);
        queue.scan(offset, 1, &mut found)?;
        let Some(entry) = found.first().filter(|entry| entry.queue_offset == offset && !entry.is_damaged()) else {
            return Ok(false);
        };
        let end = entry.log_offset.plus(u64::from(entry.len));
        let was_damaged = whole_again.iter().any(|range| range.from < end && entry.log_offset < range.to);
        Ok(was_damaged && self.log.damage.touching(entry.log_offset, entry.len).is_none())
    }
}
