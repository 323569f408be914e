//! What makes a store forget topics and groups, and what does not.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AppendRequest, PopRequest};
use gantry_proto::convert::{Wire as _, watched};
use gantry_proto::model::{GroupId, MetadataChange, MetadataVersion, QueueId, Topic, TopicId};
use gantry_proto::wire::controller::v1::{self as wire, metadata_change::Change};
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
    let given = MetadataChange::Given { last_topic: last, last_group: GroupId(0), lost: None };
    let snapshot: Vec<_> = [MetadataChange::Reset, given].into_iter().chain(kept).collect();
    machine.change(&snapshot);
    let store = machine.must_open();
    forgotten(&store, FIRST_TOPIC).await;
    assert_eq!(append(&store, last, "another").await, 1);
}

/// Waits until no group holds anything of the topic, and it holds nothing itself.
async fn gone(store: &Store, topic: TopicId) {
    forgotten(store, topic).await;
    let wait = async {
        while store.progress(GROUP).await.unwrap().iter().any(|progress| progress.topic == topic)
            || store.remains().await.unwrap().unclaimed > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("progress on the topic must be forgotten");
}

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

/// Fills segments with messages of another topic that are consumed at once, until `segments` have their index.
async fn fill_segments(machine: &Machine, store: &Store, segments: usize) {
    let indexes = || {
        let names = machine.env.files.list(&machine.dir.join("commit-log")).unwrap();
        names.iter().filter(|entry| entry.name.ends_with(".index")).count()
    };
    let wanted = indexes() + segments;
    let wait = async {
        for n in 0.. {
            if indexes() >= wanted {
                return;
            }
            send(store, 0, &format!("m{n}-{}-{}", indexes(), "x".repeat(3000))).await.unwrap();
            for message in pop_all(store).await {
                ack(store, &message.handle).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("segments must be sealed");
}

async fn pop_topic(store: &Store, topic: TopicId, batch_max: u32) -> Vec<String> {
    let request = PopRequest { topic, ..pop_request(batch_max) };
    store.pop(request).await.unwrap().messages.iter().map(body).collect()
}

fn given() -> MetadataChange {
    MetadataChange::Given { last_topic: FIRST_TOPIC, last_group: READER, lost: None }
}

#[tokio::test]
async fn a_deleted_topic_does_not_come_back_at_sealing_or_at_restart_and_its_offsets_go_on() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(1, 0);
    let store = machine.must_open();
    for text in ["a", "b", "c"] {
        append(&store, FIRST_TOPIC, text).await;
    }
    assert_eq!(pop_topic(&store, FIRST_TOPIC, 2).await.len(), 2);
    machine.change(&[MetadataChange::TopicRemoved(FIRST_TOPIC)]);
    gone(&store, FIRST_TOPIC).await;
    let late = AppendRequest { topic: FIRST_TOPIC, queue: QueueId(0), messages: vec![message("late", None)] };
    assert!(store.append(late).await.is_err(), "a deleted topic took a message");
    assert_eq!(store.queues(FIRST_TOPIC).await.unwrap(), []);
    fill_segments(&machine, &store, 2).await;
    assert_eq!(store.queues(FIRST_TOPIC).await.unwrap(), [], "it came back with its segment's index");
    assert_eq!(store.remains().await.unwrap().unclaimed, 0);
    end(store).await;
    machine.files.kill();
    // From the checkpoint, and then without one: the records are in sealed segments.
    for without_checkpoint in [false, true] {
        if without_checkpoint {
            for entry in machine.env.files.list(&machine.dir).unwrap() {
                if entry.name.starts_with("checkpoint-") {
                    machine.env.files.remove(&machine.dir.join(entry.name)).unwrap();
                }
            }
        }
        // Nobody has to tell it again.
        let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
        assert!(store.queues(FIRST_TOPIC).await.unwrap().iter().all(|queue| queue.min_offset == queue.max_offset));
        end(store).await;
        machine.files.kill();
    }
    let store = machine.must_open();
    assert_eq!(store.remains().await.unwrap().unclaimed, 0, "it came back at the restart");
    assert!(store.progress(GROUP).await.unwrap().iter().all(|progress| progress.topic == TOPIC));
    // Metadata from before the deletion are restored: the topic goes on where it was, also with a message of the same id.
    machine.add_topics_and_groups(1, 0);
    assert_eq!(append(&store, FIRST_TOPIC, "c").await, 3);
    assert_eq!(append(&store, FIRST_TOPIC, "d").await, 4);
    assert_eq!(pop_topic(&store, FIRST_TOPIC, 9).await, ["c", "d"]);
    end(store).await;
}

#[tokio::test]
async fn who_does_not_lead_forgets_nothing() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(1, 0);
    let store = machine.must_open();
    append(&store, FIRST_TOPIC, "of a topic that goes").await;
    assert_eq!(pop_topic(&store, FIRST_TOPIC, 1).await.len(), 1);
    end(store).await;
    machine.files.kill();
    machine.change(&[given(), MetadataChange::TopicRemoved(FIRST_TOPIC)]);
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    machine.change(&[MetadataChange::TopicRemoved(FIRST_TOPIC), MetadataChange::GroupRemoved(GROUP)]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.queues(FIRST_TOPIC).await.unwrap()[0].max_offset.0, 1, "a follower forgot by itself");
    assert_eq!(store.progress(GROUP).await.unwrap().len(), 1);
    let before = store.log_range().1;
    store.lead(&granted(9, gantry_proto::contract::StoreLease::UntilSuperseded)).await.unwrap();
    gone(&store, FIRST_TOPIC).await;
    assert!(store.log_range().1 > before, "forgetting is a record");
    end(store).await;
}

#[tokio::test]
async fn a_deleted_group_is_forgotten_by_a_record() {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "m").await.unwrap();
    assert_eq!(pop_all(&store).await.len(), 1);
    machine.change(&[MetadataChange::GroupRemoved(GROUP)]);
    let wait = async {
        while !store.progress(GROUP).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the group must be forgotten");
    assert!(pop(&store, 1).await.is_err());
    // The process dies: nothing but the log says so.
    machine.files.kill();
    end(store).await;
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    assert_eq!(store.progress(GROUP).await.unwrap(), [], "a deleted group came back at the restart");
    assert_eq!(store.queues(TOPIC).await.unwrap()[0].max_offset.0, 1, "the topic stays");
    end(store).await;
}

#[tokio::test]
async fn a_deletion_that_is_not_on_disk_has_not_happened() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(1, 0);
    let store = machine.must_open();
    append(&store, FIRST_TOPIC, "of a topic that goes").await;
    assert_eq!(pop_topic(&store, FIRST_TOPIC, 1).await.len(), 1);
    machine.files.power_off_after(0);
    machine.change(&[MetadataChange::TopicRemoved(FIRST_TOPIC)]);
    let wait = async {
        while store.health().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the log must fail");
    assert_eq!(store.progress(GROUP).await.unwrap().len(), 1, "it was forgotten before its record was confirmed");
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn power_that_fails_at_any_step_of_a_deletion_leaves_all_of_a_topic_or_nothing() {
    let (mut stayed, mut went) = (0, 0);
    for step in 0..40u64 {
        let mut machine = Machine::new(step);
        // A checkpoint comes in between, or none.
        machine.config.checkpoint_interval = Duration::from_secs(3600 * (step % 2));
        machine.add_topics_and_groups(1, 0);
        let store = machine.must_open();
        for text in ["a", "b"] {
            append(&store, FIRST_TOPIC, text).await;
        }
        assert_eq!(pop_topic(&store, FIRST_TOPIC, 1).await, ["a"]);
        // This makes the delivery durable, too.
        append(&store, FIRST_TOPIC, "c").await;
        machine.files.power_off_after(step / 2);
        machine.change(&[given(), MetadataChange::TopicRemoved(FIRST_TOPIC)]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let seen_gone = store.health().is_ok()
            && store.remains().await.is_ok_and(|remains| remains.unclaimed == 0)
            && store.progress(GROUP).await.unwrap().is_empty();
        end(store).await;
        machine.files.crash(step);
        // What the log says, before anybody leads.
        let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
        let held: u64 =
            store.queues(FIRST_TOPIC).await.unwrap().iter().map(|queue| queue.max_offset.0 - queue.min_offset.0).sum();
        let shards = store.progress(GROUP).await.unwrap().len();
        assert!((held, shards) == (3, 1) || (held, shards) == (0, 0), "step {step}: {held} messages, {shards} shards");
        assert!(!seen_gone || held == 0, "step {step}: it was gone, and came back");
        if held == 0 {
            went += 1
        } else {
            stayed += 1
        }
        end(store).await;
        machine.files.kill();
        let store = machine.must_open();
        gone(&store, FIRST_TOPIC).await;
        machine.add_topics_and_groups(1, 0);
        assert_eq!(append(&store, FIRST_TOPIC, "d").await, 3, "step {step}: the queue began again");
        assert_eq!(pop_topic(&store, FIRST_TOPIC, 9).await, ["d"]);
        end(store).await;
    }
    assert!(stayed > 0 && went > 0, "{stayed} stayed, {went} went: the power did not fail around the deletion");
}

#[tokio::test]
async fn what_a_newer_controller_describes_otherwise_is_not_forgotten() {
    let machine = Machine::new(1);
    machine.add_topics_and_groups(2, 0);
    let store = machine.must_open();
    append(&store, FIRST_TOPIC, "of a topic that becomes another").await;
    append(&store, TopicId(FIRST_TOPIC.0 + 1), "of a topic that goes").await;
    for n in 0..20 {
        send(&store, 0, &format!("m{n}")).await.unwrap();
    }
    for delivered in pop_all(&store).await {
        ack(&store, &delivered.handle).await.unwrap();
    }
    // What a snapshot brings: the topic of the consumed messages has a type, the group a policy, that only later versions have.
    let (before, last) = (machine.everything(), TopicId(FIRST_TOPIC.0 + 1));
    let given = MetadataChange::Given { last_topic: last, last_group: GroupId(u32::MAX), lost: None };
    let snapshot = [MetadataChange::Reset, given].into_iter().chain(before.clone());
    let described = snapshot.filter_map(|change| {
        let mut message = change.to_wire();
        match &mut message.change {
            Some(Change::TopicUpsert(topic)) if topic.id == last.0 => return None,
            Some(Change::TopicUpsert(topic)) => topic.r#type = 99,
            Some(Change::GroupUpsert(group)) => group.backoff = Some(wire::BackoffPolicy { policy: None }),
            _ => {}
        }
        watched(message).0
    });
    machine.change(&described.collect::<Vec<_>>());
    // Once this is done, so is what the snapshot could do.
    forgotten(&store, last).await;
    let refused = send(&store, 0, "not now").await.unwrap_err();
    assert!(refused.to_string().contains("described by a newer Gantry"), "{refused}");
    let refused = pop(&store, 1).await.err().unwrap();
    assert!(refused.to_string().contains("described by a newer Gantry"), "{refused}");
    // After an upgrade everything is as it was.
    machine.change(&before);
    assert_eq!(pop_all(&store).await.len(), 0, "acknowledged messages are delivered again");
    assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 20, "the queue began again");
    assert_eq!(append(&store, FIRST_TOPIC, "another").await, 1);
}
