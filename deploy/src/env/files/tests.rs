use super::*;

fn create(dir: &tempfile::TempDir, name: &str) -> Arc<dyn File> {
    SystemFiles.open(&dir.path().join(name), OpenMode::CreateNew).unwrap()
}

#[test]
fn what_was_read_stays_right_whatever_becomes_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(&dir, "segment");
    file.allocate(4 << 20).unwrap();
    file.write_all_at(b"first", 100).unwrap();
    let first = file.read_at(100, 5).unwrap();
    file.write_all_at(b"other", 100).unwrap();
    file.set_len(50).unwrap();
    assert_eq!(first, "first");
    assert_eq!(file.read_at(100, 5).unwrap(), "", "a file that was cut is shorter, and nothing worse");
}

#[test]
fn reads_are_cut_at_the_end_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for len in [10, 1 << 20] {
        let file = create(&dir, &len.to_string());
        file.set_len(len).unwrap();
        assert_eq!(file.read_at(len - 4, 100).unwrap().len(), 4);
        assert_eq!(file.read_at(len, 100).unwrap().len(), 0);
        assert_eq!(file.read_at(u64::MAX - 1, 100).unwrap().len(), 0);
        assert_eq!(file.read_at(0, 4).unwrap(), vec![0; 4]);
        let mut buffer = [1; 8];
        assert_eq!(file.read_into(len - 4, &mut buffer).unwrap(), 4);
        assert_eq!(buffer, [0, 0, 0, 0, 1, 1, 1, 1]);
    }
}

#[test]
fn what_was_just_written_is_read_without_waiting_where_the_file_system_can_tell() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(&dir, "segment");
    file.write_all_at(&[7; 10_000], 0).unwrap();
    file.will_read(0, 10_000);
    file.will_read(5, 0);
    for (offset, len, held) in [(0, 10_000, 10_000), (9_990, 100, 10), (10_000, 10, 0), (u64::MAX - 1, 4, 0)] {
        if let Some(bytes) = file.try_read_at(offset, len).unwrap() {
            assert_eq!(bytes, vec![7; held], "{len} bytes at {offset}");
        }
    }
}

#[test]
fn a_file_that_was_removed_or_cut_is_known_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(&dir, "segment");
    file.set_len(100).unwrap();
    let path = dir.path().join("segment");
    let identity = file.status().unwrap().identity;
    assert_eq!(file.status().unwrap(), FileStatus { len: 100, removed: false, identity });
    assert_eq!(SystemFiles.identity_at(&path).unwrap(), Some(identity));
    fs::File::options().write(true).open(dir.path().join("segment")).unwrap().set_len(7).unwrap();
    assert_eq!(file.status().unwrap(), FileStatus { len: 7, removed: false, identity });
    fs::rename(&path, dir.path().join("moved")).unwrap();
    assert_eq!(SystemFiles.identity_at(&path).unwrap(), None, "it is elsewhere");
    fs::copy(dir.path().join("moved"), &path).unwrap();
    assert_ne!(SystemFiles.identity_at(&path).unwrap(), Some(identity), "it is another file");
    assert_eq!(file.status().unwrap(), FileStatus { len: 7, removed: false, identity });
    fs::rename(dir.path().join("moved"), &path).unwrap();
    fs::remove_file(dir.path().join("segment")).unwrap();
    assert_eq!(file.status().unwrap(), FileStatus { len: 7, removed: true, identity });
}

#[test]
fn allocation_extends_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(&dir, "segment");
    file.write_all_at(b"kept", 0).unwrap();
    file.allocate(10_000).unwrap();
    file.allocate(50).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    assert_eq!(file.read_at(0, 6).unwrap(), b"kept\0\0".as_slice());
}

#[test]
fn reading_what_was_reserved_does_not_make_it_data() {
    let dir = tempfile::tempdir().unwrap();
    let file = create(&dir, "segment");
    file.allocate(4 << 20).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    let mut buffer = vec![0; 2 << 20];
    file.read_into(0, &mut buffer).unwrap();
    // A block may be larger than what was written into it. Where no holes are known everything is data.
    assert_eq!(file.next_data_at(1 << 20).unwrap().is_none(), knows_holes(&dir));
}

/// Whether the file system under `dir` tells what was never written.
fn knows_holes(dir: &tempfile::TempDir) -> bool {
    let file = create(dir, "never written");
    file.allocate(4 << 20).unwrap();
    file.next_data_at(0).unwrap().is_none()
}

#[test]
fn zeros_reserve_what_the_file_system_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let inner = fs::File::create_new(dir.path().join("zeros")).unwrap();
    let file = SystemFile { file: inner };
    file.write_all_at(b"kept", 0).unwrap();
    file.write_zeros_to((1 << 20) + 17).unwrap();
    assert_eq!(file.len().unwrap(), (1 << 20) + 17);
}

#[test]
fn opening_follows_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let kind = |mode| SystemFiles.open(&path, mode).err().map(|error| error.kind());
    assert_eq!(kind(OpenMode::ReadWrite), Some(io::ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::CreateNew), None);
    assert_eq!(kind(OpenMode::CreateNew), Some(io::ErrorKind::AlreadyExists));
    let reader = SystemFiles.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err() && reader.is_empty().unwrap());
}

#[test]
fn a_lock_has_one_holder_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let lock = SystemFiles.try_lock(&path).unwrap();
    assert_eq!(SystemFiles.try_lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    drop(lock);
    assert!(SystemFiles.try_lock(&path).is_ok());
}

#[test]
fn names_are_listed_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    SystemFiles.create_dir_all(&deep).unwrap();
    SystemFiles.create_dir_all(&deep).unwrap();
    SystemFiles.open(&deep.join("x"), OpenMode::CreateNew).unwrap().write_all_at(b"123", 0).unwrap();
    SystemFiles.rename(&deep.join("x"), &deep.join("y")).unwrap();
    SystemFiles.sync_dir(&deep).unwrap();
    assert_eq!(SystemFiles.list(&deep).unwrap(), [DirEntry { name: "y".into(), len: 3, is_dir: false }]);
    assert!(SystemFiles.list(dir.path()).unwrap()[0].is_dir);
    SystemFiles.remove(&deep.join("y")).unwrap();
    assert_eq!(SystemFiles.list(&deep).unwrap(), []);
    let error = SystemFiles.remove(&deep.join("y")).unwrap_err();
    assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("a/b/c/y"), "{error}");
}

#[test]
fn space_is_known_and_not_all_of_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (all, remain) = SystemFiles.space(dir.path()).unwrap();
    assert!(all > 0 && remain <= all);
}

#[test]
fn blocks_that_are_kept_back_for_root_are_neither_used_nor_free() {
    assert_eq!(without_reserved(1000, 400, 400), (1000, 400));
    assert_eq!(without_reserved(1000, 400, 100), (700, 100), "600 are used, and 100 remain");
    assert_eq!(without_reserved(1000, 400, 0), (600, 0));
}

#[test]
fn out_of_descriptors_comes_with_what_helps_and_is_no_full_disk() {
    for (errno, advice) in [(Errno::MFILE, "ulimit -n"), (Errno::NFILE, "fs.file-max")] {
        let error = naming(Path::new("/data/x"), errno.into());
        assert!(error.to_string().starts_with("/data/x: ") && error.to_string().contains(advice), "{error}");
        assert_ne!(error.kind(), io::ErrorKind::StorageFull);
    }
    let error = naming(Path::new("/data/x"), Errno::NOSPC.into());
    assert!(!error.to_string().contains("limit") && error.kind() == io::ErrorKind::StorageFull, "{error}");
}
