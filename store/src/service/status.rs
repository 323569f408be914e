//! How far queues and consumer groups are, and what remains.

use crate::queue_index::Queue;
use crate::store::Store;
use gantry_proto::contract::{QueueStatus, Remains, StoreError, TopicProgress};
use gantry_proto::model::{GroupId, QueueId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Store {
    pub async fn queues(&self, topic: TopicId) -> Result<Vec<QueueStatus>, StoreError> {
        let known = self.view.topic_by_id(topic);
        let held = self.queues.get(topic).filter(|held| known.is_some() || !held.is_removed());
        let held = held.map(|queues| queues.list()).unwrap_or_default();
        let mut ranges: BTreeMap<QueueId, QueueStatus> = held.iter().map(|queue| (queue.id, queue.status())).collect();
        if let (Some(known), Some(home)) = (known, self.store_group()) {
            for queue in known.placement.queues_on(home) {
                let (min_offset, max_offset) = Default::default();
                ranges.entry(queue).or_insert(QueueStatus { queue, min_offset, max_offset });
            }
        }
        Ok(ranges.into_values().collect())
    }

    /// See [`StoreService::remains`](gantry_proto::contract::StoreService::remains).
    ///
    /// Counts topics and groups that the metadata do not name, too: they may be behind, and what is lost is lost. What was
    /// deleted while the store ran is forgotten already.
    pub async fn remains(&self) -> Result<Remains, StoreError> {
        self.log.settled().await?;
        let mut remains = Remains::default();
        let mut claimed = BTreeSet::new();
        for shard in self.progress.list() {
            let Some(reader) = self.reader(shard.topic) else {
                continue;
            };
            let state = shard.lock();
            remains.unfinished += state.ready(&reader) + state.inflight() as u64 + state.damaged();
            claimed.insert(shard.topic);
        }
        for topic in self.queues.list().into_iter().filter(|topic| !claimed.contains(&topic.id)) {
            let held = |queue: &Arc<Queue>| {
                let (min, end) = queue.range();
                end.0 - min.0
            };
            remains.unclaimed += topic.list().iter().map(held).sum::<u64>();
        }
        Ok(remains)
    }

    pub async fn progress(&self, group: GroupId) -> Result<Vec<TopicProgress>, StoreError> {
        let mut progress = Vec::new();
        for shard in self.progress.of_group(group) {
            let Some(reader) = self.reader(shard.topic) else {
                continue;
            };
            let state = shard.lock();
            let (ready, inflight) = (state.ready(&reader), state.inflight() as u64);
            progress.push(TopicProgress { topic: shard.topic, ready, inflight, damaged: state.damaged() });
        }
        Ok(progress)
    }
}
