//! What a pipeline adds to the metrics, gathered between two turns of its connection: a request costs no shared counter.

use super::statistics::Statistics;

/// What came of a connection since the last flush.
#[derive(Debug, Default)]
pub(super) struct Tally {
    reply_bytes: u64,
    event_bytes: u64,
    sizes: Option<Sizes>,
    reads: Run,
    writes: Run,
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
    /// A reply of so many bytes was queued.
    pub(super) fn replied(&mut self, is_write: bool, bytes: usize, latency_us: u64, statistics: &Statistics) {
        let bytes = bytes as u64;
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
        if let Some(sizes) = tally.sizes {
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
