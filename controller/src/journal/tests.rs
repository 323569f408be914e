use super::*;
use crate::testing::{config, create_group, create_topic};
use gantry_proto::env::OpenMode;
use gantry_proto::env::fake::{self, FakeFiles, FakeOp};

/// An open journal with its state, as the committer has them.
struct Open {
    journal: Journal,
    state: MetadataState,
    recovery: Recovery,
}

impl Open {
    fn new(env: &Env) -> Open {
        Open::try_new(env).unwrap()
    }

    fn try_new(env: &Env) -> Result<Open, OpenError> {
        let (journal, state, recovery) = Journal::open(&config(), env)?;
        Ok(Open { journal, state, recovery })
    }

    fn append(&mut self, command: MetadataCommand) -> Result<(), AppendError> {
        let at = Timestamp::from_millis(5);
        let mut next = self.state.clone();
        next.apply(&command, at).unwrap();
        self.journal.append(&[JournalEntry { version: next.version(), at, command }])?;
        self.state = next;
        Ok(())
    }

    /// One topic for each name, one frame each.
    fn append_topics(&mut self, names: &[&str]) {
        for name in names {
            self.append(create_topic(name, 1)).unwrap();
        }
    }

    fn roll(&mut self) {
        self.journal.roll_at = 0;
        self.journal.roll_if_due(&self.state);
    }
}

fn path(name: String) -> PathBuf {
    config().dir.join(name)
}

fn journal_path(base: u64) -> PathBuf {
    path(folder::journal_name(MetadataVersion(base)))
}

fn snapshot_path(version: u64) -> PathBuf {
    path(folder::snapshot_name(MetadataVersion(version)))
}

fn names(files: &FakeFiles) -> Vec<String> {
    files.list(&config().dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_reopened_journal_leads_to_the_same_state_and_goes_on() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a", "b"]);
    open.append(create_group("g")).unwrap();
    let state = open.state.clone();
    drop(open);
    files.crash(0);
    let mut open = Open::new(&env);
    assert_eq!(open.state, state);
    assert_eq!(open.recovery, Recovery { version: MetadataVersion(3), replayed: 3, cut_bytes: 0 });
    open.append_topics(&["c"]);
    let state = open.state.clone();
    drop(open);
    assert_eq!(Open::new(&env).state, state);
}

#[test]
fn one_process_uses_a_folder() {
    let (env, files, _) = fake::env(1);
    let open = Open::new(&env);
    assert!(matches!(Open::try_new(&env).err(), Some(OpenError::Locked { .. })));
    files.kill();
    assert!(Open::try_new(&env).is_ok());
    drop(open);
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    let state = open.state.clone();
    // The first half of the frame is there, and nobody undid it.
    files.fail_next(FakeOp::Write, 0, io::ErrorKind::Other);
    files.fail_next(FakeOp::SetLen, 0, io::ErrorKind::Other);
    assert!(matches!(open.append(create_topic("b", 1)), Err(AppendError::Unknown(_))));
    assert!(matches!(open.append(create_topic("b", 1)), Err(AppendError::NotWritten(_))), "the journal is broken");
    files.kill();
    let mut open = Open::new(&env);
    assert_eq!(open.state, state);
    assert!(open.recovery.cut_bytes > 0);
    assert_eq!(open.journal.file.len().unwrap(), open.journal.end);
    open.append_topics(&["c"]);
    files.crash(0);
    assert_eq!(Open::new(&env).recovery, Recovery { version: MetadataVersion(2), replayed: 2, cut_bytes: 0 });
}

#[test]
fn a_full_disk_refuses_and_later_goes_on() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    files.set_capacity(Some(files.list(&config().dir).unwrap().iter().map(|e| e.len).sum::<u64>() + 20));
    for _ in 0..3 {
        assert!(matches!(open.append(create_topic("b", 1)), Err(AppendError::NotWritten(_))));
    }
    assert_eq!(open.journal.failure(), None);
    files.set_capacity(None);
    open.append_topics(&["c"]);
    let state = open.state.clone();
    files.crash(0);
    let open = Open::new(&env);
    assert_eq!((open.state, open.recovery.cut_bytes), (state, 0));
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_reopened() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    assert!(matches!(open.append(create_topic("b", 1)), Err(AppendError::Unknown(_))));
    let before = files.mutations();
    assert!(matches!(open.append(create_topic("c", 1)), Err(AppendError::NotWritten(_))));
    open.roll();
    assert_eq!(files.mutations(), before, "not even tried");
    assert!(open.journal.failure().is_some());
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_durable_once_reopened() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    assert!(open.append(create_topic("a", 1)).is_err());
    files.kill();
    // The frame is read from the cache: from now on somebody may rely on it.
    let seen = Open::new(&env).state.clone();
    assert!(seen.topic("a").is_some());
    files.crash(0);
    assert_eq!(Open::new(&env).state, seen);
}

#[test]
fn damage_before_the_last_frame_is_named_with_file_and_offset() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    let second = open.journal.end;
    open.append_topics(&["b", "c"]);
    drop(open);
    files.flip_bits(&journal_path(0), second + 20, 0x10).unwrap();
    match Open::try_new(&env).err().unwrap() {
        OpenError::Damaged { path, offset, .. } => assert_eq!((path, offset), (journal_path(0), second)),
        other => panic!("{other}"),
    }
    files.flip_bits(&journal_path(0), second + 20, 0x10).unwrap();
    assert!(Open::try_new(&env).is_ok(), "the failed open changed nothing");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (env, files, _) = fake::env(1);
    drop(Open::new(&env));
    // Format 1 becomes 3.
    files.flip_bits(&journal_path(0), 8, 2).unwrap();
    let error = Open::try_new(&env).err().unwrap();
    assert!(error.to_string().contains("the data folder was written by a newer gantry (format 3"), "{error}");
}

#[test]
fn rolling_leaves_one_snapshot_and_one_journal() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a", "b"]);
    open.roll();
    open.append_topics(&["c"]);
    open.roll();
    open.roll();
    open.append_topics(&["d"]);
    let state = open.state.clone();
    let expected =
        ["LOCK".to_owned(), folder::journal_name(MetadataVersion(3)), folder::snapshot_name(MetadataVersion(3))];
    assert_eq!(names(&files), expected);
    drop(open);
    files.crash(0);
    let open = Open::new(&env);
    assert_eq!(open.state, state);
    assert_eq!(open.recovery, Recovery { version: MetadataVersion(4), replayed: 1, cut_bytes: 0 });
}

#[test]
fn a_snapshot_that_fails_is_tried_again_later() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    for op in [FakeOp::Open, FakeOp::Write, FakeOp::Sync, FakeOp::Rename, FakeOp::SyncDir] {
        files.fail_next(op, 0, io::ErrorKind::StorageFull);
        open.roll();
        assert_eq!(open.journal.failure(), None, "{op:?}");
        assert!(open.journal.roll_at > open.journal.end, "{op:?}");
        assert_eq!(open.journal.base, MetadataVersion(0));
    }
    open.append_topics(&["b"]);
    open.roll();
    assert_eq!(open.journal.base, MetadataVersion(2));
    assert_eq!(names(&files).len(), 3);
}

#[test]
fn a_new_journal_that_may_vanish_again_is_not_written() {
    for seed in 0..20 {
        let (env, files, _) = fake::env(1);
        let mut open = Open::new(&env);
        open.append_topics(&["a"]);
        // The snapshot's name becomes durable, the new journal's does not.
        files.fail_next(FakeOp::SyncDir, 1, io::ErrorKind::Other);
        open.roll();
        assert!(open.journal.failure().is_some());
        assert!(matches!(open.append(create_topic("b", 1)), Err(AppendError::NotWritten(_))));
        let state = open.state.clone();
        drop(open);
        files.crash(seed);
        assert_eq!(Open::new(&env).state, state, "seed {seed}");
    }
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused() {
    let (env, files, _) = fake::env(1);
    let mut open = Open::new(&env);
    open.append_topics(&["a"]);
    open.roll();
    drop(open);
    files.flip_bits(&snapshot_path(1), 60, 1).unwrap();
    assert!(matches!(Open::try_new(&env).err(), Some(OpenError::Damaged { .. })));

    let other = snapshot::encode(
        [9; 16],
        &MetadataState::from_parts(MetadataVersion(1), Default::default(), vec![], vec![]).unwrap(),
    );
    files.remove(&snapshot_path(1)).unwrap();
    assert!(matches!(Open::try_new(&env).err(), Some(OpenError::Inconsistent { .. })), "the snapshot is missing");
    files.open(&snapshot_path(1), OpenMode::CreateNew).unwrap().write_all_at(&other, 0).unwrap();
    let error = Open::try_new(&env).err().unwrap();
    assert!(error.to_string().contains("another data folder"), "{error}");
    files.remove(&journal_path(1)).unwrap();
    assert!(matches!(Open::try_new(&env).err(), Some(OpenError::Inconsistent { .. })), "the journal is missing");
}
