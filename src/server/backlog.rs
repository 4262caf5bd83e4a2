//! Entries that are committed, handed to the applier, and not applied yet.
//!
//! A leader's are those of clients who wait for their replies, and bounded with them. A follower's are not: its leader needs no
//! more than its log's acknowledgement. Where its applier is slower than the log, above all when it waits for the store because the
//! memory that it may use is full of what is not stored yet, they would pile up here. So a member whose backlog is full takes no further entries: what its leader sends is
//! dropped as a bad link would drop it, raft asks again with each heartbeat, and the others go on; if too few are left for a majority,
//! those who propose wait, which is what they should do.

use std::collections::VecDeque;

/// That entries are refused is told to the log so often, µs.
const TOLD_EVERY_US: u64 = 10_000_000;

/// What waits to be applied, by its place in the log.
#[derive(Debug)]
pub(super) struct Backlog {
    limit_bytes: u64,
    bytes: u64,
    /// Last entry and bytes of what was handed over at once, oldest first.
    handed: VecDeque<(u64, u64)>,
    /// Messages with entries that were not taken, ever.
    refused: u64,
    told: u64,
    told_us: Option<u64>,
}

impl Backlog {
    /// An empty one, which is full when so many bytes wait.
    pub(super) fn new(limit_bytes: u64) -> Backlog {
        Backlog {
            limit_bytes,
            bytes: 0,
            handed: VecDeque::new(),
            refused: 0,
            told: 0,
            told_us: None,
        }
    }

    /// Entries of so many bytes, up to `last`, were handed over.
    pub(super) fn handed(&mut self, last: u64, bytes: u64) {
        self.bytes += bytes;
        self.handed.push_back((last, bytes));
    }

    /// All up to `index` is applied, or a snapshot has taken its place.
    pub(super) fn applied(&mut self, index: u64) {
        while let Some((_, bytes)) = self.handed.pop_front_if(|(last, _)| *last <= index) {
            self.bytes -= bytes;
        }
    }

    /// Asked before entries are taken; says whether they are refused.
    pub(super) fn refuses(&mut self) -> bool {
        let refuses = self.bytes >= self.limit_bytes;
        self.refused += u64::from(refuses);
        refuses
    }

    /// How many messages were refused that the log does not know of, if it is time to tell it.
    pub(super) fn untold(&mut self, now_us: u64) -> Option<u64> {
        let untold = self.refused - self.told;
        let is_due = self.told_us.is_none_or(|told_us| now_us >= told_us + TOLD_EVERY_US);
        if untold == 0 || !is_due {
            return None;
        }
        (self.told, self.told_us) = (self.refused, Some(now_us));
        Some(untold)
    }

    /// Messages that were refused, ever.
    #[cfg(test)]
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_until_enough_is_applied() {
        let mut backlog = Backlog::new(100);
        backlog.handed(3, 60);
        assert!(!backlog.refuses());
        backlog.handed(7, 40);
        assert!(backlog.refuses());
        // Not all of the first portion.
        backlog.applied(2);
        assert!(backlog.refuses());
        backlog.applied(3);
        assert!(!backlog.refuses());
        backlog.handed(8, 1000);
        assert!(backlog.refuses());
        // A snapshot.
        backlog.applied(20);
        assert!(!backlog.refuses() && backlog.bytes == 0);
        assert_eq!(backlog.refused(), 3);
    }

    #[test]
    fn what_was_refused_is_told_now_and_then() {
        let mut backlog = Backlog::new(0);
        assert_eq!(backlog.untold(5), None);
        assert!(backlog.refuses() && backlog.refuses());
        assert_eq!(backlog.untold(5), Some(2));
        assert!(backlog.refuses());
        assert_eq!(backlog.untold(4 + TOLD_EVERY_US), None);
        assert_eq!(backlog.untold(5 + TOLD_EVERY_US), Some(1));
        assert_eq!(backlog.untold(5 + 2 * TOLD_EVERY_US), None);
    }
}
