//! The log's thread: one write and one fsync for all appends that wait.

use super::inbox::Inbox;
use super::recorded::OfLog;
use super::shared::{DriverInput, Shared};
use super::{Failure, LogInput};
use crate::storage::log::{Durability, SegmentLog};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are written in one group at most, a single larger append aside.
const GROUP_BYTES: usize = 8 << 20;
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

/// Writes until it is told to stop.
pub(super) fn run(
    shared: &Arc<Shared>,
    inbox: &Inbox<LogInput>,
    log: &mut SegmentLog,
    syncing: Syncing,
) -> Result<(), Failure> {
    let mut inputs = Vec::new();
    let mut group = Group::new();
    loop {
        inbox.take(&mut inputs, IDLE);
        group.recorded.took(inputs.len());
        let mut stop = false;
        for input in inputs.drain(..) {
            match input {
                LogInput::Append(append) => {
                    log.stage(&append.entries, append.hard_state.as_ref())?;
                    group.last = Some(append.number);
                    group.must_sync |= append.must_sync;
                    group.entries += append.entries.len();
                    if log.staged_bytes() > GROUP_BYTES {
                        group.write(shared, log, syncing)?;
                    }
                }
                LogInput::Purge { below } => log.purge_below(below)?,
                LogInput::Stop => stop = true,
            }
        }
        group.write(shared, log, syncing)?;
        if stop {
            log.flush(Durability::Now)?;
            return Ok(());
        }
    }
}

/// Appends that are staged and not written yet.
struct Group {
    last: Option<u64>,
    must_sync: bool,
    entries: usize,
    recorded: OfLog,
}

impl Group {
    fn new() -> Group {
        Group {
            last: None,
            must_sync: false,
            entries: 0,
            recorded: OfLog::new(),
        }
    }

    fn write(&mut self, shared: &Shared, log: &mut SegmentLog, syncing: Syncing) -> Result<(), Failure> {
        let Some(number) = self.last.take() else { return Ok(()) };
        // A commit index alone stays staged: the next group takes it along, and nobody relies on it.
        if std::mem::take(&mut self.must_sync) {
            let started = Instant::now();
            log.flush(if syncing.force {
                Durability::Now
            } else {
                Durability::Later
            })?;
            let took = started.elapsed();
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
        shared.driver.push(DriverInput::Persisted(number));
        Ok(())
    }
}
