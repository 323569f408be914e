//! The log on a disk that meets power failures, damage, and other versions of this program.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::AppendRequest;
use gantry_proto::env::OpenMode;
use gantry_proto::env::fake::FakeOp;
use gantry_proto::model::QueueId;
use gantry_store::Store;
use gantry_store::inspect::{Finding, Severity, verify_store};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::*;

/// Bytes in front of a segment's records.
const SEGMENT_HEADER_LEN: u64 = 4096;

async fn end(store: Arc<Store>) {
    // The machine may be gone: then the end has nothing to save it on.
    let _ = store.shutdown().await;
}

fn first_segment(machine: &Machine) -> PathBuf {
    machine.dir.join("commit-log/00000000000000000000.log")
}

#[tokio::test]
async fn the_messages_of_a_request_are_all_there_after_a_power_failure_or_none_is() {
    let (mut none, mut all) = (0, 0);
    for seed in 0..200 {
        let machine = Machine::new(seed);
        let store = machine.must_open();
        machine.files.power_off_after(4 + seed % 4);
        let messages = (0..8).map(|n| message(&format!("b{n}-{}", "x".repeat(3000)), None)).collect();
        let answer = store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await;
        end(store).await;
        machine.files.crash(seed);
        let store = machine.must_open();
        let there = pop_all(&store).await.len();
        assert!(there == 8 || (there == 0 && answer.is_err()), "seed {seed}: {there} of 8 are there, {answer:?}");
        none += u32::from(there == 0);
        all += u32::from(there == 8);
        end(store).await;
    }
    assert!(none > 20 && all > 20, "{none} and {all} of 200: the test tests little");
}

#[tokio::test]
async fn a_record_that_a_later_version_wrote_is_neither_cut_off_nor_called_damaged() {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "m").await.unwrap();
    let epoch = store.epoch().0;
    end(store).await;
    machine.files.kill();
    // What a later version would write: of a kind that is not known here, whole and durable.
    let end_at = machine.must_open().log_range().1.0;
    machine.files.kill();
    let mut record = vec![0u8; 48 + 16];
    record[4..8].copy_from_slice(&64u32.to_le_bytes());
    record[8] = 77;
    record[12..16].copy_from_slice(&(epoch + 1).to_le_bytes());
    record[16..24].copy_from_slice(&end_at.to_le_bytes());
    let crc = crc32c::crc32c(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    let write = |record: &[u8]| {
        let file = machine.env.files.open(&first_segment(&machine), OpenMode::ReadWrite).unwrap();
        file.write_all_at(record, SEGMENT_HEADER_LEN + end_at).unwrap();
        file.sync_data().unwrap();
    };
    write(&record);
    for _ in 0..2 {
        let error = machine.open().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("newer Gantry") && error.contains("kind 77") && error.contains(".log"), "{error}");
    }
    // One that says that it may be passed over is.
    record[9] = 1;
    let crc = crc32c::crc32c(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    write(&record);
    let store = machine.must_open();
    assert_eq!(store.log_range().1.0, end_at + 64);
    assert_eq!(pop_all(&store).await.len(), 1);
    end(store).await;
}

/// Sends messages of 3,000 bytes, more than two segments of them, and waits until what is full is sealed.
async fn fill_segments(store: &Store) {
    for number in 0..60 {
        send(store, 0, &format!("filler-{number}-{}", "x".repeat(3000))).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

#[tokio::test]
async fn the_last_answered_message_does_not_vanish_with_one_bit_and_its_offset_is_not_given_again() {
    // Every byte of the header, too.
    let header = (0..48).map(|byte| (byte, 1));
    for (first, count) in header.chain([(0, 48), (200, 1), (350, 20)]) {
        let mut machine = Machine::new(1);
        machine.config.checkpoint_interval = Duration::from_secs(3600);
        let store = machine.must_open();
        for number in 0..3 {
            send(&store, 0, &format!("m{number}-{}", "x".repeat(300))).await.unwrap();
        }
        let last = send(&store, 0, &format!("last-{}", "x".repeat(300))).await.unwrap();
        let end_at = store.log_range().1;
        machine.files.kill();
        drop(store);
        for byte in first..first + count {
            machine
                .files
                .flip_bits(&first_segment(&machine), SEGMENT_HEADER_LEN + last.log_offset.0 + byte, 0xff)
                .unwrap();
        }
        let store = machine.must_open();
        let damaged: Vec<_> = store.damaged().iter().map(|range| (range.from, range.to)).collect();
        assert_eq!(damaged, [(last.log_offset, end_at)], "{first}");
        let next = send(&store, 0, "next").await.unwrap();
        assert!(next.queue_offset.0 > last.queue_offset.0 && next.log_offset >= end_at, "{first}: {next:?}");
        let after = store.log_range().1;
        end(store).await;
        machine.files.kill();
        let store = machine.must_open();
        assert_eq!(store.damaged().len(), 1, "{first}");
        assert!(store.log_range().1 >= after);
        assert!(send(&store, 0, "later").await.unwrap().queue_offset.0 > next.queue_offset.0, "{first}");
        end(store).await;
    }
}

#[tokio::test]
async fn a_group_that_consumed_a_damaged_message_gets_the_next_one() {
    // Each byte of the header, and the sector that it begins in.
    for (first, count) in (0..48).map(|byte| (byte, 1)).chain([(0, 512)]) {
        let mut machine = Machine::new(1);
        machine.config.checkpoint_interval = Duration::from_secs(3600);
        let store = machine.must_open();
        for number in 0..3 {
            send(&store, 0, &format!("m{number}")).await.unwrap();
        }
        let last = send(&store, 0, &format!("last-{}", "x".repeat(1500))).await.unwrap();
        for popped in pop_all(&store).await {
            ack(&store, &popped.handle).await.unwrap();
        }
        machine.files.kill();
        drop(store);
        let mut at = SEGMENT_HEADER_LEN + last.log_offset.0 + first;
        if count == 1 {
            machine.files.flip_bits(&first_segment(&machine), at, 0xff).unwrap();
        } else {
            at -= at % 512;
            let file = machine.env.files.open(&first_segment(&machine), OpenMode::ReadWrite).unwrap();
            file.write_all_at(&[0; 512], at).unwrap();
            file.sync_data().unwrap();
        }
        let store = machine.must_open();
        let next = send(&store, 0, "next").await.unwrap();
        assert!(next.queue_offset > last.queue_offset, "{first}: {next:?}");
        let got = pop_all(&store).await;
        assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["next"], "{first} {count}");
        machine.files.kill();
        drop(store);
        let store = machine.must_open();
        assert!(send(&store, 0, "later").await.unwrap().queue_offset > next.queue_offset, "{first}");
        end(store).await;
    }
}

/// What is in the file before the last process wrote to it comes back: it was in the page cache only.
fn put_back(machine: &Machine, positions: &[u8]) {
    let file = machine.env.files.open(&machine.dir.join("positions"), OpenMode::ReadWrite).unwrap();
    file.write_all_at(positions, 0).unwrap();
    file.sync_data().unwrap();
}

#[tokio::test]
async fn what_the_checkpoint_proves_is_no_torn_tail() {
    let mut machine = Machine::new(1);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    send(&store, 0, "first").await.unwrap();
    let path = machine.dir.join("positions");
    let file = machine.env.files.open(&path, OpenMode::Read).unwrap();
    let positions = file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec();
    let damaged = send(&store, 0, &format!("damaged-{}", "x".repeat(1500))).await.unwrap();
    send(&store, 0, "last").await.unwrap();
    end(store).await;
    machine.files.kill();
    put_back(&machine, &positions);
    machine.files.flip_bits(&first_segment(&machine), SEGMENT_HEADER_LEN + damaged.log_offset.0 + 300, 1).unwrap();
    let store = machine.must_open();
    assert_eq!(store.damaged().iter().map(|range| range.from).collect::<Vec<_>>(), [damaged.log_offset]);
    assert_eq!(pop_all(&store).await.iter().map(body).collect::<Vec<_>>(), ["first", "last"]);
    end(store).await;
}

#[tokio::test]
async fn a_log_file_that_is_cut_or_removed_under_a_running_store_stops_it_at_once() {
    for removed in [false, true] {
        let machine = Machine::new(1);
        let store = machine.must_open();
        send(&store, 0, "before").await.unwrap();
        let path = first_segment(&machine);
        if removed {
            machine.env.files.remove(&path).unwrap();
        } else {
            machine.env.files.open(&path, OpenMode::ReadWrite).unwrap().set_len(0).unwrap();
        }
        assert!(send(&store, 0, "after").await.is_err(), "a message was answered that nobody can read back");
        let reason = store.health().unwrap_err().to_string();
        assert!(reason.contains("while the server used it") && reason.contains(".log"), "{reason}");
        end(store).await;
    }
}

#[tokio::test]
async fn a_file_that_is_moved_away_or_replaced_under_a_running_store_stops_it() {
    let positions = |machine: &Machine| machine.dir.join("positions");
    for (of_log, replaced, says) in
        [(true, false, "moved away"), (true, true, "replaced"), (false, false, "moved away"), (false, true, "replaced")]
    {
        let machine = Machine::new(1);
        let store = machine.must_open();
        send(&store, 0, "before").await.unwrap();
        let path = if of_log { first_segment(&machine) } else { positions(&machine) };
        let held = machine.env.files.open(&path, OpenMode::Read).unwrap();
        let bytes = held.read_at(0, held.len().unwrap() as usize).unwrap();
        let aside = machine.dir.join("aside");
        machine.env.files.rename(&path, &aside).unwrap();
        if replaced {
            let other = machine.env.files.open(&path, OpenMode::CreateNew).unwrap();
            other.write_all_at(&bytes, 0).unwrap();
        }
        if of_log {
            assert!(send(&store, 0, "after").await.is_err(), "a message was answered that nobody can read back");
        } else {
            // As soon as the store notes how far it is, or looks at its files.
            let _ = send(&store, 0, "after").await;
            tokio::time::timeout(Duration::from_secs(60), async {
                while store.health().is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("nobody noticed");
        }
        let reason = store.health().unwrap_err().to_string();
        assert!(reason.contains("while the server used it") && reason.contains(says), "{reason}");
        end(store).await;
        machine.env.files.rename(&aside, &path).unwrap();
        let store = machine.must_open();
        let left = pop_all(&store).await.len();
        assert!((1..=2).contains(&left), "what was answered is there: {left}");
        end(store).await;
    }
}

#[tokio::test]
async fn what_is_missing_is_named_at_the_start_and_can_be_gone_without() {
    let mut machine = Machine::new(1);
    let store = machine.must_open();
    fill_segments(&store).await;
    let end_at = store.log_range().1;
    let acked = pop_all(&store).await;
    assert_eq!(acked.len(), 60);
    end(store).await;
    machine.files.kill();
    let files = machine.env.files.list(&machine.dir.join("commit-log")).unwrap();
    let mut segments: Vec<_> =
        files.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".log")).collect();
    segments.sort();
    assert!(segments.len() > 2);
    let path = machine.dir.join("commit-log").join(segments.last().unwrap());
    machine.env.files.open(&path, OpenMode::ReadWrite).unwrap().set_len(SEGMENT_HEADER_LEN).unwrap();
    for _ in 0..2 {
        let error = machine.open().map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("missing") && error.contains("accept_missing_log") && error.contains("was cut"),
            "{error}"
        );
    }
    machine.config.accept_missing_log = true;
    let store = machine.must_open();
    assert!(store.damaged().iter().any(|range| range.cause == gantry_store::DamageCause::Missing));
    let next = send(&store, 0, "next").await.unwrap();
    assert!(next.log_offset >= end_at && next.queue_offset.0 >= 60, "{next:?}");
    end(store).await;
    machine.files.kill();
    machine.config.accept_missing_log = false;
    let store = machine.must_open();
    assert!(send(&store, 0, "after").await.unwrap().queue_offset.0 > next.queue_offset.0);
    end(store).await;
}

#[tokio::test(start_paused = true)]
async fn any_segment_that_is_gone_or_cut_after_a_crash_can_be_gone_without() {
    for (which, how, saved) in (0..4)
        .flat_map(|which| ["removed", "cut", "emptied", "zeros"].map(|how| (which, how)))
        .flat_map(|(which, how)| [false, true].map(|saved| (which, how, saved)))
    {
        let case = format!("segment {which}, {how}, with a checkpoint {saved}");
        let mut machine = Machine::new(1);
        machine.config.checkpoint_interval = if saved { Duration::ZERO } else { Duration::from_secs(3600) };
        let store = machine.must_open();
        match which {
            // The only one.
            0 => drop(send(&store, 0, "alone").await.unwrap()),
            _ => fill_segments(&store).await,
        }
        assert!(!pop(&store, 32).await.unwrap().is_empty());
        // Nobody waits for the delivery to be flushed, and what was not may be lost.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let end_at = store.log_range().1;
        machine.files.kill();
        drop(store);
        let names = machine.env.files.list(&machine.dir.join("commit-log")).unwrap();
        let mut names: Vec<_> =
            names.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".log")).collect();
        names.sort();
        let place = [0, 0, 1, names.len() - 1][which];
        assert!(if which == 0 { names.len() == 1 } else { names.len() > 2 }, "{case}: {names:?}");
        let path = machine.dir.join("commit-log").join(&names[place]);
        let file = machine.env.files.open(&path, OpenMode::ReadWrite).unwrap();
        match how {
            "removed" => machine.env.files.remove(&path),
            "cut" => file.set_len(SEGMENT_HEADER_LEN + 100),
            "emptied" => file.set_len(0),
            _ => file.write_all_at(&vec![0; file.len().unwrap() as usize], 0),
        }
        .unwrap();
        drop(file);
        for _ in 0..2 {
            let Err(error) = machine.open() else { panic!("{case}: opened") };
            assert!(error.to_string().contains("accept_missing_log"), "{case}: {error}");
        }
        machine.config.accept_missing_log = true;
        let store = machine.must_open();
        assert!(store.damaged().iter().any(|range| range.cause == gantry_store::DamageCause::Missing), "{case}");
        let next = send(&store, 0, "next").await.unwrap();
        assert!(next.log_offset >= end_at, "{case}: {next:?}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(store.health().is_ok(), "{case}: {:?}", store.health());
        assert!(pop_all(&store).await.iter().any(|message| body(message) == "next"), "{case}");
        machine.files.kill();
        drop(store);
        machine.config.accept_missing_log = false;
        let store = machine.must_open();
        assert!(send(&store, 0, "after").await.unwrap().queue_offset > next.queue_offset, "{case}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(store.health().is_ok(), "{case}: {:?}", store.health());
        end(store).await;
    }
}

/// Counts lines of one text.
struct Lines(&'static str, Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if format!("{value:?}").contains(self.0) {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_was_accepted_is_said_once_and_is_no_problem_any_more() {
    for (which, how) in (0..3).flat_map(|which| ["removed", "cut", "emptied", "zeros", "text"].map(|how| (which, how)))
    {
        let case = format!("segment {which}, {how}");
        let mut machine = Machine::new(1);
        let store = machine.must_open();
        fill_segments(&store).await;
        machine.all_indexed().await;
        end(store).await;
        machine.files.kill();
        let names = machine.env.files.list(&machine.dir.join("commit-log")).unwrap();
        let mut names: Vec<_> =
            names.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".log")).collect();
        names.sort();
        let path = machine.dir.join("commit-log").join(&names[[0, 1, names.len() - 1][which]]);
        let file = machine.env.files.open(&path, OpenMode::ReadWrite).unwrap();
        let len = file.len().unwrap();
        match how {
            "removed" => machine.env.files.remove(&path),
            "cut" => file.set_len(SEGMENT_HEADER_LEN + 5000),
            "emptied" => file.set_len(0),
            "text" => file.write_all_at(&vec![b'x'; len as usize], 0),
            _ => file.write_all_at(&vec![0; len as usize], 0),
        }
        .unwrap();
        drop(file);
        let problems = || {
            let mut problems = Vec::new();
            verify_store(&*machine.env.files, &machine.dir, &mut |finding: Finding| {
                if finding.severity == Severity::Problem {
                    problems.push(format!("{finding:?}"));
                }
            })
            .unwrap();
            problems
        };
        let before = problems();
        assert_eq!(before.len(), 1, "{case}: one loss is one problem: {before:#?}");
        let file = names.iter().any(|name| before[0].contains(name.as_str())) || before[0].contains("commit-log\"");
        assert!(file && before[0].contains("store.accept_missing_log = true"), "{case}: {before:?}");
        machine.config.accept_missing_log = true;
        let said = Arc::new(AtomicUsize::new(0));
        let counting = tracing::subscriber::set_default(Lines("a part of the log is damaged", said.clone()));
        let store = machine.must_open();
        drop(counting);
        assert_eq!((said.load(Ordering::Relaxed), store.damaged().len()), (1, 1), "{case}: {:?}", store.damaged());
        tokio::time::sleep(Duration::from_secs(30)).await;
        end(store).await;
        machine.files.kill();
        assert_eq!(problems(), [] as [String; 0], "{case}: it was accepted");
    }
}

/// A machine whose messages are all old enough to go.
async fn expired_machine() -> Machine {
    let mut machine = Machine::new(1);
    machine.config.retention.age = Duration::from_secs(3600);
    machine.config.checkpoint_interval = Duration::from_secs(3600);
    let store = machine.must_open();
    fill_segments(&store).await;
    end(store).await;
    machine.files.kill();
    machine
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_leaves_no_hole_in_the_log() {
    for after in 0..6 {
        let machine = expired_machine().await;
        let store = machine.must_open();
        let begins = store.log_range().0;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        machine.clock.advance(Duration::from_secs(7200));
        machine.files.fail_next(FakeOp::Remove, after, io::ErrorKind::Other);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(store.log_range().0 > begins, "nothing expired: the test tests nothing");
        assert!(store.health().is_ok());
        end(store).await;
        machine.files.kill();
        end(machine.must_open()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_while_segments_are_removed_leaves_no_hole_in_the_log() {
    for seed in 0..60 {
        let machine = expired_machine().await;
        let store = machine.must_open();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        machine.clock.advance(Duration::from_secs(7200));
        machine.files.power_off_after(seed % 20);
        tokio::time::sleep(Duration::from_secs(20)).await;
        end(store).await;
        machine.files.crash(seed);
        end(machine.must_open()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_removes_nothing() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    fill_segments(&store).await;
    let right = machine.env.clock.now();
    machine.clock.set(right.after(Duration::from_secs(80 * 3600)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(store.log_range().0.0, 0, "messages that nobody consumed are gone");
    end(store).await;
    machine.files.kill();
    // Nor after a restart with the clock still wrong.
    let store = machine.must_open();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(store.log_range().0.0, 0, "messages that nobody consumed are gone");
    machine.clock.set(right);
    assert_eq!(pop_all(&store).await.len(), 60);
    end(store).await;
}
