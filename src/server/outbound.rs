//! What a pipeline does about a client that does not take what is queued for it, and about one that asks for nothing.

use super::pipeline::Pipeline;
use super::settings::{OUTBOUND_HARD_FACTOR, Settings};
use super::statistics::Statistics;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes beyond which a connection is given up, however they came into its queue.
pub(super) fn hard_limit(settings: &Settings) -> usize {
    settings.outbound_limit_bytes.saturating_mul(OUTBOUND_HARD_FACTOR)
}

impl Pipeline {
    /// Whether the request at the front is to be answered from the state now: not while the queue is over its limit, which a
    /// client fills that asks for large listings and reads none.
    pub(super) fn may_answer(&self, settings: &Settings) -> bool {
        self.has_answerable() && !self.is_over_limit(settings)
    }

    /// Takes its requests out of the count of those in work, or puts them back. Were they counted, a few clients that do
    /// not read could keep the server from reading from the others (`globalOutstandingLimit`).
    pub(super) fn set_aside(&mut self, aside: bool, statistics: &Statistics) {
        if self.is_set_aside == aside {
            return;
        }
        self.is_set_aside = aside;
        if aside {
            statistics.outstanding.fetch_sub(self.pending.len(), Relaxed);
        } else {
            statistics.outstanding.fetch_add(self.pending.len(), Relaxed);
        }
    }

    /// Called now and then: gives back what an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > 0 {
            self.pending = Default::default();
        }
    }
}
