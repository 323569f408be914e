//! What exists: topics and groups from the watched metadata, created on first use where the configuration allows it, and
//! which queue of a topic takes the next message.
//!
//! Reading never waits. Creating asks the metadata service and then waits until the own view shows the result, so that
//! the next call of the same client finds it.

use crate::metrics::{Metrics, SendMeters};
use crate::translate::Refusal;
use gantry_proto::contract::{MetadataError, MetadataService};
use gantry_proto::model::{
    BackoffPolicy, Group, GroupName, InvalidName, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion,
    MetadataView, QueueId, Topic, TopicId, TopicName, TopicType,
};
use gantry_proto::wire::v2::Code;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a client's call waits for the metadata service: clients wait 3 s for a route.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);

/// Topics and groups as this proxy sees them.
pub(crate) struct Directory {
    view: Arc<MetadataView>,
    metadata: Arc<dyn MetadataService>,
    creation: CreationRules,
    /// One creation at a time: when a thousand clients start together the first one creates, the others find it.
    creating: tokio::sync::Mutex<()>,
    outlets: RwLock<HashMap<TopicId, Arc<Outlet>>>,
}

/// What is created when a client first names it, and how.
pub(crate) struct CreationRules {
    pub(crate) topics: bool,
    pub(crate) queue_count: u32,
    pub(crate) groups: bool,
    pub(crate) max_attempts: u32,
}

/// What this proxy keeps about a topic that is sent to.
pub(crate) struct Outlet {
    next_queue: AtomicU32,
    /// Its counters.
    pub(crate) meters: SendMeters,
}

impl Directory {
    pub(crate) fn new(
        view: Arc<MetadataView>,
        metadata: Arc<dyn MetadataService>,
        creation: CreationRules,
    ) -> Directory {
        Directory { view, metadata, creation, creating: tokio::sync::Mutex::default(), outlets: RwLock::default() }
    }

    /// The topic of that name, if there is one. A name that is found is valid, and no name is copied to find it.
    pub(crate) fn topic(&self, name: &str) -> Result<Option<Arc<Topic>>, InvalidName> {
        match self.view.topic(name) {
            Some(topic) => Ok(Some(topic)),
            None => TopicName::parse(name).map(|_| None),
        }
    }

    /// The group of that name, if there is one.
    pub(crate) fn group(&self, name: &str) -> Result<Option<Arc<Group>>, InvalidName> {
        match self.view.group(name) {
            Some(group) => Ok(Some(group)),
            None => GroupName::parse(name).map(|_| None),
        }
    }

    /// The topic of that name, made if need be.
    pub(crate) async fn topic_or_create(&self, name: &TopicName) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = self.view.topic(name.as_str()) {
            return Ok(topic);
        }
        if !self.creation.topics || name.is_derived() {
            return Err(Refusal::topic_not_found(name.as_str()));
        }
        let command = MetadataCommand::CreateTopic {
            name: name.clone(),
            topic_type: TopicType::Mixed,
            queue_count: self.creation.queue_count,
        };
        self.create(command, || self.view.topic(name.as_str())).await
    }

    /// The group of that name, made if need be.
    pub(crate) async fn group_or_create(&self, name: &GroupName) -> Result<Arc<Group>, Refusal> {
        if let Some(group) = self.view.group(name.as_str()) {
            return Ok(group);
        }
        if !self.creation.groups {
            return Err(Refusal::group_not_found(name.as_str()));
        }
        let command = MetadataCommand::CreateGroup {
            name: name.clone(),
            fifo: false,
            max_attempts: self.creation.max_attempts,
            backoff: BackoffPolicy::default(),
        };
        self.create(command, || self.view.group(name.as_str())).await
    }

    /// Carries a command out and waits until the view has caught up with it, both within a bound.
    pub(crate) async fn propose(&self, command: MetadataCommand) -> Result<MetadataOutcome, MetadataError> {
        let proposed = async {
            let (version, outcome) = self.metadata.propose(command).await?;
            self.view.reached(version).await;
            Ok(outcome)
        };
        tokio::time::timeout(METADATA_PATIENCE, proposed)
            .await
            .unwrap_or_else(|_| Err(MetadataError::Unknown("no answer in time".to_owned())))
    }

    /// The metadata as it is seen here.
    pub(crate) fn view(&self) -> &MetadataView {
        &self.view
    }

    /// What is kept about a topic that is sent to.
    pub(crate) fn outlet(&self, topic: &Topic, metrics: &Metrics) -> Arc<Outlet> {
        if let Some(outlet) = self.outlets.read().get(&topic.id) {
            return outlet.clone();
        }
        let new =
            || Arc::new(Outlet { next_queue: AtomicU32::new(0), meters: metrics.send_meters(topic.name.as_str()) });
        self.outlets.write().entry(topic.id).or_insert_with(new).clone()
    }

    /// Forgets topics that are gone.
    pub(crate) fn retain_outlets(&self) {
        self.outlets.write().retain(|topic, _| self.view.topic_by_id(*topic).is_some());
    }

    async fn create<T>(&self, command: MetadataCommand, find: impl Fn() -> Option<Arc<T>>) -> Result<Arc<T>, Refusal> {
        let _one_at_a_time = tokio::time::timeout(METADATA_PATIENCE, self.creating.lock())
            .await
            .map_err(|_| Refusal::new(Code::ProxyTimeout, "too many topics and groups are being created; try again"))?;
        if let Some(found) = find() {
            return Ok(found);
        }
        match self.propose(command).await {
            // "Exists": another proxy was faster, and its change is on its way to our view.
            Ok(_) | Err(MetadataError::Refused(MetadataRefusal::TopicExists(_) | MetadataRefusal::GroupExists(_))) => {}
            Err(error) => return Err(error.into()),
        }
        let visible = async {
            loop {
                let seen = self.view.version();
                if let Some(found) = find() {
                    return found;
                }
                self.view.reached(MetadataVersion(seen.0 + 1)).await;
            }
        };
        tokio::time::timeout(METADATA_PATIENCE, visible)
            .await
            .map_err(|_| Refusal::new(Code::ProxyTimeout, "created, but not visible here yet; try again"))
    }
}

impl Outlet {
    /// Which queue takes the next message or batch. A message group stays in one queue, whatever the client chose; all
    /// else goes around.
    pub(crate) fn pick_queue(&self, topic: &Topic, message_group: Option<&str>) -> QueueId {
        QueueId(match message_group {
            Some(group) => consistent_hash(hash_of(group), topic.queue_count),
            None => self.next_queue.fetch_add(1, Ordering::Relaxed) % topic.queue_count.max(1),
        })
    }
}

/// FNV-1a. Every proxy and every version must agree on it.
fn hash_of(group: &str) -> u64 {
    group.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Jump consistent hash (Lamping, Veach 2014): when a topic grows, only the groups that move to new queues move.
fn consistent_hash(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0_u64, 0_u64);
    while next < u64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as u64;
    }
    bucket as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_group_keeps_its_queue_and_few_groups_move_when_a_topic_grows() {
        let groups: Vec<String> = (0..2000).map(|n| format!("group-{n}")).collect();
        let mut counts = [0; 8];
        let mut moved = 0;
        for group in &groups {
            let queue = consistent_hash(hash_of(group), 8);
            assert_eq!(queue, consistent_hash(hash_of(group), 8));
            counts[queue as usize] += 1;
            let grown = consistent_hash(hash_of(group), 10);
            assert!(grown == queue || grown >= 8, "only to new queues");
            moved += usize::from(grown != queue);
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
        assert!((300..500).contains(&moved), "{moved}");
        assert_eq!(consistent_hash(hash_of("orders"), 8), 7, "part of the protocol between proxies: never changes");
    }
}
