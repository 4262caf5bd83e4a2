//! The log against a model, on files that lose power.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::storage::file::memory::{Chance, Faults, MemoryFiles};
use crate::storage::file::{DiskFiles, FileSystem};

const SEGMENT_BYTES: u64 = 32 << 10;

fn directory() -> PathBuf {
    PathBuf::from("/data/menagerie-log")
}

/// Salts never repeat, over all logs and starts, as those of a server.
static SALTS: AtomicU64 = AtomicU64::new(1);

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        first_segment_bytes: 16 << 10,
        max_spares: 2,
        preparation: Preparation::Inline,
        salts: Box::new(|| Chance(SALTS.fetch_add(1, Ordering::Relaxed)).next()),
    }
}

fn try_open(disk: &MemoryFiles) -> Result<(SegmentLog, Recovered), LogError> {
    SegmentLog::open(disk.shared(), &directory(), options())
}

fn open(disk: &MemoryFiles) -> (SegmentLog, Recovered) {
    try_open(disk).expect("the log opens")
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry {
        index,
        term,
        data: data.to_vec().into(),
        ..Entry::default()
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64, size_bytes: usize) -> Vec<Entry> {
    range
        .map(|index| entry(index, term, &vec![index as u8; size_bytes]))
        .collect()
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote,
        commit,
        ..HardState::default()
    }
}

fn segment_names(disk: &MemoryFiles) -> Vec<String> {
    let listed = disk.list(&directory()).expect("list");
    listed
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| name.starts_with("segment-"))
        .collect()
}

/// The file with the newest frames, and where they end.
fn written_tail(log: &SegmentLog) -> (PathBuf, u64) {
    (log.active.prepared.path.clone(), log.active.position)
}

#[test]
fn a_new_log_is_empty_and_stays_so() {
    let disk = MemoryFiles::new();
    for _ in 0..3 {
        let (log, recovered) = open(&disk);
        assert_eq!(recovered, Recovered::default());
        assert_eq!((log.first_index(), log.last_index(), log.term(0)), (1, 0, Some(0)));
    }
}

#[test]
fn entries_and_hard_state_come_back_after_a_power_cut() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    let mut first = entries(1..=3, 1, 100);
    first[1].set_entry_type(raft::eraftpb::EntryType::EntryConfChangeV2);
    first[2].context = vec![9; 12].into();
    log.append(&first, Some(&hard_state(1, 7, 0)), Durability::Now)
        .expect("append");
    log.append(&entries(4..=4, 2, 0), Some(&hard_state(2, 7, 3)), Durability::Now)
        .expect("append");
    let (_, recovered) = open(&disk.crash(&mut Chance(1)));
    first.extend(entries(4..=4, 2, 0));
    assert_eq!(recovered.entries, first);
    assert_eq!(recovered.hard_state, hard_state(2, 7, 3));
    assert_eq!((recovered.base, recovered.torn_bytes), (LogPoint::default(), 0));
}

#[test]
fn a_group_of_several_stages_is_one_write_and_one_sync() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=1, 1, 10), None, Durability::Now)
        .expect("begin the segment");
    let before = disk.syncs_and_writes();
    for index in 2..=50 {
        log.stage(&entries(index..=index, 1, 100), Some(&hard_state(1, 1, index - 1)))
            .expect("stage");
    }
    log.flush(Durability::Now).expect("flush");
    let after = disk.syncs_and_writes();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    log.flush(Durability::Now).expect("nothing to flush");
    assert_eq!(disk.syncs_and_writes(), after);
    let (_, recovered) = open(&disk.crash(&mut Chance(1)));
    assert_eq!((recovered.last().index, recovered.hard_state.commit), (50, 49));
}

#[test]
fn what_was_sent_on_its_way_is_stored_by_the_next_flush() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = SegmentLog::open(DiskFiles::shared(), directory.path(), options()).expect("open");
    // Groups of all sizes, so that they begin and end anywhere in their pages.
    let mut next = 1;
    for size_bytes in (0..9000).step_by(250) {
        let syncs = log.statistics().syncs;
        log.append(&entries(next..=next + 1, 1, size_bytes), None, Durability::Soon)
            .expect("append");
        next += 2;
        log.flush(Durability::Now).expect("flush");
        assert_eq!(log.statistics().syncs, syncs + 1);
    }
    drop(log);
    let (_, recovered) = SegmentLog::open(DiskFiles::shared(), directory.path(), options()).expect("open again");
    assert_eq!(recovered.last().index, next - 1);
    for entry in &recovered.entries {
        assert!(entry.data.iter().all(|byte| *byte == entry.index as u8));
    }
}

#[test]
fn an_append_in_the_middle_cuts_what_stood_behind_it() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=9, 1, 50), None, Durability::Now)
        .expect("append");
    log.append(&entries(4..=5, 2, 60), None, Durability::Now)
        .expect("overwrite");
    assert_eq!(
        (log.last_index(), log.term(3), log.term(4), log.term(6)),
        (5, Some(1), Some(2), None)
    );
    let (log, recovered) = open(&disk.kill());
    let terms: Vec<_> = recovered
        .entries
        .iter()
        .map(|entry| (entry.index, entry.term))
        .collect();
    assert_eq!(terms, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]);
    assert_eq!((log.last_index(), log.term(5)), (5, Some(2)));
}

#[test]
fn entries_that_do_not_follow_are_refused_and_nothing_is_staged() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=3, 1, 10), None, Durability::Now)
        .expect("append");
    let holes = [entry(4, 1, b""), entry(6, 1, b"")];
    for wrong in [&entries(5..=5, 1, 1), &entries(0..=1, 1, 1), &holes.to_vec()] {
        assert!(matches!(log.stage(wrong, None), Err(LogError::OutOfSequence { .. })));
    }
    let large = [entry(4, 1, &vec![0; MAX_ENTRY_BYTES + 1])];
    assert!(matches!(
        log.stage(&large, None),
        Err(LogError::EntryTooLarge { index: 4, .. })
    ));
    assert_eq!((log.staged_bytes(), log.last_index()), (0, 3));
    log.append(&entries(4..=4, 1, 10), None, Durability::Now)
        .expect("the log goes on");
}

#[test]
fn an_entry_larger_than_a_segment_is_stored() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=1, 1, 100), None, Durability::Now)
        .expect("small");
    log.append(&entries(2..=2, 1, 5 * SEGMENT_BYTES as usize), None, Durability::Now)
        .expect("large");
    log.append(&entries(3..=3, 1, 100), None, Durability::Now)
        .expect("small again");
    let (_, recovered) = open(&disk.crash(&mut Chance(3)));
    let sizes: Vec<_> = recovered.entries.iter().map(|entry| entry.data.len()).collect();
    assert_eq!(sizes, [100, 5 * SEGMENT_BYTES as usize, 100]);
}

#[test]
fn purged_segments_are_used_again_and_what_they_held_never_comes_back() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    for index in 1..=400 {
        log.append(
            &entries(index..=index, index / 50, 900),
            Some(&hard_state(index / 50, 3, 0)),
            Durability::Now,
        )
        .expect("append");
        log.purge_below(index.saturating_sub(20)).expect("purge");
    }
    assert!(
        log.first_index() > 300 && log.first_index() <= 380,
        "first index {}",
        log.first_index()
    );
    let listed = disk.list(&directory()).expect("list");
    assert!(listed.len() <= 6, "{listed:?}");
    let (reopened, recovered) = open(&disk.crash(&mut Chance(5)));
    assert_eq!(
        (recovered.first_index(), recovered.last().index),
        (log.first_index(), 400)
    );
    assert_eq!(recovered.hard_state, hard_state(8, 3, 0));
    assert_eq!(reopened.term(recovered.base.index), Some(recovered.base.index / 50));
    assert_eq!(recovered.entries.len() as u64, 400 - recovered.base.index);
}

#[test]
fn a_purged_segment_that_cannot_be_renamed_holds_back_those_behind_it() {
    for renames_fail in 0..4 {
        let disk = MemoryFiles::new();
        let (mut log, _) = open(&disk);
        for index in 1..=100 {
            log.append(&entries(index..=index, 1, 2000), None, Durability::Now)
                .expect("append");
        }
        let ends: Vec<u64> = log.segments.iter().map(|segment| segment.max_index).collect();
        assert!(ends.len() >= 5, "{ends:?}");
        disk.set_faults(Faults {
            renames_fail,
            ..Faults::default()
        });
        log.purge_below(ends[1] + 1).expect("purge");
        assert_eq!(log.first_index(), ends[1] + 1);
        // The first is tried with the first and with the second.
        let left = if renames_fail < 2 { ends[1] } else { 0 };
        let (_, recovered) = open(&disk.kill());
        assert_eq!((recovered.base.index, recovered.last().index), (left, 100));
        // And once more with the next.
        log.purge_below(ends[2] + 1).expect("purge");
        let left = if renames_fail < 3 { ends[2] } else { 0 };
        let (_, recovered) = open(&disk.kill());
        assert_eq!(
            (recovered.base.index, recovered.last().index),
            (left, 100),
            "{renames_fail} fail"
        );
    }
}

#[test]
fn a_vote_survives_the_purge_of_the_segment_that_held_it() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&[], Some(&hard_state(5, 2, 0)), Durability::Now)
        .expect("vote");
    for index in 1..=200 {
        log.append(&entries(index..=index, 5, 900), None, Durability::Now)
            .expect("append");
    }
    log.purge_below(200).expect("purge");
    assert!(log.first_index() > 100);
    let (_, recovered) = open(&disk.crash(&mut Chance(8)));
    assert_eq!(recovered.hard_state, hard_state(5, 2, 0));
}

#[test]
fn a_reset_leaves_an_empty_log_behind_the_snapshot() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=60, 1, 900), Some(&hard_state(1, 1, 40)), Durability::Now)
        .expect("append");
    let point = LogPoint { index: 1000, term: 4 };
    let conf_state = ConfState {
        voters: vec![1, 2, 3],
        ..ConfState::default()
    };
    log.reset(point, &conf_state, Some(&hard_state(4, 0, 1000)))
        .expect("reset");
    assert_eq!(
        (log.first_index(), log.last_index(), log.term(1000)),
        (1001, 1000, Some(4))
    );
    let disk = disk.crash(&mut Chance(2));
    let (mut log, recovered) = open(&disk);
    assert_eq!((recovered.base, recovered.entries.len()), (point, 0));
    assert_eq!(recovered.hard_state, hard_state(4, 0, 1000));
    assert_eq!(recovered.snapshot, Some(SnapshotMarker { point, conf_state }));
    log.append(&entries(1001..=1002, 4, 5), None, Durability::Now)
        .expect("goes on");
    let (_, recovered) = open(&disk.crash(&mut Chance(2)));
    assert_eq!((recovered.base, recovered.last().index), (point, 1002));
}

#[test]
fn a_failed_sync_poisons_the_log_for_ever() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=1, 1, 10), None, Durability::Now)
        .expect("append");
    disk.set_faults(Faults {
        sync_fails_in: Some(0),
        ..Faults::default()
    });
    assert!(matches!(
        log.append(&entries(2..=2, 1, 10), None, Durability::Now),
        Err(LogError::NotStored { .. })
    ));
    for _ in 0..2 {
        assert!(matches!(log.flush(Durability::Now), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.stage(&[], None), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.purge_below(1), Err(LogError::Poisoned { .. })));
    }
    // The bytes are visible to the next process though the disk does not have them: it must store them itself.
    let restarted = disk.kill();
    let (_, seen) = open(&restarted);
    assert_eq!(seen.last().index, 2);
    let (_, recovered) = open(&restarted.crash(&mut Chance(9)));
    assert_eq!(recovered.last().index, 2);
}

#[test]
fn a_full_disk_is_an_error_and_the_stored_part_is_read_back() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    disk.set_faults(Faults {
        capacity_bytes: Some(60 << 10),
        ..Faults::default()
    });
    let mut stored = 0;
    let error = loop {
        match log.append(&entries(stored + 1..=stored + 1, 1, 900), None, Durability::Now) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::NotStored { .. }), "{error}");
    assert!(stored > 10);
    let (_, recovered) = open(&disk.crash(&mut Chance(4)));
    assert!(recovered.last().index >= stored);
}

#[test]
fn short_writes_are_continued() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    disk.set_faults(Faults {
        short_write_bytes: Some(7),
        ..Faults::default()
    });
    log.append(&entries(1..=20, 1, 100), None, Durability::Now)
        .expect("append");
    let (_, recovered) = open(&disk.crash(&mut Chance(4)));
    assert_eq!(recovered.last().index, 20);
}

#[test]
fn a_torn_group_is_cut_although_its_last_page_and_a_later_group_are_intact() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=1, 1, 10), None, Durability::Now)
        .expect("stored");
    let (path, torn_at) = written_tail(&log);
    log.append(&entries(2..=2, 1, 5000), None, Durability::Later)
        .expect("not stored");
    log.append(&entries(3..=3, 1, 100), None, Durability::Later)
        .expect("not stored");
    let disk = disk.kill();
    disk.tamper(&path, |bytes| {
        bytes[torn_at as usize + 1000..torn_at as usize + 1500].fill(0)
    });
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.last().index, 1);
    assert!(recovered.torn_bytes > 5000);
    // A new group of the same size ends exactly where the later one stood: that must not come back to life.
    log.append(&entries(2..=2, 2, 5000), None, Durability::Now)
        .expect("append");
    let (_, recovered) = open(&disk);
    assert_eq!(
        (recovered.last(), recovered.torn_bytes),
        (LogPoint { index: 2, term: 2 }, 0)
    );
}

#[test]
fn damage_before_stored_groups_is_refused_with_its_place_and_an_advice() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    log.append(&entries(1..=1, 1, 10), None, Durability::Now)
        .expect("stored");
    let (path, damaged_at) = written_tail(&log);
    for index in 2..=4 {
        log.append(&entries(index..=index, 1, 100), None, Durability::Now)
            .expect("stored");
    }
    disk.tamper(&path, |bytes| bytes[damaged_at as usize + 20] ^= 4);
    let error = try_open(&disk).expect_err("damaged");
    assert!(
        matches!(&error, LogError::DamagedInTheMiddle { offset, .. } if *offset == damaged_at),
        "{error}"
    );
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
}

#[test]
fn a_damaged_end_of_a_segment_that_has_a_successor_is_refused() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    let mut ends = Vec::new();
    for index in 1..=30 {
        log.append(&entries(index..=index, 1, 2000), None, Durability::Now)
            .expect("stored");
        ends.push(written_tail(&log));
    }
    let (path, end) = ends
        .iter()
        .rfind(|(path, _)| *path == ends[0].0)
        .expect("first segment")
        .clone();
    disk.tamper(&path, |bytes| bytes[end as usize - 100] ^= 1);
    assert!(matches!(
        try_open(&disk).expect_err("damaged"),
        LogError::DamagedInTheMiddle { .. }
    ));
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = MemoryFiles::new();
    let (mut log, _) = open(&disk);
    for index in 1..=60 {
        log.append(&entries(index..=index, 1, 2000), None, Durability::Now)
            .expect("stored");
    }
    drop(log);
    let names = segment_names(&disk);
    assert!(names.len() >= 4, "{names:?}");
    disk.remove(&directory().join(&names[1])).expect("remove");
    assert!(matches!(
        try_open(&disk).expect_err("missing"),
        LogError::MissingSegment { id: 2, .. }
    ));
}

#[test]
fn the_preparing_thread_keeps_up_on_a_real_disk_and_the_log_comes_back() {
    let place = tempfile::tempdir().expect("temporary directory");
    let options = || LogOptions {
        segment_bytes: 256 << 10,
        first_segment_bytes: 64 << 10,
        preparation: Preparation::Thread,
        ..options()
    };
    let (mut log, _) = SegmentLog::open(DiskFiles::shared(), place.path(), options()).expect("open");
    for index in 1..=600 {
        log.append(&entries(index..=index, 1, 4000), None, Durability::Now)
            .expect("append");
        log.purge_below(index.saturating_sub(200)).expect("purge");
    }
    assert!(log.statistics().rotations > 3, "{:?}", log.statistics());
    let first_index = log.first_index();
    drop(log);
    let (_, recovered) = SegmentLog::open(DiskFiles::shared(), place.path(), options()).expect("reopen");
    assert_eq!((recovered.first_index(), recovered.last().index), (first_index, 600));
}

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    base: LogPoint,
    entries: Vec<Entry>,
    hard_state: HardState,
}

impl Model {
    fn last(&self) -> LogPoint {
        self.entries.last().map_or(self.base, |entry| LogPoint {
            index: entry.index,
            term: entry.term,
        })
    }

    fn append(&mut self, new: &[Entry]) {
        if let Some(first) = new.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(new);
        }
    }

    /// Whether `recovered` is this state; entries below `purged` may or may not be there.
    fn is(&self, recovered: &Recovered, purged: u64) -> bool {
        let from = recovered.first_index();
        let expected: Vec<_> = self.entries.iter().filter(|entry| entry.index >= from).collect();
        let found: Vec<_> = recovered
            .entries
            .iter()
            .filter(|entry| entry.index > self.base.index)
            .collect();
        from <= purged.max(self.base.index + 1)
            && recovered.last() == self.last()
            && recovered.hard_state == self.hard_state
            && expected == found
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Entries in one group: how far back they begin, their sizes, a hard state, stored or not.
    Append {
        back: u64,
        sizes: Vec<usize>,
        hard_state: bool,
        stages: usize,
        durability: Durability,
    },
    HardState(Durability),
    Purge(u64),
    Reset(u64),
    Kill,
    Crash(u64),
    /// The n-th sync from now fails; then the process dies, or the machine.
    FailSync {
        after: u64,
        crash: Option<u64>,
    },
    FailWrite {
        after: u64,
        crash: Option<u64>,
    },
}

fn any_durability() -> impl Strategy<Value = Durability> {
    prop_oneof![3 => Just(Durability::Now), 1 => Just(Durability::Soon), 1 => Just(Durability::Later)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let append = (
        prop_oneof![5 => Just(0u64), 1 => 1u64..20],
        prop::collection::vec(prop_oneof![4 => 0usize..400, 1 => 400usize..6000], 1..6),
        any::<bool>(),
        1usize..4,
        any_durability(),
    )
        .prop_map(|(back, sizes, hard_state, stages, durability)| Step::Append {
            back,
            sizes,
            hard_state,
            stages,
            durability,
        });
    prop_oneof![
        20 => append,
        3 => any_durability().prop_map(Step::HardState),
        3 => (0u64..30).prop_map(Step::Purge),
        1 => (0u64..50).prop_map(Step::Reset),
        1 => Just(Step::Kill),
        3 => any::<u64>().prop_map(Step::Crash),
        1 => (0u64..4, any::<Option<u64>>()).prop_map(|(after, crash)| Step::FailSync { after, crash }),
        1 => (0u64..4, any::<Option<u64>>()).prop_map(|(after, crash)| Step::FailWrite { after, crash }),
    ]
}

/// A log, and all states that it may be found in: the last stored one and those flushed since.
struct Run {
    disk: MemoryFiles,
    log: SegmentLog,
    states: Vec<Model>,
    term: u64,
    purged: u64,
    faulty: Option<Option<u64>>,
}

impl Run {
    fn new() -> Run {
        let disk = MemoryFiles::new();
        let (log, _) = open(&disk);
        Run {
            disk,
            log,
            states: vec![Model::default()],
            term: 1,
            purged: 1,
            faulty: None,
        }
    }

    fn latest(&self) -> Model {
        self.states.last().expect("never empty").clone()
    }

    fn flushed(&mut self, model: Model, result: Result<(), LogError>, durability: Durability) {
        self.states.push(model);
        match result {
            Ok(()) if durability == Durability::Now => self.states = vec![self.latest()],
            Ok(()) => {}
            Err(_) => {
                assert!(matches!(
                    self.log.flush(Durability::Now),
                    Err(LogError::Poisoned { .. })
                ));
                let crash = self.faulty.take().expect("no error without a fault");
                self.restart(crash);
            }
        }
    }

    fn restart(&mut self, crash: Option<u64>) {
        let was_poisoned = self.log.poison.is_some();
        self.disk = match crash {
            Some(seed) => self.disk.crash(&mut Chance(seed)),
            None => self.disk.kill(),
        };
        self.faulty = None;
        let (log, recovered) = open(&self.disk);
        let candidates = if crash.is_none() && !was_poisoned {
            &self.states[self.states.len() - 1..]
        } else {
            &self.states[..]
        };
        let found = candidates.iter().rfind(|model| model.is(&recovered, self.purged));
        let found = found
            .unwrap_or_else(|| panic!("Durable: {recovered:?} is none of {candidates:?}"))
            .clone();
        // Reading twice gives the same, and a power cut right after a start loses nothing that the start saw.
        let brief = |recovered: &Recovered| {
            let Recovered {
                base,
                hard_state,
                snapshot,
                ..
            } = recovered.clone();
            (base, recovered.last(), hard_state, snapshot)
        };
        for restarted in [self.disk.kill(), self.disk.crash(&mut Chance(crash.unwrap_or(77)))] {
            let (_, again) = open(&restarted);
            assert_eq!(
                (brief(&again), again.torn_bytes),
                (brief(&recovered), 0),
                "reading twice gives the same"
            );
            assert!(again.entries == recovered.entries);
        }
        self.log = log;
        let entries = recovered.entries;
        self.states = vec![Model {
            base: recovered.base,
            entries,
            hard_state: found.hard_state,
        }];
        self.purged = self.purged.min(recovered.base.index + 1);
    }

    fn step(&mut self, step: &Step) {
        let mut model = self.latest();
        match step {
            Step::Append {
                back,
                sizes,
                hard_state: with_hard_state,
                stages,
                durability,
            } => {
                for stage in 0..*stages {
                    let floor = self.log.first_index().max(self.purged);
                    let back = if stage == 0 { *back } else { 0 };
                    let first = (model.last().index + 1).saturating_sub(back).max(floor);
                    if first <= model.last().index {
                        self.term += 1;
                    }
                    let fresh = sizes
                        .iter()
                        .zip(first..)
                        .map(|(size, index)| entry(index, self.term, &vec![(index * 7) as u8; *size]));
                    let fresh: Vec<_> = fresh.collect();
                    if *with_hard_state {
                        model.hard_state = hard_state(self.term, self.term % 5, first);
                    }
                    self.log
                        .stage(&fresh, with_hard_state.then_some(&model.hard_state))
                        .expect("stage");
                    model.append(&fresh);
                }
                let result = self.log.flush(*durability);
                self.flushed(model, result, *durability);
            }
            Step::HardState(durability) => {
                self.term += 1;
                model.hard_state = hard_state(self.term, 1, model.last().index);
                let result = self.log.append(&[], Some(&model.hard_state), *durability);
                self.flushed(model, result, *durability);
            }
            Step::Purge(behind) => {
                // Only what is stored may be given up, as the tree's durable point demands.
                let stored = self.states[0].last().index.min(model.last().index);
                let index = stored.saturating_sub(*behind).max(1);
                self.purged = self.purged.max(index);
                self.log.purge_below(index).expect("purge");
            }
            Step::Reset(ahead) => {
                let point = LogPoint {
                    index: model.last().index + ahead,
                    term: self.term,
                };
                let hard_state = hard_state(self.term, 0, point.index);
                let conf_state = ConfState {
                    voters: vec![1, 2],
                    ..ConfState::default()
                };
                let result = self.log.reset(point, &conf_state, Some(&hard_state));
                self.purged = self.purged.max(1);
                self.flushed(
                    Model {
                        base: point,
                        entries: Vec::new(),
                        hard_state,
                    },
                    result,
                    Durability::Now,
                );
            }
            Step::Kill => self.restart(None),
            Step::Crash(seed) => self.restart(Some(*seed)),
            Step::FailSync { after, crash } => {
                self.faulty = Some(*crash);
                self.disk.set_faults(Faults {
                    sync_fails_in: Some(*after),
                    ..Faults::default()
                });
            }
            Step::FailWrite { after, crash } => {
                self.faulty = Some(*crash);
                self.disk.set_faults(Faults {
                    write_fails_in: Some(*after),
                    ..Faults::default()
                });
            }
        }
    }
}

/// Opens a log whose first segment holds `bytes` behind its header. Whatever they are: a result, never a panic.
/// The replayable entry for fuzzing: the first byte chooses whether the rest is sealed into a valid frame first.
fn fuzz_recover(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let generation = Generation { segment_id: 1, salt: 5 };
    let mut contents = segment::encode_header(generation);
    if choice % 2 == 0 {
        contents.extend_from_slice(bytes);
    } else {
        let mut frames = vec![0; START_FRAME_BYTES + FRAME_HEADER_BYTES];
        let start = SegmentStart::default();
        write_segment_start(
            &mut frames[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + SEGMENT_START_BYTES],
            &start,
        );
        seal_in_place(
            &mut frames[..START_FRAME_BYTES],
            SEGMENT_START_BYTES as u32,
            generation,
            DATA_START,
            0,
        );
        frames.extend_from_slice(bytes);
        seal_frame(
            &mut frames,
            START_FRAME_BYTES,
            generation,
            DATA_START + START_FRAME_BYTES as u64,
            0,
        );
        contents.extend_from_slice(&frames);
    }
    let disk = MemoryFiles::new();
    disk.create_directories(&directory()).expect("directory");
    let path = segment::segment_path(&directory(), 1);
    disk.open_or_create(&path).expect("file");
    disk.tamper(&path, |file| *file = contents);
    if let Ok((mut log, recovered)) = try_open(&disk) {
        let next = recovered.last().index + 1;
        if next < u64::MAX {
            log.append(&entries(next..=next, 1, 10), None, Durability::Now)
                .expect("a log that opens can be written");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_stored_is_lost_and_nothing_is_half_visible(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.restart(Some(1));
    }

    #[test]
    fn a_flipped_bit_is_found_or_harmless(groups in prop::collection::vec(0usize..3000, 3..40), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let disk = MemoryFiles::new();
        let (mut log, _) = open(&disk);
        let mut places = Vec::new();
        for (size, index) in groups.iter().zip(1..) {
            let start = written_tail(&log);
            log.append(&entries(index..=index, 1, *size), Some(&hard_state(1, 1, index)), Durability::Now).expect("append");
            let end = written_tail(&log);
            places.push((end.0.clone(), if start.0 == end.0 { start.1 } else { DATA_START }, end.1));
        }
        let (_, whole) = open(&disk.kill());
        let group = at.index(places.len());
        let (path, start, end) = &places[group];
        let offset = start + at.index((end - start) as usize) as u64;
        disk.tamper(path, |bytes| bytes[offset as usize] ^= 1 << bit);
        match try_open(&disk) {
            Err(LogError::DamagedInTheMiddle { .. }) => {}
            Err(error) => prop_assert!(false, "wrong error: {}", error),
            Ok((_, found)) if found.entries == whole.entries => {}
            // Only the last group can be taken for an interrupted write.
            Ok((_, found)) => {
                prop_assert_eq!(group, places.len() - 1);
                prop_assert_eq!(found.entries.len(), whole.entries.len() - 1);
            }
        }
    }

    #[test]
    fn any_bytes_recover_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz_recover(&bytes);
    }
}
