//! What a start finds, and what it makes of it.

use super::open_file::foreign;
use super::*;
use crate::commit_log::damage::Standing;
use crate::commit_log::positions::Positions;
use crate::commit_log::record::{BatchFrame, FLAG_SKIP, RecordError, RecordHeader, RecordKind, write_record};
use crate::commit_log::segment::segment_name;
use crate::commit_log::segment_header::SEGMENT_HEADER_LEN;
use crate::commit_log::{Flush, LogHome};
use gantry_proto::env::fake::{self, FakeFiles};
use gantry_proto::env::{File, OpenMode};
use gantry_proto::model::Epoch;
use std::time::Duration;

const SEGMENT_BYTES: u64 = 64 << 10;

fn config() -> LogConfig {
    LogConfig {
        folder: "/store".into(),
        dir: "/store/log".into(),
        home: LogHome::default(),
        flush: Flush::Sync,
        segment_bytes: SEGMENT_BYTES,
        pending_bytes_max: SEGMENT_BYTES as usize,
        accept_missing: false,
    }
}

/// What a test puts into a log: kind, epoch, body.
type Written<'a> = (RecordKind, u32, &'a [u8]);

fn records(records: &[Written<'_>]) -> (Vec<u8>, Vec<LogOffset>) {
    let (mut bytes, mut places) = (Vec::new(), vec![LogOffset(0)]);
    for (kind, epoch, body) in records {
        let header = RecordHeader {
            len: 0,
            kind: *kind,
            extensions_len: 0,
            epoch: Epoch(*epoch),
            log_offset: LogOffset(bytes.len() as u64),
            store_time: Timestamp::ZERO,
            topic: Default::default(),
            queue: Default::default(),
            queue_offset: Default::default(),
        };
        write_record(&mut bytes, &header, |out| out.extend_from_slice(body));
        places.push(LogOffset(bytes.len() as u64));
    }
    (bytes, places)
}

/// A log whose first segment holds these bytes, of which `flushed_to` are known to be on disk.
fn log_with(bytes: &[u8], flushed_to: LogOffset) -> Env {
    disk_with(bytes, flushed_to).0
}

/// And the disk that it is on.
fn disk_with(bytes: &[u8], flushed_to: LogOffset) -> (Env, FakeFiles) {
    let (env, files, _) = fake::env(1);
    let mut segments = Segments::find(config(), env.clone()).unwrap();
    let active = segments.active();
    active.file.write_all_at(bytes, active.position(LogOffset(0))).unwrap();
    segments.positions.update(|held| held.flushed_to = flushed_to).unwrap();
    (env, files)
}

fn scan(env: &Env) -> Result<(LogOffset, usize), LogOpenError> {
    let segments = Segments::find(config(), env.clone())?;
    let mut seen = 0;
    let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
        seen += usize::from(matches!(visit, Visit::Record { .. }));
        Ok(())
    })?;
    Ok((scanned.end, seen))
}

fn damage(env: &Env) -> Vec<(LogOffset, LogOffset)> {
    let ranges = crate::commit_log::damage::read(&*env.files, &config().folder).unwrap();
    ranges.iter().map(|range| (range.from, range.to)).collect()
}

/// Which ranges are known to be damaged, and why.
fn causes(env: &Env) -> Vec<(LogOffset, LogOffset, DamageCause)> {
    let ranges = crate::commit_log::damage::read(&*env.files, &config().folder).unwrap();
    let known = ranges.iter().filter(|range| range.standing == Standing::Open);
    known.map(|range| (range.from, range.to, range.cause)).collect()
}

fn file(env: &Env) -> Arc<dyn File> {
    env.files.open(&config().dir.join(segment_name(LogOffset(0))), OpenMode::ReadWrite).unwrap()
}

const BODY: [u8; 100] = [7; 100];
const RECORD: RecordKind = RecordKind::Delivery;

#[test]
fn a_record_left_over_from_an_earlier_epoch_does_not_come_back_to_life() {
    // The second record was written over a lost one of the same length; the third is what followed that one.
    let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 2, &BODY), (RECORD, 1, &BODY)]);
    assert_eq!(scan(&log_with(&bytes, LogOffset(0))).unwrap(), (places[2], 2));
}

#[test]
fn a_torn_tail_is_cut_and_damage_of_what_was_flushed_is_noted_and_passed_over() {
    let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    bytes[places[1].0 as usize + 60] ^= 1;
    for zeroed in [false, true] {
        if zeroed {
            bytes[places[1].0 as usize..][..48].fill(0);
        }
        assert_eq!(scan(&log_with(&bytes, places[1])).unwrap(), (places[1], 1));
        let env = log_with(&bytes, places[2]);
        for _ in 0..2 {
            assert_eq!(scan(&env).unwrap(), (places[2], 1), "the log goes on behind what it lost");
            assert_eq!(damage(&env), [(places[1], places[2])]);
        }
    }
}

#[test]
fn what_a_tail_lost_is_erased_so_that_it_cannot_follow_what_is_written_over_it() {
    let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    bytes[places[1].0 as usize + 60] ^= 1;
    let env = log_with(&bytes, places[1]);
    let segments = Segments::find(config(), env.clone()).unwrap();
    let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| Ok(())).unwrap();
    let tenure = Tenure::new(Epoch(1), Duration::ZERO);
    let (log, _) = segments.open(scanned, Arc::new(tenure)).unwrap();
    assert_eq!(log.appended_to(), places[1]);
    let left = file(&env).read_at(SEGMENT_HEADER_LEN + places[1].0, 1 << 20).unwrap();
    assert!(left.iter().all(|byte| *byte == 0), "bytes of the cut tail are left");
    assert_eq!(Positions::read(&*env.files, &config().folder).unwrap().unwrap().flushed_to, places[1]);
}

#[test]
fn a_whole_record_that_is_not_understood_is_never_cut_off() {
    let (mut bytes, places) = records(&[(RECORD, 1, &BODY), (RecordKind::Unknown(99), 1, &BODY)]);
    // It may be passed over.
    assert_eq!(scan(&log_with(&bytes, LogOffset(0))).unwrap(), (places[2], 1));
    let second = &mut bytes[places[1].0 as usize..];
    assert_eq!(second[9], FLAG_SKIP);
    second[9] = 0;
    let crc = crc32c::crc32c(&second[4..]);
    second[..4].copy_from_slice(&crc.to_le_bytes());
    for flushed_to in [LogOffset(0), places[1], places[2]] {
        let error = scan(&log_with(&bytes, flushed_to)).unwrap_err();
        assert!(matches!(error, LogOpenError::Newer { log_offset, .. } if log_offset == places[1]), "{error}");
        let text = error.to_string();
        assert!(text.contains("kind 99") && text.contains("or a later one"), "{text}");
    }
}

#[test]
fn a_whole_record_that_cannot_be_applied_is_an_error_with_its_place_and_reason() {
    let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    let env = log_with(&bytes, LogOffset(0));
    let segments = Segments::find(config(), env).unwrap();
    let mut seen = 0;
    let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| {
        seen += 1;
        if seen == 2 { Err(RecordError::Malformed("this is a test")) } else { Ok(()) }
    });
    let error = scanned.map(|_| ()).unwrap_err();
    assert!(matches!(error, LogOpenError::Inapplicable { log_offset, .. } if log_offset == places[1]), "{error}");
    assert!(error.to_string().contains("this is a test"), "{error}");
}

#[test]
fn a_batch_at_the_end_is_there_whole_or_not_at_all() {
    let mut frame = Vec::new();
    BatchFrame { count: 3, bytes: 3 * 148 }.write(&mut frame);
    let written = [
        (RECORD, 1, BODY.as_slice()),
        (RecordKind::Batch, 1, &frame),
        (RECORD, 1, &BODY),
        (RECORD, 1, &BODY),
        (RECORD, 1, &BODY),
        (RECORD, 1, &BODY),
    ];
    let (whole, places) = records(&written);
    assert_eq!(scan(&log_with(&whole, LogOffset(0))).unwrap(), (places[6], 5));
    for member in 2..5 {
        let mut torn = whole.clone();
        torn[places[member].0 as usize + 70] ^= 1;
        assert_eq!(scan(&log_with(&torn, places[1])).unwrap(), (places[1], 1), "member {member}");
    }
    // Cut off in between.
    let cut = &whole[..places[4].0 as usize + 10];
    assert_eq!(scan(&log_with(cut, places[1])).unwrap(), (places[1], 1));
}

#[test]
fn behind_damage_the_next_whole_record_is_found_by_its_own_place() {
    let written: Vec<Written<'_>> = (0..8).map(|_| (RECORD, 1, BODY.as_slice())).collect();
    let (whole, places) = records(&written);
    let place = |number: usize| places[number].0 as usize;
    // What is damaged, and which records are left: a body, a length, a header, two records in one.
    for (damaged, left) in [
        (place(3) + 90..place(3) + 91, 7),
        (place(3) + 4..place(3) + 8, 7),
        (place(3)..place(3) + 48, 7),
        (place(3) + 20..place(4) + 60, 6),
        (place(0)..place(5), 3),
    ] {
        let mut bytes = whole.clone();
        bytes[damaged.clone()].iter_mut().for_each(|byte| *byte = !*byte);
        let env = log_with(&bytes, places[8]);
        assert_eq!(scan(&env).unwrap(), (places[8], left), "{damaged:?}");
        let [(from, to)] = damage(&env)[..] else { panic!("one range: {:?}", damage(&env)) };
        assert!(from.0 as usize <= damaged.start && damaged.end <= to.0 as usize, "{from} to {to}");
        assert!(places.contains(&from) && places.contains(&to));
    }
}

#[test]
fn an_operator_can_choose_to_go_on_without_what_is_missing() {
    let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    let accepting = LogConfig { accept_missing: true, ..config() };
    for case in 0..7 {
        let env = log_with(&bytes, places[2]);
        let name = config().dir.join(segment_name(LogOffset(0)));
        let left = match case {
            0 => file(&env).set_len(SEGMENT_HEADER_LEN + places[1].0).map(|()| 1),
            1 => file(&env).write_all_at(&[0; 148], SEGMENT_HEADER_LEN + places[1].0).map(|()| 1),
            2 => env.files.remove(&name).map(|()| 0),
            3 => file(&env).set_len(0).map(|()| 0),
            4 => file(&env).set_len(100).map(|()| 0),
            5 => file(&env).write_all_at(&vec![0; (SEGMENT_HEADER_LEN + SEGMENT_BYTES) as usize], 0).map(|()| 0),
            _ => env.files.remove(&config().folder.join("positions")).map(|()| 2),
        };
        let left = left.unwrap();
        assert!(scan(&env).is_err(), "{case}");
        let segments = Segments::find(accepting.clone(), env.clone()).unwrap();
        let mut seen = 0;
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
            seen += usize::from(matches!(visit, Visit::Record { .. }));
            Ok(())
        });
        let scanned = scanned.unwrap();
        assert_eq!((scanned.end, seen), (places[2], left), "{case}: nothing is written where something was");
        assert_eq!(damage(&env).len(), usize::from(left < 2), "{case}");
        drop(segments);
        // Once is enough.
        let next = Segments::find(config(), env.clone()).unwrap();
        assert_eq!(next.scan(next.list[0].base, LogOffset(0), |_| Ok(())).unwrap().end, places[2], "{case}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let (bytes, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    let missing = |env: &Env, says: &str| {
        let error = scan(env).unwrap_err();
        assert!(matches!(error, LogOpenError::Missing { to, .. } if to == places[2]), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    // Cut between two records, to the header and to nothing; emptied; removed.
    for (len, says) in [(SEGMENT_HEADER_LEN + places[1].0, "was cut"), (SEGMENT_HEADER_LEN, "was cut")] {
        let env = log_with(&bytes, places[2]);
        file(&env).set_len(len).unwrap();
        missing(&env, says);
    }
    let env = log_with(&bytes, places[2]);
    file(&env).set_len(0).unwrap();
    missing(&env, "00000000000000000000.log is not a segment of this log: its first 4096 bytes are not all there");
    let env = log_with(&bytes, places[2]);
    file(&env).write_all_at(&vec![0; (SEGMENT_HEADER_LEN + SEGMENT_BYTES) as usize], 0).unwrap();
    missing(&env, "no record in it shows that it is");
    let env = log_with(&bytes[..places[1].0 as usize], places[2]);
    missing(&env, "holds nothing from byte");
    let env = log_with(&bytes, places[2]);
    env.files.remove(&config().dir.join(segment_name(LogOffset(0)))).unwrap();
    missing(&env, "no segment");
    // What was only reserved may be cut.
    let env = log_with(&bytes, places[2]);
    file(&env).set_len(SEGMENT_HEADER_LEN + places[2].0 + 9).unwrap();
    assert_eq!(scan(&env).unwrap(), (places[2], 2));
    let env = log_with(&bytes, places[2]);
    env.files.remove(&config().folder.join("positions")).unwrap();
    assert!(matches!(scan(&env), Err(LogOpenError::NoPositions(_))));
}

#[test]
fn a_segment_of_another_folder_group_or_cluster_is_refused_by_name() {
    let (bytes, places) = records(&[(RECORD, 1, &BODY)]);
    let env = log_with(&bytes, places[1]);
    let with = |home: LogHome| {
        Segments::find(LogConfig { home, ..config() }, env.clone()).map(|_| ()).map_err(|error| error.to_string())
    };
    let own = LogHome::default();
    assert_eq!(with(own), Ok(()));
    assert!(
        with(LogHome { folder: gantry_proto::model::FolderId([1; 16]), ..own }).unwrap_err().contains("data folder")
    );
    let home = LogHome { store_group: Some(gantry_proto::model::StoreGroupId(4)), ..own };
    assert_eq!(foreign(&own, &home), None, "it was not known then");
    assert!(foreign(&LogHome { store_group: Some(gantry_proto::model::StoreGroupId(3)), ..own }, &home).is_some());
}

/// Thirty records of 1,048 bytes, and where they begin.
fn long_records() -> (Vec<u8>, Vec<LogOffset>) {
    let body = [7; 1000];
    records(&(0..30).map(|_| (RECORD, 1, body.as_slice())).collect::<Vec<_>>())
}

fn segment_path() -> PathBuf {
    config().dir.join(segment_name(LogOffset(0)))
}

#[test]
fn around_a_bad_sector_every_record_is_read_and_when_the_disk_gives_it_again_it_is_no_damage_any_more() {
    let (bytes, places) = long_records();
    let end = places[30];
    // In one page; over the border of two; a page's first byte; in the first record's header; the last record.
    for bad in [10_000..10_512, 12_200..12_300, 16_384..16_385, 8..9, end.0 as usize - 20..end.0 as usize] {
        let (env, files) = disk_with(&bytes, end);
        let at = |place: usize| SEGMENT_HEADER_LEN + place as u64;
        files.make_unreadable(&segment_path(), at(bad.start)..at(bad.end)).unwrap();
        // What lies in a page with it is lost with it.
        let (first, last) = (bad.start / 4096 * 4096, (bad.end - 1) / 4096 * 4096 + 4096);
        let lost = |n: &usize| (places[*n].0 as usize) < last && first < places[*n + 1].0 as usize;
        let lost: Vec<usize> = (0..30).filter(lost).collect();
        for _ in 0..2 {
            assert_eq!(scan(&env).unwrap(), (end, 30 - lost.len()), "{bad:?}");
            let expected = (places[lost[0]], places[lost[lost.len() - 1] + 1], DamageCause::Unreadable);
            assert_eq!(causes(&env), [expected], "{bad:?}");
        }
        file(&env).write_all_at(&bytes[bad.clone()], at(bad.start)).unwrap();
        assert_eq!(scan(&env).unwrap(), (end, 30));
        assert_eq!(causes(&env), [], "{bad:?}");
    }
}

#[test]
fn a_torn_tail_on_a_bad_sector_is_erased_all_the_same() {
    let (bytes, places) = long_records();
    let (env, files) = disk_with(&bytes, places[4]);
    let at = SEGMENT_HEADER_LEN + places[8].0;
    files.make_unreadable(&segment_path(), at..at + 512).unwrap();
    let segments = Segments::find(config(), env.clone()).unwrap();
    let scanned = segments.scan(LogOffset(0), LogOffset(0), |_| Ok(())).unwrap();
    let end = scanned.end;
    assert!(places[4] <= end && end <= places[8], "{end}");
    let (log, _) = segments.open(scanned, Arc::new(Tenure::new(Epoch(1), Duration::ZERO))).unwrap();
    assert_eq!(log.appended_to(), end);
    let left = file(&env).read_at(SEGMENT_HEADER_LEN + end.0, 1 << 20).unwrap();
    assert!(left.iter().all(|byte| *byte == 0), "bytes of the cut tail are left");
}

#[test]
fn a_disk_that_gives_nothing_is_no_damage() {
    let body = vec![7; 60_000];
    let (bytes, places) = records(&(0..100).map(|_| (RECORD, 1, body.as_slice())).collect::<Vec<_>>());
    let config = || LogConfig { segment_bytes: 8 << 20, ..config() };
    let (env, files, _) = fake::env(1);
    let mut segments = Segments::find(config(), env.clone()).unwrap();
    segments.active().file.write_all_at(&bytes, SEGMENT_HEADER_LEN).unwrap();
    segments.positions.update(|held| held.flushed_to = places[100]).unwrap();
    drop(segments);
    files.make_unreadable(&segment_path(), SEGMENT_HEADER_LEN..u64::MAX).unwrap();
    let segments = Segments::find(config(), env.clone()).unwrap();
    let error = segments.scan(LogOffset(0), LogOffset(0), |_| Ok(())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("gives nothing of it"), "{error}");
    assert_eq!(damage(&env), []);
}

#[test]
fn a_record_behind_damage_is_told_where_the_damage_ends_and_one_in_front_of_it_is_not() {
    let (mut bytes, places) =
        records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY), (RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    bytes[places[1].0 as usize + 60] ^= 1;
    let env = log_with(&bytes, places[4]);
    for _ in 0..2 {
        let segments = Segments::find(config(), env.clone()).unwrap();
        let mut seen = Vec::new();
        let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
            if let Visit::Record { record, gap } = visit {
                seen.push((record.header.log_offset, gap));
            }
            Ok(())
        });
        scanned.unwrap();
        let behind = Some(places[2]);
        assert_eq!(seen, [(places[0], None), (places[2], behind), (places[3], behind)]);
    }
}

/// A log of three segments, the second of which ends an epoch.
fn three_segments() -> (Env, FakeFiles, Vec<LogOffset>) {
    let (env, files, _) = fake::env(1);
    let mut segments = Segments::find(config(), env.clone()).unwrap();
    let (first, places) = records(&[(RECORD, 1, &BODY), (RECORD, 2, &BODY)]);
    segments.active().file.write_all_at(&first, SEGMENT_HEADER_LEN).unwrap();
    let (mut base, mut bases, mut epochs) =
        (places[2], vec![LogOffset(0)], vec![(Epoch(1), LogOffset(0)), (Epoch(2), places[1])]);
    for epoch in [3, 4] {
        let prepared = crate::commit_log::prepared::create_prepared(&*env.files, &config()).unwrap();
        let named = crate::commit_log::prepared::name_prepared(
            &*env.files,
            &config(),
            LogHome::default(),
            prepared,
            (base, epochs.clone()),
        );
        let mut bytes = Vec::new();
        for _ in 0..2 {
            let header = RecordHeader {
                len: 0,
                kind: RECORD,
                extensions_len: 0,
                epoch: Epoch(epoch),
                log_offset: base.plus(bytes.len() as u64),
                store_time: Timestamp::ZERO,
                topic: Default::default(),
                queue: Default::default(),
                queue_offset: Default::default(),
            };
            write_record(&mut bytes, &header, |out| out.extend_from_slice(&BODY));
        }
        named.unwrap().file.write_all_at(&bytes, SEGMENT_HEADER_LEN).unwrap();
        epochs.push((Epoch(epoch), base));
        bases.push(base);
        base = base.plus(bytes.len() as u64);
    }
    bases.push(base);
    let updated = segments.positions.update(|held| (held.sealed_to, held.flushed_to) = (bases[2], base));
    updated.and_then(|()| segments.positions.settle()).unwrap();
    for path in bases[..3].iter().map(|base| config().dir.join(segment_name(*base))) {
        env.files.open(&path, OpenMode::ReadWrite).unwrap().sync_data().unwrap();
    }
    (env, files, bases)
}

fn open_all(env: &Env) -> Result<usize, LogOpenError> {
    open_with(config(), env)
}

fn open_with(config: LogConfig, env: &Env) -> Result<usize, LogOpenError> {
    let segments = Segments::find(config, env.clone())?;
    let mut seen = 0;
    let scanned = segments.scan(LogOffset(0), LogOffset(0), |visit| {
        seen += usize::from(matches!(visit, Visit::Record { .. }));
        Ok(())
    })?;
    segments.open(scanned, Arc::new(Tenure::new(Epoch(1), Duration::ZERO)))?;
    Ok(seen)
}

#[test]
fn a_damaged_first_page_is_written_anew_as_it_was() {
    let page = |env: &Env, base| {
        let file = env.files.open(&config().dir.join(segment_name(base)), OpenMode::Read).unwrap();
        file.read_at(0, SEGMENT_HEADER_LEN as usize).unwrap()
    };
    for number in 0..3 {
        // The magic, the checksum, the base, the capacity, the folder, an epoch, nothing, all of it; a bad sector.
        for byte in [0, 13, 20, 30, 40, 75, 4000, 5000, 6000] {
            let (env, files, bases) = three_segments();
            let (path, before) = (config().dir.join(segment_name(bases[number])), page(&env, bases[number]));
            match byte {
                5000 => file_at(&env, &path).write_all_at(&[0; 4096], 0).unwrap(),
                6000 => files.make_unreadable(&path, 512..1024).unwrap(),
                byte => files.flip_bits(&path, byte, 4).unwrap(),
            }
            assert_eq!(open_all(&env).unwrap(), 6, "segment {number}, byte {byte}");
            assert_eq!(page(&env, bases[number]), before, "segment {number}, byte {byte}");
            assert_eq!(damage(&env), []);
        }
    }
    // All of them at once: from the first on.
    let (env, files, bases) = three_segments();
    let before: Vec<_> = bases[..3].iter().map(|base| page(&env, *base)).collect();
    for base in &bases[..3] {
        files.flip_bits(&config().dir.join(segment_name(*base)), 20, 1).unwrap();
    }
    assert_eq!(open_all(&env).unwrap(), 6);
    assert_eq!(bases[..3].iter().map(|base| page(&env, *base)).collect::<Vec<_>>(), before);
}

fn file_at(env: &Env, path: &Path) -> Arc<dyn File> {
    env.files.open(path, OpenMode::ReadWrite).unwrap()
}

#[test]
fn a_power_failure_while_a_first_page_is_written_anew_costs_nothing() {
    for step in 0..40 {
        for seed in 0..5 {
            let (env, files, bases) = three_segments();
            files.flip_bits(&config().dir.join(segment_name(bases[1])), 20, 1).unwrap();
            files.power_off_after(step);
            let opened = open_all(&env);
            files.crash(seed);
            assert_eq!(open_all(&env).unwrap(), 6, "step {step}, seed {seed}, {:?}", opened.err());
        }
    }
}

#[test]
fn a_first_page_that_is_newer_of_another_folder_or_of_no_log_is_not_written_anew() {
    let (env, _, bases) = three_segments();
    let path = config().dir.join(segment_name(bases[1]));
    let file = file_at(&env, &path);
    let page = file.read_at(0, SEGMENT_HEADER_LEN as usize).unwrap().to_vec();
    let refused = |page: &[u8]| {
        file.write_all_at(page, 0).unwrap();
        let error = open_all(&env).unwrap_err().to_string();
        assert_eq!(file.read_at(0, SEGMENT_HEADER_LEN as usize).unwrap(), page, "it was changed");
        error
    };
    let mut newer = page.clone();
    newer[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(refused(&newer).contains("newer"));
    let mut foreign = page.clone();
    foreign[32..48].fill(0x5a);
    assert!(refused(&foreign).contains("seems to be of the data folder"));
    let mut nothing = page.clone();
    nothing[20] ^= 1;
    file.write_all_at(&[9; 2 * 148], SEGMENT_HEADER_LEN).unwrap();
    assert!(refused(&nothing).contains("no record in it shows"));
}

/// What is left of a file.
type Ruin = fn(&[u8]) -> Vec<u8>;

/// Ways to make a file useless.
const USELESS: [Ruin; 4] =
    [|_| Vec::new(), |whole| whole[..100].to_vec(), |whole| vec![0; whole.len()], |whole| vec![9; whole.len()]];

fn contents(env: &Env, path: &Path) -> Vec<u8> {
    let file = env.files.open(path, OpenMode::Read).unwrap();
    file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec()
}

/// Three segments, one of them useless: its path, and what is left in it.
fn with_useless(number: usize, left: Ruin) -> (Env, FakeFiles, Vec<LogOffset>, PathBuf, Vec<u8>) {
    let (env, files, bases) = three_segments();
    let path = config().dir.join(segment_name(bases[number]));
    let left = left(&contents(&env, &path));
    let file = file_at(&env, &path);
    file.set_len(left.len() as u64).and_then(|()| file.write_all_at(&left, 0)).and_then(|()| file.sync_data()).unwrap();
    (env, files, bases, path, left)
}

fn set_aside(path: &Path, number: u32) -> PathBuf {
    format!("{}.set-aside-{number}", path.display()).into()
}

fn accepting() -> LogConfig {
    LogConfig { accept_missing: true, ..config() }
}

#[test]
fn a_useless_file_is_missing_log_and_goes_out_of_the_way_when_that_is_accepted() {
    for (number, way) in (0..3).flat_map(|number| (0..USELESS.len()).map(move |way| (number, way))) {
        let case = format!("segment {number}, way {way}");
        let (env, _, bases, path, left) = with_useless(number, USELESS[way]);
        for _ in 0..2 {
            let error = open_all(&env).unwrap_err();
            let text = error.to_string();
            let LogOpenError::Missing { what, from, to } = error else { panic!("{case}: {text}") };
            assert_eq!((from, to), (bases[number], bases[number + 1]), "{case}");
            assert!(what.contains(&segment_name(from)) && text.contains("store.accept_missing_log = true"), "{text}");
            assert_eq!(contents(&env, &path), left, "{case}: it was changed");
        }
        // One was set aside before.
        let before = set_aside(&path, 1);
        env.files.open(&before, OpenMode::CreateNew).unwrap().write_all_at(b"before", 0).unwrap();
        assert_eq!(open_with(accepting(), &env).unwrap(), 4, "{case}");
        assert_eq!(contents(&env, &before), b"before");
        let kept = env.files.identity_at(&set_aside(&path, 2)).unwrap().is_some();
        assert_eq!(kept, left.iter().any(|byte| *byte != 0), "{case}");
        if kept {
            assert_eq!(contents(&env, &set_aside(&path, 2)), left, "{case}");
        }
        let covered = damage(&env).iter().any(|(from, to)| *from <= bases[number] && bases[number + 1] <= *to);
        assert!(covered && causes(&env).iter().all(|(.., cause)| *cause == DamageCause::Missing), "{case}");
        assert_eq!(open_all(&env).unwrap(), 4, "{case}: once is enough");
        assert!(Positions::read(&*env.files, &config().folder).unwrap().unwrap().flushed_to >= bases[3], "{case}");
    }
}

#[test]
fn all_useless_files_are_judged_before_one_is_touched() {
    let (env, _, bases, path, left) = with_useless(0, USELESS[1]);
    // A later one seems to be of another folder.
    let foreign = file_at(&env, &config().dir.join(segment_name(bases[2])));
    foreign.write_all_at(&[0x5a; 16], 32).unwrap();
    let error = open_with(accepting(), &env).unwrap_err().to_string();
    assert!(error.contains("seems to be of the data folder"), "{error}");
    assert_eq!(contents(&env, &path), left);
}

#[test]
fn a_power_failure_while_a_useless_file_goes_out_of_the_way_costs_nothing_more() {
    for step in 0..40 {
        for (number, way, seed) in [(1, 1, step), (2, 0, step + 1), (2, 3, step + 2)] {
            let (env, files, _, path, left) = with_useless(number, USELESS[way]);
            files.power_off_after(step);
            let opened = open_with(accepting(), &env);
            files.crash(seed);
            let case = format!("segment {number}, way {way}, step {step}, seed {seed}, {:?}", opened.err());
            assert_eq!(open_with(accepting(), &env).unwrap(), 4, "{case}");
            if !left.is_empty() {
                assert_eq!(contents(&env, &set_aside(&path, 1)), left, "{case}");
            }
            assert_eq!(open_all(&env).unwrap(), 4, "{case}");
        }
    }
}

#[test]
fn an_emptied_file_in_which_nothing_was_proven_is_asked_about_and_leaves_no_damage() {
    let (bytes, places) = records(&[(RECORD, 1, &BODY)]);
    let env = log_with(&bytes, LogOffset(0));
    file(&env).set_len(0).unwrap();
    let error = open_all(&env).unwrap_err().to_string();
    assert!(error.contains("store.accept_missing_log = true"), "{error}");
    assert_eq!(open_with(accepting(), &env).unwrap(), 0);
    assert_eq!(damage(&env), []);
    assert_eq!(open_all(&env).unwrap(), 0);
    // Its first page is damaged, and records that nothing proves are in it: they stay.
    let env = log_with(&bytes, LogOffset(0));
    file(&env).write_all_at(&[0; SEGMENT_HEADER_LEN as usize], 0).unwrap();
    assert_eq!(scan(&env).unwrap(), (places[1], 1));
}

/// A log of which nothing is proven, whose only file begins with this page, and these bytes behind it.
fn unproven(page: impl FnOnce(&mut [u8]), behind: &[u8]) -> (Env, FakeFiles, PathBuf, Vec<u8>) {
    let (env, files) = disk_with(behind, LogOffset(0));
    let file = file(&env);
    let mut first = file.read_at(0, SEGMENT_HEADER_LEN as usize).unwrap().to_vec();
    page(&mut first);
    file.write_all_at(&first, 0).and_then(|()| file.sync_data()).unwrap();
    let path = config().dir.join(segment_name(LogOffset(0)));
    let bytes = contents(&env, &path);
    (env, files, path, bytes)
}

const FOREIGN: fn(&mut [u8]) = |page| page.fill(9);
const A_BIT: fn(&mut [u8]) = |page| page[0] ^= 1;
const BLANK: fn(&mut [u8]) = |page| page.fill(0);

#[test]
fn bytes_of_which_nothing_is_known_are_asked_about_and_kept() {
    let (whole, places) = records(&[(RECORD, 1, &BODY), (RECORD, 1, &BODY)]);
    let mut torn = whole.clone();
    torn[50] ^= 1;
    for (page, behind) in [(FOREIGN, &[][..]), (A_BIT, &[9; 300]), (BLANK, &[9; 300]), (FOREIGN, &torn), (A_BIT, &torn)]
    {
        let (env, _, path, bytes) = unproven(page, behind);
        let error = open_all(&env).unwrap_err().to_string();
        assert!(error.contains("store.accept_missing_log = true") && error.contains("nothing proves"), "{error}");
        assert_eq!(contents(&env, &path), bytes, "it was changed");
        assert_eq!(open_with(accepting(), &env).unwrap(), 0);
        assert_eq!(contents(&env, &set_aside(&path, 1)), bytes);
        assert_eq!((damage(&env), open_all(&env).unwrap()), (Vec::new(), 0));
    }
    for (page, behind, held) in [(FOREIGN, &whole, 2), (A_BIT, &Vec::new(), 0), (BLANK, &Vec::new(), 0)] {
        let (env, _, _, _) = unproven(page, behind);
        assert_eq!(scan(&env).unwrap(), (places[held], held), "only its first page is damaged");
        assert_eq!(open_all(&env).unwrap(), held);
    }
}

#[test]
fn a_power_failure_while_unproven_bytes_are_set_aside_loses_none() {
    for step in 0..30 {
        let (env, files, path, bytes) = unproven(A_BIT, &[9; 300]);
        files.power_off_after(step);
        let opened = open_with(accepting(), &env);
        files.crash(step + 1);
        let case = format!("step {step}, {:?}", opened.err());
        assert_eq!(open_with(accepting(), &env).unwrap(), 0, "{case}");
        assert_eq!(contents(&env, &set_aside(&path, 1)), bytes, "{case}");
        assert_eq!(open_all(&env).unwrap(), 0, "{case}");
    }
}
