//! The lines in which commands wait before the log gets them: of clients that want a session, and of those that write large
//! values. See [`super::admission`].

use super::admission::Admission;
use super::shared::Shared;
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Command, ConnectionId};

impl Shared {
    /// A client wants a session, and this command opens or resumes it. At once, unless too many others are at it.
    pub(super) fn begin_handshake(&self, command: Command) -> Option<Command> {
        let is_proven = SessionBody::decode(&command.body).is_ok_and(|body| {
            let state = self.state.read();
            let session = state.session(command.session);
            session.is_some_and(|session| session.has_password(&body.password))
        });
        self.handshakes.enter(command, is_proven)
    }

    /// The handshake of a connection has succeeded or failed, or the connection has ended: the next one in line begins. To be
    /// called without any lock, like all that submits.
    pub(super) fn end_handshake(&self, connection: ConnectionId) {
        self.admit_next(&self.handshakes, connection);
    }

    /// A client writes a large value. At once, unless too many others are at it.
    pub(super) fn begin_large_value(&self, command: Command) -> Option<Command> {
        self.large_values.enter(command, true)
    }

    /// The large value of a connection is written, or the connection has ended. Likewise.
    pub(super) fn end_large_value(&self, connection: ConnectionId) {
        self.admit_next(&self.large_values, connection);
    }

    fn admit_next(&self, admission: &Admission, connection: ConnectionId) {
        let mut ended = connection;
        while let Some(command) = admission.leave(ended) {
            ended = command.origin.connection;
            if self.connections.contains_key(&ended) {
                return self.submit(vec![command]);
            }
            // It has hung up while it waited.
        }
    }

    /// What waits in line is a sign of life of its session.
    pub(super) fn touch_waiting(&self) {
        for admission in [&self.handshakes, &self.large_values] {
            for session in admission.sessions_waiting() {
                self.touch(session);
            }
        }
    }

    /// How many handshakes wait for others to be finished.
    pub fn handshakes_waiting(&self) -> usize {
        self.handshakes.waiting()
    }

    /// How many large values wait for others to be written.
    pub fn large_values_waiting(&self) -> usize {
        self.large_values.waiting()
    }
}
