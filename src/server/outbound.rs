//! What a pipeline does about a client that does not take what is queued for it, one that writes large values, one that asks
//! for nothing, and one whose only reply somebody else than its socket's task is to send.

use super::admission::LARGE_BYTES;
use super::pending::{Closing, Kind};
use super::pipeline::{Phase, Pipeline, Surroundings};
use super::settings::{OUTBOUND_HARD_FACTOR, Settings};
use super::statistics::Statistics;
use crate::net::Output;
use bytes::BytesMut;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes that others than the socket's task send at most: a few replies, which a socket takes at once.
const PROMPT_BYTES: usize = 4 << 10;

/// Who sends what is queued.
#[derive(Debug)]
pub(super) struct Sending {
    /// The task has something to do when it is woken, besides sending.
    task_is_busy: bool,
    /// What was queued is in other hands.
    is_lent: bool,
}

impl Default for Sending {
    fn default() -> Sending {
        Sending {
            // It begins with a handshake.
            task_is_busy: true,
            is_lent: false,
        }
    }
}

/// Bytes beyond which a connection is given up, however they came into its queue.
pub(super) fn hard_limit(settings: &Settings) -> usize {
    settings.outbound_limit_bytes.saturating_mul(OUTBOUND_HARD_FACTOR)
}

impl Pipeline {
    /// Notes whether the queue is over its limit, and gives up a connection whose queue is far beyond it.
    pub(super) fn check_outbound(&mut self, surroundings: &Surroundings<'_>) {
        if self.is_over_limit(surroundings.settings) {
            self.stalled_since_us.get_or_insert(surroundings.now_us);
            self.set_aside(true, surroundings.statistics);
            if self.outbound.len() > hard_limit(surroundings.settings) {
                surroundings.statistics.slow_clients.fetch_add(1, Relaxed);
                self.outbound = Output::new();
                self.close(Closing::SlowClient, surroundings.statistics);
            }
        } else {
            // One that is about to end has until then to take what is queued, however little that is.
            if !matches!(self.phase, Phase::Closing(_)) {
                self.stalled_since_us = None;
            }
            self.set_aside(false, surroundings.statistics);
        }
    }

    pub(super) fn is_over_limit(&self, settings: &Settings) -> bool {
        self.outbound.len() > settings.outbound_limit_bytes
            || self.events_queued > settings.outbound_limit_events
            || self.queued.is_crowded()
    }

    /// Gives what is queued to the socket, whose own buffer `output` is empty.
    pub(super) fn take_outbound(&mut self, output: &mut Output) {
        std::mem::swap(&mut self.outbound, output);
        self.events_queued = 0;
    }

    /// Whether the request at the front is to be answered from the state now: not while the queue is over its limit, which a
    /// client fills that asks for large listings and reads none.
    pub(super) fn may_answer(&self, settings: &Settings) -> bool {
        self.has_answerable() && !self.is_over_limit(settings)
    }

    /// Whether its last request is a large value that is not written yet: nothing behind it is taken in, since it may have to
    /// wait in a line that other requests pass by.
    pub(super) fn writes_large_value(&self) -> bool {
        let last = self.pending.back();
        last.is_some_and(|last| last.size_bytes >= LARGE_BYTES && matches!(last.kind, Kind::Write(_)))
    }

    /// Takes its requests out of the count of those in work, or puts them back. Were they counted, a few clients that do
    /// not read could keep the server from reading from the others (`globalOutstandingLimit`).
    pub(super) fn set_aside(&mut self, aside: bool, statistics: &Statistics) {
        if self.is_set_aside != aside {
            self.is_set_aside = aside;
            self.count_outstanding(statistics);
        }
    }

    /// Has the count of requests in work be right about this connection's. Once in a turn: what is taken in and answered
    /// within one never gets into it.
    pub(super) fn count_outstanding(&mut self, statistics: &Statistics) {
        let due = if self.is_set_aside { 0 } else { self.pending.len() };
        if due > self.counted {
            statistics.outstanding.fetch_add(due - self.counted, Relaxed);
        } else if due < self.counted {
            statistics.outstanding.fetch_sub(self.counted - due, Relaxed);
        }
        self.counted = due;
    }

    /// Requests that others have in work too, those of this connection that are not counted yet included.
    pub(super) fn outstanding(&self, statistics: &Statistics) -> usize {
        statistics.outstanding.load(Relaxed) + self.pending.len().saturating_sub(self.counted)
    }

    /// Tells the metrics what has come of this connection.
    pub(super) fn flush(&mut self, statistics: &Statistics) {
        self.count_outstanding(statistics);
        self.tally.flush(statistics);
    }

    /// The task begins to look. What it finds, it judges by how things stand now: were they to change before it has noted how
    /// it goes on, it has to look again.
    pub(super) fn note_look(&mut self) {
        self.sending.task_is_busy |= !planted!(TaskLooksUnseen);
    }

    /// The task has looked: whether it holds bytes, received ones or such that the socket did not take, or wants to be woken
    /// for more than bytes.
    pub(super) fn note_task(&mut self, is_busy: bool) {
        self.sending.task_is_busy = is_busy;
    }

    /// Gives what is queued to somebody else than the task, if it is little, and all that there is to do for this connection.
    /// The task takes nothing until it was returned.
    pub(super) fn lend_outbound(&mut self, statistics: &Statistics) -> Option<BytesMut> {
        let is_all = matches!(self.phase, Phase::Open) && self.pending.is_empty();
        let is_little = !self.outbound.is_empty() && self.outbound.len() <= PROMPT_BYTES;
        if !is_all || !is_little || self.sending.task_is_busy || self.sending.is_lent {
            return None;
        }
        let lent = self.outbound.take_unshared()?;
        self.events_queued = 0;
        self.sending.is_lent = true;
        self.flush(statistics);
        Some(lent)
    }

    /// Takes back what the socket did not take; says whether there is nothing for the task to do.
    pub(super) fn return_outbound(&mut self, rest: BytesMut) -> bool {
        self.sending.is_lent = false;
        self.outbound.put_back(rest);
        self.outbound.is_empty() && matches!(self.phase, Phase::Open)
    }

    /// Whether somebody else than the task is about to send.
    pub(super) fn is_outbound_lent(&self) -> bool {
        self.sending.is_lent
    }

    /// Called now and then: gives back what an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > 0 {
            self.pending = Default::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::Origin;
    use bytes::Buf;

    /// An open connection whose task waits for requests.
    fn pipeline(outbound: &[u8]) -> Pipeline {
        let mut pipeline = Pipeline::new(Origin::default(), [].into(), [0; 16]);
        pipeline.phase = Phase::Open;
        pipeline.note_task(false);
        pipeline.outbound.last().extend_from_slice(outbound);
        pipeline
    }

    #[test]
    fn what_the_socket_did_not_take_stays_before_what_came_meanwhile() {
        let statistics = Statistics::default();
        let mut pipeline = pipeline(b"reply");
        let mut lent = pipeline
            .lend_outbound(&statistics)
            .expect("little, and all there is to do");
        assert_eq!((&lent[..], pipeline.is_outbound_lent()), (&b"reply"[..], true));
        pipeline.outbound.last().extend_from_slice(b"event");
        assert!(pipeline.lend_outbound(&statistics).is_none(), "nobody overtakes it");
        let rest = lent.split_off(2);
        assert!(!pipeline.return_outbound(rest), "the task has something to do");
        assert_eq!(pipeline.outbound.chunk(), b"plyevent");
    }

    #[test]
    fn who_is_sent_away_and_takes_nothing_is_given_up_whatever_else_comes_for_him() {
        let shared = crate::server::simulated::shared_alone();
        let surroundings = shared.surroundings();
        let mut pipeline = pipeline(b"reply");
        pipeline.stalled_since_us = Some(5);
        pipeline.check_outbound(&surroundings);
        assert_eq!(pipeline.stalled_since_us, None, "an open one has little in its queue");
        pipeline.close(Closing::SessionGone, &shared.statistics);
        pipeline.stalled_since_us = Some(5);
        pipeline.check_outbound(&surroundings);
        assert_eq!(pipeline.stalled_since_us, Some(5));
    }

    #[test]
    fn a_task_that_must_look_anyway_sends_itself() {
        let statistics = Statistics::default();
        assert!(pipeline(b"").lend_outbound(&statistics).is_none());
        assert!(pipeline(&[0; PROMPT_BYTES + 1]).lend_outbound(&statistics).is_none());
        let mut busy = pipeline(b"reply");
        busy.note_task(true);
        assert!(busy.lend_outbound(&statistics).is_none());
        let mut looking = pipeline(b"reply");
        looking.note_look();
        assert!(looking.lend_outbound(&statistics).is_none());
        let mut closing = pipeline(b"reply");
        closing.close(Closing::Stopping, &statistics);
        assert!(closing.lend_outbound(&statistics).is_none());
    }

    #[test]
    fn a_connection_that_is_closed_while_its_reply_is_sent_ends_after_it() {
        let statistics = Statistics::default();
        let mut pipeline = pipeline(b"reply");
        let lent = pipeline
            .lend_outbound(&statistics)
            .expect("little, and all there is to do");
        pipeline.close(Closing::Stopping, &statistics);
        assert!(pipeline.is_outbound_lent(), "the task waits for it");
        assert_eq!(&lent[..], b"reply");
        assert!(!pipeline.return_outbound(BytesMut::new()), "and is woken to close");
    }
}
