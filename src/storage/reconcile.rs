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
    use raft::eraftpb::Entry;

    use super::*;

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
}
