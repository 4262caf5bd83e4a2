//! What a pipeline adds to the metrics, gathered between two turns of its connection: a request costs no shared counter.

use super::statistics::Statistics;
use std::sync::atomic::Ordering::Relaxed;

/// What came of a connection since the last flush.
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets_received: u64,
    packets_sent: u64,
    reply_bytes: u64,
    event_bytes: u64,
    sizes: Option<Sizes>,
    reads: Run,
    writes: Run,
    latencies: Latencies,
}

/// Latencies of replies, µs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latencies {
    pub(super) count: u64,
    pub(super) sum_us: u64,
    /// Of no meaning while there is none.
    pub(super) least_us: u64,
    pub(super) greatest_us: u64,
}

impl Latencies {
    fn add(&mut self, latency_us: u64) {
        self.least_us = if self.count == 0 {
            latency_us
        } else {
            self.least_us.min(latency_us)
        };
        self.greatest_us = self.greatest_us.max(latency_us);
        self.count += 1;
        self.sum_us += latency_us;
    }
}

/// Bytes of replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) last: u64,
    pub(super) least: u64,
    pub(super) greatest: u64,
}

/// Requests that took the same time: those of one turn mostly did.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    latency_us: u64,
    requests: usize,
}

impl Tally {
    /// A frame was taken in.
    pub(super) fn received(&mut self) {
        self.packets_received += 1;
    }

    /// So many frames that are no replies were queued.
    pub(super) fn sent(&mut self, frames: u64) {
        self.packets_sent += frames;
    }

    /// A reply of so many bytes was queued.
    pub(super) fn replied(&mut self, is_write: bool, bytes: usize, latency_us: u64, statistics: &Statistics) {
        let bytes = bytes as u64;
        self.packets_sent += 1;
        self.latencies.add(latency_us);
        self.reply_bytes += bytes;
        self.sizes = Some(match self.sizes {
            None => Sizes {
                last: bytes,
                least: bytes,
                greatest: bytes,
            },
            Some(sizes) => Sizes {
                last: bytes,
                least: sizes.least.min(bytes),
                greatest: sizes.greatest.max(bytes),
            },
        });
        let run = if is_write { &mut self.writes } else { &mut self.reads };
        if run.latency_us != latency_us {
            statistics.recorded.latency(is_write, run.latency_us, run.requests);
            *run = Run {
                latency_us,
                requests: 0,
            };
        }
        run.requests += 1;
    }

    /// An event of so many bytes was queued.
    pub(super) fn event(&mut self, bytes: usize) {
        self.event_bytes += bytes as u64;
    }

    /// Adds it all, and begins anew.
    pub(super) fn flush(&mut self, statistics: &Statistics) {
        let tally = std::mem::take(self);
        let recorded = &statistics.recorded;
        if tally.packets_received > 0 {
            statistics.packets_received.fetch_add(tally.packets_received, Relaxed);
        }
        if tally.packets_sent > 0 {
            statistics.packets_sent.fetch_add(tally.packets_sent, Relaxed);
        }
        if let Some(sizes) = tally.sizes {
            statistics.answered(&tally.latencies);
            statistics.replied(sizes);
            recorded.response_bytes.increment(tally.reply_bytes);
        }
        if tally.event_bytes > 0 {
            recorded.watch_bytes.increment(tally.event_bytes);
        }
        recorded.latency(false, tally.reads.latency_us, tally.reads.requests);
        recorded.latency(true, tally.writes.latency_us, tally.writes.requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_replies_are_told_after_a_flush() {
        let statistics = Statistics::default();
        assert_eq!(statistics.response_sizes(), (-1, -1, -1));
        let mut tally = Tally::default();
        for bytes in [30, 10, 20] {
            tally.replied(false, bytes, 5, &statistics);
        }
        assert_eq!(statistics.response_sizes(), (-1, -1, -1));
        tally.flush(&statistics);
        assert_eq!(statistics.response_sizes(), (20, 10, 30));
        tally.flush(&statistics);
        assert_eq!(statistics.response_sizes(), (20, 10, 30));
        statistics.reset();
        assert_eq!(statistics.response_sizes(), (-1, -1, -1));
    }
}
