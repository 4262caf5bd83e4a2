//! The raft log: entries and hard state in segment files of our own.
//!
//! ```text
//!   stage ─┐                    ┌── segment 7 ──────────┐┌── segment 8 ────────────────┐┌─ 9 (prepared) ─┐
//!   stage ─┼─▶ flush = 1 frame ─▶ start │ frame │ frame ││ start │ frame │ frame │ 0000 ││ header │ 0000 │
//!   stage ─┘   1 pwrite         └───────────────────────┘└─────────────────────────────┘└────────────────┘
//!              1 fdatasync        purge_below ─▶ spare ─▶ becomes 10        ▲ the torn end, if any
//! ```
//!
//! One thread of the server owns a [`SegmentLog`]. It stages the entries and hard states of everything that waits and
//! flushes them as one group: one frame, one write, one fdatasync. `frame` and `segment` define what is on disk,
//! `recovery` reads it back, `preparation` makes the next file ahead of time.
//!
//! Invariants:
//! - When `flush(Durability::Now)` has returned, everything staged before is stored (Durable); a group is found whole after a
//!   crash, or not at all.
//! - An append at an index that is there cuts the log from that index on; the same frame says so and brings the new entries.
//! - Each segment begins with the state before it (last entry, hard state), so that whole segments can be purged.
//! - After the first failed write or fsync every call fails: what the disk holds is only known after the next start.
//! - The appending thread never deletes or fills a file, and renames none. If the next file is late the current one
//!   grows (slower, never wrong).
//!
//! Left out on purpose: reading entries back while running (the replica keeps what it may need), compression (commands
//! are small, and the log is short-lived), more than one log per directory.

mod error;
mod extent;
mod frame;
mod opening;
mod options;
mod preparation;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use raft::eraftpb::{ConfState, Entry, HardState};

pub use error::{LogError, MalformedRecord};
pub use frame::{LogPoint, SnapshotMarker};
pub use options::{LogOptions, SaltSource};
pub use preparation::Preparation;
pub use recovery::Recovered;

use super::file::{Files, write_all_at};
use extent::Extent;
use frame::{
    ENTRY_HEADER_BYTES, FRAME_HEADER_BYTES, Generation, RUN_HEADER_BYTES, SEGMENT_START_BYTES, SegmentStart,
    frame_bytes, put_entries, put_hard_state, put_reset, seal_frame, seal_in_place, write_segment_start,
};
use opening::{Found, ReadLog};
use preparation::{PreparedSegment, Preparer, Workbench};
use segment::{DATA_START, SegmentSummary};

/// Data and context of one entry, in bytes. A larger one is refused by [`SegmentLog::stage`]: an entry is a batch of
/// client requests of about 1 MiB each, and whoever forms the batches must stay below.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// What can be staged before a flush, in bytes. More is refused by [`SegmentLog::stage`]; the caller flushes earlier.
pub const MAX_GROUP_BYTES: usize = 128 << 20;

/// A segment may grow to so many times its size while the next one is being made. Then the append waits for it.
const MAX_GROWTH: u64 = 4;

/// Sizes of segments grow by this factor from the first to the full size, so that a small server stays small.
const SIZE_STEP: u64 = 8;

/// No file grows beyond this: offsets are stored in 32 bits, and one group may still come on top.
const MAX_FILE_BYTES: u64 = 3 << 30;

/// Room in front of the staged group for the frame that begins a segment.
const START_FRAME_BYTES: usize = frame_bytes(SEGMENT_START_BYTES);

/// Whether a flush must be stored when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// With fdatasync: before anything is acknowledged, promised or sent that relies on it.
    Now,
    /// Without, by a caller that does something else and then calls [`SegmentLog::flush`] again, which has less to wait for.
    Soon,
    /// Without, for groups that nobody relies on: a hard state of which only the commit index changed.
    Later,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// Groups written.
    pub flushes: u64,
    /// fdatasync calls.
    pub syncs: u64,
    /// Bytes written, headers and padding included.
    pub written_bytes: u64,
    /// Segments begun.
    pub rotations: u64,
    /// Groups that were written beyond a segment's prepared size because the next one was late.
    pub grown_flushes: u64,
}

/// The segment that is written to.
#[derive(Debug)]
struct ActiveSegment {
    prepared: PreparedSegment,
    /// Where the next frame goes.
    position: u64,
    /// Up to where an fdatasync has returned.
    synced: u64,
}

/// The log, open for appending. See the module's head.
pub struct SegmentLog {
    directory: PathBuf,
    options: LogOptions,
    /// Oldest first; the last one is `active` once that has frames.
    segments: VecDeque<SegmentSummary>,
    active: ActiveSegment,
    /// Prepared and not yet used, in order.
    ready: VecDeque<PreparedSegment>,
    preparer: Preparer,
    /// Room for a start frame and a header, then the payload of the group being staged.
    group: Vec<u8>,
    /// As large as groups have been lately, bytes.
    usual_bytes: usize,
    staged: Extent,
    /// The largest index in the group.
    group_max_index: u64,
    /// The state that the written frames amount to: what a new segment would begin with.
    written: (LogPoint, HardState),
    /// The next preparation is not tried before the active segment's end has come this far.
    prepare_from: u64,
    warned_of_growth: bool,
    poison: Option<String>,
    statistics: LogStatistics,
}

impl fmt::Debug for SegmentLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SegmentLog")
            .field("directory", &self.directory)
            .field("first_index", &self.first_index())
            .field("last_index", &self.last_index())
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

impl SegmentLog {
    /// Opens the log in `directory`, which is created when absent, and reads it back. The directory must not be in use
    /// by another process: `storage::directory` keeps the lock.
    pub fn open(files: Files, directory: &Path, mut options: LogOptions) -> Result<(SegmentLog, Recovered), LogError> {
        options.check()?;
        let at_directory = |action| {
            move |source| LogError::Io {
                action,
                path: directory.to_path_buf(),
                source,
            }
        };
        files.create_directories(directory).map_err(at_directory("create"))?;
        // A process that was killed may have left names that are visible and not yet stored.
        files.sync_directory(directory).map_err(at_directory("sync"))?;
        let found = Found::list(&files, directory)?;
        let mut bench = Workbench {
            files: files.clone(),
            directory: directory.to_path_buf(),
            spares: Vec::new(),
            spare_bytes: options.segment_bytes,
            max_spares: options.max_spares,
            purged: VecDeque::new(),
        };
        found.tidy(&mut bench);
        let mut segments = found.open_segments(&files, directory)?;
        if segments.is_empty() {
            let generation = Generation {
                segment_id: 1,
                salt: (options.salts)(),
            };
            let first = bench
                .prepare(generation, options.first_segment_bytes)
                .map_err(at_directory("prepare a segment in"))?;
            segments.push_back(first);
        }
        let reading = ReadLog::read(segments)?;
        let preparer = Preparer::new(bench, options.preparation).map_err(at_directory("start a thread for"))?;
        let mut recovered = reading.recovered;
        if planted!(LastEntryLost) {
            recovered.entries.pop();
        }
        let staged = Extent::of(&recovered);
        let mut log = SegmentLog {
            directory: directory.to_path_buf(),
            options,
            segments: reading.summaries,
            active: reading.active,
            ready: reading.ready,
            preparer,
            group: Vec::new(),
            usual_bytes: 0,
            written: (staged.last(), staged.hard_state.clone()),
            staged,
            group_max_index: 0,
            prepare_from: 0,
            warned_of_growth: false,
            poison: None,
            statistics: LogStatistics::default(),
        };
        log.clear_group();
        log.prepare_ahead();
        Ok((log, recovered))
    }

    /// Closes it; gives what it was opened with.
    pub fn into_options(self) -> LogOptions {
        self.options
    }

    /// The first index that the log on disk still has, or would have next.
    pub fn first_index(&self) -> u64 {
        self.staged.base.index + 1
    }

    /// The last index, staged entries included.
    pub fn last_index(&self) -> u64 {
        self.staged.last_index
    }

    /// The term of the entry at `index`; known from `first_index() - 1` to `last_index()`.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.staged.term(index)
    }

    /// Bytes that wait for [`SegmentLog::flush`].
    pub fn staged_bytes(&self) -> usize {
        self.group.len() - START_FRAME_BYTES - FRAME_HEADER_BYTES
    }

    /// Counters since the log was opened.
    pub fn statistics(&self) -> LogStatistics {
        self.statistics
    }

    /// Adds entries and hard state of one Ready to the group that the next [`SegmentLog::flush`] writes. Entries are
    /// consecutive and begin at `first_index()` to `last_index() + 1`; what stood from there on is cut.
    /// On an error nothing was added, and the log can go on unless it is poisoned.
    pub fn stage(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), LogError> {
        self.refuse_if_poisoned()?;
        if let Some(first) = entries.first() {
            let previous_term = self.check_entries(first.index, entries)?;
            put_entries(&mut self.group, previous_term, entries);
            self.staged.append(entries);
            self.group_max_index = self.group_max_index.max(self.staged.last_index);
        }
        if let Some(hard_state) = hard_state {
            put_hard_state(&mut self.group, hard_state);
            self.staged.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Writes the staged group; with [`Durability::Now`] everything staged until now is stored when this returns, groups
    /// that were flushed without included. An error poisons the log: the server must stop.
    pub fn flush(&mut self, durability: Durability) -> Result<(), LogError> {
        self.refuse_if_poisoned()?;
        let result = self.write_group(durability);
        if let Err(error) = &result {
            tracing::error!(%error, "the raft log cannot be written; the server must stop");
            self.poison = Some(error.to_string());
        }
        result
    }

    /// [`SegmentLog::stage`] and [`SegmentLog::flush`] in one.
    pub fn append(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        durability: Durability,
    ) -> Result<(), LogError> {
        self.stage(entries, hard_state)?;
        self.flush(durability)
    }

    /// Empties the log after a snapshot was installed: it goes on after `point`. Stored when this returns. The hard
    /// state stays unless one is given, in the same step: its commit must be at least `point.index`, or raft panics at
    /// the next start. The tree must have been made durable before.
    pub fn reset(
        &mut self,
        point: LogPoint,
        conf_state: &ConfState,
        hard_state: Option<&HardState>,
    ) -> Result<(), LogError> {
        self.refuse_if_poisoned()?;
        let marker = SnapshotMarker {
            point,
            conf_state: conf_state.clone(),
        };
        if !put_reset(&mut self.group, &marker) {
            return Err(LogError::Options("the membership of a snapshot cannot be encoded"));
        }
        self.staged.base = point;
        self.staged.last_index = point.index;
        self.staged.terms.clear();
        self.group_max_index = self.group_max_index.max(point.index);
        self.stage(&[], hard_state)?;
        self.flush(Durability::Now)?;
        self.purge_below(point.index + 1)
    }

    /// Gives up entries below `index`, as far as they fill whole segments. Call it only with an index up to which the
    /// tree is durable. Cheap: the files are set aside by the preparing thread.
    pub fn purge_below(&mut self, index: u64) -> Result<(), LogError> {
        self.refuse_if_poisoned()?;
        let active = self.active.prepared.generation.segment_id;
        while let Some(oldest) = self.segments.front() {
            // The active one's first frame was synced when it was begun, so it can stand alone.
            if oldest.id == active || oldest.max_index >= index {
                break;
            }
            self.preparer.recycle(oldest.id, oldest.size_bytes);
            self.segments.pop_front();
        }
        if let Some(oldest) = self.segments.front() {
            // Entries that were overwritten later can stand in front of the log's start: then nothing is gained.
            if oldest.start.index > self.staged.base.index
                && self.staged.term(oldest.start.index) == Some(oldest.start.term)
            {
                self.staged.rebase(oldest.start);
            }
        }
        Ok(())
    }

    fn refuse_if_poisoned(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(first) => Err(LogError::Poisoned { first: first.clone() }),
            None => Ok(()),
        }
    }

    /// Checks what is to be staged; returns the term of the entry before it.
    fn check_entries(&self, first_index: u64, entries: &[Entry]) -> Result<u64, LogError> {
        let (first, last) = (self.first_index(), self.last_index());
        let previous_term = first_index
            .checked_sub(1)
            .filter(|index| *index <= last)
            .and_then(|index| self.term(index));
        let Some(previous_term) = previous_term else {
            return Err(LogError::OutOfSequence {
                first,
                last,
                found: first_index,
            });
        };
        let mut group_bytes = self.group.len() + RUN_HEADER_BYTES;
        for (entry, expected) in entries.iter().zip(first_index..) {
            if entry.index != expected {
                return Err(LogError::OutOfSequence {
                    first,
                    last: expected - 1,
                    found: entry.index,
                });
            }
            let size_bytes = entry.data.len() + entry.context.len();
            if size_bytes > MAX_ENTRY_BYTES || entry.context.len() > usize::from(u16::MAX) {
                return Err(LogError::EntryTooLarge {
                    index: entry.index,
                    size_bytes,
                    limit_bytes: MAX_ENTRY_BYTES,
                });
            }
            group_bytes += ENTRY_HEADER_BYTES + size_bytes;
        }
        if group_bytes > MAX_GROUP_BYTES {
            return Err(LogError::GroupTooLarge {
                size_bytes: group_bytes,
                limit_bytes: MAX_GROUP_BYTES,
            });
        }
        Ok(previous_term)
    }

    fn clear_group(&mut self) {
        // A group of an unusual size must not be kept in memory for ever; one that large groups follow is written over.
        self.usual_bytes = self.group.len().max(self.usual_bytes - self.usual_bytes / 8);
        self.group.clear();
        self.group.shrink_to(self.usual_bytes.max(4 << 20));
        self.group.resize(START_FRAME_BYTES + FRAME_HEADER_BYTES, 0);
        self.group_max_index = 0;
    }

    fn write_group(&mut self, durability: Durability) -> Result<(), LogError> {
        if self.staged_bytes() == 0 {
            return if durability == Durability::Now {
                self.sync_active()
            } else {
                Ok(())
            };
        }
        let group_frame_bytes = frame_bytes(self.staged_bytes()) as u64;
        let previous_end = self.make_room(group_frame_bytes)?;
        let begins = self.active.position == DATA_START;
        let from = if begins {
            self.seal_start_frame(previous_end)
        } else {
            START_FRAME_BYTES
        };
        let active = &mut self.active;
        let group_offset = active.position + (START_FRAME_BYTES - from) as u64;
        let generation = active.prepared.generation;
        seal_frame(
            &mut self.group,
            START_FRAME_BYTES,
            generation,
            group_offset,
            active.synced as u32,
        );
        let bytes = &self.group[from..];
        let (offset, written_bytes) = (active.position, bytes.len());
        write_all_at(active.prepared.file.as_ref(), offset, bytes).map_err(|source| LogError::NotStored {
            action: "write",
            path: active.prepared.path.clone(),
            source,
        })?;
        active.position += written_bytes as u64;
        self.statistics.flushes += 1;
        self.statistics.written_bytes += written_bytes as u64;
        if durability == Durability::Now || begins {
            self.sync_active()?;
        } else if durability == Durability::Soon {
            active.prepared.file.start_writing(offset, written_bytes);
        }
        if let Some(summary) = self.segments.back_mut() {
            summary.max_index = summary.max_index.max(self.group_max_index);
        }
        self.written = (self.staged.last(), self.staged.hard_state.clone());
        self.clear_group();
        self.prepare_ahead();
        Ok(())
    }

    /// Puts the frame that begins a segment in front of the group; returns where the bytes to write begin.
    fn seal_start_frame(&mut self, previous_end: u64) -> usize {
        let generation = self.active.prepared.generation;
        let (last, hard_state) = self.written.clone();
        let start = SegmentStart {
            previous_end,
            last,
            hard_state,
        };
        let frame = &mut self.group[..START_FRAME_BYTES];
        write_segment_start(
            &mut frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + SEGMENT_START_BYTES],
            &start,
        );
        seal_in_place(
            frame,
            SEGMENT_START_BYTES as u32,
            generation,
            DATA_START,
            DATA_START as u32,
        );
        let (id, size_bytes) = (generation.segment_id, self.active.prepared.size_bytes);
        self.segments.push_back(SegmentSummary {
            id,
            start: last,
            max_index: last.index,
            size_bytes,
        });
        self.statistics.rotations += 1;
        0
    }

    /// Goes on to the next segment if the active one is full. Returns where the segment before the active one ended,
    /// for the case that the active one is about to begin.
    fn make_room(&mut self, group_frame_bytes: u64) -> Result<u64, LogError> {
        let end = self.active.position;
        let size_bytes = self.active.prepared.size_bytes;
        // An unused segment takes any group: one that is larger than a segment gets one that grows by it.
        if end == DATA_START || end + group_frame_bytes <= size_bytes {
            return Ok(DATA_START);
        }
        let Some(next) = self.next_segment(end + group_frame_bytes > (size_bytes * MAX_GROWTH).min(MAX_FILE_BYTES))?
        else {
            self.statistics.grown_flushes += 1;
            if !self.warned_of_growth {
                self.warned_of_growth = true;
                tracing::info!(
                    segment = self.active.prepared.generation.segment_id,
                    "the next raft log segment is not ready yet; the current one grows, which is slower"
                );
            }
            return Ok(DATA_START);
        };
        self.sync_active()?;
        self.active = ActiveSegment {
            prepared: next,
            position: DATA_START,
            synced: DATA_START,
        };
        self.warned_of_growth = false;
        self.prepare_from = 0;
        Ok(end)
    }

    /// A segment that is ready, or one that was waited for if `must`.
    fn next_segment(&mut self, must: bool) -> Result<Option<PreparedSegment>, LogError> {
        self.collect_prepared();
        if let Some(next) = self.ready.pop_front() {
            return Ok(Some(next));
        }
        if !must {
            return Ok(None);
        }
        if !self.preparer.is_pending() {
            self.request_segment();
        }
        let waited = self.preparer.wait();
        waited.map(Some).map_err(|source| LogError::NotStored {
            action: "prepare a segment in",
            path: self.directory.clone(),
            source,
        })
    }

    fn sync_active(&mut self) -> Result<(), LogError> {
        let active = &mut self.active;
        if active.synced == active.position {
            return Ok(());
        }
        self.statistics.syncs += 1;
        let synced = active.prepared.file.sync_data();
        synced.map_err(|source| LogError::NotStored {
            action: "sync",
            path: active.prepared.path.clone(),
            source,
        })?;
        active.synced = active.position;
        Ok(())
    }

    /// Has the next segment made once half of the active one is used.
    fn prepare_ahead(&mut self) {
        self.collect_prepared();
        let wanted = self.ready.is_empty() && !self.preparer.is_pending();
        let half = self.active.prepared.size_bytes / 2;
        if wanted && self.active.position >= half.max(self.prepare_from) {
            self.request_segment();
        }
    }

    fn request_segment(&mut self) {
        let current = &self.active.prepared;
        let generation = Generation {
            segment_id: current.generation.segment_id + 1,
            salt: (self.options.salts)(),
        };
        self.preparer.request(
            generation,
            (current.size_bytes * SIZE_STEP).clamp(self.options.first_segment_bytes, self.options.segment_bytes),
        );
    }

    fn collect_prepared(&mut self) {
        match self.preparer.poll() {
            Some(Ok(prepared)) => self.ready.push_back(prepared),
            Some(Err(error)) => {
                // Not fatal: the active segment grows meanwhile. Tried again when it has grown by a quarter.
                self.prepare_from = self.active.position + self.active.prepared.size_bytes / 4;
                tracing::error!(%error, directory = %self.directory.display(), "the next raft log segment could not be prepared");
            }
            None => {}
        }
    }
}
