//! Signs of life on their way to the leader: sent in batches, and again until the leader has confirmed them.

use crate::proto::SessionId;

/// Sessions that gave a sign of life which the leader has not confirmed. As many as this server has connections, at most; at
/// a server that has just led, as many as the ensemble has sessions.
#[derive(Default)]
pub(super) struct Touches {
    /// Sent with the message of this number, or not sent yet.
    waiting: Vec<(u64, SessionId)>,
    number: u64,
}

impl Touches {
    pub(super) fn add(&mut self, sessions: &[SessionId]) {
        if planted!(TouchesDropped) {
            return;
        }
        let number = self.number + 1;
        self.waiting.extend(sessions.iter().map(|session| (number, *session)));
    }

    /// The next message: its number, and all sessions that are not confirmed. If there is none, only where `even_empty` asks
    /// for one.
    pub(super) fn message(&mut self, even_empty: bool) -> Option<(u64, Vec<SessionId>)> {
        if self.waiting.is_empty() && !even_empty {
            return None;
        }
        self.number += 1;
        // The newest sign of life of each session is the one to be confirmed.
        self.waiting
            .sort_unstable_by_key(|(number, session)| (*session, std::cmp::Reverse(*number)));
        self.waiting.dedup_by_key(|(_, session)| *session);
        let sessions = self.waiting.iter().map(|(_, session)| *session).collect();
        Some((self.number, sessions))
    }

    /// The leader has got the message of this number.
    pub(super) fn confirmed(&mut self, confirmed: u64) {
        self.waiting.retain(|(number, _)| *number > confirmed);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_sent_until_it_is_confirmed() {
        let (one, two) = (SessionId(1), SessionId(2));
        let mut touches = Touches::default();
        touches.add(&[one]);
        assert_eq!(touches.message(false), Some((1, vec![one])));
        touches.add(&[two, one]);
        assert_eq!(touches.message(false), Some((2, vec![one, two])));
        touches.confirmed(1);
        assert_eq!(touches.message(false), Some((3, vec![one, two])));
        touches.confirmed(2);
        assert_eq!(touches.message(false), None);
        assert_eq!(touches.message(true), Some((4, vec![])));
    }
}
