//! Where queues and groups are.

use crate::store::Store;
use gantry_proto::contract::{QueueStatus, StoreError, TopicProgress};
use gantry_proto::model::{GroupId, QueueId, TopicId};

impl Store {
    pub(crate) fn queue_ranges(&self, topic: TopicId) -> Vec<QueueStatus> {
        let known = self.view.topic_by_id(topic).map_or(0, |topic| topic.queue_count);
        let mut ranges: Vec<QueueStatus> = (self.queues.get(topic))
            .map(|queues| queues.queues().iter().map(|queue| queue.status()).collect())
            .unwrap_or_default();
        for queue in ranges.len() as u32..known {
            let (min_offset, max_offset) = Default::default();
            ranges.push(QueueStatus { queue: QueueId(queue), min_offset, max_offset });
        }
        ranges
    }

    pub(crate) fn group_progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        let mut progress = Vec::new();
        for shard in self.progress.list().into_iter().filter(|shard| shard.group == group) {
            let Some(reader) = self.reader(shard.topic) else {
                continue;
            };
            let state = shard.state.lock();
            let (ready, inflight) = (state.ready(&reader), state.inflight() as u64);
            progress.push(TopicProgress { topic: shard.topic, ready, inflight });
        }
        progress.sort_by_key(|topic| topic.topic);
        Ok(progress)
    }
}
