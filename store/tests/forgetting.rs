//! What makes a store forget topics and groups, and what does not.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendRequest, StoreService as _};
use gantry_proto::model::{GroupId, MetadataChange, MetadataVersion, QueueId, Topic, TopicId};
use gantry_store::Store;
use std::sync::Arc;
use std::time::Duration;
use support::*;

impl Machine {
    fn change(&self, changes: &[MetadataChange]) {
        self.view.apply(MetadataVersion(self.view.version().0 + 1), changes);
    }

    fn topic(&self, id: TopicId) -> Arc<Topic> {
        self.view.topic_by_id(id).unwrap()
    }

    /// All that the metadata name now.
    fn everything(&self) -> Vec<MetadataChange> {
        let topics = self.view.topics_page("", "", usize::MAX).into_iter().map(MetadataChange::TopicUpsert);
        let groups = self.view.groups_page("", "", usize::MAX).into_iter().map(MetadataChange::GroupUpsert);
        let stores = self.view.store_groups().into_iter().map(MetadataChange::StoreGroupUpsert);
        stores.chain(topics).chain(groups).collect()
    }
}

async fn append(store: &Store, topic: TopicId, text: &str) -> u64 {
    let messages = vec![message(text, None)];
    store.append(AppendRequest { topic, queue: QueueId(0), messages }).await.unwrap().appended[0].queue_offset.0
}

/// Waits until the store holds nothing of the topic.
async fn forgotten(store: &Store, topic: TopicId) {
    let wait = async {
        while !store.queues(topic).await.unwrap().iter().all(|queue| queue.max_offset.0 == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the topic must be forgotten");
}

#[tokio::test]
async fn a_snapshot_that_names_less_costs_nothing() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(1, 0);
    let everything = machine.everything();
    let store = machine.must_open();
    append(&store, FIRST_TOPIC, "of a topic that goes").await;
    for n in 0..20 {
        send(&store, 0, &format!("m{n}")).await.unwrap();
    }
    for delivered in pop_all(&store).await {
        ack(&store, &delivered.handle).await.unwrap();
    }
    machine.change(&[MetadataChange::Reset]);
    machine.change(&everything);
    // Once this is done, so is what came before it.
    machine.change(&[MetadataChange::TopicRemoved(FIRST_TOPIC)]);
    forgotten(&store, FIRST_TOPIC).await;
    assert_eq!(pop_all(&store).await.len(), 0, "acknowledged messages are delivered again");
    assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 20, "the queue began again");
}

#[tokio::test]
async fn what_was_deleted_while_the_store_was_away_is_forgotten_when_it_is_back() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(2, 0);
    let store = machine.must_open();
    append(&store, FIRST_TOPIC, "of a topic that goes").await;
    append(&store, TopicId(FIRST_TOPIC.0 + 1), "of a topic that stays").await;
    store.shutdown().await.unwrap();
    drop(store);
    let gone = machine.topic(FIRST_TOPIC);
    let kept = machine.everything().into_iter().filter(|change| *change != MetadataChange::TopicUpsert(gone.clone()));
    let last = TopicId(FIRST_TOPIC.0 + 1);
    let given = MetadataChange::Given { last_topic: last, last_group: GroupId(0) };
    let snapshot: Vec<_> = [MetadataChange::Reset, given].into_iter().chain(kept).collect();
    machine.change(&snapshot);
    let store = machine.must_open();
    forgotten(&store, FIRST_TOPIC).await;
    assert_eq!(append(&store, last, "another").await, 1);
}
