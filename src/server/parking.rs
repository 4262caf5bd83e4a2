//! Reads that have to wait until what they look at is in memory.
//!
//! Such a read stays at the front of its pipeline, which gives out a wish; whoever fulfils it unparks the pipeline and wakes
//! the connection, which asks again. The applier meets none of them: it brings the groups that the reads before a write look
//! at before it applies the write; and a write behind a read of data that may be away is not handed on before the read is
//! answered.

use super::local::Local;
use super::outbound::hard_limit;
use super::pending::{Closing, Kind};
use super::pipeline::{Pipeline, Surroundings};
use super::settings::PENDING_REQUESTS;
use crate::state_machine::{Missing, State};

/// Whether the request at the front waits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Parked {
    #[default]
    No,
    /// Nobody was told yet what it waits for.
    Wishes(Missing),
    Waits,
}

impl Pipeline {
    /// Parks the request at the front if it looks at what is not in memory; says whether.
    pub(super) fn park(&mut self, state: &State, surroundings: &Surroundings<'_>) -> bool {
        if state.has_everything() {
            return false;
        }
        let mut missing = Missing::default();
        if let Some(Kind::Local { request, identities }) = self.pending.front().map(|pending| &pending.kind) {
            request.note_missing(state, &mut missing);
            if let Local::Query(query) = request
                && missing.is_empty()
            {
                state.note_away(query, identities, surroundings.settings.skip_acl, &mut missing);
            }
        }
        if missing.is_empty() {
            return false;
        }
        self.parked = Parked::Wishes(missing);
        true
    }

    /// What the request at the front waits for, once.
    pub(super) fn take_wish(&mut self) -> Option<Missing> {
        match std::mem::take(&mut self.parked) {
            Parked::No => None,
            Parked::Wishes(missing) => {
                self.parked = Parked::Waits;
                Some(missing)
            }
            Parked::Waits => {
                self.parked = Parked::Waits;
                None
            }
        }
    }

    /// Whether the request at the front waits.
    pub(super) fn is_parked(&self) -> bool {
        self.parked != Parked::No
    }

    /// What the request at the front waits for may be there.
    pub(super) fn unpark(&mut self) {
        self.parked = Parked::No;
    }

    /// Notes what the reads that were not answered yet look at.
    pub(super) fn note_missing(&self, state: &State, missing: &mut Missing) {
        for pending in &self.pending {
            if let Kind::Local { request, .. } = &pending.kind {
                request.note_missing(state, missing);
            }
        }
    }

    /// Called before the connection's next write is applied: the reads before it must not see it. A connection whose queue
    /// they would make grow far beyond its limit is given up instead.
    pub(super) fn before_apply(&mut self, state: &State, surroundings: &Surroundings<'_>) {
        self.unpark();
        if self.has_answerable() {
            let room = hard_limit(surroundings.settings).saturating_sub(self.outbound.len());
            self.answer(state, surroundings, PENDING_REQUESTS, room);
            self.check_outbound(surroundings);
        }
        if self.is_parked() {
            // Its write was handed on when no value was going to leave yet. The read cannot be answered as of now any more.
            self.close(Closing::DataAway, surroundings.statistics);
        }
    }
}
