//! The raft log as raft-rs wants to see it: in memory, from the last compaction on.
//!
//! raft reads entries that are not on disk yet, and followers that lag are served from here, so the entries stay until
//! the tree has made them durable and nobody needs them, or too many would stay ([`LogView::compact`]); those of a lone server
//! only until they are applied. Their payloads are shared `Bytes`, the same as on their way to the disk.

use super::{MembersAt, Registry, SnapshotPoint};
use protobuf::Message as _;
use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// What the disk held when the server started.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Index and term of the last entry that the log no longer has; 0 and 0 for a log that is whole.
    pub truncated: (u64, u64),
    /// All entries behind it, without gaps.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The members as of the last entry that the tree has applied; none for one that does not know its ensemble.
    pub conf_state: ConfState,
    /// Whose promises count, as of then.
    pub registry: Registry,
    /// Index of the last entry that the tree has applied.
    pub applied_index: u64,
}

/// Entries in memory, and what raft must know of what came before them.
pub(super) struct LogView {
    entries: VecDeque<Entry>,
    truncated: (u64, u64),
    hard_state: HardState,
    /// As of the start, and after that as of the last change that was handed out: raft itself reads it at its start only.
    conf_state: ConfState,
    size_bytes: usize,
    /// What a follower that lags too far can be given.
    snapshot: Option<SnapshotPoint>,
    /// raft has asked for one that there is not.
    wanted: Cell<bool>,
}

impl LogView {
    pub(super) fn new(recovered: Recovered) -> LogView {
        let mut hard_state = recovered.hard_state;
        // What the tree has applied was committed, even if the commit index on disk is older: it is written lazily.
        hard_state.commit = hard_state.commit.max(recovered.applied_index);
        let size_bytes = recovered.entries.iter().map(entry_bytes).sum();
        LogView {
            entries: recovered.entries.into(),
            truncated: recovered.truncated,
            hard_state,
            conf_state: recovered.conf_state,
            size_bytes,
            snapshot: None,
            wanted: Cell::new(false),
        }
    }

    /// Adds what raft has decided to append; entries that conflict are replaced, as on disk.
    pub(super) fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated.0 && first.index <= self.next_index(),
            "entries from {} do not join a log of {}..{}",
            first.index,
            self.truncated.0 + 1,
            self.next_index()
        );
        while self.next_index() > first.index {
            if let Some(replaced) = self.entries.pop_back() {
                self.size_bytes -= entry_bytes(&replaced);
            }
        }
        self.size_bytes += entries.iter().map(entry_bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops entries up to `needed`, and up to `most` as long as more than `budget` bytes stay.
    pub(super) fn compact(&mut self, needed: u64, most: u64, budget: usize) {
        while let Some(entry) = self.entries.front() {
            let over = entry.index <= most && self.size_bytes > budget;
            if entry.index > needed && !over {
                return;
            }
            self.truncated = (entry.index, entry.term);
            self.size_bytes -= entry_bytes(entry);
            self.entries.pop_front();
        }
    }

    /// The first index that is still here.
    pub(super) fn first(&self) -> u64 {
        self.truncated.0 + 1
    }

    /// A snapshot was made that may be sent.
    pub(super) fn offer_snapshot(&mut self, point: SnapshotPoint) {
        self.snapshot = Some(point);
    }

    /// It is gone again.
    pub(super) fn withdraw_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Whether raft has asked for a snapshot in vain since the last call.
    pub(super) fn is_snapshot_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// Begins anew behind a snapshot.
    pub(super) fn restore(&mut self, point: &SnapshotPoint) {
        self.entries.clear();
        self.size_bytes = 0;
        self.truncated = (point.members.index, point.term);
        self.conf_state = point.members.conf_state.clone();
        self.snapshot = None;
    }

    /// The members have changed.
    pub(super) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn next_index(&self) -> u64 {
        self.truncated.0 + 1 + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.truncated.0 + 1)?).ok()
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + entry.context.len()
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let (Some(from), Some(to)) = (self.position(low), self.position(high)) else {
            return Err(raft::Error::Store(StorageError::Compacted));
        };
        let mut budget = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        for entry in self.entries.range(from..to) {
            let size = u64::from(entry.compute_size());
            if size > budget && !taken.is_empty() {
                break;
            }
            budget = budget.saturating_sub(size);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        let Some(position) = self.position(index) else {
            return Err(raft::Error::Store(StorageError::Compacted));
        };
        self.entries
            .get(position)
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.next_index() - 1)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // Behind it the log must go on without a gap, and the receiver must find himself in it.
        let fits = |point: &&SnapshotPoint| {
            let MembersAt { index, conf_state, .. } = &point.members;
            *index >= request_index.max(self.truncated.0)
                && (conf_state.voters.contains(&to) || conf_state.learners.contains(&to))
        };
        let Some(point) = self.snapshot.as_ref().filter(fits) else {
            self.wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot {
            data: point.members.registry.to_bytes(),
            ..Snapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        metadata.index = point.members.index;
        metadata.term = point.term;
        metadata.set_conf_state(point.members.conf_state.clone());
        Ok(snapshot)
    }
}
