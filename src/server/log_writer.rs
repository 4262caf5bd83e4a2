//! The log's thread: one write and one fsync for all appends that wait. While the disk takes in what was written, the thread
//! applies the few commands of the group before, and answers them: the fsync that follows has the less to wait for.

use super::crew::{Crew, Helper, Part, Turned};
use super::recorded::OfLog;
use super::shared::{DriverInput, Shared};
use super::{Failure, LogInput};
use crate::storage::log::{Durability, SegmentLog};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are written in one group at most, a single larger append aside.
const GROUP_BYTES: usize = 8 << 20;
/// Bytes of a group that the disk is given before the thread does something else: about what [`File::start_writing`] begins. With
/// more clients than that is from, the processor is short, not the disk.
///
/// [`File::start_writing`]: crate::storage::file::File::start_writing
const SMALL_GROUP_BYTES: usize = 4 << 10;
/// A disk whose last fdatasync took longer is waited for by the log's own thread alone: others would miss the waiting thread, and
/// what a change of threads takes is nothing beside it.
const QUICK: Duration = Duration::from_millis(1);
/// How long the thread waits for work before it looks again.
const IDLE: Duration = Duration::from_secs(3600);

/// How appends are made durable.
#[derive(Clone, Copy, Debug)]
pub struct Syncing {
    /// `forceSync`: whether an append is reported only after fdatasync.
    pub force: bool,
    /// `fsync.warningthresholdms`: a slower one is told to the log.
    pub warn_after: Duration,
}

/// The log's writer.
pub(super) struct LogWriter {
    shared: Arc<Shared>,
    log: SegmentLog,
    syncing: Syncing,
    group: Group,
}

impl LogWriter {
    pub(super) fn new(shared: Arc<Shared>, log: SegmentLog, syncing: Syncing) -> LogWriter {
        LogWriter {
            shared,
            log,
            syncing,
            group: Group::new(),
        }
    }

    /// Writes what `inputs` bring; says whether it is told to stop. `is_lent`: on a thread that has nothing else to do for others.
    pub(super) fn write(&mut self, inputs: &mut Vec<LogInput>, is_lent: bool) -> Result<bool, Failure> {
        self.group.recorded.took(inputs.len());
        let mut stop = false;
        for input in inputs.drain(..) {
            match input {
                LogInput::Append(append) => {
                    self.log.stage(&append.entries, append.hard_state.as_ref())?;
                    self.group.last = Some(append.number);
                    self.group.must_sync |= append.must_sync;
                    self.group.entries += append.entries.len();
                    if self.log.staged_bytes() > GROUP_BYTES {
                        self.group.write(&self.shared, &mut self.log, self.syncing, None)?;
                        self.shared.lend_a_hand(Helper::Free);
                    }
                }
                LogInput::Reset { base, conf_state } => self.log.reset(base, &conf_state, None)?,
                LogInput::Purge { below } => self.log.purge_below(below)?,
                LogInput::Stop => stop = true,
            }
        }
        let crew = self.shared.crew.get().map(Arc::as_ref);
        let meanwhile = crew.filter(|crew| !is_lent && crew.has_few_to_apply());
        self.group.write(&self.shared, &mut self.log, self.syncing, meanwhile)?;
        if stop {
            self.log.flush(Durability::Now)?;
        }
        Ok(stop)
    }
}

impl Part for LogWriter {
    type Input = LogInput;
    const NAME: &'static str = "log";

    fn turn(&mut self, inputs: &mut Vec<LogInput>, is_lent: bool) -> Result<Turned, Failure> {
        interleave!();
        let is_told_to_stop = self.write(inputs, is_lent)?;
        Ok(if is_told_to_stop { Turned::Ended } else { Turned::Done })
    }

    fn rest(&self) -> Duration {
        IDLE
    }

    fn is_lendable(&self) -> bool {
        self.group.took <= QUICK
    }
}

/// Appends that are staged and not written yet.
struct Group {
    last: Option<u64>,
    must_sync: bool,
    entries: usize,
    /// What the last fdatasync took.
    took: Duration,
    recorded: OfLog,
}

impl Group {
    fn new() -> Group {
        Group {
            last: None,
            must_sync: false,
            entries: 0,
            took: Duration::ZERO,
            recorded: OfLog::new(),
        }
    }

    /// `meanwhile` has something else to do while the disk takes in what was written.
    fn write(
        &mut self,
        shared: &Shared,
        log: &mut SegmentLog,
        syncing: Syncing,
        meanwhile: Option<&Crew>,
    ) -> Result<(), Failure> {
        let Some(number) = self.last.take() else { return Ok(()) };
        // A commit index alone stays staged: the next group takes it along, and nobody relies on it.
        if std::mem::take(&mut self.must_sync) {
            let mut took = Duration::ZERO;
            let mut durability = if syncing.force && !planted!(AckBeforeFsync) {
                Durability::Now
            } else {
                Durability::Later
            };
            if let Some(crew) = meanwhile {
                if syncing.force && log.staged_bytes() <= SMALL_GROUP_BYTES {
                    took += timed(|| log.flush(Durability::Soon))?;
                    if planted!(SentForStored) {
                        durability = Durability::Later;
                    }
                }
                crew.apply();
            }
            took += timed(|| log.flush(durability))?;
            self.took = took;
            let slow = took > syncing.warn_after;
            shared.statistics.synced(took, slow);
            self.recorded.synced(std::mem::take(&mut self.entries), took);
            if slow {
                tracing::warn!(
                    took_ms = took.as_millis(),
                    "writing the log took long: clients wait for the disk"
                );
            }
        }
        shared.driver.put(DriverInput::Persisted(number));
        Ok(())
    }
}

/// How long that takes.
fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}
