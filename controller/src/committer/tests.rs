use super::*;
use crate::config::ControllerConfig;
use crate::journal::Recovery;
use crate::testing::{config, create_group, create_topic, some_commands};
use gantry_proto::env::Env;
use gantry_proto::env::fake::{self, FakeOp};
use gantry_proto::model::{MetadataRefusal, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io;

fn open(config: &ControllerConfig, env: &Env) -> Result<(Committer, Recovery), crate::OpenError> {
    let (journal, state, recovery) = Journal::open(config, env)?;
    let feed = Arc::new(Feed::new(state.clone()));
    let (_, proposals) = mpsc::channel(1);
    Ok((Committer::new(proposals, env.clock.clone(), state, journal, feed), recovery))
}

/// What the driver does with each batch.
fn commit_and_roll(committer: &mut Committer, batch: Vec<MetadataCommand>) -> Vec<Answer> {
    let answers = committer.commit_batch(batch);
    committer.journal.roll_if_due(&committer.state);
    answers
}

/// The states after 0, 1, 2 … accepted commands.
fn states_after(commands: &[MetadataCommand], at: Timestamp) -> Vec<MetadataState> {
    let mut states = vec![MetadataState::default()];
    for command in commands {
        let mut next = states[states.len() - 1].clone();
        if next.apply(command, at).is_ok() {
            states.push(next);
        }
    }
    states
}

/// A journal short enough that a few commands replace it.
fn rolling_config() -> ControllerConfig {
    ControllerConfig { journal_bytes_max: 300, ..config() }
}

fn some_batches() -> impl Strategy<Value = Vec<Vec<MetadataCommand>>> {
    vec(some_commands(1..5), 1..12)
}

/// Works batch after batch until the power goes off; says which version was answered last.
fn run_until_power_off(env: &Env, batches: &[Vec<MetadataCommand>]) -> MetadataVersion {
    let mut answered = MetadataVersion(0);
    let Ok((mut committer, _)) = open(&rolling_config(), env) else {
        return answered;
    };
    for batch in batches {
        for (version, _) in commit_and_roll(&mut committer, batch.clone()).into_iter().flatten() {
            assert_eq!(version.0, answered.0 + 1, "versions are dense");
            answered = version;
        }
        assert_eq!(committer.state, committer.feed.0.state(), "between batches both states are the same");
        assert_eq!(committer.state.version(), answered, "nothing is published that was not answered");
    }
    answered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_state_rebuilt_from_disk_equals_the_live_one(batches in some_batches()) {
        let (env, files, clock) = fake::env(7);
        let (mut committer, _) = open(&rolling_config(), &env).unwrap();
        for (index, batch) in batches.iter().enumerate() {
            clock.advance(std::time::Duration::from_secs(1));
            commit_and_roll(&mut committer, batch.clone());
            if index % 3 == 2 {
                let live = committer.state.clone();
                drop(committer);
                files.crash(0);
                let recovery;
                (committer, recovery) = open(&rolling_config(), &env).unwrap();
                prop_assert_eq!(&committer.state, &live);
                prop_assert_eq!(recovery.cut_bytes, 0);
            }
        }
        let live = committer.state.clone();
        drop(committer);
        prop_assert_eq!(open(&rolling_config(), &env).unwrap().0.state, live);
    }

    #[test]
    fn a_crash_at_any_step_loses_nothing_answered_and_invents_nothing(batches in some_batches(), seed in any::<u64>()) {
        let (env, files, clock) = fake::env(seed);
        run_until_power_off(&env, &batches);
        let steps = files.mutations();
        let states = states_after(&batches.concat(), env_now(&clock));
        for step in 0..steps {
            for crash_seed in [0, seed.wrapping_add(step).max(1), seed.wrapping_mul(31).wrapping_add(step).max(1)] {
                let (env, files, _) = fake::env(seed);
                files.power_off_after(step);
                let answered = run_until_power_off(&env, &batches);
                files.crash(crash_seed);
                let (mut committer, recovery) = open(&rolling_config(), &env)
                    .map_err(|error| TestCaseError::fail(format!("step {step}, crash {crash_seed}: {error}")))?;
                let version = recovery.version.0 as usize;
                prop_assert!(recovery.version >= answered, "step {step}, crash {crash_seed}: answered {answered:?}, found {version}");
                prop_assert!(version < states.len(), "step {step}, crash {crash_seed}: more than was asked");
                prop_assert_eq!(&committer.state, &states[version], "step {}, crash {}", step, crash_seed);
                // And it goes on from there, durably.
                commit_and_roll(&mut committer, vec![create_topic("after", 1)]).pop().unwrap().unwrap();
                let live = committer.state.clone();
                drop(committer);
                files.crash(0);
                prop_assert_eq!(&open(&rolling_config(), &env).unwrap().0.state, &live);
            }
        }
    }

    #[test]
    fn a_failed_call_at_any_step_loses_nothing_answered_and_invents_nothing(
        batches in some_batches(),
        op in prop_oneof![Just(FakeOp::Write), Just(FakeOp::Sync), Just(FakeOp::Rename), Just(FakeOp::SyncDir), Just(FakeOp::Open), Just(FakeOp::Remove)],
        after in 0..30u64,
        crash_seed in 0..1000u64,
    ) {
        let (env, files, clock) = fake::env(7);
        let (mut committer, _) = open(&rolling_config(), &env).unwrap();
        files.fail_next(op, after, io::ErrorKind::Other);
        // What may be on disk: a command of unknown outcome was asked, one that is unavailable has not happened.
        let (mut possible, mut answered) = (Vec::new(), MetadataVersion(0));
        for batch in &batches {
            let answers = commit_and_roll(&mut committer, batch.clone());
            for (command, answer) in batch.iter().zip(answers) {
                match answer {
                    Ok((version, _)) => {
                        answered = version;
                        possible.push(command.clone());
                    }
                    Err(MetadataError::Unknown(_)) => possible.push(command.clone()),
                    Err(MetadataError::Refused(_) | MetadataError::Unavailable(_)) => {}
                }
            }
            prop_assert_eq!(&committer.state, &committer.feed.0.state());
            prop_assert_eq!(committer.state.version(), answered);
        }
        drop(committer);
        files.crash(crash_seed);
        let (committer, _) = open(&rolling_config(), &env).unwrap();
        let states = states_after(&possible, env_now(&clock));
        prop_assert!(committer.state.version() >= answered);
        prop_assert!(states.contains(&committer.state), "neither with nor without what was unknown");
    }
}

fn env_now(clock: &fake::FakeClock) -> Timestamp {
    gantry_proto::env::Clock::now(clock)
}

#[test]
fn a_batch_is_one_frame_and_each_command_sees_the_ones_before_it() {
    let (env, files, _) = fake::env(1);
    let (mut committer, _) = open(&config(), &env).unwrap();
    let before = files.mutations();
    let answers = committer.commit_batch(vec![create_topic("a", 1), create_topic("a", 2), create_group("g")]);
    assert_eq!(files.mutations() - before, 2, "one write and one sync");
    assert!(matches!(answers[0], Ok((MetadataVersion(1), MetadataOutcome::Topic(_)))));
    assert!(
        matches!(&answers[1], Err(MetadataError::Refused(MetadataRefusal::TopicExists(topic))) if topic.queue_count == 1)
    );
    assert!(matches!(answers[2], Ok((MetadataVersion(2), MetadataOutcome::Group(_)))));
    let before = files.mutations();
    assert!(committer.commit_batch(vec![create_topic("a", 1)])[0].is_err());
    assert_eq!(files.mutations(), before, "refusals alone write nothing");
}

#[test]
fn after_a_failed_sync_outcomes_are_unknown_and_nothing_is_published() {
    let (env, files, _) = fake::env(1);
    let (mut committer, _) = open(&config(), &env).unwrap();
    files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    let answers = committer.commit_batch(vec![create_topic("a", 1), create_topic("a", 1)]);
    assert!(matches!(answers[0], Err(MetadataError::Unknown(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(MetadataError::Unavailable(_))), "a refusal that rests on it: {answers:?}");
    assert_eq!(committer.feed.0.state(), MetadataState::default());
    let answers = committer.commit_batch(vec![create_topic("b", 1)]);
    assert!(matches!(answers[0], Err(MetadataError::Unavailable(_))), "{answers:?}");
    assert!(committer.failure().is_some());
}
