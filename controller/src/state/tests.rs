use super::*;
use crate::testing::{create_group, create_topic, group_name, some_commands, topic_name};
use gantry_proto::model::limits::{MAX_ATTEMPTS_MAX, QUEUE_COUNT_MAX};
use gantry_proto::model::{BackoffPolicy, InvalidBackoff, MetadataView, TopicType};
use proptest::prelude::*;

const AT: Timestamp = Timestamp::from_millis(1000);

fn alter_topic(name: &str, topic_type: Option<TopicType>, queue_count: Option<u32>) -> MetadataCommand {
    MetadataCommand::AlterTopic { name: topic_name(name), topic_type, queue_count }
}

fn delete_topic(name: &str) -> MetadataCommand {
    MetadataCommand::DeleteTopic { name: topic_name(name) }
}

fn delete_group(name: &str) -> MetadataCommand {
    MetadataCommand::DeleteGroup { name: group_name(name) }
}

fn state_of(commands: &[MetadataCommand]) -> MetadataState {
    let mut state = MetadataState::default();
    for command in commands {
        state.apply(command, AT).unwrap();
    }
    state
}

#[track_caller]
fn check_refused(state: &MetadataState, command: MetadataCommand, expected: MetadataRefusal) {
    let mut after = state.clone();
    assert_eq!(after.apply(&command, AT), Err(expected));
    assert_eq!(&after, state, "a refused command changes nothing");
}

#[test]
fn a_created_topic_is_there_and_creating_it_again_names_it() {
    let state = state_of(&[create_topic("a", 4)]);
    let topic = state.topic("a").unwrap().clone();
    assert_eq!((topic.id, topic.queue_count, topic.created_at), (TopicId(1), 4, AT));
    check_refused(&state, create_topic("a", 8), MetadataRefusal::TopicExists(topic));
}

#[test]
fn queue_counts_stay_in_bounds_and_never_shrink() {
    let state = state_of(&[create_topic("a", 4)]);
    for asked in [0, QUEUE_COUNT_MAX + 1] {
        let refusal = MetadataRefusal::QueueCount { asked, max: QUEUE_COUNT_MAX };
        check_refused(&state, create_topic("b", asked), refusal.clone());
        check_refused(&state, alter_topic("a", None, Some(asked)), refusal);
    }
    let shrink = MetadataRefusal::QueuesShrink { name: topic_name("a"), now: 4, asked: 3 };
    check_refused(&state, alter_topic("a", None, Some(3)), shrink);
    let mut state = state;
    state.apply(&alter_topic("a", Some(TopicType::Mixed), Some(QUEUE_COUNT_MAX)), AT).unwrap();
    let topic = state.topic("a").unwrap();
    assert_eq!((topic.id, topic.queue_count, topic.topic_type), (TopicId(1), QUEUE_COUNT_MAX, TopicType::Mixed));
}

#[test]
fn altering_nothing_is_a_version_without_changes() {
    let mut state = state_of(&[create_topic("a", 4), create_group("g")]);
    let (_, changes) = state.apply(&alter_topic("a", None, Some(4)), AT).unwrap();
    assert_eq!((changes, state.version()), (vec![], MetadataVersion(3)));
}

#[test]
fn a_group_lives_and_dies_with_its_dead_letter_topic() {
    let mut state = state_of(&[create_group("g")]);
    let letters = state.topic("%DLQ%g").unwrap().clone();
    let group = state.group("g").unwrap().clone();
    assert_eq!(group.dead_letter_topic, letters.id);
    assert_eq!((letters.queue_count, letters.topic_type), (1, TopicType::Normal));
    assert_eq!(letters.dead_letter_of, Some(group_name("g")));
    let (outcome, changes) = state.apply(&delete_group("g"), AT).unwrap();
    assert_eq!(outcome, MetadataOutcome::Deleted);
    assert_eq!(changes, [MetadataChange::GroupRemoved(group.id), MetadataChange::TopicRemoved(letters.id)]);
    assert_eq!((state.topics().len(), state.groups().len()), (0, 0));
}

#[test]
fn derived_topics_are_not_touched_directly() {
    let state = state_of(&[create_group("g")]);
    for name in ["%DLQ%g", "%DLQ%nobody", "%RETRY%g"] {
        let refusal = MetadataRefusal::DerivedTopic(topic_name(name));
        check_refused(&state, create_topic(name, 1), refusal.clone());
        check_refused(&state, alter_topic(name, None, Some(2)), refusal.clone());
        check_refused(&state, delete_topic(name), refusal);
    }
}

#[test]
fn groups_are_bounded_in_attempts_and_backoff() {
    let state = state_of(&[create_group("g")]);
    let group = state.group("g").unwrap().clone();
    check_refused(&state, create_group("g"), MetadataRefusal::GroupExists(group));
    let create = |max_attempts, backoff| MetadataCommand::CreateGroup {
        name: group_name("h"),
        fifo: false,
        max_attempts,
        backoff,
    };
    let alter = |max_attempts, backoff| MetadataCommand::AlterGroup {
        name: group_name("g"),
        fifo: None,
        max_attempts,
        backoff,
    };
    for asked in [0, MAX_ATTEMPTS_MAX + 1] {
        let refusal = MetadataRefusal::MaxAttempts { asked, max: MAX_ATTEMPTS_MAX };
        check_refused(&state, create(asked, BackoffPolicy::default()), refusal.clone());
        check_refused(&state, alter(Some(asked), None), refusal);
    }
    let empty = BackoffPolicy::Customized(vec![]);
    check_refused(&state, create(1, empty.clone()), MetadataRefusal::Backoff(InvalidBackoff::Empty));
    check_refused(&state, alter(None, Some(empty)), MetadataRefusal::Backoff(InvalidBackoff::Empty));
}

#[test]
fn what_does_not_exist_is_not_found() {
    let state = MetadataState::default();
    check_refused(&state, alter_topic("a", None, None), MetadataRefusal::TopicNotFound(topic_name("a")));
    check_refused(&state, delete_topic("a"), MetadataRefusal::TopicNotFound(topic_name("a")));
    check_refused(&state, delete_group("g"), MetadataRefusal::GroupNotFound(group_name("g")));
}

#[test]
fn identities_are_never_given_again() {
    let mut state = state_of(&[create_topic("a", 1), delete_topic("a"), create_group("g"), delete_group("g")]);
    state.apply(&create_topic("a", 1), AT).unwrap();
    state.apply(&create_group("g"), AT).unwrap();
    assert_eq!(state.topic("a").unwrap().id, TopicId(3));
    assert_eq!(state.group("g").unwrap().id, GroupId(2));
}

proptest! {
    #[test]
    fn a_view_fed_with_the_changes_shows_the_state(commands in some_commands(0..60)) {
        let mut state = MetadataState::default();
        let live = MetadataView::default();
        for command in &commands {
            let before = state.clone();
            match state.apply(command, AT) {
                Ok((_, changes)) => {
                    prop_assert_eq!(state.version().0, before.version().0 + 1);
                    live.apply(state.version(), &changes);
                }
                Err(_) => prop_assert_eq!(&state, &before),
            }
        }
        let late = MetadataView::default();
        late.apply(state.version(), &state.to_changes());
        for view in [&live, &late] {
            prop_assert_eq!(view.counts(), (state.topics().len(), state.groups().len()));
            for topic in state.topics() {
                prop_assert_eq!(view.topic(topic.name.as_str()), Some(topic.clone()));
                prop_assert_eq!(view.topic_by_id(topic.id), Some(topic.clone()));
            }
            for group in state.groups() {
                prop_assert_eq!(view.group(group.name.as_str()), Some(group.clone()));
                prop_assert_eq!(view.topic_by_id(group.dead_letter_topic).unwrap().dead_letter_of.clone(), Some(group.name.clone()));
            }
        }
    }
}
