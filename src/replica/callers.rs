//! Servers that this one hears and is not linked with: among them newcomers, who know the members and are none yet.

use super::WITNESS_TICKS;
use crate::state_machine::ServerId;
use std::collections::BTreeMap;

/// So many are remembered; who comes on top of that is not, until another one has fallen silent. An ensemble has no more members.
const CALLERS: usize = 255;
/// Who was not heard for so long is in contact no more. It tells how far its log reaches every [`WITNESS_TICKS`].
const SILENCE_TICKS: u64 = 3 * WITNESS_TICKS;

/// Who was heard, and in which tick last.
#[derive(Default)]
pub(super) struct Callers(BTreeMap<ServerId, u64>);

impl Callers {
    /// This one was heard.
    pub(super) fn heard(&mut self, server: ServerId, tick: u64) {
        if self.0.len() < CALLERS || self.0.contains_key(&server) {
            self.0.insert(server, tick);
        }
    }

    /// Forgets who has fallen silent.
    pub(super) fn forget_silent(&mut self, tick: u64) {
        self.0.retain(|_, heard| tick <= *heard + SILENCE_TICKS);
    }

    /// Who was heard of late.
    pub(super) fn of_late(&self) -> impl Iterator<Item = ServerId> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_forgotten_and_not_everybody_is_remembered() {
        let mut callers = Callers::default();
        let of_late = |callers: &Callers| callers.of_late().map(|server| server.0).collect::<Vec<_>>();
        callers.heard(ServerId(2), 5);
        callers.heard(ServerId(3), 5 + WITNESS_TICKS);
        callers.forget_silent(5 + SILENCE_TICKS);
        assert_eq!(of_late(&callers), [2, 3]);
        callers.forget_silent(6 + SILENCE_TICKS);
        assert_eq!(of_late(&callers), [3]);
        (10..10 + CALLERS as u64).for_each(|server| callers.heard(ServerId(server), 100));
        assert_eq!(callers.0.len(), CALLERS);
        callers.heard(ServerId(3), 101);
        assert_eq!(callers.0[&ServerId(3)], 101);
    }
}
