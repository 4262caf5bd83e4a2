//! The metrics that the parts of the server record, under ZooKeeper's names: handles made once, at the start. Where nobody
//! has asked for metrics they record nowhere.

use crate::proto::EventKind;
use metrics::{Counter, Histogram, counter, histogram};
use std::time::Duration;

/// Handles of the session pipelines.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) response_bytes: Counter,
    pub(super) watch_bytes: Counter,
    /// Handshakes, and those among them that resume a session.
    handshakes: Counter,
    resumptions: Counter,
    read_latency: Histogram,
    update_latency: Histogram,
}

impl Default for Recorded {
    fn default() -> Recorded {
        Recorded {
            response_bytes: counter!("response_bytes"),
            watch_bytes: counter!("watch_bytes"),
            handshakes: counter!("connection_request_count"),
            resumptions: counter!("connection_revalidate_count"),
            read_latency: histogram!("readlatency"),
            update_latency: histogram!("updatelatency"),
        }
    }
}

impl Recorded {
    /// A client has asked for a session.
    pub(super) fn handshake(&self, resumes: bool) {
        self.handshakes.increment(1);
        if resumes {
            self.resumptions.increment(1);
        }
    }

    /// So many requests took so long.
    pub(super) fn latency(&self, is_write: bool, latency_us: u64, requests: usize) {
        if requests > 0 {
            let latencies = if is_write {
                &self.update_latency
            } else {
                &self.read_latency
            };
            latencies.record_many(latency_us as f64 / 1000.0, requests);
        }
    }
}

/// Handles of the log's thread.
pub(super) struct OfLog {
    syncs: Histogram,
    groups: Histogram,
    entries: Histogram,
    waiting: Histogram,
    appended: Counter,
}

impl OfLog {
    pub(super) fn new() -> OfLog {
        OfLog {
            syncs: histogram!("fsynctime"),
            groups: histogram!("sync_process_time"),
            entries: histogram!("sync_processor_batch_size"),
            waiting: histogram!("sync_processor_queue_size"),
            appended: counter!("sync_processor_request_queued"),
        }
    }

    /// The thread has found so many inputs waiting.
    pub(super) fn took(&self, inputs: usize) {
        self.waiting.record(inputs as f64);
    }

    /// A group of so many entries was written and made durable.
    pub(super) fn synced(&self, entries: usize, took: Duration) {
        self.syncs.record(milliseconds(took));
        self.groups.record(milliseconds(took));
        self.entries.record(entries as f64);
        self.appended.increment(entries as u64);
    }
}

/// Handles of the applier's thread.
pub(super) struct OfApplier {
    commits: Counter,
    propagation: Histogram,
    batches: Histogram,
    expired: Counter,
    created: Fired,
    deleted: Fired,
    data: Fired,
    children: Fired,
}

/// Watches fired by the change at hand.
struct Fired {
    watches: u32,
    histogram: Histogram,
}

impl Fired {
    fn new(histogram: Histogram) -> Fired {
        Fired { watches: 0, histogram }
    }

    fn flush(&mut self) {
        if self.watches > 0 {
            self.histogram.record(std::mem::take(&mut self.watches));
        }
    }
}

impl OfApplier {
    pub(super) fn new() -> OfApplier {
        OfApplier {
            commits: counter!("commit_count"),
            propagation: histogram!("propagation_latency"),
            batches: histogram!("write_batch_time_in_commit_processor"),
            expired: counter!("stale_sessions_expired"),
            created: Fired::new(histogram!("node_created_watch_count")),
            deleted: Fired::new(histogram!("node_deleted_watch_count")),
            data: Fired::new(histogram!("node_changed_watch_count")),
            children: Fired::new(histogram!("node_children_watch_count")),
        }
    }

    /// So many commands of one batch were applied, so long after the leader stamped it.
    pub(super) fn applied(&self, commands: usize, since_stamp_ms: i64, took_us: u64) {
        self.commits.increment(commands as u64);
        self.propagation.record_many(since_stamp_ms.max(0) as f64, commands);
        self.batches.record(took_us as f64 / 1000.0);
    }

    pub(super) fn session_expired(&self) {
        self.expired.increment(1);
    }

    pub(super) fn fired(&mut self, kind: EventKind) {
        match kind {
            EventKind::Created => self.created.watches += 1,
            EventKind::Deleted => self.deleted.watches += 1,
            EventKind::DataChanged => self.data.watches += 1,
            EventKind::ChildrenChanged => self.children.watches += 1,
        }
    }

    /// A change has fired all that it fires.
    pub(super) fn announced(&mut self) {
        for fired in [&mut self.created, &mut self.deleted, &mut self.data, &mut self.children] {
            fired.flush();
        }
    }
}

/// Handles of the driver's thread.
pub(super) struct OfDriver {
    proposals: Counter,
    elections: Histogram,
    looking: Counter,
    appends_refused: Counter,
}

impl OfDriver {
    pub(super) fn new() -> OfDriver {
        OfDriver {
            proposals: counter!("proposal_count"),
            elections: histogram!("election_time"),
            looking: counter!("looking_count"),
            appends_refused: counter!("appends_refused"),
        }
    }

    pub(super) fn proposed(&self, commands: usize) {
        self.proposals.increment(commands as u64);
    }

    /// What a leader has sent was not taken, because too much waits to be applied.
    pub(super) fn append_refused(&self) {
        self.appends_refused.increment(1);
    }

    pub(super) fn looking(&self) {
        self.looking.increment(1);
    }

    pub(super) fn elected(&self, after_us: u64) {
        self.elections.record(after_us as f64 / 1000.0);
    }
}

/// A checkpoint was written.
pub(super) fn checkpoint(histogram: &Histogram, took: Duration) {
    histogram.record(milliseconds(took));
}

/// What it takes to serve was read of the stored tree, then so many log entries were found to be replayed.
pub(super) fn loaded(tree: Duration, log: Duration, entries: u64) {
    histogram!("startup_txns_load_time").record(milliseconds(log));
    histogram!("startup_txns_loaded").record(entries as f64);
    histogram!("dbinittime").record(milliseconds(tree + log));
}

/// All of the stored tree is in memory, so long after the start began to read it.
pub(super) fn whole(took: Duration) {
    histogram!("startup_snap_load_time").record(milliseconds(took));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
