//! What an operator decides about a folder that does not open: it opens again, with everything in it, and what was changed
//! is kept beside it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::{AckRequest, AppendRequest, PopRequest};
use gantry_proto::env::OpenMode;
use gantry_proto::model::{Epoch, LogOffset, QueueId, StoreGroupName};
use gantry_store::inspect::{Seen, SegmentFile, Severity, read_checkpoints, verify_store};
use gantry_store::repair::{NamedGroup, Repair, RepairError};
use gantry_store::{Standing, Store, StoreFolder};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::*;

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

/// A machine whose store has sealed segments, and two starts behind it. Consumers have acknowledged eight messages.
async fn written(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    end(machine.must_open()).await;
    let store = machine.must_open();
    for number in 0..60 {
        send(&store, number % QUEUES, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
    }
    for popped in pop(&store, 8).await.unwrap() {
        ack(&store, &popped.handle).await.unwrap();
    }
    end(store).await;
    machine.files.kill();
    machine
}

fn named(name: &str) -> StoreGroupName {
    StoreGroupName::parse(name).unwrap()
}

/// What an operator says who is sure of it.
fn group() -> NamedGroup<'static> {
    NamedGroup { said: Some(named("store-2")), unchecked: true, known: &|_, _| None }
}

fn names(machine: &Machine, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = machine.env.files.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names
}

fn contents(machine: &Machine, path: &Path) -> Vec<u8> {
    let file = machine.env.files.open(path, OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

fn refusal(repair: Result<Repair, RepairError>) -> String {
    repair.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test]
async fn a_lost_identity_is_given_back_and_the_folder_goes_on_where_it_was() {
    for damaged in [false, true] {
        let machine = written(1).await;
        let folder = machine.open_folder().unwrap();
        let (id, epoch, cluster) = (folder.id(), folder.last_epoch(), folder.cluster());
        drop(folder);
        for name in ["identity", "identity.copy"] {
            let path = machine.dir.join(name);
            if damaged {
                machine.files.flip_bits(&path, 20, 1).unwrap();
            } else {
                machine.env.files.remove(&path).unwrap();
            }
        }
        let lost = contents_of(&machine, damaged);
        let error = machine.open_folder().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("gantry repair identity"), "the message names the command: {error}");

        assert!(
            refusal(Repair::identity(&machine.env, &machine.dir, &NamedGroup { said: None, ..group() }))
                .contains("--store-group")
        );
        let before = names(&machine, &machine.dir);
        let repair = Repair::identity(&machine.env, &machine.dir, &group()).unwrap();
        assert!(repair.steps[0].contains(&id.to_string()), "{:?}", repair.steps);
        drop(repair);
        assert_eq!(names(&machine, &machine.dir), before, "a plan changes nothing");

        let copies = Repair::identity(&machine.env, &machine.dir, &group()).unwrap().carry_out().unwrap();
        assert_eq!(copies.is_some(), damaged);
        if let Some(copies) = copies {
            assert_eq!(names(&machine, &copies), ["identity", "identity.copy"]);
            assert_eq!(contents(&machine, &copies.join("identity")), lost.unwrap());
        }
        let folder = machine.open_folder().unwrap();
        assert_eq!((folder.id(), folder.last_epoch(), folder.cluster()), (id, epoch, cluster));
        assert_eq!(folder.store_group(), Some((HERE, &group().said.unwrap())));
        drop(folder);
        let store = machine.must_open();
        assert_eq!(pop_all(&store).await.len(), 52);
        end(store).await;
    }
}

fn contents_of(machine: &Machine, there: bool) -> Option<Vec<u8>> {
    there.then(|| contents(machine, &machine.dir.join("identity")))
}

#[tokio::test]
async fn one_bad_sector_in_a_file_that_is_there_twice_costs_nothing() {
    for (name, bytes) in [
        ("identity", 0..512),
        ("identity.copy", 0..512),
        ("positions", 0..512),
        ("positions", 4096..4608),
        ("checkpoint", 0..512),
        ("checkpoint", 512..u64::MAX),
    ] {
        let machine = written(5).await;
        let name = names(&machine, &machine.dir).into_iter().rfind(|found| match name {
            "checkpoint" => found.starts_with(name),
            _ => found == name,
        });
        let path = machine.dir.join(name.unwrap());
        machine.files.make_unreadable(&path, bytes.clone()).unwrap();
        // What it costs is made up for: the next start finds all of it.
        for _ in 0..2 {
            let store = machine.open().unwrap_or_else(|error| panic!("{} {bytes:?}: {error}", path.display()));
            assert_eq!(pop_all(&store).await.len(), 52, "{} {bytes:?}", path.display());
            end(store).await;
            machine.files.kill();
            machine.clock.advance(INVISIBLE);
        }
    }
}

#[tokio::test]
async fn what_the_disk_does_not_give_any_more_is_repaired_as_what_is_damaged() {
    let machine = written(5).await;
    for name in ["identity", "identity.copy"] {
        machine.files.make_unreadable(&machine.dir.join(name), 0..4).unwrap();
    }
    let error = machine.open_folder().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("gantry repair identity"), "{error}");
    let copies = Repair::identity(&machine.env, &machine.dir, &group()).unwrap().carry_out().unwrap().unwrap();
    assert_eq!(names(&machine, &copies), ["identity", "identity.copy"]);
    for name in names(&machine, &machine.dir).iter().filter(|name| name.starts_with("checkpoint-")) {
        machine.files.make_unreadable(&machine.dir.join(name), 512..1024).unwrap();
        machine.files.make_unreadable(&machine.dir.join(name), 0..4).unwrap();
    }
    machine.clock.advance(Duration::from_secs(1));
    let copies = Repair::checkpoint(&machine.env, &machine.dir, false).unwrap().carry_out().unwrap().unwrap();
    assert!(!names(&machine, &copies).is_empty());
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.len(), 52);
    end(store).await;
}

#[tokio::test]
async fn a_folder_that_is_well_in_use_or_no_store_s_is_left_alone() {
    let machine = written(2).await;
    let before = names(&machine, &machine.dir);
    assert!(refusal(Repair::identity(&machine.env, &machine.dir, &group())).contains("has its identity"));
    assert!(refusal(Repair::checkpoint(&machine.env, &machine.dir, false)).contains("is whole"));
    let elsewhere = Path::new("/data");
    assert!(refusal(Repair::identity(&machine.env, elsewhere, &group())).contains("not a store's folder"));
    assert!(!names(&machine, elsewhere).contains(&"lock".to_owned()));
    assert_eq!(names(&machine, &machine.dir), before);

    let in_use = StoreFolder::open(&machine.env, &machine.dir).unwrap();
    machine.env.files.remove(&machine.dir.join("identity")).unwrap();
    machine.env.files.remove(&machine.dir.join("identity.copy")).unwrap();
    let refused = Repair::identity(&machine.env, &machine.dir, &group()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, RepairError::InUse(_)), "{refused}");
    drop(in_use);
    assert!(Repair::identity(&machine.env, &machine.dir, &group()).is_ok());
}

#[tokio::test]
async fn a_store_groups_name_is_believed_only_where_somebody_else_knows_it_or_the_operator_is_sure() {
    let machine = written(6).await;
    let folder = machine.open_folder().unwrap();
    let (id, number, cluster) = (folder.id(), folder.store_group().unwrap().0, folder.cluster().unwrap());
    drop(folder);
    for name in ["identity", "identity.copy"] {
        machine.env.files.remove(&machine.dir.join(name)).unwrap();
    }
    let asked = |named: &NamedGroup<'_>| Repair::identity(&machine.env, &machine.dir, named);
    let why = refusal(asked(&NamedGroup { unchecked: false, ..group() }));
    assert!(why.contains("--unchecked-name") && why.contains(&cluster.to_string()), "{why}");
    let repair = asked(&group()).unwrap();
    assert!(repair.lost.iter().any(|lost| lost.contains("Nothing here tells whether store-2 is right")));
    drop(repair);

    let known = |asked_folder, asked_home| {
        assert_eq!((asked_folder, asked_home), (id, Some((cluster, number))));
        Some((cluster, number, named("store-9")))
    };
    let why = refusal(asked(&NamedGroup { known: &known, ..group() }));
    assert!(why.contains("calls store-9, not store-2"), "{why}");
    for said in [None, Some(named("store-9"))] {
        let repair = asked(&NamedGroup { said, unchecked: false, known: &known }).unwrap();
        assert!(repair.steps[0].contains("store group store-9") && repair.lost.is_empty(), "{:?}", repair.steps);
    }
}

#[tokio::test]
async fn a_folder_is_put_back_after_its_copy_has_led_when_that_is_asked_for() {
    let machine = written(7).await;
    let folder = machine.open_folder().unwrap();
    let (id, last) = (folder.id(), folder.last_epoch());
    drop(folder);
    let put_back = |led| Repair::put_back(&machine.env, &machine.dir, Epoch(led));
    assert!(refusal(put_back(last.0)).contains("already"));
    assert!(refusal(put_back(u32::MAX)).contains("no epoch after"));
    let before = contents(&machine, &machine.dir.join("identity"));
    let repair = put_back(last.0 + 5).unwrap();
    assert!(repair.lost[0].contains(&format!("from {} to {}", last.0 + 1, last.0 + 5)), "{:?}", repair.lost);
    drop(repair);
    assert_eq!(contents(&machine, &machine.dir.join("identity")), before, "a plan changes nothing");
    let copies = put_back(last.0 + 5).unwrap().carry_out().unwrap().unwrap();
    assert_eq!(contents(&machine, &copies.join("identity")), before);
    let folder = machine.open_folder().unwrap();
    assert_eq!((folder.id(), folder.last_epoch()), (id, Epoch(last.0 + 5)));
    drop(folder);
    let store = machine.must_open();
    assert!(store.epoch() > Epoch(last.0 + 5));
    assert_eq!(pop_all(&store).await.len(), 52, "all that it held is there");
    end(store).await;
}

#[tokio::test]
async fn files_of_several_folders_are_not_given_an_identity() {
    let (machine, other) = (written(3).await, written(4).await);
    let name = "commit-log/00000000000000000000.log";
    let header = contents(&other, &other.dir.join(name));
    let file = machine.env.files.open(&machine.dir.join(name), OpenMode::ReadWrite).unwrap();
    file.write_all_at(&header[..4096], 0).unwrap();
    for name in ["identity", "identity.copy"] {
        machine.env.files.remove(&machine.dir.join(name)).unwrap();
    }
    assert!(refusal(Repair::identity(&machine.env, &machine.dir, &group())).contains("of several folders"));
}

/// Damages all of them. Returns the name of the last.
fn damage_checkpoints(machine: &Machine) -> String {
    let names = machine.env.files.list(&machine.dir).unwrap().into_iter().map(|entry| entry.name);
    let found: Vec<String> = names.filter(|name| name.starts_with("checkpoint-")).collect();
    for name in &found {
        machine.files.flip_bits(&machine.dir.join(name), 20, 1).unwrap();
    }
    found.last().cloned().unwrap()
}

#[tokio::test]
async fn a_damaged_checkpoint_is_moved_away_and_progress_comes_back_from_the_log() {
    let machine = written(5).await;
    let name = damage_checkpoints(&machine);
    let damaged = contents(&machine, &machine.dir.join(&name));
    let copies = Repair::checkpoint(&machine.env, &machine.dir, false).unwrap().carry_out().unwrap().unwrap();
    assert_eq!(contents(&machine, &copies.join(&name)), damaged);
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.len(), 52, "what was acknowledged stays so");
    end(store).await;
}

#[tokio::test]
async fn a_checkpoint_that_the_log_cannot_replace_is_not_moved_away() {
    let machine = written(6).await;
    // Retention took the first segment.
    let positions = machine.dir.join("positions");
    machine.env.files.remove(&machine.dir.join("commit-log/00000000000000000000.log")).unwrap();
    damage_checkpoints(&machine);
    let before = (names(&machine, &machine.dir), contents(&machine, &positions));
    let said = refusal(Repair::checkpoint(&machine.env, &machine.dir, false));
    assert!(said.contains("reaches back to") && said.contains("Group 1 on topic 1"), "{said}");
    assert_eq!((names(&machine, &machine.dir), contents(&machine, &positions)), before);
}

impl Machine {
    /// Flips a bit of the message with that text. Where its record begins is what `gantry inspect` shows then.
    fn damage(&self, body: &str) -> LogOffset {
        let log = self.dir.join("commit-log");
        for name in names(self, &log).into_iter().filter(|name| name.ends_with(".log")) {
            let path = log.join(&name);
            let held = contents(self, &path);
            if let Some(at) = held.windows(body.len()).rposition(|window| window == body.as_bytes()) {
                self.files.flip_bits(&path, at as u64, 1).unwrap();
                return self.seen_damaged(&path).expect("the walk sees it");
            }
        }
        panic!("{body} is in no segment");
    }

    /// Flips the bit back of the message whose text begins like that now.
    fn mend(&self, text: &str) {
        let log = self.dir.join("commit-log");
        for name in names(self, &log).into_iter().filter(|name| name.ends_with(".log")) {
            let path = log.join(&name);
            if let Some(at) = contents(self, &path).windows(text.len()).rposition(|window| window == text.as_bytes()) {
                return self.files.flip_bits(&path, at as u64, 1).unwrap();
            }
        }
        panic!("{text} is in no segment");
    }

    fn seen_damaged(&self, segment: &Path) -> Option<LogOffset> {
        let mut damaged = None;
        let file = SegmentFile::open(&*self.env.files, segment).unwrap();
        let walked = file.walk(|seen| {
            if let Seen::Damaged { at, .. } = seen {
                damaged = Some(at);
            }
            std::ops::ControlFlow::Continue(())
        });
        walked.unwrap();
        damaged
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let verified = verify_store(&*self.env.files, &self.dir, &mut |finding| {
            if finding.severity == Severity::Problem {
                problems.push(finding.what);
            }
        });
        verified.unwrap();
        problems
    }
}

/// Waits for maintenance to come round.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(600), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} never came"));
}

async fn damaged_of(store: &Store, group: gantry_proto::model::GroupId) -> u64 {
    store.progress(group).await.unwrap().iter().map(|progress| progress.damaged).sum()
}

/// A machine with one damaged message, which the group has set aside; where it lies, and what is left to consume.
async fn with_a_damaged_message(sealed: bool) -> (Machine, LogOffset) {
    let machine = Machine::new(7);
    let store = machine.must_open();
    let text = |number: u32| format!("m{number:02}-{}", "x".repeat(if sealed { 3000 } else { 10 }));
    for number in 0..60 {
        send(&store, 0, &text(number)).await.unwrap();
    }
    end(store).await;
    machine.files.kill();
    let at = machine.damage("m07-");
    let store = machine.must_open();
    let mut got = 0;
    while got < 59 {
        for message in pop(&store, 32).await.unwrap_or_default() {
            assert!(!body(&message).starts_with("m07-"));
            ack(&store, &message.handle).await.unwrap();
            got += 1;
        }
        tokio::task::yield_now().await;
    }
    until("the damaged message", async || {
        let _ = pop(&store, 32).await;
        damaged_of(&store, GROUP).await == 1
    })
    .await;
    end(store).await;
    machine.files.kill();
    (machine, at)
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_given_up_by_name_and_groups_pass_it() {
    for sealed in [false, true] {
        let (machine, at) = with_a_damaged_message(sealed).await;
        assert_eq!(machine.problems().len(), 1, "{:?}", machine.problems());
        let repair = Repair::record(&machine.env, &machine.dir, at).unwrap();
        let (range, concerned) = repair.concerned.clone().unwrap();
        assert_eq!((range.from, concerned.messages.len()), (at, 1), "{concerned:?}");
        let lost = concerned.messages[0];
        assert_eq!((lost.topic, lost.queue.0, lost.first.0, lost.end.0), (TOPIC, 0, 7, 8));
        let of = concerned.groups.iter().find(|of| of.group == GROUP).unwrap();
        assert_eq!((of.finished, of.outstanding, of.set_aside, of.to_come), (0, 0, 1, 0));
        assert!(concerned.claims.unwrap().contains("queue offset 7"));
        assert!(repair.lost.iter().any(|said| said.contains("queue offset 7")), "{:?}", repair.lost);
        let segments = || -> Vec<_> {
            let log = machine.dir.join("commit-log");
            names(&machine, &log).iter().map(|name| contents(&machine, &log.join(name))).collect()
        };
        let before = (segments(), contents(&machine, &machine.dir.join("damaged")));
        let copies = repair.carry_out().unwrap().unwrap();
        assert_eq!(contents(&machine, &copies.join("damaged")), before.1);
        assert_eq!(segments(), before.0, "no byte of the log is changed");
        assert_eq!(machine.problems(), [] as [String; 0], "it is not a problem any more");

        let store = machine.must_open();
        assert!(matches!(store.damaged()[..], [range] if matches!(range.standing, Standing::GivenUp(_))));
        until("the decision", async || damaged_of(&store, GROUP).await == 0).await;
        assert_eq!(store.remains().await.unwrap().unfinished, 0);
        // A group that comes to it later does not stop at it, nor wait for it.
        let mut read = 0;
        while read < 59 {
            let request = PopRequest { group: READER, ..pop_request(32) };
            let got = store.pop(request).await.map(|popped| popped.messages).unwrap_or_default();
            read += got.len();
            for message in got {
                assert!(!body(&message).starts_with("m07-"));
                let handles = vec![message.handle];
                store.ack(AckRequest { group: READER, topic: TOPIC, handles }).await.unwrap().remove(0).unwrap();
            }
        }
        until("the reader's end", async || {
            let request = PopRequest { group: READER, ..pop_request(32) };
            let _ = store.pop(request).await;
            let progress = store.progress(READER).await.unwrap();
            progress.iter().all(|progress| (progress.ready, progress.inflight, progress.damaged) == (0, 0, 0))
        })
        .await;
        end(store).await;
        machine.files.kill();
        // It stays so.
        let store = machine.must_open();
        assert_eq!(damaged_of(&store, GROUP).await + damaged_of(&store, READER).await, 0);
        assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 60);
        end(store).await;
        machine.files.kill();
        assert!(refusal(Repair::record(&machine.env, &machine.dir, at)).contains("given up already"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_delivered_when_it_is_whole_again() {
    for sealed in [false, true] {
        let (machine, _) = with_a_damaged_message(sealed).await;
        machine.mend("l07-");
        let store = machine.must_open();
        assert_eq!(store.damaged(), []);
        let mut got = Vec::new();
        until("the message", async || {
            got.extend(pop(&store, 32).await.unwrap_or_default());
            !got.is_empty()
        })
        .await;
        assert_eq!(got.iter().map(|message| body(message)[..4].to_owned()).collect::<Vec<_>>(), ["m07-"]);
        assert_eq!((got[0].queue_offset.0, got[0].attempt), (7, 1));
        assert_eq!(damaged_of(&store, GROUP).await, 0);
        // Not acknowledged: it comes again, after a crash, too.
        end(store).await;
        machine.files.crash(7);
        machine.clock.advance(2 * INVISIBLE);
        let store = machine.must_open();
        let mut got = pop_all(&store).await;
        assert_eq!((got.len(), got[0].attempt), (1, 2));
        ack(&store, &got.remove(0).handle).await.unwrap();
        machine.clock.advance(2 * INVISIBLE);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(pop_all(&store).await.is_empty(), "once is enough");
        assert_eq!(store.remains().await.unwrap().unfinished, 0);
        end(store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_damaged_again_is_not_given_back() {
    let (machine, _) = with_a_damaged_message(false).await;
    machine.mend("l07-");
    // The store that finds it whole again does not lead, and gives nothing back.
    let folder = machine.open_folder().unwrap();
    let store = machine.open_only(folder).unwrap();
    assert_eq!(store.damaged(), []);
    end(store).await;
    machine.files.kill();
    machine.damage("m07-");
    let store = machine.must_open();
    assert_eq!(store.damaged().len(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(pop_all(&store).await.is_empty());
    assert_eq!(damaged_of(&store, GROUP).await, 1);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_damaged_is_given_up_and_only_of_a_folder_that_nobody_uses() {
    let (machine, at) = with_a_damaged_message(false).await;
    let before = (names(&machine, &machine.dir), contents(&machine, &machine.dir.join("damaged")));
    let refused = |at| refusal(Repair::record(&machine.env, &machine.dir, at));
    assert!(refused(LogOffset(0)).contains("nothing is damaged"));
    assert!(refused(at.plus(1)).contains(&format!("--offset {at}")));
    drop(Repair::record(&machine.env, &machine.dir, at).unwrap());
    let in_use = StoreFolder::open(&machine.env, &machine.dir).unwrap();
    let error = Repair::record(&machine.env, &machine.dir, at).map(|_| ()).unwrap_err();
    assert!(matches!(error, RepairError::InUse(_)), "{error}");
    drop(in_use);
    assert_eq!((names(&machine, &machine.dir), contents(&machine, &machine.dir.join("damaged"))), before);
    // It was put back meanwhile.
    let path = machine.dir.join("commit-log/00000000000000000000.log");
    let found = contents(&machine, &path).windows(4).rposition(|window| window == b"l07-");
    machine.files.flip_bits(&path, found.unwrap() as u64, 1).unwrap();
    assert!(refused(at).contains("whole at"));
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_while_a_record_is_given_up_leaves_it_damaged_or_given_up() {
    let mut outcomes = [0, 0];
    for step in 0..24 {
        let (machine, at) = with_a_damaged_message(false).await;
        let repair = Repair::record(&machine.env, &machine.dir, at).unwrap();
        machine.files.power_off_after(step);
        let done = repair.carry_out();
        machine.files.crash(step);
        let store = machine.must_open();
        let given_up = matches!(store.damaged()[..], [range] if matches!(range.standing, Standing::GivenUp(_)));
        assert!(given_up || done.is_err(), "what was said to be done is done");
        outcomes[usize::from(given_up)] += 1;
        let left = if given_up { 0 } else { 1 };
        until("what is left", async || damaged_of(&store, GROUP).await == left).await;
        assert_eq!(store.damaged().len(), 1);
        end(store).await;
    }
    assert!(outcomes.iter().all(|count| *count > 2), "{outcomes:?}");
}

/// A machine whose retention took the first segments, with all that queue 1 ever held. The group has acknowledged what was
/// in them and some more; the other has done nothing since.
async fn expired() -> (Machine, Vec<u64>) {
    let mut machine = Machine::new(8);
    machine.config.retention.age = Duration::from_secs(3600);
    let store = machine.must_open();
    let mut left = Vec::new();
    for number in 0..GONE {
        send(&store, 1, &format!("gone-{number}")).await.unwrap();
    }
    for group in [GROUP, READER] {
        let request = PopRequest { group, ..pop_request(32) };
        for message in store.pop(request).await.unwrap().messages {
            let handles = vec![message.handle];
            store.ack(AckRequest { group, topic: TOPIC, handles }).await.unwrap().remove(0).unwrap();
        }
    }
    for round in 0..2 {
        for number in 0..40 {
            send(&store, 0, &format!("m{round}-{number:02}-{}", "x".repeat(3000))).await.unwrap();
        }
        let popped = pop(&store, if round == 0 { 32 } else { 16 }).await.unwrap();
        for message in &popped {
            ack(&store, &message.handle).await.unwrap();
        }
        if round == 0 {
            let request = PopRequest { group: READER, ..pop_request(4) };
            for message in store.pop(request).await.unwrap().messages {
                let handles = vec![message.handle];
                store.ack(AckRequest { group: READER, topic: TOPIC, handles }).await.unwrap().remove(0).unwrap();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            machine.clock.advance(Duration::from_secs(3000));
            tokio::time::sleep(Duration::from_secs(5)).await;
        } else {
            left = (popped.last().unwrap().queue_offset.0 + 1..80).collect();
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Retention's time follows at twice the pace.
    let began = store.log_range().0;
    for _ in 0..100 {
        machine.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(60)).await;
        if store.log_range().0 > began {
            break;
        }
    }
    assert!(store.log_range().0 > LogOffset(0), "nothing expired: the test tests nothing");
    let empty = store.queues(TOPIC).await.unwrap()[1];
    assert_eq!((empty.min_offset.0, empty.max_offset.0), (GONE, GONE));
    end(store).await;
    machine.files.kill();
    (machine, left)
}

/// So many messages queue 1 had.
const GONE: u64 = 5;

#[tokio::test(start_paused = true)]
async fn queues_of_which_the_log_tells_nothing_go_on_behind_every_offset_they_can_have_given() {
    let (machine, _) = expired().await;
    damage_checkpoints(&machine);
    let repair = Repair::checkpoint(&machine.env, &machine.dir, true).unwrap();
    let said = repair.lost.join(". ");
    repair.carry_out().unwrap();
    machine.add_topics_and_groups(1, 0);
    let store = machine.must_open();
    let begins = send(&store, 1, "first").await.unwrap().queue_offset.0;
    assert!(begins > GONE && said.contains(&format!("offsets from {begins} on")), "{begins}: {said}");
    let messages = vec![message("another", None)];
    let topic = FIRST_TOPIC;
    let request = AppendRequest { topic, queue: QueueId(0), messages };
    assert_eq!(store.append(request).await.unwrap().appended[0].queue_offset.0, begins);
    // The groups, of which one had been farther and the other begins again, come to it.
    for group in [GROUP, READER] {
        let mut received = false;
        while !received {
            let request = PopRequest { group, ..pop_request(32) };
            let popped = store.pop(request).await.unwrap().messages;
            assert!(!popped.is_empty(), "group {group} never came to it");
            for message in popped {
                received |= body(&message) == "first";
                let handles = vec![message.handle];
                store.ack(AckRequest { group, topic: TOPIC, handles }).await.unwrap().remove(0).unwrap();
            }
        }
        assert_eq!(damaged_of(&store, group).await, 0);
    }
    while !pop_all(&store).await.is_empty() {}
    machine.clock.advance(Duration::from_secs(1));
    // The power fails before anything is saved; then a later generation says it, too.
    machine.files.crash(1);
    end(store).await;
    let newest = |machine: &Machine| {
        let generations = read_checkpoints(&*machine.env.files, &machine.dir).unwrap();
        let generation = generations.into_iter().max_by_key(|generation| generation.path.clone()).unwrap();
        (generation.path, generation.read.unwrap().queues_begin.0)
    };
    let (repaired, begin) = newest(&machine);
    assert_eq!(begin, begins);
    let store = machine.must_open();
    assert_eq!(send(&store, 1, "second").await.unwrap().queue_offset.0, begins + 1);
    let mut number = 0;
    until("another generation", async || {
        number += 1;
        send(&store, 0, &format!("more-{number}-{}", "x".repeat(3000))).await.unwrap();
        newest(&machine).0 != repaired
    })
    .await;
    assert_eq!(newest(&machine).1, begins);
    end(store).await;
    machine.files.kill();
    machine.place(&[HERE; 3]);
    let store = machine.must_open();
    assert_eq!(send(&store, 1, "third").await.unwrap().queue_offset.0, begins + 2);
    assert_eq!(send(&store, 2, "of a new queue").await.unwrap().queue_offset.0, begins);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_behind_retention_is_replaced_by_what_the_log_says_if_the_rest_may_be_lost() {
    let (machine, left) = expired().await;
    damage_checkpoints(&machine);
    assert!(machine.open().is_err());
    let said = refusal(Repair::checkpoint(&machine.env, &machine.dir, false));
    assert!(said.contains("--accept-lost-progress") && said.contains("Group 1 on topic 1 goes on where"), "{said}");
    let repair = Repair::checkpoint(&machine.env, &machine.dir, true).unwrap();
    assert!(repair.lost.iter().any(|lost| lost.contains("begins again at the oldest")), "{:?}", repair.lost);
    assert!(repair.carry_out().unwrap().is_some());
    assert_eq!(machine.problems(), [] as [String; 0]);
    let store = machine.must_open();
    let mut got: Vec<_> = pop_all(&store).await.iter().map(|message| message.queue_offset.0).collect();
    got.sort_unstable();
    assert_eq!(got, left, "what was acknowledged stays so, and what was not comes");
    assert_eq!(damaged_of(&store, GROUP).await, 0);
    assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 80, "no offset is given again");
    end(store).await;
    machine.files.kill();
    end(machine.must_open()).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_while_a_checkpoint_is_replaced_leaves_something_to_go_on_with() {
    for step in 0..40 {
        let (machine, left) = expired().await;
        damage_checkpoints(&machine);
        let repair = Repair::checkpoint(&machine.env, &machine.dir, true).unwrap();
        machine.files.power_off_after(step);
        let done = repair.carry_out();
        machine.files.crash(step);
        if machine.open_folder().is_err() || machine.open().is_err() {
            assert!(done.is_err(), "step {step}: what was said to be done is done");
            machine.files.kill();
            // The copies of the first attempt stay.
            machine.clock.advance(Duration::from_secs(1));
            Repair::checkpoint(&machine.env, &machine.dir, true).unwrap().carry_out().unwrap();
        }
        machine.files.kill();
        let store = machine.must_open();
        assert_eq!(pop_all(&store).await.len(), left.len(), "step {step}");
        end(store).await;
    }
}
