use super::*;
use crate::testing::{create_group, create_topic, group_name, join_store, some_commands, store_group_name, topic_name};
use gantry_proto::model::limits::{MAX_ATTEMPTS_MAX, QUEUE_COUNT_MAX};
use gantry_proto::model::{
    BackoffPolicy, Epoch, GroupSecret, InvalidBackoff, MetadataView, Placement, QueueId, StoreGroupState, TopicType,
};
use proptest::prelude::*;
use std::time::Duration;

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

/// After one store group has joined.
fn state_of(commands: &[MetadataCommand]) -> MetadataState {
    let mut state = MetadataState::default();
    for command in [&join_store("s", 1)].into_iter().chain(commands) {
        state.apply(command, AT).unwrap();
    }
    state
}

/// The store groups of a topic's queues, and the queues of its message groups.
fn placed(state: &MetadataState, topic: &str) -> (Vec<u32>, Vec<u32>) {
    match &state.topic(topic).unwrap().placement {
        Placement::Spread { store_groups: groups, message_group_queues: group_queues } => {
            (groups.iter().map(|group| group.0).collect(), group_queues.iter().map(|queue| queue.0).collect())
        }
        Placement::EveryGroup => panic!("{topic} is on every group"),
    }
}

fn spread_all(state: &mut MetadataState, limit: u32) -> u32 {
    let (mut after, mut total) = (None, 0);
    loop {
        let command = MetadataCommand::SpreadTopics { after: after.take(), limit };
        let Ok((MetadataOutcome::Spread { changed, next }, _)) = state.apply(&command, AT) else { return total };
        total += changed;
        after = next;
        if after.is_none() {
            return total;
        }
    }
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
    assert_eq!((topic.id, topic.placement.queue_count(StoreGroupId(1)), topic.created_at), (TopicId(1), 4, AT));
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
    assert_eq!(placed(&state, "a"), (vec![1; QUEUE_COUNT_MAX as usize], vec![0, 1, 2, 3]));
    let topic = state.topic("a").unwrap();
    assert_eq!((topic.id, topic.topic_type), (TopicId(1), TopicType::Mixed));
}

#[test]
fn altering_nothing_is_a_version_without_changes() {
    let mut state = state_of(&[create_topic("a", 4), create_group("g")]);
    let (_, changes) = state.apply(&alter_topic("a", None, Some(4)), AT).unwrap();
    assert_eq!((changes, state.version()), (vec![], MetadataVersion(4)));
}

#[test]
fn a_group_lives_and_dies_with_its_dead_letter_topic() {
    let mut state = MetadataState::default();
    state.apply(&create_group("g"), AT).unwrap();
    let letters = state.topic("%DLQ%g").unwrap().clone();
    let group = state.group("g").unwrap().clone();
    assert_eq!(group.dead_letter_topic, letters.id);
    assert_eq!((&letters.placement, letters.topic_type), (&Placement::EveryGroup, TopicType::Normal));
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
    // Limits are those of the rules in force.
    let long = |len| BackoffPolicy::Customized(vec![Duration::ZERO; len]);
    let too_many = || MetadataRefusal::Backoff(InvalidBackoff::TooMany(65));
    let mut state = state;
    for rules in [Rules::First, Rules::PutBack] {
        state.apply(&MetadataCommand::RaiseRules { to: rules.number() }, AT).unwrap();
        check_refused(&state, create(1, long(65)), too_many());
        check_refused(&state, alter(None, Some(long(65))), too_many());
        state.apply(&alter(None, Some(long(64))), AT).unwrap();
    }
    state.apply(&MetadataCommand::RaiseRules { to: Rules::Later.number() }, AT).unwrap();
    state.apply(&alter(None, Some(long(65))), AT).unwrap();
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

#[test]
fn without_an_active_store_group_no_queues_are_made() {
    let state = MetadataState::default();
    check_refused(&state, create_topic("a", 1), MetadataRefusal::NoStoreGroup);
    let spread = MetadataCommand::SpreadTopics { after: None, limit: 9 };
    check_refused(&state, spread, MetadataRefusal::NoStoreGroup);
}

#[test]
fn each_join_begins_an_epoch_above_all_that_were() {
    let mut state = state_of(&[]);
    let epoch = |state: &MetadataState| state.store_group(StoreGroupId(1)).unwrap().epoch;
    assert_eq!(epoch(&state), Epoch(1));
    let again = match join_store("s", 1) {
        MetadataCommand::JoinStore { store_group: group, folder, process, place, secret, .. } => {
            let (address, last_epoch) = ("b:2".into(), Epoch(6));
            MetadataCommand::JoinStore { store_group: group, folder, address, last_epoch, process, place, secret }
        }
        _ => unreachable!(),
    };
    state.apply(&again, AT).unwrap();
    let group = state.store_group(StoreGroupId(1)).unwrap();
    assert_eq!((group.epoch, group.leader), (Epoch(7), Some(FolderId([1; 16]))));
    assert_eq!(&*group.leading_replica().unwrap().address, "b:2");
    state.apply(&join_store("s", 1), AT).unwrap();
    assert_eq!(epoch(&state), Epoch(8));
}

#[test]
fn a_folder_serves_one_store_group_for_ever() {
    let state = state_of(&[join_store("t", 2)]);
    let (one, two) = (FolderId([1; 16]), FolderId([2; 16]));
    let other = MetadataRefusal::FolderOfOtherGroup { folder: one, store_group: store_group_name("s") };
    check_refused(&state, join_store("t", 1), other.clone());
    check_refused(&state, join_store("u", 1), other);
    let folder = FolderId([3; 16]);
    let refusal = MetadataRefusal::OtherFolder { store_group: store_group_name("t"), expected: two, found: folder };
    check_refused(&state, join_store("t", 3), refusal);
}

#[test]
fn a_group_is_removed_only_after_the_leader_of_its_last_epoch_has_confirmed_that_it_is_closed() {
    let id = StoreGroupId(1);
    let name = || store_group_name("s");
    let remove = MetadataCommand::RemoveStoreGroup { name: name(), force: false };
    let close = MetadataCommand::CloseStoreGroup { name: name() };
    let drain = MetadataCommand::DrainStoreGroup { name: name() };
    let note = |epoch, since| MetadataCommand::NoteClosed { store_group: id, epoch: Epoch(epoch), since };
    let not_closed = || MetadataRefusal::StoreGroupNotClosed(name());
    let of = |state: &MetadataState| state.store_group(id).unwrap().state;
    let mut state = state_of(&[join_store("t", 2)]);
    check_refused(&state, close.clone(), MetadataRefusal::StoreGroupActive(name()));
    state.apply(&drain, AT).unwrap();
    check_refused(&state, remove.clone(), not_closed());
    // What was confirmed of an earlier closing is worth nothing after it was opened again.
    state.apply(&close, AT).unwrap();
    let StoreGroupState::Closing(first) = of(&state) else { panic!() };
    assert_eq!(first, state.version(), "whoever has seen that version has seen it");
    for open in [drain.clone(), MetadataCommand::ActivateStoreGroup { name: name() }] {
        state.apply(&open, AT).unwrap();
        state.apply(&note(1, first), AT).unwrap();
        assert!(matches!(of(&state), StoreGroupState::Draining | StoreGroupState::Active));
        state.apply(&drain, AT).unwrap();
        state.apply(&close, AT).unwrap();
        state.apply(&note(1, first), AT).unwrap();
        check_refused(&state, remove.clone(), not_closed());
    }
    let StoreGroupState::Closing(second) = of(&state) else { panic!() };
    state.apply(&close, AT).unwrap();
    assert_eq!(of(&state), StoreGroupState::Closing(second), "said again");
    // Nor is what an older leader confirmed, or one confirmed whom another has followed.
    state.apply(&note(0, second), AT).unwrap();
    check_refused(&state, remove.clone(), not_closed());
    state.apply(&note(1, second), AT).unwrap();
    assert_eq!(of(&state), StoreGroupState::Closed);
    state.apply(&join_store("s", 1), AT).unwrap();
    check_refused(&state, remove.clone(), not_closed());
    state.apply(&note(2, second), AT).unwrap();
    check_refused(&state, remove.clone(), not_closed());
    let StoreGroupState::Closing(third) = of(&state) else { panic!() };
    state.apply(&note(2, third), AT).unwrap();
    state.apply(&remove, AT).unwrap();
    assert!(state.store_group(id).is_none());
}

#[test]
fn the_secret_of_a_group_stays_and_nobody_who_watches_sees_it() {
    let mut state = state_of(&[]);
    let id = StoreGroupId(1);
    let secret = |state: &MetadataState| state.keeping(id).map(|kept| kept.secret.clone());
    assert_eq!(secret(&state), Some(GroupSecret([1; 32])));
    let mut again = join_store("s", 1);
    if let MetadataCommand::JoinStore { secret, .. } = &mut again {
        *secret = GroupSecret([0x5a; 32]);
    }
    let (outcome, changes) = state.apply(&again, AT).unwrap();
    assert_eq!(secret(&state), Some(GroupSecret([1; 32])), "handles stay valid");
    let seen = format!("{outcome:?}{changes:?}{:?}{again:?}", state.to_changes());
    assert!(!seen.contains("90, 90") && !seen.contains("1, 1, 1, 1, 1, 1, 1, 1, 1"), "{seen}");
    state.apply(&join_store("t", 2), AT).unwrap();
    state.apply(&MetadataCommand::DrainStoreGroup { name: store_group_name("s") }, AT).unwrap();
    state.apply(&MetadataCommand::RemoveStoreGroup { name: store_group_name("s"), force: true }, AT).unwrap();
    assert_eq!(secret(&state), None);
}

#[test]
fn a_leadership_that_is_over_is_not_noted() {
    let mut state = state_of(&[]);
    let (id, folder) = (StoreGroupId(1), FolderId([1; 16]));
    let led = |state: &MetadataState| state.keeping(id).unwrap().led.get(&folder).copied();
    for (epoch, expected) in [(0, None), (2, None), (1, Some(Epoch(1))), (2, Some(Epoch(1)))] {
        let (_, changes) =
            state.apply(&MetadataCommand::NoteLeading { store_group: id, epoch: Epoch(epoch) }, AT).unwrap();
        assert_eq!((changes, led(&state)), (vec![], expected), "epoch {epoch}");
    }
    let older =
        MetadataRefusal::OlderFolder { store_group: store_group_name("s"), folder, led: Epoch(1), found: Epoch(0) };
    check_refused(&state, join_store("s", 1), older);
}

#[test]
fn only_the_epoch_that_is_meant_ends() {
    let mut state = state_of(&[join_store("s", 1)]);
    let end = |epoch| MetadataCommand::EndStoreLease { store_group: StoreGroupId(1), epoch: Epoch(epoch) };
    let (_, changes) = state.apply(&end(1), AT).unwrap();
    assert_eq!(changes, []);
    state.apply(&end(2), AT).unwrap();
    let group = state.store_group(StoreGroupId(1)).unwrap();
    assert_eq!((group.leader, group.epoch), (None, Epoch(2)));
}

#[test]
fn the_last_active_store_group_is_not_drained_and_an_active_one_not_removed() {
    let drain = |name| MetadataCommand::DrainStoreGroup { name: store_group_name(name) };
    let remove = |name| MetadataCommand::RemoveStoreGroup { name: store_group_name(name), force: true };
    let state = state_of(&[]);
    check_refused(&state, drain("s"), MetadataRefusal::LastStoreGroup(store_group_name("s")));
    check_refused(&state, drain("x"), MetadataRefusal::StoreGroupNotFound(store_group_name("x")));
    let mut state = state_of(&[join_store("t", 2), drain("s"), drain("s")]);
    check_refused(&state, drain("t"), MetadataRefusal::LastStoreGroup(store_group_name("t")));
    check_refused(&state, remove("t"), MetadataRefusal::StoreGroupActive(store_group_name("t")));
    state.apply(&remove("s"), AT).unwrap();
    assert_eq!(state.store_groups().map(|group| group.id.0).collect::<Vec<_>>(), [2]);
    // Neither its number nor its queues come back with the name.
    state.apply(&join_store("s", 1), AT).unwrap();
    assert_eq!(state.store_group_named(&store_group_name("s")).unwrap().id, StoreGroupId(3));
}

#[test]
fn a_topic_grows_onto_a_new_store_group_and_off_a_draining_one() {
    let mut state = state_of(&[create_topic("a", 3), join_store("t", 2)]);
    assert_eq!(spread_all(&mut state, 1), 1);
    assert_eq!(placed(&state, "a"), (vec![1, 1, 1, 2, 2, 2], vec![0, 1, 2]));
    assert_eq!(spread_all(&mut state, 1), 0);
    state.apply(&MetadataCommand::DrainStoreGroup { name: store_group_name("s") }, AT).unwrap();
    assert_eq!(spread_all(&mut state, 1), 1);
    assert_eq!(placed(&state, "a"), (vec![1, 1, 1, 2, 2, 2], vec![3, 4, 5]));
    state.apply(&alter_topic("a", None, Some(7)), AT).unwrap();
    assert_eq!(placed(&state, "a").0, [1, 1, 1, 2, 2, 2, 2]);
}

#[test]
fn a_topic_that_is_only_on_draining_groups_gets_as_many_queues_elsewhere() {
    let drain = MetadataCommand::DrainStoreGroup { name: store_group_name("s") };
    let mut state = state_of(&[create_topic("a", 4), join_store("t", 2), join_store("u", 3), drain]);
    spread_all(&mut state, 9);
    let (groups, group_queues) = placed(&state, "a");
    assert_eq!(groups, [1, 1, 1, 1, 3, 2, 3, 2]);
    assert_eq!(group_queues, [4, 5, 6, 7]);
}

#[test]
fn a_topic_with_all_the_queues_there_may_be_still_leaves_a_draining_group() {
    let drain = MetadataCommand::DrainStoreGroup { name: store_group_name("s") };
    let mut state = state_of(&[create_topic("a", QUEUE_COUNT_MAX), join_store("t", 2), drain]);
    spread_all(&mut state, 9);
    let (groups, group_queues) = placed(&state, "a");
    assert_eq!((groups.len(), groups.last()), (QUEUE_COUNT_MAX as usize + 1, Some(&2)));
    assert!(group_queues.iter().all(|queue| *queue == QUEUE_COUNT_MAX));
    assert_eq!(spread_all(&mut state, 9), 0);
}

#[test]
fn new_topics_are_dealt_over_active_groups_beginning_with_different_ones() {
    let drain = MetadataCommand::DrainStoreGroup { name: store_group_name("s") };
    let state = state_of(&[join_store("t", 2), join_store("u", 3), drain, create_topic("a", 3), create_topic("b", 3)]);
    assert_eq!((placed(&state, "a").0, placed(&state, "b").0), (vec![3, 2, 3], vec![2, 3, 2]));
}

#[test]
fn the_cluster_keeps_its_first_identity_and_proxies_come_and_go() {
    let found = |id| MetadataCommand::InitCluster { cluster: ClusterId([id; 16]) };
    let mut state = state_of(&[found(1)]);
    assert_eq!(state.apply(&found(2), AT), Ok((MetadataOutcome::Cluster(ClusterId([1; 16])), vec![])));
    let id = ProxyId([9; 16]);
    let join = |address: &str| MetadataCommand::JoinProxy { id, address: address.into(), version: "1".into() };
    state.apply(&join("a:1"), AT).unwrap();
    assert_eq!(state.apply(&join("a:1"), Timestamp::from_millis(9)).unwrap().1, []);
    state.apply(&join("b:1"), Timestamp::from_millis(9)).unwrap();
    let proxy = state.proxy(id).unwrap();
    assert_eq!((&*proxy.address, proxy.joined_at), ("b:1", AT));
    state.apply(&MetadataCommand::RemoveProxy { id }, AT).unwrap();
    assert_eq!(state.apply(&MetadataCommand::RemoveProxy { id }, AT).unwrap().1, []);
    assert_eq!(state.proxies().len(), 0);
}

/// What a command may not do to what was there before it.
fn check_kept(before: &MetadataState, after: &MetadataState) -> Result<(), TestCaseError> {
    for old in before.topics() {
        let Some(new) = after.topics.get(&old.id) else { continue };
        prop_assert_eq!(&old.name, &new.name);
        match (&old.placement, &new.placement) {
            (
                Placement::Spread { store_groups: groups, message_group_queues: group_queues },
                Placement::Spread { store_groups: grown, message_group_queues: moved },
            ) => {
                prop_assert_eq!(&groups[..], &grown[..groups.len()], "queues neither move nor vanish");
                prop_assert_eq!(group_queues.len(), moved.len());
            }
            (old, new) => prop_assert_eq!(old, new),
        }
    }
    for old in before.store_groups() {
        if let Some(new) = after.store_group(old.id) {
            prop_assert!(new.epoch >= old.epoch);
            prop_assert!(new.leader.is_none() || new.leader == old.leader || new.epoch > old.epoch);
        }
    }
    let (old, new) = (before.counters, after.counters);
    for topic in after.topics().filter(|topic| !before.topics.contains_key(&topic.id)) {
        prop_assert!(topic.id > old.last_topic && topic.id <= new.last_topic);
    }
    for group in after.groups().filter(|group| !before.groups.contains_key(&group.id)) {
        prop_assert!(group.id > old.last_group && group.id <= new.last_group);
    }
    for group in after.store_groups().filter(|group| !before.store_groups.contains_key(&group.id)) {
        prop_assert!(group.id > old.last_store_group && group.id <= new.last_store_group);
    }
    Ok(())
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
            prop_assert_eq!(view.cluster(), state.cluster());
            prop_assert_eq!(view.store_groups(), state.store_groups().cloned().collect::<Vec<_>>());
            prop_assert_eq!(view.proxies(), state.proxies().cloned().collect::<Vec<_>>());
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

    #[test]
    fn replays_are_equal_and_nothing_is_given_twice_or_moved(commands in some_commands(0..80)) {
        let (mut state, mut replayed) = (MetadataState::default(), MetadataState::default());
        for command in &commands {
            let before = state.clone();
            let outcome = state.apply(command, AT);
            prop_assert_eq!(outcome, replayed.apply(command, AT));
            check_kept(&before, &state)?;
            for topic in state.topics() {
                if let Placement::Spread { store_groups: groups, message_group_queues: group_queues } = &topic.placement {
                    prop_assert!(!group_queues.is_empty() && group_queues.iter().all(|queue| (queue.0 as usize) < groups.len()));
                }
            }
            // Everything that must hold between the parts of a state is checked there.
            prop_assert_eq!(MetadataState::from_parts(state.to_parts()), Ok(state.clone()));
        }
        prop_assert_eq!(state, replayed);
    }

    #[test]
    fn after_all_pages_every_topic_can_be_written_on_active_groups(
        commands in some_commands(0..80),
        limit in 1..4u32,
    ) {
        let mut state = MetadataState::default();
        for command in &commands {
            let _ = state.apply(command, AT);
        }
        let before = state.clone();
        spread_all(&mut state, limit);
        check_kept(&before, &state)?;
        let active = |queue: QueueId, topic: &Topic| {
            let group = topic.placement.store_group(queue).and_then(|id| state.store_group(id));
            group.is_some_and(|group| group.state == StoreGroupState::Active)
        };
        if state.active_store_groups().next().is_some() {
            for topic in state.topics() {
                if let Placement::Spread { store_groups: groups, message_group_queues: group_queues } = &topic.placement {
                    prop_assert!((0..groups.len() as u32).any(|queue| active(QueueId(queue), topic)));
                    prop_assert!(group_queues.iter().all(|queue| active(*queue, topic)));
                }
            }
        }
        prop_assert_eq!(spread_all(&mut state.clone(), limit), 0, "repeating it changes nothing");
    }
}
