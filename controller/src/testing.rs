//! Commands and a configuration for tests.

use crate::config::ControllerConfig;
use gantry_proto::model::limits::{MAX_ATTEMPTS_DEFAULT, MAX_ATTEMPTS_MAX, QUEUE_COUNT_MAX};
use gantry_proto::model::{BackoffPolicy, GroupName, MetadataCommand, TopicName, TopicType};
use proptest::collection::{SizeRange, vec};
use proptest::option;
use proptest::prelude::*;
use std::time::Duration;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn group_name(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub(crate) fn create_topic(name: &str, queue_count: u32) -> MetadataCommand {
    MetadataCommand::CreateTopic { name: topic_name(name), topic_type: TopicType::Normal, queue_count }
}

pub(crate) fn create_group(name: &str) -> MetadataCommand {
    MetadataCommand::CreateGroup {
        name: group_name(name),
        fifo: false,
        max_attempts: MAX_ATTEMPTS_DEFAULT,
        backoff: BackoffPolicy::default(),
    }
}

/// Commands over few names, so that they meet: most are carried out, some are refused.
pub(crate) fn some_commands(count: impl Into<SizeRange>) -> impl Strategy<Value = Vec<MetadataCommand>> {
    vec(any_command("[a-d]"), count)
}

/// Any command that can be asked, with names of that pattern.
pub(crate) fn any_command(names: &'static str) -> impl Strategy<Value = MetadataCommand> {
    let topic = move || names.prop_map(|name| topic_name(&name));
    let group = move || names.prop_map(|name| group_name(&name));
    let queue_count = || prop_oneof![9 => 1..9u32, 1 => any::<u32>(), 1 => Just(QUEUE_COUNT_MAX)];
    let attempts = || prop_oneof![9 => 1..20u32, 1 => any::<u32>(), 1 => Just(MAX_ATTEMPTS_MAX)];
    prop_oneof![
        4 => (topic(), any_type(), queue_count())
            .prop_map(|(name, topic_type, queue_count)| MetadataCommand::CreateTopic { name, topic_type, queue_count }),
        2 => (topic(), option::of(any_type()), option::of(queue_count()))
            .prop_map(|(name, topic_type, queue_count)| MetadataCommand::AlterTopic { name, topic_type, queue_count }),
        2 => topic().prop_map(|name| MetadataCommand::DeleteTopic { name }),
        4 => (group(), any::<bool>(), attempts(), any_backoff()).prop_map(|(name, fifo, max_attempts, backoff)| {
            MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff }
        }),
        2 => (group(), option::of(any::<bool>()), option::of(attempts()), option::of(any_backoff())).prop_map(
            |(name, fifo, max_attempts, backoff)| MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff }
        ),
        2 => group().prop_map(|name| MetadataCommand::DeleteGroup { name }),
    ]
}

fn any_type() -> impl Strategy<Value = TopicType> {
    prop_oneof![
        Just(TopicType::Normal),
        Just(TopicType::Fifo),
        Just(TopicType::Delay),
        Just(TopicType::Transaction),
        Just(TopicType::Mixed),
    ]
}

pub(crate) fn any_backoff() -> impl Strategy<Value = BackoffPolicy> {
    prop_oneof![
        Just(BackoffPolicy::default()),
        vec(any::<Duration>(), 0..5).prop_map(BackoffPolicy::Customized),
        (any::<Duration>(), any::<Duration>(), 0.5..1001.0f64)
            .prop_map(|(initial, max, multiplier)| { BackoffPolicy::Exponential { initial, max, multiplier } }),
    ]
}

/// The configuration of tests, on a fake disk.
pub(crate) fn config() -> ControllerConfig {
    ControllerConfig::new("/data/controller")
}
