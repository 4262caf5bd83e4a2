//! Read-only mode (`readonlymode.enabled`): a member without a leader answers reads of clients that asked for that.
//!
//! Their sessions live on this server alone, in a table of their own: nothing of them is written or told to others, and all
//! end when a leader is found. What is shown to them is the state as far as it was committed here.
//!
//! Invariants:
//! - A client that has not asked gets no byte, and no client is shown a state older than what it has seen.
//! - A session of the ensemble is not served here: its owner would take a reply for the ensemble's word that it lives.
//!
//! Source: Apache's `ReadOnlyZooKeeperServer` and `ReadOnlyRequestProcessor`. Known differences: Apache opens sessions in
//! this mode only with `localSessionsEnabled`; a wrong password does not throw a session's owner off.
//!
//! Left out on purpose: when the mode begins and ends (`driver`).

use super::handshake::{NewSession, given_password};
use super::pending::{Closing, Kind};
use super::pipeline::{Phase, Pipeline, Surroundings, is_write};
use crate::proto::connect::PASSWORD_BYTES;
use crate::proto::{ConnectRequest, ConnectResponse, Decoder, ErrorCode, OpCode, SessionId};
use crate::replica::{Deadlines, timeout_ticks};
use crate::state_machine::State;
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Sessions that may be open in this mode, those included whose connection is lost and whose time has not run out. A client
/// that wants one more is sent away.
const MOST_SESSIONS: usize = 100_000;

/// The sessions of read-only mode.
pub(super) struct ReadOnlySessions {
    passwords: HashMap<SessionId, [u8; PASSWORD_BYTES], RandomState>,
    deadlines: Deadlines,
}

impl Default for ReadOnlySessions {
    fn default() -> ReadOnlySessions {
        ReadOnlySessions {
            passwords: HashMap::default(),
            // Nobody else has to tell of their signs of life.
            deadlines: Deadlines::new(0),
        }
    }
}

impl ReadOnlySessions {
    /// Opens a session; false if there are too many.
    fn open(&mut self, new: NewSession, timeout_ms: i32) -> bool {
        if self.passwords.len() >= MOST_SESSIONS {
            return false;
        }
        self.passwords.insert(new.id, new.password);
        self.deadlines.open(new.id, timeout_ticks(timeout_ms));
        true
    }

    /// Whether this is the password of an open session, which then has the new timeout.
    fn resume(&mut self, session: SessionId, password: [u8; PASSWORD_BYTES], timeout_ms: i32) -> bool {
        if self.passwords.get(&session) != Some(&password) {
            return false;
        }
        self.deadlines.open(session, timeout_ticks(timeout_ms));
        true
    }

    fn close(&mut self, session: SessionId) {
        self.passwords.remove(&session);
        self.deadlines.close(session);
    }

    /// A tick has passed, in which these sessions gave a sign of life: gives those whose time has run out, and forgets them.
    pub(super) fn tick(&mut self, touched: &[SessionId]) -> Vec<SessionId> {
        touched.iter().for_each(|session| self.deadlines.touch(*session));
        let expired = self.deadlines.tick();
        expired.iter().for_each(|session| self.close(*session));
        expired
    }

    /// The mode ends.
    pub(super) fn clear(&mut self) {
        self.passwords.clear();
        self.deadlines.clear();
    }
}

impl Pipeline {
    /// The client's first frame, in read-only mode: opens or resumes a session at once.
    pub(super) fn connect_read_only(
        &mut self,
        frame: &Bytes,
        state: &State,
        new_session: NewSession,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), Closing> {
        let statistics = surroundings.statistics;
        self.numbers.received += 1;
        statistics.packets_received.fetch_add(1, Relaxed);
        let request = ConnectRequest::decode(&mut Decoder::new(frame)).map_err(Closing::NoHandshake)?;
        if request.read_only != Some(true) {
            return Err(Closing::NoLeader);
        }
        if request.last_zxid_seen > state.zxid() {
            return Err(Closing::Behind {
                seen: request.last_zxid_seen,
                here: state.zxid(),
            });
        }
        let timeout_ms = surroundings.settings.negotiate_timeout_ms(request.timeout_ms);
        let resumes = request.session.0 != 0;
        statistics.recorded.handshake(resumes);
        let (session, password) = if resumes {
            (request.session, given_password(&request))
        } else {
            (new_session.id, new_session.password)
        };
        if resumes && state.session(session).is_some() {
            return Err(Closing::EnsemblesSession);
        }
        let mut sessions = surroundings.read_only.lock();
        let opened = if resumes {
            sessions.resume(session, password, timeout_ms)
        } else if sessions.open(new_session, timeout_ms) {
            true
        } else {
            return Err(Closing::TooManySessions);
        };
        drop(sessions);
        let response = ConnectResponse {
            timeout_ms,
            session,
            password,
            read_only: Some(true),
        };
        self.numbers.sent += 1;
        statistics.packets_sent.fetch_add(1, Relaxed);
        if opened {
            response.encode_frame(self.outbound.last());
            self.session = session;
            self.timeout_ms = timeout_ms;
            self.is_read_only = true;
            self.phase = Phase::Open;
        } else {
            ConnectResponse::expired(Some(true)).encode_frame(self.outbound.last());
            self.close(Closing::SessionGone, statistics);
        }
        Ok(())
    }

    /// What becomes of a request that needs a leader, on a read-only connection.
    pub(super) fn without_leader(&self, op: OpCode, surroundings: &Surroundings<'_>) -> Kind {
        if op != OpCode::CloseSession {
            return self.answered(Err(ErrorCode::NotReadOnly));
        }
        surroundings.read_only.lock().close(self.session);
        Kind::Last {
            error: None,
            zxid: None,
            null_token: false,
            closing: Closing::SessionClosed,
        }
    }
}

/// Whether a request cannot be answered from the state of this server alone.
pub(super) fn needs_leader(op: OpCode) -> bool {
    is_write(op) || matches!(op, OpCode::Sync | OpCode::DeleteContainer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: NewSession = NewSession {
        id: SessionId(7),
        password: [1; PASSWORD_BYTES],
    };
    /// Two ticks.
    const TIMEOUT_MS: i32 = 100;

    #[test]
    fn a_session_is_resumed_with_its_password_until_it_is_closed_or_the_mode_ends() {
        let mut sessions = ReadOnlySessions::default();
        assert!(!sessions.resume(NEW.id, NEW.password, TIMEOUT_MS));
        assert!(sessions.open(NEW, TIMEOUT_MS));
        assert!(!sessions.resume(NEW.id, [2; PASSWORD_BYTES], TIMEOUT_MS));
        assert!(sessions.resume(NEW.id, NEW.password, TIMEOUT_MS));
        sessions.close(NEW.id);
        assert!(!sessions.resume(NEW.id, NEW.password, TIMEOUT_MS));
        assert!(sessions.open(NEW, TIMEOUT_MS));
        sessions.clear();
        assert!(!sessions.resume(NEW.id, NEW.password, TIMEOUT_MS));
        assert!(sessions.tick(&[]).is_empty());
    }

    #[test]
    fn a_silent_session_ends_after_its_timeout_and_a_touched_one_does_not() {
        let mut sessions = ReadOnlySessions::default();
        assert!(sessions.open(NEW, TIMEOUT_MS));
        for _ in 0..10 {
            assert!(sessions.tick(&[NEW.id]).is_empty());
        }
        assert!(sessions.tick(&[]).is_empty());
        assert_eq!(sessions.tick(&[]), [NEW.id]);
        assert!(!sessions.resume(NEW.id, NEW.password, TIMEOUT_MS));
        assert!((0..10).all(|_| sessions.tick(&[]).is_empty()), "it is told once");
    }
}
