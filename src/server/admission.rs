//! Admission: how many sessions are being opened or resumed at a time, and how many large values are being written.
//!
//! When a server that had fifty thousand sessions is back after a restart, their clients come all at once. Each costs a
//! command of the log. At most [`HANDSHAKES`] of these are in work; the others wait in line, first come first served, and
//! what other clients ask for goes past them. Who waits here has given a sign of life: while its handshake does, a session
//! that it may resume does not expire (NoFalseExpiry).
//!
//! Large values wait in a line of their own: a hundred clients that write a megabyte each would have the log busy for a
//! second with what stands before the next small request. They wait there too while the store is behind, before so much has
//! piled up that everybody must. A connection whose large value waits or is written takes nothing in behind it, so its own
//! order stays.

use crate::proto::SessionId;
use crate::state_machine::{Command, ConnectionId};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Handshakes in work at most: two entries of the log, so that one is filled while the other is written. Beyond, they wait.
pub(super) const HANDSHAKES: usize = 1024;
/// A request of so many bytes is a large value.
pub(super) const LARGE_BYTES: usize = 64 << 10;
/// Large values in work at most: of the largest that `jute.maxbuffer` allows by itself, two groups of the log. Beyond, they
/// wait.
pub(super) const LARGE_VALUES: usize = 16;

/// The commands of one kind: one of a connection at a time.
#[derive(Debug)]
pub(super) struct Admission {
    limit: usize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// Connections whose command is in work.
    in_work: HashSet<ConnectionId, RandomState>,
    /// As many as there are connections, at most, and some of connections that have ended since the last [`Admission::retain`].
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: Command,
    /// Whether the client has the session, or has shown its password.
    is_proven: bool,
}

impl Admission {
    /// At most so many are in work.
    pub(super) fn new(limit: usize) -> Admission {
        Admission {
            limit,
            line: Mutex::default(),
        }
    }

    /// A command of a connection that has none here: gives it back if it may be handed on at once. Not `is_open`: it waits, to
    /// be taken out by [`Admission::next`].
    pub(super) fn enter(&self, command: Command, is_proven: bool, is_open: bool) -> Option<Command> {
        let mut line = self.line.lock();
        if is_open && line.in_work.len() < self.limit && line.waiting.is_empty() {
            line.in_work.insert(command.origin.connection);
            return Some(command);
        }
        line.waiting.push_back(Waiting { command, is_proven });
        None
    }

    /// A connection's command has come to its end; says whether it was in work.
    pub(super) fn leave(&self, connection: ConnectionId) -> bool {
        self.line.lock().in_work.remove(&connection)
    }

    /// The next one in line, if there is a place for it: it is in work then. Its connection may have ended meanwhile: then it is
    /// for the caller to have it leave.
    pub(super) fn next(&self) -> Option<Command> {
        let mut line = self.line.lock();
        if line.in_work.len() >= self.limit {
            return None;
        }
        let command = line.waiting.pop_front()?.command;
        line.in_work.insert(command.origin.connection);
        Some(command)
    }

    /// Forgets what connections have left in line that have ended.
    pub(super) fn retain(&self, is_there: impl Fn(ConnectionId) -> bool) {
        let mut line = self.line.lock();
        line.waiting
            .retain(|waiting| is_there(waiting.command.origin.connection));
    }

    /// The sessions of which something waits in line.
    pub(super) fn sessions_waiting(&self) -> Vec<SessionId> {
        let line = self.line.lock();
        let proven = line.waiting.iter().filter(|waiting| waiting.is_proven);
        proven.map(|waiting| waiting.command.session).collect()
    }

    /// How many commands wait in line.
    pub(super) fn waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{OpCode, Xid};
    use crate::state_machine::{Origin, ServerId};

    fn handshake(connection: u64) -> Command {
        Command {
            origin: Origin {
                server: ServerId(1),
                connection: ConnectionId(connection),
            },
            session: SessionId(i64::try_from(connection).unwrap()),
            xid: Xid(0),
            identities: [].into(),
            op: OpCode::AttachSession,
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn handshakes_beyond_the_limit_wait_in_line_and_their_sessions_live() {
        let admission = Admission::new(HANDSHAKES);
        let limit = HANDSHAKES as u64;
        let handed_on =
            (0..limit + 3).filter(|number| admission.enter(handshake(*number), number % 2 == 0, true).is_some());
        assert_eq!(handed_on.count(), HANDSHAKES);
        assert_eq!(admission.waiting(), 3);
        assert_eq!(admission.sessions_waiting().len(), 2);
        // One that waits has no place to leave.
        assert!(!admission.leave(ConnectionId(limit)));
        let next = || admission.next().map(|command| command.origin.connection.0);
        assert_eq!(next(), None, "all places are taken");
        assert!(admission.leave(ConnectionId(7)));
        assert_eq!(next(), Some(limit));
        assert!(!admission.leave(ConnectionId(7)), "it has left already");
        assert_eq!(next(), None);
        assert!(
            admission.leave(ConnectionId(limit))
                && admission.leave(ConnectionId(0))
                && admission.leave(ConnectionId(1))
        );
        assert_eq!((next(), next(), next()), (Some(limit + 1), Some(limit + 2), None));
        assert!(admission.enter(handshake(limit + 9), false, true).is_some());
    }

    #[test]
    fn what_must_not_begin_now_waits_though_there_are_places_and_is_not_overtaken() {
        let admission = Admission::new(4);
        assert!(admission.enter(handshake(1), true, false).is_none());
        assert!(admission.enter(handshake(2), true, true).is_none());
        assert_eq!(admission.waiting(), 2);
        let next = || admission.next().map(|command| command.origin.connection.0);
        assert_eq!((next(), next(), next()), (Some(1), Some(2), None));
    }
}
