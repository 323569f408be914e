use super::*;

fn disk() -> FakeFiles {
    let files = FakeFiles::new();
    files.create_dir_all(Path::new("/data")).unwrap();
    files
}

fn create(files: &FakeFiles, path: &str) -> Arc<dyn File> {
    files.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn read(files: &FakeFiles, path: &str) -> io::Result<Bytes> {
    files.open(Path::new(path), OpenMode::Read)?.read_at(0, usize::MAX)
}

fn names(files: &FakeFiles) -> Vec<String> {
    files.list(Path::new("/data")).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_synced_file_without_a_synced_directory_is_lost() {
    let files = disk();
    create(&files, "/data/a").sync_data().unwrap();
    files.crash(0);
    assert_eq!(names(&files), Vec::<String>::new());

    let file = create(&files, "/data/a");
    file.write_all_at(b"bytes", 0).unwrap();
    file.sync_data().unwrap();
    files.sync_dir(Path::new("/data")).unwrap();
    files.crash(0);
    assert_eq!(read(&files, "/data/a").unwrap(), "bytes");
}

#[test]
fn an_unsynced_rename_leaves_either_name_but_never_both_or_none() {
    let mut seen = [0, 0];
    for seed in 0..40 {
        let files = disk();
        create(&files, "/data/temp").write_all_at(b"new", 0).unwrap();
        create(&files, "/data/final").write_all_at(b"old", 0).unwrap();
        for name in ["temp", "final"] {
            files.open(&Path::new("/data").join(name), OpenMode::ReadWrite).unwrap().sync_data().unwrap();
        }
        files.sync_dir(Path::new("/data")).unwrap();
        files.rename(Path::new("/data/temp"), Path::new("/data/final")).unwrap();
        assert_eq!(read(&files, "/data/final").unwrap(), "new");
        files.crash(seed);
        let renamed = names(&files) == ["final"];
        assert_eq!(read(&files, "/data/final").unwrap(), if renamed { "new" } else { "old" });
        assert!(renamed || names(&files) == ["final", "temp"]);
        seen[usize::from(renamed)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0);
}

#[test]
fn handles_and_locks_die_with_the_process() {
    let files = disk();
    let lock = Path::new("/data/LOCK");
    let file = create(&files, "/data/a");
    let old_guard = files.try_lock(lock).unwrap();
    assert_eq!(files.try_lock(lock).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
    files.kill();
    assert!(file.write_all_at(b"x", 0).is_err() && file.len().is_err() && file.read_at(0, 1).is_err());
    let new_guard = files.try_lock(lock).unwrap();
    drop(old_guard);
    assert!(files.try_lock(lock).is_err(), "a dead owner must not release the new owner's lock");
    drop(new_guard);
    assert!(files.try_lock(lock).is_ok());
    assert!(names(&files).contains(&"a".to_owned()), "a killed process loses no name");
}

#[test]
fn a_full_disk_refuses_allocation_and_tears_writes() {
    let files = disk();
    let file = create(&files, "/data/a");
    files.set_capacity(Some(1000));
    file.allocate(900).unwrap();
    assert_eq!(file.allocate(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 900);
    assert_eq!(file.write_all_at(&[1; 300], 850).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 1000);
    file.write_all_at(&[2; 300], 100).unwrap();
    assert_eq!(files.space(Path::new("/data")).unwrap(), (1000, 0));
    files.remove(Path::new("/data/a")).unwrap();
    assert_eq!(files.space(Path::new("/data")).unwrap(), (1000, 1000));
}

#[test]
fn planned_failures_strike_once_at_their_call() {
    let files = disk();
    let file = create(&files, "/data/a");
    files.fail_next(FakeOp::Write, 1, io::ErrorKind::StorageFull);
    file.write_all_at(b"1111", 0).unwrap();
    assert_eq!(file.write_all_at(b"2222", 4).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.read_at(0, 100).unwrap(), "111122", "half of the failed write is there");
    file.write_all_at(b"3333", 4).unwrap();
    files.fail_next(FakeOp::Read, 0, io::ErrorKind::Other);
    assert!(file.read_at(0, 1).is_err() && file.read_at(0, 1).is_ok());
    files.fail_next(FakeOp::Sync, 0, io::ErrorKind::Other);
    files.sync_dir(Path::new("/data")).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    files.crash(0);
    assert_ne!(read(&files, "/data/a").unwrap(), "11113333", "a repeated sync does not save what the first lost");
}

#[test]
fn after_the_power_went_off_nothing_works_until_the_restart() {
    let files = disk();
    let file = create(&files, "/data/a");
    files.sync_dir(Path::new("/data")).unwrap();
    files.power_off_after(1);
    file.write_all_at(b"one", 0).unwrap();
    assert!(file.sync_data().is_err(), "the power fails during this call");
    assert!(file.read_at(0, 1).is_err() && files.list(Path::new("/data")).is_err());
    files.crash(0);
    assert_eq!(read(&files, "/data/a").unwrap(), "");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = |seed| {
        let files = disk();
        for n in 0..20u8 {
            let file = create(&files, &format!("/data/{n}"));
            file.write_all_at(&[n; 3000], u64::from(n) * 100).unwrap();
            if n % 3 == 0 {
                file.sync_data().unwrap();
            }
            if n == 15 {
                files.sync_dir(Path::new("/data")).unwrap();
            }
        }
        files.crash(seed);
        names(&files)
            .into_iter()
            .map(|name| (read(&files, &format!("/data/{name}")).unwrap(), name))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

#[test]
fn bits_flip_on_the_disk_itself() {
    let files = disk();
    let file = create(&files, "/data/a");
    file.write_all_at(&[0; 10], 0).unwrap();
    file.sync_data().unwrap();
    files.sync_dir(Path::new("/data")).unwrap();
    files.flip_bits(Path::new("/data/a"), 3, 0x80).unwrap();
    files.crash(0);
    assert_eq!(read(&files, "/data/a").unwrap()[3], 0x80);
}

#[test]
fn opening_follows_the_mode() {
    let files = disk();
    let kind = |path: &str, mode| files.open(Path::new(path), mode).err().map(|e| e.kind());
    assert_eq!(kind("/data/a", OpenMode::Read), Some(io::ErrorKind::NotFound));
    assert_eq!(kind("/nowhere/a", OpenMode::CreateNew), Some(io::ErrorKind::NotFound));
    create(&files, "/data/a");
    assert_eq!(kind("/data/a", OpenMode::CreateNew), Some(io::ErrorKind::AlreadyExists));
    assert_eq!(kind("/data", OpenMode::Read), Some(io::ErrorKind::IsADirectory));
    let reader = files.open(Path::new("/data/a"), OpenMode::Read).unwrap();
    assert_eq!(reader.write_all_at(b"x", 0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(files.list(Path::new("/")).unwrap().len(), 1, "children only");
}

#[test]
fn a_bad_sector_fails_the_reads_that_touch_it_until_it_is_written_over() {
    let files = disk();
    let file = create(&files, "/data/a");
    file.write_all_at(&[7; 100], 0).unwrap();
    files.make_unreadable(Path::new("/data/a"), 40..50).unwrap();
    for (offset, len, reads) in [(0, 40, true), (0, 41, false), (49, 1, false), (50, 50, true), (0, 0, true)] {
        let read = file.read_at(offset, len);
        assert_eq!(read.is_ok(), reads, "{len} bytes at {offset}");
        assert!(read.err().is_none_or(|error| crate::env::is_unreadable(&error)));
    }
    file.write_all_at(&[8; 5], 40).unwrap();
    files.kill();
    let file = files.open(Path::new("/data/a"), OpenMode::ReadWrite).unwrap();
    assert_eq!(file.read_at(40, 5).unwrap(), vec![8; 5]);
    assert!(file.read_at(45, 1).is_err(), "the rest of it is as bad as it was");
}

#[test]
fn a_file_that_was_moved_or_replaced_is_known_by_its_identity() {
    let files = disk();
    let (a, b) = (Path::new("/data/a"), Path::new("/data/b"));
    let file = create(&files, "/data/a");
    let identity = file.status().unwrap().identity;
    assert_eq!(files.identity_at(a).unwrap(), Some(identity));
    files.rename(a, b).unwrap();
    assert_eq!((files.identity_at(a).unwrap(), files.identity_at(b).unwrap()), (None, Some(identity)));
    create(&files, "/data/a");
    assert_ne!(files.identity_at(a).unwrap(), Some(identity));
    assert!(!file.status().unwrap().removed);
}
