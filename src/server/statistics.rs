//! Counters of the client side, for operators: `srvr`, `stat`, `mntr`.

use super::recorded::Recorded;
use super::space::Room;
use super::tally::{Latencies, Sizes};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Counters that never block: each may be a moment older than the others.
#[derive(Debug)]
pub struct Statistics {
    /// Frames received.
    pub packets_received: AtomicU64,
    /// Frames sent: replies and events.
    pub packets_sent: AtomicU64,
    /// Bytes received.
    pub bytes_received: AtomicU64,
    /// Requests in work: taken in and not answered yet.
    pub outstanding: AtomicUsize,
    /// Bytes that wait for clients, in queues of 64 KiB and more.
    pub queued_bytes: AtomicUsize,
    /// Connections closed at the door because there are too many.
    pub connections_rejected: AtomicU64,
    /// Accepts that failed, for want of descriptors mostly.
    pub accepts_failed: AtomicU64,
    /// Connections closed because they opened no session in time.
    pub handshakes_timed_out: AtomicU64,
    /// Connections whose client had seen more than was applied here, and had to wait.
    pub clients_ahead: AtomicU64,
    /// TLS handshakes under way.
    pub tls_handshakes: AtomicUsize,
    /// TLS handshakes that failed, or took too long.
    pub tls_handshakes_failed: AtomicU64,
    /// Connections closed because of bytes that are no request.
    pub malformed: AtomicU64,
    /// Connections closed because they did not take what was sent to them.
    pub slow_clients: AtomicU64,
    /// Times that a socket was not read on because of a limit on what waits.
    pub pauses: AtomicU64,
    /// Watches refused because there are too many: `maxWatchesPerConnection`, `maxWatchesPerZnode`.
    pub watches_refused: AtomicU64,
    /// Auth packets refused.
    pub auth_failed: AtomicU64,
    /// Groups written to the log.
    pub syncs: AtomicU64,
    /// Groups that took longer than `fsync.warningthresholdms`.
    pub slow_syncs: AtomicU64,
    /// Bytes that the disk engine's memtables hold.
    pub memtable_bytes: AtomicU64,
    /// The room on the disks.
    pub room: Arc<Room>,
    pub(super) recorded: Recorded,
    sync_sum_us: AtomicU64,
    sync_max_us: AtomicU64,
    latency_count: AtomicU64,
    latency_sum_us: AtomicU64,
    latency_min_us: AtomicU64,
    latency_max_us: AtomicU64,
    /// Bytes of replies; -1 before any.
    last_reply_bytes: AtomicI64,
    least_reply_bytes: AtomicI64,
    greatest_reply_bytes: AtomicI64,
    proposals: Mutex<ProposalSizes>,
    /// The last checkpoint: its zxid, and when it was written: wall time, ms.
    checkpoint_zxid: AtomicI64,
    checkpoint_wall_ms: AtomicI64,
}

/// Bytes of what a leader proposed since the last reset; -1 before any. One proposal is an entry of the log, which may hold
/// the commands of many clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalSizes {
    /// Of the last one.
    pub last: i64,
    /// Of the smallest.
    pub least: i64,
    /// Of the greatest.
    pub greatest: i64,
}

impl Default for ProposalSizes {
    fn default() -> ProposalSizes {
        ProposalSizes {
            last: -1,
            least: -1,
            greatest: -1,
        }
    }
}

/// Latency of requests from the last byte read to the reply queued, since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Fastest, µs.
    pub min_us: u64,
    /// Mean, µs.
    pub mean_us: f64,
    /// Slowest, µs.
    pub max_us: u64,
    /// How many requests.
    pub count: u64,
}

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics {
            packets_received: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            outstanding: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            connections_rejected: AtomicU64::new(0),
            accepts_failed: AtomicU64::new(0),
            tls_handshakes: AtomicUsize::new(0),
            handshakes_timed_out: AtomicU64::new(0),
            clients_ahead: AtomicU64::new(0),
            tls_handshakes_failed: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            slow_clients: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            watches_refused: AtomicU64::new(0),
            auth_failed: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            slow_syncs: AtomicU64::new(0),
            memtable_bytes: AtomicU64::new(0),
            room: Arc::default(),
            recorded: Recorded::default(),
            sync_sum_us: AtomicU64::new(0),
            sync_max_us: AtomicU64::new(0),
            latency_count: AtomicU64::new(0),
            latency_sum_us: AtomicU64::new(0),
            latency_min_us: AtomicU64::new(u64::MAX),
            latency_max_us: AtomicU64::new(0),
            last_reply_bytes: AtomicI64::new(-1),
            least_reply_bytes: AtomicI64::new(-1),
            greatest_reply_bytes: AtomicI64::new(-1),
            proposals: Mutex::default(),
            checkpoint_zxid: AtomicI64::new(0),
            checkpoint_wall_ms: AtomicI64::new(0),
        }
    }
}

impl Statistics {
    /// Requests were answered.
    pub(super) fn answered(&self, latencies: &Latencies) {
        self.latency_count.fetch_add(latencies.count, Relaxed);
        self.latency_sum_us.fetch_add(latencies.sum_us, Relaxed);
        if latencies.least_us < self.latency_min_us.load(Relaxed) {
            self.latency_min_us.fetch_min(latencies.least_us, Relaxed);
        }
        if latencies.greatest_us > self.latency_max_us.load(Relaxed) {
            self.latency_max_us.fetch_max(latencies.greatest_us, Relaxed);
        }
    }

    /// A group was written to the log.
    pub(super) fn synced(&self, took: Duration, slow: bool) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Relaxed);
        self.slow_syncs.fetch_add(u64::from(slow), Relaxed);
        self.sync_sum_us.fetch_add(took_us, Relaxed);
        self.sync_max_us.fetch_max(took_us, Relaxed);
    }

    /// So many bytes were taken in.
    pub(super) fn took_in(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes_received.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// A four-letter word of so many bytes was answered: a packet in each direction.
    pub(super) fn word_answered(&self, bytes: usize) {
        self.took_in(bytes);
        self.packets_received.fetch_add(1, Relaxed);
        self.packets_sent.fetch_add(1, Relaxed);
    }

    /// Replies were queued.
    pub(super) fn replied(&self, sizes: Sizes) {
        let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        self.last_reply_bytes.store(bytes(sizes.last), Relaxed);
        self.greatest_reply_bytes.fetch_max(bytes(sizes.greatest), Relaxed);
        let least = self.least_reply_bytes.load(Relaxed);
        if least < 0 || bytes(sizes.least) < least {
            // Two at once may leave the greater of both: it is a number for operators.
            self.least_reply_bytes.store(bytes(sizes.least), Relaxed);
        }
    }

    /// Bytes of the last, the smallest and the greatest reply since the last reset; -1 before any.
    pub fn response_sizes(&self) -> (i64, i64, i64) {
        (
            self.last_reply_bytes.load(Relaxed),
            self.least_reply_bytes.load(Relaxed),
            self.greatest_reply_bytes.load(Relaxed),
        )
    }

    /// A leader has proposed so many bytes.
    pub(super) fn proposed(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut sizes = self.proposals.lock();
        let least = if sizes.least < 0 { bytes } else { sizes.least.min(bytes) };
        *sizes = ProposalSizes {
            last: bytes,
            least,
            greatest: sizes.greatest.max(bytes),
        };
    }

    /// Bytes of what this server has proposed as a leader.
    pub fn proposal_sizes(&self) -> ProposalSizes {
        *self.proposals.lock()
    }

    /// A checkpoint that leads to `zxid` was written.
    pub(super) fn checkpointed(&self, zxid: i64, wall_ms: i64) {
        self.checkpoint_zxid.store(zxid, Relaxed);
        self.checkpoint_wall_ms.store(wall_ms, Relaxed);
    }

    /// zxid of the last checkpoint and when it was written, wall time in ms; 0 if there is none yet.
    pub fn last_checkpoint(&self) -> (i64, i64) {
        (
            self.checkpoint_zxid.load(Relaxed),
            self.checkpoint_wall_ms.load(Relaxed),
        )
    }

    /// Sum and maximum of the times that writing the log took, µs.
    pub fn sync_times_us(&self) -> (u64, u64) {
        (self.sync_sum_us.load(Relaxed), self.sync_max_us.load(Relaxed))
    }

    /// Latency since the last reset.
    pub fn latency(&self) -> Latency {
        let count = self.latency_count.load(Relaxed);
        if count == 0 {
            return Latency::default();
        }
        Latency {
            min_us: self.latency_min_us.load(Relaxed),
            mean_us: self.latency_sum_us.load(Relaxed) as f64 / count as f64,
            max_us: self.latency_max_us.load(Relaxed),
            count,
        }
    }

    /// Those of these numbers that are counters, under the names by which they are shown.
    pub fn counters(&self) -> [(&'static str, &AtomicU64); 10] {
        [
            ("accepts_failed", &self.accepts_failed),
            ("bytes_received_count", &self.bytes_received),
            ("clients_ahead", &self.clients_ahead),
            ("connection_rejected", &self.connections_rejected),
            ("malformed_connections_closed", &self.malformed),
            ("request_throttle_wait_count", &self.pauses),
            ("sessionless_connections_expired", &self.handshakes_timed_out),
            ("slow_clients_closed", &self.slow_clients),
            ("unsuccessful_handshake", &self.tls_handshakes_failed),
            ("watches_refused", &self.watches_refused),
        ]
    }

    /// Those begin anew.
    pub fn reset_counters(&self) {
        for (_, counter) in self.counters() {
            counter.store(0, Relaxed);
        }
    }

    /// The `srst` command: counts of packets and latencies begin anew. Auth packets refused and slow writes of the log are counted
    /// on, as in ZooKeeper.
    pub fn reset(&self) {
        self.packets_received.store(0, Relaxed);
        self.packets_sent.store(0, Relaxed);
        self.latency_count.store(0, Relaxed);
        self.latency_sum_us.store(0, Relaxed);
        self.latency_min_us.store(u64::MAX, Relaxed);
        self.latency_max_us.store(0, Relaxed);
        self.last_reply_bytes.store(-1, Relaxed);
        self.least_reply_bytes.store(-1, Relaxed);
        self.greatest_reply_bytes.store(-1, Relaxed);
        *self.proposals.lock() = ProposalSizes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_proposals_are_the_last_the_least_and_the_greatest() {
        let statistics = Statistics::default();
        assert_eq!(statistics.proposal_sizes(), ProposalSizes::default());
        for bytes in [48, 36, 317, 40] {
            statistics.proposed(bytes);
        }
        let expected = ProposalSizes {
            last: 40,
            least: 36,
            greatest: 317,
        };
        assert_eq!(statistics.proposal_sizes(), expected);
        statistics.reset();
        assert_eq!(statistics.proposal_sizes(), ProposalSizes::default());
    }
}
