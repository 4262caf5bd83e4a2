//! One truth from two stores: what raft may start from, given what tree and log hold after any stop.
//!
//! ```text
//!   log    base │ entries … │ last                 what happens
//!   tree         ▲ applied                         go on: replay what follows applied
//!   tree   ▲ applied, before base                  refused: entries between them are nowhere
//!   tree                      ▲ applied            a snapshot was installed, the log not yet reset: reset it
//!   tree         ▲ applied, in another term        likewise
//! ```
//!
//! The rule: the tree's applied index wins, the log starts behind it or reaches it, commit is at least applied and at most
//! the log's end. Anything else makes raft-rs panic at every start (building-blocks §4).

use raft::eraftpb::{ConfState, HardState};

use super::log::{LogError, LogPoint, Recovered, SegmentLog};

/// The tree and the log do not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree reaches entry {}, but the raft log begins after entry {}: what was between them is in neither. The tree's directory is older than the log (restored alone, or damaged): if other members of the ensemble are healthy, stop this server, move its dataDir and dataLogDir aside and let it join again empty; a lone server: restore both directories from the same backup. Nothing was changed", applied.index, log_base.index)]
pub struct GapBetweenTreeAndLog {
    /// What the tree holds.
    pub applied: LogPoint,
    /// The entry before the log's first.
    pub log_base: LogPoint,
}

/// How to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconciled {
    /// The log, with a hard state that raft accepts. Entries up to `applied` are still there, for slow followers.
    pub recovered: Recovered,
    /// Whether the log on disk must be reset to what the tree holds before raft starts: see [`Reconciled::settle`].
    pub must_reset: bool,
}

/// Decides what raft starts from. `applied` is the tree's; all zeros for a new one.
pub fn reconcile(applied: LogPoint, mut recovered: Recovered) -> Result<Reconciled, GapBetweenTreeAndLog> {
    if applied.index < recovered.base.index {
        return Err(GapBetweenTreeAndLog {
            applied,
            log_base: recovered.base,
        });
    }
    let must_reset = term_at(&recovered, applied.index) != Some(applied.term);
    if must_reset {
        recovered.base = applied;
        recovered.entries.clear();
    }
    let hard_state = &mut recovered.hard_state;
    hard_state.commit = hard_state.commit.max(applied.index).min(
        recovered
            .entries
            .last()
            .map_or(recovered.base.index, |entry| entry.index),
    );
    // What was applied was committed in its term or a later one.
    if hard_state.term < applied.term {
        hard_state.term = applied.term;
        hard_state.vote = 0;
    }
    Ok(Reconciled { recovered, must_reset })
}

impl Reconciled {
    /// Finishes an interrupted snapshot installation, if there was one.
    pub fn settle(&self, log: &mut SegmentLog, membership: &ConfState) -> Result<(), LogError> {
        if !self.must_reset {
            return Ok(());
        }
        tracing::info!(
            index = self.recovered.base.index,
            "the tree is ahead of the raft log: a snapshot had been installed; the log begins behind it"
        );
        let hard_state: &HardState = &self.recovered.hard_state;
        log.reset(self.recovered.base, membership, Some(hard_state))
    }
}

fn term_at(recovered: &Recovered, index: u64) -> Option<u64> {
    if index == recovered.base.index {
        return Some(recovered.base.term);
    }
    let place = usize::try_from(index.checked_sub(recovered.base.index + 1)?).ok()?;
    recovered.entries.get(place).map(|entry| entry.term)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use raft::eraftpb::Entry;

    use super::*;
    use crate::storage::directory::Layout;
    use crate::storage::file::memory::{Chance, Faults, MemoryFiles};
    use crate::storage::file::{FileSystem, write_all_at};
    use crate::storage::generations::Generations;
    use crate::storage::log::{Durability, LogOptions, Preparation};
    use crate::storage::sealed::{seal, unseal};

    /// A log of entries 11 to 14, of terms 2, 2, 3, 3.
    fn log(commit: u64) -> Recovered {
        let entry = |index, term| Entry {
            index,
            term,
            ..Entry::default()
        };
        Recovered {
            base: LogPoint { index: 10, term: 2 },
            entries: vec![entry(11, 2), entry(12, 2), entry(13, 3), entry(14, 3)],
            hard_state: HardState {
                term: 4,
                vote: 1,
                commit,
                ..HardState::default()
            },
            ..Recovered::default()
        }
    }

    #[test]
    fn the_tree_and_the_log_are_brought_together() {
        // applied index and term, stored commit; then: reset, log's base, entries left, commit, or refused.
        let table = [
            ((10, 2), 10, Some((false, 10, 4, 10))),
            ((12, 2), 10, Some((false, 10, 4, 12))),
            ((12, 2), 13, Some((false, 10, 4, 13))),
            ((14, 3), 99, Some((false, 10, 4, 14))),
            ((9, 2), 12, None),
            ((0, 0), 12, None),
            ((20, 4), 12, Some((true, 20, 0, 20))),
            ((12, 4), 12, Some((true, 12, 0, 12))),
        ];
        for ((index, term), commit, expected) in table {
            let result = reconcile(LogPoint { index, term }, log(commit));
            let found = result.ok().map(|Reconciled { recovered, must_reset }| {
                (
                    must_reset,
                    recovered.base.index,
                    recovered.entries.len(),
                    recovered.hard_state.commit,
                )
            });
            assert_eq!(found, expected, "applied {index} in term {term}, commit {commit}");
        }
    }

    #[test]
    fn a_vote_is_kept_in_its_term_and_forgotten_in_a_later_one() {
        let kept = reconcile(LogPoint { index: 20, term: 4 }, log(12))
            .expect("meets")
            .recovered
            .hard_state;
        assert_eq!((kept.term, kept.vote), (4, 1));
        let later = reconcile(LogPoint { index: 20, term: 6 }, log(12))
            .expect("meets")
            .recovered
            .hard_state;
        assert_eq!((later.term, later.vote), (6, 0));
    }

    #[test]
    fn new_stores_start_from_nothing() {
        let fresh = reconcile(LogPoint::default(), Recovered::default()).expect("meets");
        assert_eq!(
            fresh,
            Reconciled {
                recovered: Recovered::default(),
                must_reset: false
            }
        );
    }

    const OLD: LogPoint = LogPoint { index: 12, term: 2 };
    const SNAPSHOT: LogPoint = LogPoint { index: 20, term: 4 };

    fn layout() -> Layout {
        Layout {
            data_directory: "/data".into(),
            log_directory: "/log".into(),
        }
    }

    fn open_log(disk: &MemoryFiles, salt: u64) -> (SegmentLog, Recovered) {
        let options = LogOptions {
            segment_bytes: 32 << 10,
            first_segment_bytes: 16 << 10,
            max_spares: 2,
            preparation: Preparation::Inline,
            salts: Box::new(move || salt),
        };
        SegmentLog::open(disk.shared(), &layout().log(), options).expect("the log opens")
    }

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        let entry = |index| Entry {
            index,
            term,
            data: vec![7; 3000].into(),
            ..Entry::default()
        };
        range.map(entry).collect()
    }

    fn hard_state(commit: u64) -> HardState {
        HardState {
            term: 4,
            vote: 1,
            commit,
            ..HardState::default()
        }
    }

    /// What stands for a tree here: the point that it leads to, durable.
    fn write_tree(disk: &MemoryFiles, directory: &Path, point: LogPoint) -> io::Result<()> {
        disk.create_directories(directory)?;
        let file = disk.open_or_create(&directory.join("meta"))?;
        let text = seal(&format!("{} {}\n", point.index, point.term));
        write_all_at(file.as_ref(), 0, text.as_bytes())?;
        file.sync_data()?;
        disk.sync_directory(directory)
    }

    /// A start, as far as the storage goes: which tree, what the log has, both brought together.
    fn start(disk: &MemoryFiles, salt: u64) -> (LogPoint, Reconciled, Result<SegmentLog, LogError>) {
        let generations = Generations::open(&disk.shared(), &layout()).expect("a tree is in use");
        let bytes = disk
            .contents(&generations.current().join("meta"))
            .expect("the tree is complete");
        let text = String::from_utf8(bytes).expect("text");
        let body = unseal(&text).expect("the tree is whole");
        let (index, term) = body.trim_end().split_once(' ').expect("two numbers");
        let applied = LogPoint {
            index: index.parse().expect("index"),
            term: term.parse().expect("term"),
        };
        let (mut log, recovered) = open_log(disk, salt);
        let reconciled = reconcile(applied, recovered).expect("Durable: tree and log meet");
        let settled = reconciled.settle(&mut log, &ConfState::default());
        (applied, reconciled, settled.map(|()| log))
    }

    /// A member with entries 11 to 14 in its log, of which its tree has 12.
    fn member() -> MemoryFiles {
        let disk = MemoryFiles::new();
        disk.create_directories(&layout().own_data()).expect("create");
        write_tree(&disk, &layout().tree(), OLD).expect("written");
        disk.sync_directory(&layout().own_data()).expect("sync");
        let (mut log, _) = open_log(&disk, 1);
        log.append(&entries(1..=14, 2), Some(&hard_state(13)), Durability::Now)
            .expect("append");
        disk
    }

    /// A snapshot is installed, and the log goes on behind it. How far that came.
    fn install(disk: &MemoryFiles, dies_in: u64) -> u32 {
        let generations = Generations::open(&disk.shared(), &layout()).expect("opens");
        let (mut log, _) = open_log(disk, 2);
        disk.set_faults(Faults {
            dies_in: Some(dies_in),
            ..Faults::default()
        });
        let new = generations.reserve();
        if write_tree(disk, &new, SNAPSHOT).is_err() {
            return 0;
        }
        let Ok(former) = generations.switch(&new) else { return 0 };
        // The driver may do these in any order.
        generations.remove(&former);
        if log.reset(SNAPSHOT, &ConfState::default(), None).is_err() {
            return 1;
        }
        let after = entries(21..=30, 4);
        for (entry, done) in after.iter().zip(21..) {
            let appended = log.append(std::slice::from_ref(entry), Some(&hard_state(done)), Durability::Now);
            if appended.is_err() {
                return 2;
            }
        }
        3
    }

    fn check(applied: LogPoint, found: &Reconciled, came_to: u32) {
        let recovered = &found.recovered;
        let last = recovered
            .entries
            .last()
            .map_or(recovered.base.index, |entry| entry.index);
        let commit = recovered.hard_state.commit;
        assert!(commit >= applied.index && commit <= last, "raft starts");
        assert!(recovered.base.index <= applied.index && recovered.hard_state.term == 4);
        assert_eq!(recovered.hard_state.vote, 1, "a vote is not forgotten");
        assert!(
            recovered
                .entries
                .iter()
                .zip(recovered.base.index + 1..)
                .all(|(entry, index)| entry.index == index)
        );
        if applied == OLD {
            assert_eq!(
                (came_to, last),
                (0, 14),
                "Durable: what was acknowledged before is there"
            );
        } else {
            assert_eq!(applied, SNAPSHOT);
            assert!(
                came_to < 3 || last == 30,
                "Durable: what was acknowledged after is there"
            );
        }
    }

    #[test]
    fn an_installation_that_is_interrupted_anywhere_is_finished_or_not_begun() {
        let mut outcomes = std::collections::BTreeSet::new();
        for step in 0.. {
            let mut came_to = 0;
            for seed in 0..12 {
                let disk = member();
                came_to = install(&disk, step);
                let mut chance = Chance(seed);
                let left = if seed == 0 {
                    disk.kill()
                } else {
                    disk.crash(&mut chance)
                };
                // The next start may die as well, at every step of its own.
                for second in 0.. {
                    let again = left.kill();
                    again.set_faults(Faults {
                        dies_in: (seed % 4 == 1).then_some(second),
                        ..Faults::default()
                    });
                    let died = if seed % 4 == 1 { starts_and_dies(&again) } else { false };
                    let at_last = if died { again.crash(&mut chance) } else { left.kill() };
                    let (applied, found, log) = start(&at_last, 4);
                    check(applied, &found, came_to);
                    outcomes.insert((came_to, applied.index, found.must_reset));
                    // It goes on, and that is kept.
                    let mut log = log.expect("settled");
                    let next = log.last_index() + 1;
                    log.append(&entries(next..=next, 5), None, Durability::Now)
                        .expect("goes on");
                    let (_, recovered) = open_log(&at_last.crash(&mut chance), 5);
                    assert_eq!(recovered.last().index, next);
                    if !died {
                        break;
                    }
                }
            }
            if came_to == 3 {
                assert!(step > 20, "the deaths were injected");
                break;
            }
        }
        // Each kind of what can be found was found: nothing done, the tree alone switched, the log reset.
        let expected = [
            (0, 12, false),
            (0, 20, true),
            (1, 20, true),
            (1, 20, false),
            (2, 20, false),
            (3, 20, false),
        ];
        for outcome in expected {
            assert!(outcomes.contains(&outcome), "{outcome:?} of {outcomes:?}");
        }
    }

    /// Whether a start, which may settle what it finds, died on its way.
    fn starts_and_dies(disk: &MemoryFiles) -> bool {
        let Ok(generations) = Generations::open(&disk.shared(), &layout()) else {
            return true;
        };
        drop(generations);
        let options = LogOptions {
            segment_bytes: 32 << 10,
            first_segment_bytes: 16 << 10,
            max_spares: 2,
            preparation: Preparation::Inline,
            salts: Box::new(|| 3),
        };
        let Ok((mut log, recovered)) = SegmentLog::open(disk.shared(), &layout().log(), options) else {
            return true;
        };
        let bytes = disk.contents(&layout().own_data().join("tree-2/meta"));
        let applied = if bytes.is_some() { SNAPSHOT } else { OLD };
        let reconciled = reconcile(applied, recovered).expect("Durable: tree and log meet");
        reconciled.settle(&mut log, &ConfState::default()).is_err()
    }
}
