//! Starts upon directories in every condition.

use super::*;
use crate::storage::file::memory::{Chance, Faults, MemoryFiles};
use crate::storage::file::{DiskFiles, FileSystem};

const FRESH: Identity = Identity {
    cluster_id: 7,
    server_id: 1,
    incarnation: 9,
};

fn layout() -> Layout {
    Layout {
        data_directory: "/data".into(),
        log_directory: "/log".into(),
    }
}

fn open(disk: &MemoryFiles) -> Result<DataDirectory, DirectoryError> {
    DataDirectory::open(&disk.shared(), layout(), FRESH)
}

fn touch(disk: &MemoryFiles, path: &str) {
    let path = Path::new(path);
    disk.create_directories(path.parent().expect("parent")).expect("create");
    disk.open_or_create(path).expect("create");
}

#[test]
fn a_new_directory_keeps_its_first_identity() {
    let disk = MemoryFiles::new();
    let first = open(&disk).expect("new");
    assert!(first.is_new() && first.identity() == FRESH);
    drop(first);
    let other = Identity {
        cluster_id: 70,
        incarnation: 90,
        ..FRESH
    };
    let again = DataDirectory::open(&disk.shared(), layout(), other).expect("existing");
    assert!(!again.is_new() && again.identity() == FRESH);
}

#[test]
fn two_servers_cannot_share_either_directory() {
    let disk = MemoryFiles::new();
    let _first = open(&disk).expect("first");
    assert!(matches!(open(&disk), Err(DirectoryError::Locked { .. })));
    let shared_log = Layout {
        data_directory: "/elsewhere".into(),
        ..layout()
    };
    let refused = DataDirectory::open(&disk.shared(), shared_log, FRESH);
    assert!(matches!(refused, Err(DirectoryError::Locked { path }) if path == Path::new("/log/menagerie-log")));
}

#[test]
fn apache_data_is_refused_again_and_again_unless_ours_is_there() {
    for file in ["/data/version-2/snapshot.0", "/log/version-2/log.100000001"] {
        let disk = MemoryFiles::new();
        touch(&disk, file);
        for _ in 0..2 {
            let error = open(&disk).expect_err("Apache's data");
            assert!(error.to_string().contains("holds data of Apache ZooKeeper"), "{error}");
        }
        disk.remove(Path::new(file)).expect("remove");
        open(&disk).expect("nothing of Apache's");
        touch(&disk, file);
        open(&disk).expect("ours is there already");
    }
    let disk = MemoryFiles::new();
    touch(&disk, "/data/version-2/acceptedEpoch");
    open(&disk).expect("no data in it");
}

#[test]
fn half_of_a_server_is_refused() {
    let without_log = MemoryFiles::new();
    drop(open(&without_log).expect("new"));
    without_log
        .remove(Path::new("/log/menagerie-log/IDENTITY"))
        .expect("remove");
    assert!(matches!(open(&without_log), Err(DirectoryError::MissingLog { .. })));

    let without_data = MemoryFiles::new();
    drop(open(&without_data).expect("new"));
    touch(&without_data, "/log/menagerie-log/segment-0000000000000001.log");
    without_data
        .remove(Path::new("/data/menagerie/IDENTITY"))
        .expect("remove");
    assert!(matches!(open(&without_data), Err(DirectoryError::MissingData { .. })));
}

#[test]
fn halves_of_different_servers_and_a_wrong_id_are_refused() {
    let disk = MemoryFiles::new();
    drop(open(&disk).expect("new"));
    let other_server = DataDirectory::open(&disk.shared(), layout(), Identity { server_id: 2, ..FRESH });
    assert!(matches!(
        other_server,
        Err(DirectoryError::OtherServer { configured: 2, .. })
    ));
    let mine = Layout {
        log_directory: "/second".into(),
        data_directory: "/second".into(),
    };
    drop(
        DataDirectory::open(
            &disk.shared(),
            mine,
            Identity {
                incarnation: 5,
                ..FRESH
            },
        )
        .expect("new"),
    );
    let crossed = Layout {
        log_directory: "/second".into(),
        ..layout()
    };
    let refused = DataDirectory::open(&disk.shared(), crossed, FRESH);
    assert!(matches!(refused, Err(DirectoryError::Mismatch { .. })));
}

#[test]
fn a_creation_that_loses_power_is_repeated_and_a_finished_one_is_kept() {
    for seed in 0..50 {
        let disk = MemoryFiles::new();
        drop(open(&disk).expect("new"));
        let kept = open(&disk.crash(&mut Chance(seed))).expect("finished");
        assert!(!kept.is_new());
        // Only the log's half was written.
        disk.remove(Path::new("/data/menagerie/IDENTITY")).expect("remove");
        let again = open(&disk.kill()).expect("repeated");
        assert!(again.is_new());
    }
}

#[test]
fn another_format_and_a_damaged_identity_are_refused() {
    let disk = MemoryFiles::new();
    drop(open(&disk).expect("new"));
    let path = Path::new("/data/menagerie/IDENTITY");
    let text = String::from_utf8(disk.contents(path).expect("contents")).expect("text");
    disk.tamper(path, |bytes| *bytes = text.replace("format=1", "format=2").into());
    assert!(matches!(
        open(&disk),
        Err(DirectoryError::FormatVersion { found: 2, .. })
    ));
    disk.tamper(path, |bytes| *bytes = text.replace("server=1", "server=3").into());
    assert!(matches!(open(&disk), Err(DirectoryError::UnreadableIdentity { .. })));
}

#[test]
fn sizes_are_those_of_the_files_below() {
    let place = tempfile::tempdir().expect("temporary directory");
    let layout = Layout {
        data_directory: place.path().into(),
        log_directory: place.path().into(),
    };
    let files = DiskFiles::shared();
    assert_eq!(
        sizes(&files, &layout).expect("nothing there"),
        DirectorySizes::default()
    );
    let opened = DataDirectory::open(&files, layout.clone(), FRESH).expect("new");
    std::fs::create_dir(layout.tree()).expect("create");
    std::fs::write(layout.tree().join("table"), [0; 1000]).expect("write");
    let identity_bytes = FRESH.encode().len() as u64;
    let expected = DirectorySizes {
        data_bytes: identity_bytes + 1000,
        log_bytes: identity_bytes,
    };
    assert_eq!(sizes(&files, opened.layout()).expect("sizes"), expected);
}

const FRESHER: u64 = 99;

fn halves(disk: &MemoryFiles) -> [Vec<String>; 2] {
    ["/data", "/log"].map(|directory| {
        let entries = disk.list(Path::new(directory)).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    })
}

/// A server whose directories hold something.
fn used(disk: &MemoryFiles) -> DataDirectory {
    let opened = open(disk).expect("new");
    for path in ["/data/menagerie/tree", "/log/menagerie-log/segment"] {
        let path = Path::new(path);
        let file = disk.open_or_create(path).expect("create");
        crate::storage::file::write_all_at(file.as_ref(), 0, b"former").expect("write");
        file.sync_data().expect("sync");
        disk.sync_directory(path.parent().expect("parent")).expect("sync");
    }
    opened
}

/// Lets `act` die after every number of changes, with and without a power cut, until it no longer does. `check` looks at what
/// is found after each, and is told whether `act` had ended.
fn at_every_death(
    prepare: impl Fn(&MemoryFiles) -> DataDirectory,
    act: impl Fn(&mut DataDirectory) -> Result<(), DirectoryError>,
    check: impl Fn(&MemoryFiles, bool),
) {
    for step in 0.. {
        let mut ended = false;
        for seed in 0..20 {
            let disk = MemoryFiles::new();
            let mut opened = prepare(&disk);
            disk.set_faults(Faults {
                dies_in: Some(step),
                ..Faults::default()
            });
            ended = act(&mut opened).is_ok();
            let left = if seed == 0 {
                disk.kill()
            } else {
                disk.crash(&mut Chance(seed))
            };
            check(&left, ended);
        }
        if ended {
            assert!(step > 5, "the deaths were injected");
            return;
        }
    }
}

#[test]
fn a_member_joins_once_and_an_interrupted_joining_is_finished_or_not_begun() {
    let of_none = Identity { cluster_id: 0, ..FRESH };
    let open = |disk: &MemoryFiles| DataDirectory::open(&disk.shared(), layout(), of_none);
    at_every_death(
        |disk| open(disk).expect("new"),
        |opened| opened.join(7),
        |disk, ended| {
            let mut again = open(disk).expect("opens");
            let found = again.identity();
            assert!(found == FRESH || (found == of_none && !ended), "{found}");
            again.join(7).expect("joins");
            drop(again);
            assert_eq!(open(disk).expect("opens").identity(), FRESH);
        },
    );
    let disk = MemoryFiles::new();
    let mut opened = open(&disk).expect("new");
    assert!(opened.identity().to_string().contains("of no ensemble yet"));
    opened.join(7).expect("joins");
    opened.join(7).expect("is joined");
    let refused = opened.join(8);
    assert!(matches!(refused, Err(DirectoryError::OtherEnsemble { other: 8, .. })));
    // Data that has joined beside a log that has not: the log is an old copy.
    drop(opened);
    let text = of_none.encode();
    disk.tamper(Path::new("/log/menagerie-log/IDENTITY"), |bytes| *bytes = text.into());
    assert!(matches!(open(&disk), Err(DirectoryError::Mismatch { .. })));
}

#[test]
fn the_numbers_of_starts_grow_whatever_the_clock_does() {
    let disk = MemoryFiles::new();
    let boot = |disk: &MemoryFiles, seconds| open(disk).expect("opens").boot(seconds);
    let steps = [
        (0, 1),
        (1000, 1000),
        (1000, 1001),
        (5, 1002),
        (u64::MAX, 1003),
        (2000, 2000),
    ];
    for (seconds, expected) in steps {
        assert_eq!(boot(&disk, seconds).expect("boots"), expected);
    }
    // Durable as soon as it is known.
    for seed in 0..20 {
        assert_eq!(boot(&disk.crash(&mut Chance(seed)), 0).expect("boots"), 2001);
    }
    let path = Path::new("/data/menagerie/BOOT");
    disk.tamper(path, |bytes| bytes[6] ^= 1);
    assert!(matches!(boot(&disk, 0), Err(DirectoryError::UnreadableBoot { .. })));
    disk.remove(path).expect("remove");
    assert_eq!(boot(&disk, 3000).expect("boots"), 3000);
}

#[test]
fn what_is_set_aside_is_kept_whole_and_the_member_begins_a_new_life() {
    let disk = MemoryFiles::new();
    let mut opened = used(&disk);
    opened.boot(1000).expect("boots");
    let aside = opened.set_aside(FRESHER, "the tree is damaged").expect("set aside");
    let expected = Identity {
        incarnation: FRESHER,
        ..FRESH
    };
    assert!(opened.is_new() && opened.identity() == expected);
    assert_eq!(aside.data, Path::new("/data/menagerie.aside-1"));
    assert_eq!(disk.contents(&aside.data.join("tree")).as_deref(), Some(&b"former"[..]));
    assert_eq!(
        disk.contents(&aside.log.join("segment")).as_deref(),
        Some(&b"former"[..])
    );
    // It is locked again, and its starts go on being counted.
    assert!(matches!(open(&disk), Err(DirectoryError::Locked { .. })));
    assert_eq!(opened.boot(3).expect("boots"), 1001);
    drop(opened);
    let again = open(&disk).expect("opens");
    assert!(!again.is_new() && again.identity() == expected);
    assert_eq!(
        halves(&disk),
        [
            vec!["menagerie", "menagerie.aside-1"],
            vec!["menagerie-log", "menagerie-log.aside-1"]
        ]
    );
}

#[test]
fn a_fourth_setting_aside_waits_for_the_operator() {
    let disk = MemoryFiles::new();
    let mut opened = used(&disk);
    for incarnation in 100..103 {
        opened.set_aside(incarnation, "a test").expect("set aside");
    }
    let refused = opened.set_aside(103, "a test");
    assert!(matches!(refused, Err(DirectoryError::TooManyAsides { count: 3, .. })));
    assert_eq!(opened.identity().incarnation, 102);
    for half in ["/data/menagerie.aside-2", "/log/menagerie-log.aside-2"] {
        disk.remove_tree(Path::new(half)).expect("remove");
    }
    let aside = opened.set_aside(103, "a test").expect("set aside");
    assert_eq!(aside.log, Path::new("/log/menagerie-log.aside-4"));
}

#[test]
fn a_setting_aside_that_is_interrupted_anywhere_is_finished_or_not_begun_and_loses_nothing() {
    at_every_death(
        used,
        |opened| opened.set_aside(FRESHER, "a test").map(drop),
        |disk, ended| {
            let again = open(disk).expect("opens");
            let former = [
                disk.contents(Path::new("/data/menagerie/tree")),
                disk.contents(Path::new("/log/menagerie-log/segment")),
            ];
            let aside = [
                disk.contents(Path::new("/data/menagerie.aside-1/tree")),
                disk.contents(Path::new("/log/menagerie-log.aside-1/segment")),
            ];
            let whole = [Some(b"former".to_vec()), Some(b"former".to_vec())];
            if again.identity() == FRESH {
                assert!(!ended && former == whole && aside == [None, None]);
            } else {
                assert_eq!(again.identity().incarnation, FRESHER);
                assert!(former == [None, None] && aside == whole, "{former:?} {aside:?}");
            }
            assert!(disk.contents(Path::new("/data/menagerie.rejoin")).is_none());
        },
    );
}

#[test]
fn a_real_file_system_sets_aside_too_and_both_halves_may_share_a_directory() {
    let place = tempfile::tempdir().expect("temporary directory");
    let layout = Layout {
        data_directory: place.path().into(),
        log_directory: place.path().into(),
    };
    let files = DiskFiles::shared();
    let mut opened = DataDirectory::open(&files, layout.clone(), FRESH).expect("new");
    std::fs::create_dir(layout.tree()).expect("create");
    std::fs::write(layout.tree().join("table"), "former").expect("write");
    let aside = opened.set_aside(FRESHER, "a test").expect("set aside");
    assert_eq!(std::fs::read(aside.data.join("tree/table")).expect("kept"), b"former");
    assert!(aside.log.join("IDENTITY").exists() && !layout.tree().exists());
    let refused = DataDirectory::open(&files, layout.clone(), FRESH);
    assert!(matches!(refused, Err(DirectoryError::Locked { .. })));
    drop(opened);
    let again = DataDirectory::open(&files, layout, FRESH).expect("opens");
    assert_eq!(again.identity().incarnation, FRESHER);
}

#[test]
fn a_note_that_cannot_be_read_stops_the_start() {
    let disk = MemoryFiles::new();
    drop(used(&disk));
    let path = Path::new("/data/menagerie.rejoin");
    disk.open_or_create(path).expect("create");
    assert!(matches!(open(&disk), Err(DirectoryError::UnreadableNote { .. })));
}
