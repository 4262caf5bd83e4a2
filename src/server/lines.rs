//! The lines in which commands wait before the log gets them: of clients that want a session, and of those that write large
//! values. See [`super::admission`].

use super::admission::Admission;
use super::shared::{DriverInput, Shared};
use crate::proto::Zxid;
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Command, ConnectionId};

impl Shared {
    /// A client wants a session, and this command opens or resumes it. At once, unless too many others are at it.
    ///
    /// Who resumes one and has its password lives. That must count before the command is applied: its deadline may pass
    /// meanwhile. Who does not have it must not keep a session alive whose owner is dead; its id is known to many, since its
    /// ephemerals tell. (Where the session is not known yet, it was opened a moment ago.)
    pub(super) fn begin_handshake(&self, command: Command) -> Option<Command> {
        let is_proven = SessionBody::decode(&command.body).is_ok_and(|body| {
            let state = self.state.read();
            let session = state.session(command.session);
            session.is_some_and(|session| session.has_password(&body.password))
        });
        if is_proven {
            self.signs.touch(command.session);
        }
        self.handshakes.enter(command, is_proven, true)
    }

    /// The handshake of a connection has succeeded or failed, or the connection has ended: the next one in line begins. To be
    /// called without any lock, like all that submits.
    pub(super) fn end_handshake(&self, connection: ConnectionId) {
        if self.handshakes.leave(connection) {
            self.admit_next(&self.handshakes, |command| self.submit(vec![command]));
        }
    }

    /// A client writes a large value. At once, unless too many others are at it, or the store is behind.
    pub(super) fn begin_large_value(&self, command: Command) -> Option<Command> {
        let is_open = !self.is_store_behind();
        let begun = self.large_values.enter(command, true, is_open);
        if begun.is_none() && !is_open {
            // Who has just stored much may have looked at the line before. Or a checkpoint is due, and nobody comes to take it.
            self.admit_large_values();
            self.call_applier();
        }
        begun
    }

    /// The large value of a connection is written, or the connection has ended. Likewise.
    pub(super) fn end_large_value(&self, connection: ConnectionId) {
        if self.large_values.leave(connection) {
            self.admit_large_values();
        }
    }

    fn admit_large_values(&self) {
        if !self.is_store_behind() {
            self.admit_next(&self.large_values, |command| self.submit(vec![command]));
        }
    }

    /// A checkpoint of so many bytes, up to this command, was stored: large values may begin that have waited for it. For the
    /// store's thread, which has no time for other duties.
    pub(super) fn checkpoint_stored(&self, zxid: Zxid, bytes: u64) {
        self.memory.checkpoint_stored(zxid, bytes);
        if self.large_values.waiting() == 0 {
            return;
        }
        if self.is_store_behind() {
            // The next checkpoint is due, and nobody else may come to take it.
            self.call_applier();
        } else {
            self.admit_next(&self.large_values, |command| {
                self.driver.push(DriverInput::Commands(vec![command]));
            });
        }
    }

    /// Whether so much is not stored yet that large values wait.
    fn is_store_behind(&self) -> bool {
        self.unstored_bytes() > self.memory.behind_bytes()
    }

    /// Bytes of what has changed and is not stored.
    pub(super) fn unstored_bytes(&self) -> u64 {
        self.state.read().dirty_bytes() + self.memory.bytes_on_their_way()
    }

    /// Those who are next in line begin, as far as there are places.
    fn admit_next(&self, admission: &Admission, submit: impl Fn(Command)) {
        while let Some(command) = admission.next() {
            let connection = command.origin.connection;
            if self.connections.contains_key(&connection) {
                submit(command);
            } else {
                // It has hung up while it waited.
                admission.leave(connection);
            }
        }
    }

    /// What waits in line is a sign of life of its session. Called now and then; what nobody waits for any more is forgotten, and
    /// is none.
    pub(super) fn touch_waiting(&self) {
        for admission in [&self.handshakes, &self.large_values] {
            if admission.waiting() > 0 {
                admission.retain(|connection| self.connections.contains_key(&connection));
            }
            for session in admission.sessions_waiting() {
                self.signs.touch(session);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::connect::PASSWORD_BYTES;
    use crate::proto::{OpCode, SessionId, Xid};
    use crate::server::simulated::shared_alone;
    use crate::state_machine::{Origin, ServerId, Stamp};
    use bytes::Bytes;

    fn large_value(connection: ConnectionId) -> Command {
        Command {
            origin: Origin {
                server: ServerId(1),
                connection,
            },
            session: SessionId(1),
            xid: Xid(1),
            identities: [].into(),
            op: OpCode::SetData,
            body: Bytes::new(),
        }
    }

    /// The connections whose commands the driver has got.
    fn submitted(shared: &Shared) -> Vec<u64> {
        let mut inputs = Vec::new();
        shared.driver.take(&mut inputs);
        let commands = inputs.into_iter().flat_map(|input| match input {
            DriverInput::Commands(commands) => commands,
            _ => panic!("nobody else is here"),
        });
        commands.map(|command| command.origin.connection.0).collect()
    }

    #[test]
    fn who_resumes_a_session_gives_a_sign_of_its_life_if_the_password_is_right() {
        let shared = shared_alone();
        let handshake = |op, session, password| Command {
            op,
            session: SessionId(session),
            body: SessionBody {
                timeout_ms: 1000,
                password: [password; PASSWORD_BYTES],
            }
            .to_bytes(),
            ..large_value(ConnectionId(7))
        };
        let opens = handshake(OpCode::CreateSession, 9, 1);
        let opened = shared.state.write().apply(&Stamp::default(), &opens, &mut Vec::new());
        assert!(opened.result.is_ok());
        let signs_of = |command| {
            shared.begin_handshake(command);
            shared.signs.next_tick()
        };
        assert_eq!(signs_of(handshake(OpCode::AttachSession, 9, 2)), []);
        assert_eq!(signs_of(handshake(OpCode::AttachSession, 10, 1)), []);
        assert_eq!(signs_of(handshake(OpCode::CreateSession, 11, 1)), []);
        assert_eq!(signs_of(handshake(OpCode::AttachSession, 9, 1)), [SessionId(9)]);
    }

    #[test]
    fn large_values_wait_while_the_store_is_behind_and_begin_when_it_has_caught_up() {
        let shared = shared_alone();
        let peer = "127.0.0.1:1".parse().expect("an address");
        let [one, gone, other] = std::array::from_fn(|_| shared.admit(peer).expect("there is room"));
        let begin = |connection| shared.begin_large_value(large_value(connection));
        assert!(begin(one.id).is_some(), "the store is not behind");
        let limit = shared.memory.unstored_limit();
        shared.memory.checkpoint_taken(limit / 2 + 1);
        shared.memory.checkpoint_taken(limit);
        for connection in [&gone, &other] {
            assert!(begin(connection.id).is_none());
        }
        shared.connection_ended(&gone, SessionId(0));
        // There would be places.
        shared.end_large_value(one.id);
        shared.checkpoint_stored(Zxid(1), limit / 2 + 1);
        assert_eq!(
            (submitted(&shared), shared.large_values_waiting()),
            (vec![], 2),
            "still behind"
        );
        shared.checkpoint_stored(Zxid(2), limit);
        assert_eq!(
            (submitted(&shared), shared.large_values_waiting()),
            (vec![other.id.0], 0)
        );
        assert!(!shared.large_values.leave(gone.id), "who has ended takes no place");
        assert!(shared.large_values.leave(other.id));
    }

    #[test]
    fn what_waits_in_line_is_forgotten_with_its_connection() {
        let shared = shared_alone();
        let peer = "127.0.0.1:1".parse().expect("an address");
        let [gone, other] = std::array::from_fn(|_| shared.admit(peer).expect("there is room"));
        shared.memory.checkpoint_taken(shared.memory.unstored_limit());
        for connection in [&gone, &other] {
            assert!(shared.begin_large_value(large_value(connection.id)).is_none());
        }
        shared.connection_ended(&gone, SessionId(0));
        shared.touch_waiting();
        assert_eq!(shared.large_values_waiting(), 1);
        shared.connection_ended(&other, SessionId(0));
        shared.touch_waiting();
        assert_eq!(shared.large_values_waiting(), 0);
    }
}
