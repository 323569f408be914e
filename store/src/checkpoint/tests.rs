use super::parts;
use super::*;
use bytes::Buf;
use gantry_proto::env::fake::{self, FakeFiles};
use gantry_proto::env::{Env, OpenMode};
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;

const DIR: &str = "/store";
const SEGMENT_BYTES: u64 = 1 << 30;

fn disk() -> (Env, FakeFiles) {
    let (env, files, _) = fake::env(1);
    env.files.create_dir_all(Path::new(DIR)).unwrap();
    (env, files)
}

fn load(env: &Env, begins: u64) -> Result<Loaded, CheckpointError> {
    Checkpoints::load(&*env.files, Path::new(DIR), SEGMENT_BYTES, LogOffset(begins), false)
}

fn position(at: u64) -> Position {
    Position { at: LogOffset(at), retained_from: LogOffset(at / 2), log_to: LogOffset(at + 7) }
}

/// A save in which queues and shards `numbers` are as of `at`.
fn changes(numbers: impl IntoIterator<Item = u32> + Clone, at: u64) -> Changes {
    let queue = |number| QueueRow {
        topic: TopicId(1 + number % 3),
        queue: QueueId(number),
        min: QueueOffset(at / 2),
        next: QueueOffset(at),
    };
    let shard = |number| ShardState {
        group: GroupId(number),
        topic: TopicId(1 + number % 3),
        good_for: LogOffset(at + 1),
        state: Bytes::copy_from_slice(format!("state {number} at {at}").as_bytes()),
    };
    Changes {
        queues: numbers.clone().into_iter().map(queue).collect(),
        shards: numbers.into_iter().map(shard).collect(),
        ..Changes::default()
    }
}

fn generations(env: &Env) -> Vec<String> {
    let mut names: Vec<_> = env.files.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

/// What the saves come to, by themselves.
fn expected(saves: &[(Changes, Position)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    saves.iter().for_each(|(changes, position)| snapshot.apply(changes.clone(), *position));
    snapshot
}

/// Two generations of three saves each: the first save of the second says everything.
fn two_generations(env: &Env) -> [Vec<(Changes, Position)>; 2] {
    let mut checkpoints = load(env, 0).unwrap().checkpoints;
    let mut written = [Vec::new(), Vec::new()];
    for (generation, saves) in written.iter_mut().enumerate() {
        checkpoints.begin_generation();
        for number in 0..3u32 {
            let at = 1000 * (generation as u64 + 1) + u64::from(number);
            let changes = if number == 0 { changes(0..20, at) } else { changes(number..number + 2, at) };
            checkpoints.save(&*env.files, &changes, position(at)).unwrap();
            saves.push((changes, position(at)));
        }
    }
    written
}

proptest! {
    #[test]
    fn saves_read_back_as_they_were_written(
        saves in vec((vec(0u32..40, 0..9), vec((0u32..40, 0u32..4), 0..3), any::<bool>()), 1..9),
    ) {
        let (env, _) = disk();
        let mut checkpoints = load(&env, 0).unwrap().checkpoints;
        let mut snapshot = Snapshot::default();
        for (at, (numbers, shards, reopen)) in saves.into_iter().enumerate() {
            let mut changes = changes(numbers, at as u64);
            changes.queues_begin = QueueOffset(at as u64 / 3);
            changes.shards_gone = shards.into_iter().map(|(group, topic)| (GroupId(group), TopicId(topic))).collect();
            checkpoints.save(&*env.files, &changes, position(at as u64)).unwrap();
            snapshot.apply(changes, position(at as u64));
            if reopen {
                let loaded = load(&env, 0).unwrap();
                prop_assert_eq!(&loaded.snapshot, &snapshot);
                checkpoints = loaded.checkpoints;
            }
        }
        prop_assert_eq!(load(&env, 5).unwrap().snapshot, snapshot);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), header: bool) {
        let header = if header { parts::file_header(1).to_vec() } else { Vec::new() };
        let _ = parts::read(&[header, bytes].concat().into());
    }
}

#[test]
fn a_save_costs_what_changed_and_not_what_is_there() {
    let (env, _) = disk();
    let mut checkpoints = load(&env, 0).unwrap().checkpoints;
    let base = checkpoints.save(&*env.files, &changes(0..100_000, 1), position(1)).unwrap();
    let busy = checkpoints.save(&*env.files, &changes(0..1_000, 2), position(2)).unwrap();
    assert!(!checkpoints.begins_generation());
    assert!(busy < base / 90, "{busy} bytes for 1,000 of 100,000, which take {base}");
    // In the long run a base is written for as many bytes of saves.
    let mut saved = 0;
    while !checkpoints.begins_generation() {
        saved += checkpoints.save(&*env.files, &changes(0..1_000, 3), position(3)).unwrap();
    }
    assert!(saved >= base - base / 50, "a generation ended after {saved} bytes of saves");
}

#[test]
fn a_damaged_byte_anywhere_costs_at_most_saves_and_never_makes_one_up() {
    let (env, files) = disk();
    let [older, newer] = two_generations(&env);
    let names = generations(&env);
    assert_eq!(names.len(), 2);
    let whole: Vec<Snapshot> = (1..=3).map(|count| expected(&newer[..count])).collect();
    for (place, name) in names.iter().enumerate() {
        let path = Path::new(DIR).join(name);
        let len = env.files.open(&path, OpenMode::Read).unwrap().len().unwrap();
        for byte in 0..len {
            files.flip_bits(&path, byte, 1 << (byte % 8)).unwrap();
            let loaded = load(&env, 900).unwrap_or_else(|error| panic!("{name} byte {byte}: {error}"));
            if place == 0 {
                assert_eq!(loaded.snapshot, whole[2], "{name} byte {byte}");
            } else {
                let fallen_back = loaded.snapshot == expected(&older);
                assert!(fallen_back || whole[..2].contains(&loaded.snapshot), "{name} byte {byte}");
            }
            assert!(loaded.snapshot.position.at >= LogOffset(1002), "the log is needed from where the older one ends");
            files.flip_bits(&path, byte, 1 << (byte % 8)).unwrap();
        }
    }
    assert_eq!(load(&env, 900).unwrap().checkpoints.needed_from(), LogOffset(1002));
}

#[test]
fn a_bad_sector_costs_what_a_damaged_byte_does() {
    let (env, files) = disk();
    let [older, newer] = two_generations(&env);
    let path = Path::new(DIR).join(&generations(&env)[1]);
    let file = env.files.open(&path, OpenMode::ReadWrite).unwrap();
    let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
    let ends: Vec<u64> = (1..=3).map(|saves| end_of_save(&bytes, saves)).collect();
    let mut fallen_back = Vec::new();
    for sector in 0..(bytes.len() as u64).div_ceil(512) {
        files.make_unreadable(&path, sector * 512..(sector + 1) * 512).unwrap();
        let loaded = load(&env, 900).unwrap_or_else(|error| panic!("sector {sector}: {error}"));
        let saves = ends.iter().filter(|end| **end <= sector * 512).count();
        let wanted = if saves == 0 { expected(&older) } else { expected(&newer[..saves]) };
        fallen_back.push(saves == 0);
        assert_eq!(loaded.snapshot, wanted, "sector {sector}");
        assert!(loaded.checkpoints.begins_generation(), "nothing is written behind it");
        assert!(look(&*env.files, Path::new(DIR)).unwrap()[1].read.as_ref().map_or(true, |(_, cut_off)| *cut_off));
        file.write_all_at(&bytes, 0).unwrap();
    }
    assert!(fallen_back.contains(&true) && fallen_back.contains(&false));
    // Between two saves nothing is missing that anybody would notice.
    let mut padded = bytes[..ends[0] as usize].to_vec();
    padded.resize(padded.len() + 600, 7);
    file.write_all_at(&padded, 0).unwrap();
    files.make_unreadable(&path, ends[0]..u64::MAX).unwrap();
    let loaded = load(&env, 900).unwrap();
    assert!(loaded.checkpoints.begins_generation());
    // None of them can be read.
    for name in generations(&env) {
        files.make_unreadable(&Path::new(DIR).join(name), 0..u64::MAX).unwrap();
    }
    assert!(matches!(load(&env, 900), Err(CheckpointError::Damaged { .. })));
    assert_eq!(load(&env, 0).unwrap().snapshot, Snapshot::default());
}

/// Where the save of that number ends.
fn end_of_save(bytes: &Bytes, number: usize) -> u64 {
    let ends = (0..=bytes.len()).filter_map(|len| parts::read(&bytes.slice(..len)).ok().map(|read| read.end));
    let mut ends: Vec<u64> = ends.collect();
    ends.dedup();
    ends[number - 1]
}

#[test]
fn where_queues_begin_goes_on_from_save_to_save() {
    let (env, _) = disk();
    let mut checkpoints = load(&env, 0).unwrap().checkpoints;
    let begin = Changes { queues_begin: QueueOffset(77), ..changes(0..3, 10) };
    checkpoints.save(&*env.files, &begin, position(10)).unwrap();
    checkpoints.save(&*env.files, &changes(1..2, 20), position(20)).unwrap();
    assert_eq!(load(&env, 5).unwrap().snapshot.queues_begin, QueueOffset(77));
}

#[test]
fn after_a_damaged_generation_a_new_one_is_begun_and_the_whole_one_stays() {
    let (env, files) = disk();
    let [older, _] = two_generations(&env);
    let names = generations(&env);
    files.flip_bits(&Path::new(DIR).join(&names[1]), 100, 1).unwrap();
    let Loaded { snapshot, mut checkpoints } = load(&env, 900).unwrap();
    assert_eq!(snapshot, expected(&older));
    assert!(checkpoints.begins_generation());
    checkpoints.save(&*env.files, &changes(0..20, 3000), position(3000)).unwrap();
    assert_eq!(checkpoints.needed_from(), LogOffset(1002));
    let left = generations(&env);
    assert_eq!((left.len(), &left[0]), (2, &names[0]), "the damaged one is gone");
    // And if that one is damaged again, the same is fallen back to.
    files.flip_bits(&Path::new(DIR).join(&left[1]), 100, 1).unwrap();
    assert_eq!(load(&env, 900).unwrap().snapshot, expected(&older));
}

#[test]
fn without_any_whole_checkpoint_only_a_log_that_is_whole_will_do() {
    let (env, files) = disk();
    assert!(matches!(load(&env, 1), Err(CheckpointError::Missing { .. })));
    two_generations(&env);
    for name in generations(&env) {
        files.flip_bits(&Path::new(DIR).join(name), 50, 1).unwrap();
    }
    assert!(matches!(load(&env, 1), Err(CheckpointError::Damaged { .. })));
    assert_eq!(load(&env, 0).unwrap().snapshot, Snapshot::default());
}

#[test]
fn what_is_newer_is_named_and_what_may_be_passed_over_is() {
    for (flags, newer) in [(0, true), (1, false)] {
        let (env, _) = disk();
        two_generations(&env);
        let path = Path::new(DIR).join(&generations(&env)[1]);
        let file = env.files.open(&path, OpenMode::ReadWrite).unwrap();
        let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
        let read = parts::read(&bytes).unwrap();
        // A part of kind 77 with an extension field, then an ordinary save.
        let mut part = vec![0; 8];
        part.extend_from_slice(&[77, flags, 3, 0]);
        part.extend_from_slice(&read.generation.to_le_bytes());
        part.extend_from_slice(&read.next_part.to_le_bytes());
        part.extend_from_slice(b"extension and body");
        let len = part.len() as u32;
        part[4..8].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c(&part[4..]);
        part[..4].copy_from_slice(&crc.to_le_bytes());
        parts::write_save(&mut part, read.generation, read.next_part + 1, &changes([1], 5000), &position(5000));
        file.write_all_at(&part, read.end).unwrap();
        match load(&env, 900) {
            Err(CheckpointError::Newer { what, .. }) => assert!(newer && what.contains("77"), "{what}"),
            Err(error) => panic!("{error}"),
            Ok(loaded) => assert!(!newer && loaded.snapshot.position == position(5000)),
        }
    }
    // A later format, with a checksum that is right.
    let (env, _) = disk();
    two_generations(&env);
    let file = env.files.open(&Path::new(DIR).join(&generations(&env)[1]), OpenMode::ReadWrite).unwrap();
    let mut header = file.read_at(0, 32).unwrap().to_vec();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    assert!(matches!(load(&env, 0), Err(CheckpointError::Newer { .. })));
}

#[test]
fn a_power_failure_at_any_step_leaves_a_save_that_was_written() {
    let steps = {
        let (env, files) = disk();
        let before = files.mutations();
        two_generations(&env);
        files.mutations() - before
    };
    for step in 0..steps {
        for seed in 0..6 {
            let (env, files) = disk();
            files.power_off_after(step);
            let mut written = vec![Snapshot::default()];
            let mut checkpoints = load(&env, 0).unwrap().checkpoints;
            let mut answered = 0;
            let mut snapshot = Snapshot::default();
            'all: for generation in 1..=3u64 {
                checkpoints.begin_generation();
                for number in 0..3u32 {
                    let at = 1000 * generation + u64::from(number);
                    let changes = if number == 0 { changes(0..20, at) } else { changes(number..number + 2, at) };
                    snapshot.apply(changes.clone(), position(at));
                    written.push(snapshot.clone());
                    if checkpoints.save(&*env.files, &changes, position(at)).is_err() {
                        break 'all;
                    }
                    answered = written.len() - 1;
                }
            }
            let needed_from = checkpoints.needed_from();
            files.crash(seed);
            let loaded = load(&env, 0).unwrap();
            let found = written.iter().position(|snapshot| *snapshot == loaded.snapshot);
            assert!(
                found.is_some_and(|found| found >= answered),
                "step {step}, seed {seed}: save {found:?} of {answered}"
            );
            assert!(loaded.snapshot.position.at >= needed_from);
            // It goes on from there.
            let mut checkpoints = loaded.checkpoints;
            let everything = checkpoints.begins_generation();
            let save = if everything { changes(0..20, 9000) } else { changes([5], 9000) };
            checkpoints.save(&*env.files, &save, position(9000)).unwrap();
            files.crash(0);
            let again = load(&env, 0).unwrap().snapshot;
            let mut wanted = if everything { Snapshot::default() } else { loaded.snapshot };
            wanted.apply(save, position(9000));
            assert_eq!(again, wanted, "step {step}, seed {seed}");
        }
    }
}

#[test]
fn a_save_that_is_ahead_of_the_log_is_neither_written_nor_believed() {
    let (env, _) = disk();
    let [older, newer] = two_generations(&env);
    let ahead = |at: u64| Position { log_to: LogOffset(at - 1), ..position(at) };
    let only_a_shard = |at: u64| Position { log_to: LogOffset(at), ..position(at) };
    for position in [ahead(5000), only_a_shard(5000)] {
        let Loaded { snapshot, mut checkpoints } = load(&env, 900).unwrap();
        assert_eq!(snapshot, expected(&newer));
        let refused = checkpoints.save(&*env.files, &changes([1], 5000), position).unwrap_err();
        assert!(refused.to_string().contains("more than is on disk"), "{refused}");
    }
    // Somebody wrote one all the same: the saves before it count, and those behind it, which build on it, do not.
    let [base, newest] = generations(&env).try_into().unwrap();
    let file = env.files.open(&Path::new(DIR).join(&newest), OpenMode::ReadWrite).unwrap();
    let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
    let read = parts::read(&bytes).unwrap();
    for position in [ahead(5000), only_a_shard(5000)] {
        let mut saves = Vec::new();
        let next = parts::write_save(&mut saves, read.generation, read.next_part, &changes([1], 5000), &position);
        parts::write_save(&mut saves, read.generation, next, &changes([2], 6000), &self::position(6000));
        file.write_all_at(&saves, read.end).unwrap();
        let Loaded { snapshot, checkpoints } = load(&env, 900).unwrap();
        assert_eq!(snapshot, expected(&newer), "the saves before it are not lost");
        assert!(checkpoints.begins_generation(), "nothing is written behind it");
        assert_eq!(checkpoints.needed_from(), expected(&older).position.at);
    }
    // The first save of a generation: then it is worth nothing.
    let mut bytes = parts::file_header(read.generation).to_vec();
    parts::write_save(&mut bytes, read.generation, 0, &changes([1], 5000), &ahead(5000));
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(load(&env, 900).unwrap().snapshot, expected(&older), "{base} is fallen back to");
}

#[test]
fn a_part_of_another_place_or_generation_is_not_taken() {
    let (env, _) = disk();
    two_generations(&env);
    let file = env.files.open(&Path::new(DIR).join(&generations(&env)[1]), OpenMode::ReadWrite).unwrap();
    let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
    let read = parts::read(&bytes).unwrap();
    for (generation, part) in [(read.generation - 1, read.next_part), (read.generation, read.next_part + 1)] {
        let mut save = bytes.to_vec();
        parts::write_save(&mut save, generation, part, &changes([1], 5000), &position(5000));
        assert_eq!(parts::read(&save.into()).unwrap().snapshot, read.snapshot);
    }
    assert!(bytes.remaining() > 0);
}
