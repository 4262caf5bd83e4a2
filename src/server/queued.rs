//! What waits for clients, of all connections together. Each connection's queue has a limit of its own ([`super::outbound`]);
//! thousands that take nothing would fill the memory all the same.
//!
//! While more waits than `outbound_total_bytes`, a connection of which much waits already is neither read nor answered
//! ([`Queued::is_crowded`]); and those that have left something untaken for longest are closed until it is less ([`to_shed`]).
//! Who takes what is sent to him notices nothing. How far a socket has come within what it was given is not looked at: a client
//! counts as having taken it once all is taken.
//!
//! Only queues of [`HEAVY_BYTES`] and more are counted: a reply costs no shared counter.

use super::pipeline::Surroundings;
use super::statistics::Statistics;
use std::sync::atomic::Ordering::Relaxed;

/// From so many bytes on what waits for a connection is counted.
const HEAVY_BYTES: usize = 64 << 10;
/// Who has not taken all for so long may be closed, µs.
const SHED_AFTER_US: u64 = 1_000_000;

/// One connection's part of it.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Bytes in the count.
    bytes: usize,
    /// Since when they wait: monotonic, µs.
    since_us: u64,
    is_crowded: bool,
}

/// A connection of which much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    /// Since when it has not taken all: monotonic, µs.
    pub(super) since_us: u64,
    /// What waits for it, bytes.
    pub(super) bytes: usize,
}

impl Queued {
    /// So many bytes wait for this connection now.
    pub(super) fn count(&mut self, bytes: usize, surroundings: &Surroundings<'_>) {
        let total = &surroundings.statistics.queued_bytes;
        let due = if bytes >= HEAVY_BYTES { bytes } else { 0 };
        if self.bytes == 0 && due == 0 {
            return;
        }
        if due > self.bytes {
            total.fetch_add(due - self.bytes, Relaxed);
        } else if due < self.bytes {
            total.fetch_sub(self.bytes - due, Relaxed);
        }
        if self.bytes == 0 || due < self.bytes {
            self.since_us = surroundings.now_us;
        }
        self.bytes = due;
        self.is_crowded = due > 0 && total.load(Relaxed) > surroundings.settings.outbound_total_bytes;
    }

    /// The connection has ended, and what waited for it is gone.
    pub(super) fn forget(&mut self, statistics: &Statistics) {
        statistics.queued_bytes.fetch_sub(self.bytes, Relaxed);
        *self = Queued::default();
    }

    /// Whether it must take some of what waits for it before it gets more.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Whether anything of it is in the count.
    pub(super) fn is_counted(&self) -> bool {
        self.bytes > 0
    }

    /// What waits for it, if that is much.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.is_counted().then_some(Waiting {
            since_us: self.since_us,
            bytes: self.bytes,
        })
    }
}

/// Which of `waiting` are to be closed so that `excess_bytes` less wait: those that have left something untaken for longest.
pub(super) fn to_shed<T>(mut waiting: Vec<(Waiting, T)>, excess_bytes: usize, now_us: u64) -> Vec<T> {
    waiting.retain(|(waiting, _)| now_us.saturating_sub(waiting.since_us) >= SHED_AFTER_US);
    waiting.sort_unstable_by_key(|(waiting, _)| *waiting);
    let mut left = excess_bytes;
    let closed = waiting.into_iter().map_while(|(waiting, connection)| {
        let is_needed = left > 0;
        left = left.saturating_sub(waiting.bytes);
        is_needed.then_some(connection)
    });
    closed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_something_untaken_for_longest_is_closed_and_no_more_than_needed() {
        let of = |since_us, bytes| Waiting { since_us, bytes };
        let now_us = 10 * SHED_AFTER_US;
        let waiting = || {
            vec![
                (of(now_us - 1, 500), "reads"),
                (of(2, 100), "second"),
                (of(1, 100), "first"),
                (of(3, 100), "third"),
            ]
        };
        assert_eq!(to_shed(waiting(), 0, now_us), Vec::<&str>::new());
        assert_eq!(to_shed(waiting(), 100, now_us), ["first"]);
        assert_eq!(to_shed(waiting(), 101, now_us), ["first", "second"]);
        assert_eq!(to_shed(waiting(), 1000, now_us), ["first", "second", "third"]);
    }
}
