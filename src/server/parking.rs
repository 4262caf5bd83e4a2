//! Reads that have to wait until what they look at is in memory.
//!
//! Such a read stays at the front of its pipeline, which gives out a wish; whoever fulfils it unparks the pipeline and wakes
//! the connection, which asks again. The applier meets none of them: it brings what the reads before a write look at before
//! it applies the write.

use super::pending::Kind;
use super::pipeline::Pipeline;
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
    pub(super) fn park(&mut self, state: &State) -> bool {
        if state.is_whole() {
            return false;
        }
        let mut missing = Missing::default();
        if let Some(Kind::Local { request, .. }) = self.pending.front().map(|pending| &pending.kind) {
            request.note_missing(state, &mut missing);
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
}
