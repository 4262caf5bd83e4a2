//! Session deadlines, counted in ticks.
//!
//! A touch only notes the tick; a session stands in the queue once, at the earliest tick at which it could expire, and is
//! moved to its real deadline when that tick comes. So a touch costs one look-up however many sessions there are.

use crate::proto::SessionId;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// The deadlines of all open sessions.
pub struct Deadlines {
    now: u64,
    /// When all were given their full timeout last.
    restarted: u64,
    /// Ticks beyond the timeout. At least one: the touch may have come at the very end of its tick, and no session may lose
    /// time by the coarseness of ticks.
    grace: u64,
    sessions: HashMap<SessionId, Deadline, RandomState>,
    queue: BTreeMap<u64, Vec<SessionId>>,
}

struct Deadline {
    timeout_ticks: u64,
    last_touch: u64,
    /// Where it stands in the queue; entries elsewhere are leftovers.
    queued_at: u64,
}

impl Deadline {
    /// The tick at which the session expires.
    fn due(&self, grace: u64) -> u64 {
        self.last_touch + self.timeout_ticks + grace
    }
}

impl Deadlines {
    /// No session; each is given `grace_ticks` beyond its timeout, and one more.
    pub fn new(grace_ticks: u64) -> Deadlines {
        Deadlines {
            now: 0,
            restarted: 0,
            grace: grace_ticks + 1,
            sessions: HashMap::default(),
            queue: BTreeMap::new(),
        }
    }

    /// A session is open, or has another timeout; its time begins now.
    pub fn open(&mut self, session: SessionId, timeout_ticks: u64) {
        let deadline = Deadline {
            timeout_ticks,
            last_touch: self.now,
            queued_at: self.now + timeout_ticks + self.grace,
        };
        self.queue.entry(deadline.queued_at).or_default().push(session);
        self.sessions.insert(session, deadline);
    }

    /// A session is closed.
    pub fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// A sign of life of a session.
    pub fn touch(&mut self, session: SessionId) {
        if let Some(deadline) = self.sessions.get_mut(&session) {
            deadline.last_touch = self.now;
        }
    }

    /// The ticks that each session has left, in no order.
    pub fn remaining(&self) -> impl Iterator<Item = (SessionId, u64)> {
        let (now, grace) = (self.now, self.grace);
        self.sessions
            .iter()
            .map(move |(id, deadline)| (*id, deadline.due(grace).saturating_sub(now)))
    }

    /// No session is open any more.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.queue.clear();
    }

    /// The sessions that gave a sign of life within so many ticks, in no order.
    pub fn touched_within(&self, ticks: u64) -> Vec<SessionId> {
        let since = self.restarted.max(self.now.saturating_sub(ticks));
        let touched = self.sessions.iter().filter(|(_, deadline)| deadline.last_touch > since);
        touched.map(|(id, _)| *id).collect()
    }

    /// Gives every session its full timeout again.
    pub fn restart(&mut self) {
        self.restarted = self.now;
        for deadline in self.sessions.values_mut() {
            deadline.last_touch = self.now;
        }
    }

    /// One tick has passed: the sessions whose deadline that was, in order of their ids. Each is told again after another
    /// timeout unless it is closed by then, in case the command that closes it is lost.
    pub fn tick(&mut self) -> Vec<SessionId> {
        self.now += 1;
        let mut expired = Vec::new();
        while let Some(entry) = self.queue.first_entry().filter(|entry| *entry.key() <= self.now) {
            let (at, sessions) = entry.remove_entry();
            for session in sessions {
                let Some(deadline) = self
                    .sessions
                    .get_mut(&session)
                    .filter(|deadline| deadline.queued_at == at)
                else {
                    continue;
                };
                if deadline.due(self.grace) <= self.now {
                    expired.push(session);
                    deadline.queued_at = self.now + deadline.timeout_ticks + self.grace;
                } else {
                    deadline.queued_at = deadline.due(self.grace);
                }
                self.queue.entry(deadline.queued_at).or_default().push(session);
            }
        }
        expired.sort_unstable();
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    /// The tick at which `SESSION` expires, counted from now.
    fn ticks_until_expiry(deadlines: &mut Deadlines) -> u64 {
        (1..1000).find(|_| deadlines.tick() == [SESSION]).unwrap()
    }

    #[test]
    fn a_silent_session_expires_after_its_timeout_and_not_before() {
        let mut deadlines = Deadlines::new(0);
        deadlines.open(SESSION, 10);
        assert_eq!(ticks_until_expiry(&mut deadlines), 11);
    }

    #[test]
    fn a_touch_gives_the_full_timeout_again() {
        let mut deadlines = Deadlines::new(0);
        deadlines.open(SESSION, 10);
        for _ in 0..9 {
            assert!(deadlines.tick().is_empty());
        }
        deadlines.touch(SESSION);
        assert_eq!(ticks_until_expiry(&mut deadlines), 11);
    }

    #[test]
    fn a_new_leader_gives_everybody_the_full_timeout_again() {
        let mut deadlines = Deadlines::new(0);
        deadlines.open(SESSION, 10);
        for _ in 0..9 {
            deadlines.tick();
        }
        deadlines.restart();
        assert_eq!(ticks_until_expiry(&mut deadlines), 11);
    }

    #[test]
    fn a_resumed_session_counts_by_its_new_timeout_alone() {
        let mut deadlines = Deadlines::new(0);
        deadlines.open(SESSION, 3);
        deadlines.open(SESSION, 20);
        assert_eq!(ticks_until_expiry(&mut deadlines), 21);
        deadlines.open(SESSION, 3);
        assert_eq!(ticks_until_expiry(&mut deadlines), 4);
    }

    #[test]
    fn an_expiry_is_told_again_until_the_session_is_closed() {
        let mut deadlines = Deadlines::new(0);
        deadlines.open(SESSION, 5);
        assert_eq!(ticks_until_expiry(&mut deadlines), 6);
        assert_eq!(ticks_until_expiry(&mut deadlines), 6);
        deadlines.close(SESSION);
        for _ in 0..100 {
            assert!(deadlines.tick().is_empty());
        }
        assert!(deadlines.queue.is_empty());
    }
}
