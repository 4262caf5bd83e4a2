//! The log's ends and the terms between them: all that appending needs to know of the entries, whatever their number.

use std::collections::VecDeque;

use raft::eraftpb::{Entry, HardState};

use super::frame::LogPoint;
use super::recovery::Recovered;

/// The log's ends and the terms between them; cheap, whatever the log holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extent {
    pub(super) base: LogPoint,
    pub(super) last_index: u64,
    /// First index and term of each run of entries with the same term, all above `base`.
    pub(super) terms: VecDeque<LogPoint>,
    pub(super) hard_state: HardState,
}

impl Extent {
    /// What a log that was read back holds.
    pub(super) fn of(recovered: &Recovered) -> Extent {
        let mut extent = Extent {
            base: recovered.base,
            last_index: recovered.base.index,
            terms: VecDeque::new(),
            hard_state: recovered.hard_state.clone(),
        };
        extent.append(&recovered.entries);
        extent
    }

    /// The term at `index`, known from the base to the last entry.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last_index {
            return None;
        }
        self.terms
            .iter()
            .rev()
            .find(|run| run.index <= index)
            .map(|run| run.term)
    }

    /// The last entry.
    pub(super) fn last(&self) -> LogPoint {
        LogPoint {
            index: self.last_index,
            term: self.terms.back().map_or(self.base.term, |run| run.term),
        }
    }

    /// Entries were appended, at an index that may be there already.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            while self.terms.back().is_some_and(|run| run.index >= entry.index) {
                self.terms.pop_back();
            }
            if self.terms.back().is_none_or(|run| run.term != entry.term) {
                self.terms.push_back(LogPoint {
                    index: entry.index,
                    term: entry.term,
                });
            }
            self.last_index = entry.index;
        }
    }

    /// Everything up to `base`, which is among the entries, was purged.
    pub(super) fn rebase(&mut self, base: LogPoint) {
        self.base = base;
        while self.terms.len() > 1 && self.terms[1].index <= base.index + 1 {
            self.terms.pop_front();
        }
        if let Some(run) = self.terms.front_mut() {
            run.index = run.index.max(base.index + 1);
        }
    }
}
