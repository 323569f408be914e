//! Looking at a store's files from outside: what is there is shown, and what is not whole is told, with its place.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use gantry_proto::contract::AppendRequest;
use gantry_proto::env::OpenMode;
use gantry_proto::model::{LogOffset, QueueId};
use gantry_store::Store;
use gantry_store::inspect::{
    Ending, Finding, PositionsSlot, RecordContent, Seen, SegmentFile, Severity, Verified, read_identity,
    read_positions, segment_paths, verify_store,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::*;

const SEGMENT_HEADER_LEN: u64 = 4096;
const MESSAGES: u32 = 100;

async fn end(store: Arc<Store>) {
    let _ = store.shutdown().await;
}

/// A folder with sealed segments, deliveries and a batch, that a store left behind.
async fn written(seed: u64, tag: &str) -> Machine {
    let machine = Machine::new(seed);
    let store = machine.must_open();
    for number in 0..MESSAGES {
        let text = format!("m{number:03}-{}", "x".repeat(3000));
        let messages = vec![message(&text, Some(tag))];
        store.append(AppendRequest { topic: TOPIC, queue: QueueId(number % QUEUES), messages }).await.unwrap();
    }
    let batch = (0..3).map(|number| message(&format!("b{number}"), Some(tag))).collect();
    store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages: batch }).await.unwrap();
    for popped in pop(&store, 8).await.unwrap() {
        ack(&store, &popped.handle).await.unwrap();
    }
    assert!(machine.all_indexed().await >= 4);
    end(store).await;
    machine.files.kill();
    machine
}

fn log(machine: &Machine) -> PathBuf {
    machine.dir.join("commit-log")
}

fn segments(machine: &Machine) -> Vec<PathBuf> {
    segment_paths(&*machine.env.files, &machine.dir).unwrap()
}

fn verified(machine: &Machine) -> (Verified, Vec<Finding>) {
    let mut findings = Vec::new();
    let sum = verify_store(&*machine.env.files, &machine.dir, &mut |finding| findings.push(finding)).unwrap();
    (sum, findings)
}

/// The problems, each as file name, place and text.
fn problems(machine: &Machine) -> Vec<(String, Option<LogOffset>, String)> {
    let (sum, findings) = verified(machine);
    let problems: Vec<_> = findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Problem)
        .map(|finding| {
            assert!(finding.advice.is_some(), "{finding:?}");
            (finding.path.file_name().unwrap().to_string_lossy().into_owned(), finding.at, finding.what)
        })
        .collect();
    assert_eq!(problems.len() as u64, sum.problems);
    problems
}

/// Ids of messages, places and lengths of records, damaged parts, and the end.
#[derive(Debug, Default)]
struct Walk {
    ids: Vec<String>,
    records: Vec<(LogOffset, u32)>,
    damaged: Vec<(LogOffset, LogOffset)>,
    not_understood: Vec<(LogOffset, bool)>,
    ending: Option<Ending>,
}

fn walk(machine: &Machine, path: &Path) -> Walk {
    let mut walk = Walk::default();
    let file = SegmentFile::open(&*machine.env.files, path).unwrap();
    let ending = file.walk(|seen| {
        match seen {
            Seen::Record(record) => {
                walk.records.push((record.at, record.len));
                walk.ids.extend(
                    record
                        .message()
                        .map(|message| message.head.message_id[..4.min(message.head.message_id.len())].to_owned()),
                );
            }
            Seen::Damaged { at, to, .. } => walk.damaged.push((at, to)),
            Seen::NotUnderstood { at, newer, .. } => walk.not_understood.push((at, newer)),
        }
        ControlFlow::Continue(())
    });
    walk.ending = Some(ending.unwrap());
    walk
}

fn write_at(machine: &Machine, path: &Path, at: u64, bytes: &[u8]) {
    let file = machine.env.files.open(path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_data().unwrap();
}

fn cut(machine: &Machine, path: &Path, len: u64) {
    machine.env.files.open(path, OpenMode::ReadWrite).unwrap().set_len(len).unwrap();
}

#[tokio::test]
async fn a_whole_folder_is_shown_record_by_record_and_found_whole() {
    let machine = written(1, "t").await;
    let (mut ids, mut at, mut batches, mut acked) = (Vec::new(), LogOffset(0), 0, 0);
    let paths = segments(&machine);
    for path in &paths {
        let walk = walk(&machine, path);
        for (offset, len) in &walk.records {
            assert_eq!(*offset, at, "records follow one another");
            at = offset.plus(u64::from(*len));
        }
        let last = path == paths.last().unwrap();
        let expected = if last { Ending::LogEnds { at } } else { Ending::Complete { at } };
        assert_eq!(walk.ending, Some(expected));
        ids.extend(walk.ids);
        let file = SegmentFile::open(&*machine.env.files, path).unwrap();
        let _ = file.walk(|seen| {
            if let Seen::Record(record) = seen {
                match record.content {
                    RecordContent::Batch(batch) => batches += batch.count,
                    RecordContent::Delivery(delivery) if delivery.change == "acked" => acked += delivery.messages.len(),
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        });
    }
    let expected = (0..MESSAGES).map(|number| format!("m{number:03}")).chain((0..3).map(|number| format!("b{number}")));
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert_eq!((batches, acked), (3, 8));

    let (sum, findings) = verified(&machine);
    assert_eq!(problems(&machine), []);
    assert_eq!(sum.messages, u64::from(MESSAGES) + 3);
    assert_eq!((sum.segments, sum.bytes), (paths.len() as u64, at.0));
    let whole = |name: &str| {
        let is_it = |path: &Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        findings.iter().any(|f| f.severity == Severity::Whole && is_it(&f.path))
    };
    for name in ["positions", "identity", "checkpoint"] {
        assert!(whole(name), "{name}: {findings:?}");
    }
    let positions = read_positions(&*machine.env.files, &machine.dir).unwrap().unwrap();
    for slot in positions {
        assert!(matches!(slot, PositionsSlot::Whole { positions, .. } if positions.flushed_to == at), "{slot:?}");
    }
    let [first, copy] = read_identity(&*machine.env.files, &machine.dir).map(|copy| copy.facts.unwrap().unwrap());
    assert_eq!(first, copy);
    assert_eq!(first.home.unwrap().1, HERE);
}

#[tokio::test]
async fn looking_changes_nothing() {
    let machine = written(2, "t").await;
    machine.files.flip_bits(&segments(&machine)[1], SEGMENT_HEADER_LEN + 5000, 1).unwrap();
    let snapshot = || {
        let mut all = Vec::new();
        for dir in [machine.dir.clone(), log(&machine)] {
            let mut names = machine.env.files.list(&dir).unwrap();
            names.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in names.into_iter().filter(|entry| !entry.is_dir) {
                let file = machine.env.files.open(&dir.join(&entry.name), OpenMode::Read).unwrap();
                all.push((entry.name, file.read_at(0, entry.len as usize).unwrap()));
            }
        }
        all
    };
    let before = snapshot();
    verified(&machine);
    assert!(before == snapshot());
}

#[tokio::test]
async fn a_damaged_record_is_named_with_its_place_and_its_neighbours_are_shown() {
    let machine = written(3, "t").await;
    for (path, flushed) in [(segments(&machine)[1].clone(), false), (segments(&machine).last().unwrap().clone(), true)]
    {
        let before = walk(&machine, &path);
        for number in [0, before.records.len() / 2, before.records.len() - 1] {
            let (at, len) = before.records[number];
            // The header's length, its kind, its place, and the last byte of the body.
            for byte in [4, 8, 17, len - 1] {
                let position = SEGMENT_HEADER_LEN + (at.0 - before.records[0].0.0) + u64::from(byte);
                machine.files.flip_bits(&path, position, 0x10).unwrap();
                let damaged = walk(&machine, &path);
                let to = at.plus(u64::from(len));
                let context = format!("record {number} of {}, byte {byte}, active: {flushed}", path.display());
                assert_eq!(damaged.damaged, [(at, to)], "{context}");
                let mut others = before.records.clone();
                others.remove(number);
                assert_eq!(damaged.records, others, "{context}");
                assert_eq!(damaged.ending, before.ending, "{context}");
                let problems = problems(&machine);
                let found = problems.iter().find(|(_, place, what)| *place == Some(at) && what.contains("damaged"));
                assert!(found.is_some_and(|(name, ..)| path.ends_with(name)), "{context}: {problems:?}");
                machine.files.flip_bits(&path, position, 0x10).unwrap();
            }
        }
        assert_eq!(problems(&machine), []);
    }
}

#[tokio::test]
async fn damage_that_the_server_has_set_aside_is_said_to_be_known() {
    let machine = written(11, "t").await;
    let path = segments(&machine).pop().unwrap();
    let (at, _) = walk(&machine, &path).records[1];
    let position = SegmentFile::open(&*machine.env.files, &path).unwrap().position(at);
    machine.files.flip_bits(&path, position + 60, 1).unwrap();
    let said = |machine: &Machine| problems(machine).into_iter().find(|(_, place, _)| *place == Some(at)).unwrap().2;
    assert!(!said(&machine).contains("The server knows"));
    end(machine.must_open()).await;
    machine.files.kill();
    assert!(said(&machine).contains("The server knows"), "{}", said(&machine));
    let (_, findings) = verified(&machine);
    assert!(findings.iter().any(|finding| finding.path.ends_with("damaged") && finding.at == Some(at)), "{findings:?}");
}

#[tokio::test]
async fn what_was_written_behind_the_proof_is_unfinished_and_no_problem() {
    let machine = written(4, "t").await;
    let path = segments(&machine).pop().unwrap();
    let before = walk(&machine, &path);
    let Some(Ending::LogEnds { at }) = before.ending else { panic!("{before:?}") };
    let file = SegmentFile::open(&*machine.env.files, &path).unwrap();
    write_at(&machine, &path, file.position(at) + 20, &[7; 100]);
    let after = walk(&machine, &path);
    assert_eq!((after.records, after.damaged), (before.records, vec![]));
    assert!(matches!(after.ending, Some(Ending::Unfinished { at: end, bytes: 120, .. }) if end == at));
    assert_eq!(problems(&machine), []);
    // The same with nothing beside it that proves anything.
    machine.env.files.remove(&machine.dir.join("positions")).unwrap();
    assert!(matches!(walk(&machine, &path).ending, Some(Ending::Unfinished { at: end, .. }) if end == at));
    let problems = problems(&machine);
    assert!(matches!(&problems[..], [(name, None, _)] if name == "positions"), "{problems:?}");
}

#[tokio::test]
async fn a_batch_that_is_not_all_there_is_unfinished_from_its_frame_on() {
    let machine = Machine::new(10);
    let store = machine.must_open();
    send(&store, 0, "m").await.unwrap();
    let messages = (0..3).map(|number| message(&format!("b{number}-"), None)).collect();
    store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
    end(store).await;
    machine.files.kill();
    let path = segments(&machine).pop().unwrap();
    let before = walk(&machine, &path);
    let (frame, (last, len)) = (before.records[1].0, before.records[4]);
    assert_eq!(before.ids, ["m", "b0-", "b1-", "b2-"]);
    let position = SegmentFile::open(&*machine.env.files, &path).unwrap().position(last);
    write_at(&machine, &path, position, &vec![0; len as usize]);
    // It is proven to have been there.
    assert!(matches!(walk(&machine, &path).ending, Some(Ending::Missing { at, .. }) if at == last));
    // Nothing is.
    machine.env.files.remove(&machine.dir.join("positions")).unwrap();
    let ending = walk(&machine, &path).ending;
    assert!(matches!(ending, Some(Ending::Unfinished { at, .. }) if at == frame), "{ending:?}");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    // The newest file cut between two records, cut to its header, and cut to nothing.
    for keep in [Some(2), Some(0), None] {
        let machine = written(5, "t").await;
        let path = segments(&machine).pop().unwrap();
        let before = walk(&machine, &path);
        let Some(Ending::LogEnds { at: log_end }) = before.ending else { panic!("{before:?}") };
        let base = before.records[0].0;
        let len = keep.map_or(0, |records: usize| SEGMENT_HEADER_LEN + before.records[records].0.0 - base.0);
        cut(&machine, &path, len);
        let problems = problems(&machine);
        let at = keep.map_or(base, |records| before.records[records].0);
        let expected = format!("missing from here to {log_end}");
        let found = problems.iter().any(|(_, place, what)| *place == Some(at) && what.contains(&expected));
        assert!(found, "{keep:?}: {problems:?}");
    }
    // A sealed one cut.
    let machine = written(5, "t").await;
    let path = segments(&machine).swap_remove(1);
    let before = walk(&machine, &path);
    let (at, _) = before.records[3];
    cut(&machine, &path, SEGMENT_HEADER_LEN + at.0 - before.records[0].0.0);
    let Some(Ending::Missing { at: from, to, .. }) = walk(&machine, &path).ending else { panic!() };
    assert_eq!((from, to), (at, before.records.last().map(|(at, len)| at.plus(u64::from(*len))).unwrap()));
    // The first one removed, and one in the middle.
    for number in [0, 2] {
        let machine = written(5, "t").await;
        machine.env.files.remove(&segments(&machine)[number]).unwrap();
        let problems = problems(&machine);
        assert!(problems.iter().any(|(_, _, what)| what.contains("missing")), "{number}: {problems:?}");
    }
}

#[tokio::test]
async fn of_a_file_that_holds_nothing_it_is_said_what_gets_on() {
    for number in [0, 1, usize::MAX] {
        for way in 0..4 {
            let machine = written(5, "t").await;
            let paths = segments(&machine);
            let path = &paths[number.min(paths.len() - 1)];
            let len = machine.env.files.open(path, OpenMode::Read).unwrap().len().unwrap() as usize;
            match way {
                0 => cut(&machine, path, 0),
                1 => write_at(&machine, path, 0, &vec![0; len]),
                2 => write_at(&machine, path, 0, &vec![9; len]),
                // Its records show that it is this log's.
                _ => write_at(&machine, path, 0, &[0; 4096]),
            }
            let (_, findings) = verified(&machine);
            let header = findings.iter().find(|finding| finding.path == *path && finding.what.contains("4096 bytes"));
            let header = header.or_else(|| findings.iter().find(|finding| finding.what.contains("does not begin as")));
            let advice = header.and_then(|finding| finding.advice.as_deref()).unwrap();
            let expected = if way == 3 { "the next start writes it anew" } else { "store.accept_missing_log = true" };
            assert!(advice.contains(expected), "{number}, {way}: {advice}");
        }
    }
}

#[tokio::test]
async fn files_that_a_start_set_aside_are_listed() {
    let mut machine = written(5, "t").await;
    let path = segments(&machine).remove(1);
    write_at(&machine, &path, 0, &vec![9; 1 << 16]);
    machine.config.accept_missing_log = true;
    end(machine.must_open()).await;
    machine.files.kill();
    let (sum, findings) = verified(&machine);
    let aside = format!("{}.set-aside-1", path.display());
    let listed = findings.iter().find(|finding| finding.path == Path::new(&aside)).unwrap();
    assert!(listed.severity == Severity::Note && listed.what.contains("nothing reads it"), "{listed:?}");
    assert_eq!(sum.problems, 0, "{findings:#?}");
}

#[tokio::test]
async fn an_index_is_held_against_its_segment() {
    let machine = written(6, "t").await;
    let index = segments(&machine)[1].with_extension("index");
    let contents = machine.env.files.open(&index, OpenMode::Read).unwrap();
    let len = contents.len().unwrap();
    for byte in (0..len).step_by(701) {
        machine.files.flip_bits(&index, byte, 4).unwrap();
        let problems = problems(&machine);
        assert!(matches!(&problems[..], [(name, ..)] if index.ends_with(name)), "byte {byte}: {problems:?}");
        machine.files.flip_bits(&index, byte, 4).unwrap();
    }
    // Whole, of the same range and size, but of other messages.
    let other = written(6, "u").await;
    let theirs = other.env.files.open(&index, OpenMode::Read).unwrap();
    write_at(&machine, &index, 0, &theirs.read_at(0, theirs.len().unwrap() as usize).unwrap());
    let problems_found = problems(&machine);
    assert!(
        matches!(&problems_found[..], [(_, _, what)] if what.contains("does not agree with its segment")),
        "{problems_found:?}"
    );
    machine.env.files.remove(&index).unwrap();
    assert_eq!(problems(&machine), [], "the server makes it again");
    let (sum, _) = verified(&machine);
    assert!(sum.notes > 0);
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_called_newer_and_passed_over() {
    let machine = written(7, "t").await;
    let path = segments(&machine).swap_remove(1);
    let before = walk(&machine, &path);
    let (at, len) = before.records[4];
    let position = SEGMENT_HEADER_LEN + at.0 - before.records[0].0.0;
    let file = machine.env.files.open(&path, OpenMode::Read).unwrap();
    let mut record = file.read_at(position, len as usize).unwrap().to_vec();
    record[8] = 77;
    let crc = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
    write_at(&machine, &path, position, &record);
    let after = walk(&machine, &path);
    assert_eq!(after.not_understood, [(at, true)]);
    assert_eq!((after.records.len() + 1, after.ending), (before.records.len(), before.ending));
    let problems = problems(&machine);
    assert!(
        problems.iter().any(|(_, place, what)| *place == Some(at) && what.contains("newer Gantry")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_lost_identity_a_damaged_header_and_files_of_another_folder_are_told() {
    let machine = written(8, "t").await;
    let path = segments(&machine).swap_remove(1);
    machine.files.flip_bits(&path, 40, 1).unwrap();
    let walked = walk(&machine, &path);
    assert!(walked.records.len() > 3 && matches!(walked.ending, Some(Ending::Complete { .. })), "{walked:?}");
    assert!(matches!(&problems(&machine)[..], [(name, ..)] if path.ends_with(name)));
    machine.files.flip_bits(&path, 40, 1).unwrap();

    let other = written(9, "t").await;
    let theirs = other.env.files.open(&path, OpenMode::Read).unwrap();
    let ours = machine.env.files.open(&path, OpenMode::Read).unwrap().read_at(0, 4096).unwrap();
    write_at(&machine, &path, 0, &theirs.read_at(0, 4096).unwrap());
    let found = problems(&machine);
    assert!(matches!(&found[..], [(_, _, what)] if what.contains("another data folder")), "{found:?}");
    write_at(&machine, &path, 0, &ours);

    let identity = machine.dir.join("identity");
    machine.files.flip_bits(&identity, 20, 1).unwrap();
    assert_eq!(problems(&machine), [], "the copy is whole");
    machine.env.files.remove(&machine.dir.join("identity.copy")).unwrap();
    let found = problems(&machine);
    assert!(found.iter().any(|(name, _, what)| name == "identity" && what.contains("damaged")), "{found:?}");
}
