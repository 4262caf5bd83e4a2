//! The handshake: a new session, or an old one on a new connection.
//!
//! A client that has seen more than is applied here may have been with another ensemble, or this one was set back: it is sent
//! away without a word, as ZooKeeper does, and nothing is done for its session. But when a leader dies right behind its reply,
//! the others have what the client has seen in their logs, and none of them knows yet that it is committed. So the client waits
//! for a read barrier: then all that was committed when it came is applied, and one sees which of the two it is.

use super::connection::Connection;
use super::pending::{Closing, Intake};
use super::pipeline::{Phase, Pipeline, Surroundings};
use super::settings::{HANDSHAKE_BYTES, Settings};
use super::shared::{Service, Word};
use crate::proto::connect::PASSWORD_BYTES;
use crate::proto::{ConnectRequest, ConnectResponse, Decoder, OpCode, SessionId, Xid, Zxid, frame};
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Applied, Command, Origin};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::Ordering::Relaxed;

/// Id and password for a session that may be opened: chance, given as an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSession {
    pub(super) id: SessionId,
    pub(super) password: [u8; PASSWORD_BYTES],
}

/// A handshake that waits for its command.
#[derive(Debug)]
pub(super) struct Opening {
    timeout_ms: i32,
    password: [u8; PASSWORD_BYTES],
    /// `None`: the client does not know of read-only servers.
    read_only: Option<bool>,
    /// Whether it waited for others to begin, when it was last looked at: nothing of it is in the log.
    pub(super) waits_in_line: bool,
}

impl Opening {
    /// What the client is told once the command is applied.
    pub(super) fn response(&self, session: SessionId, succeeded: bool) -> ConnectResponse {
        let read_only = self.read_only.map(|_| false);
        if !succeeded {
            return ConnectResponse::expired(read_only);
        }
        ConnectResponse {
            timeout_ms: self.timeout_ms,
            session,
            password: self.password,
            read_only,
        }
    }
}

/// A handshake of a client that has seen more than is applied here: it waits for a read barrier.
#[derive(Debug)]
pub(super) struct Ahead {
    opening: Opening,
    command: Command,
    /// What the client has seen.
    seen: Zxid,
    /// Whether the barrier is passed.
    pub(super) has_caught_up: bool,
}

impl Connection {
    /// The first bytes of a connection are a four-letter word, whose answer this gives, or a handshake.
    pub(super) fn first_bytes(
        &self,
        received: &mut BytesMut,
        surroundings: &Surroundings<'_>,
        intake: &mut Intake,
    ) -> Option<String> {
        let is_ahead = self.with_pipeline(|pipeline| match pipeline.phase {
            Phase::Handshake => Some(false),
            Phase::Ahead(_) => Some(true),
            _ => None,
        })?;
        if is_ahead {
            self.catch_up(surroundings, intake);
        } else {
            match self.shared.words.answer(received) {
                Word::Unknown => {}
                Word::Incomplete => return None,
                // Some words look at all connections, this one too: its lock must be free.
                Word::Answer(answer) => return Some(answer),
            }
            self.first_frame(received, surroundings, intake);
        }
        if let Some(handshake) = intake.commands.pop() {
            self.is_opening.store(true, Relaxed);
            match self.shared.begin_handshake(handshake) {
                Some(begun) => intake.commands.push(begun),
                None => self.with_pipeline(Pipeline::wait_in_line),
            }
        }
        None
    }

    fn first_frame(&self, received: &mut BytesMut, surroundings: &Surroundings<'_>, intake: &mut Intake) {
        let here = self.shared.applied_zxid();
        let new_session = self.shared.new_session();
        if self.shared.service() == Service::ReadOnly {
            return self.first_frame_read_only(received, new_session, surroundings);
        }
        self.with_pipeline(|pipeline| {
            let taken = match frame::split_frame(received, HANDSHAKE_BYTES) {
                Ok(None) => Ok(()),
                Ok(Some(_)) if !self.shared.is_serving() => Err(Closing::NotServing),
                Ok(Some(frame)) => pipeline.connect(&frame, here, new_session, surroundings, intake),
                Err(error) => Err(error.into()),
            };
            if let Err(closing) = taken {
                pipeline.close(closing, surroundings.statistics);
            }
        });
    }

    /// The client had seen more than was applied here: lets it in if that is no longer so.
    fn catch_up(&self, surroundings: &Surroundings<'_>, intake: &mut Intake) {
        self.with_pipeline(|pipeline| {
            let taken = match self.shared.is_serving() {
                // Asked under the pipeline's lock: a barrier that is passed was passed before.
                true => pipeline.catch_up(self.shared.applied_zxid(), intake),
                false => Err(Closing::NotServing),
            };
            if let Err(closing) = taken {
                pipeline.close(closing, surroundings.statistics);
            }
        });
    }

    /// The first frame of a connection while there is no leader.
    fn first_frame_read_only(&self, received: &mut BytesMut, new_session: NewSession, surroundings: &Surroundings<'_>) {
        let state = self.shared.state.read();
        let session = self.with_pipeline(|pipeline| {
            if !matches!(pipeline.phase, Phase::Handshake) {
                // It was closed meanwhile.
                return None;
            }
            let taken = match frame::split_frame(received, HANDSHAKE_BYTES) {
                Ok(None) => Ok(()),
                // Looked at under the pipeline's lock: whoever ends the mode sets this first and closes connections then.
                Ok(Some(_)) if self.shared.service() != Service::ReadOnly => Err(Closing::NotServing),
                Ok(Some(frame)) => pipeline.connect_read_only(&frame, &state, new_session, surroundings),
                Err(error) => Err(error.into()),
            };
            if let Err(closing) = taken {
                pipeline.close(closing, surroundings.statistics);
            }
            matches!(pipeline.phase, Phase::Open).then_some(pipeline.session)
        });
        drop(state);
        if let Some(session) = session
            && let Some(previous) = self.shared.bind(session, self.id)
        {
            previous.close(Closing::SessionGone);
        }
    }
}

impl Pipeline {
    /// The client's first frame: opens or resumes its session. `new_session` is an id and a password for a new one.
    pub(super) fn connect(
        &mut self,
        frame: &Bytes,
        here: Zxid,
        new_session: NewSession,
        surroundings: &Surroundings<'_>,
        intake: &mut Intake,
    ) -> Result<(), Closing> {
        self.numbers.received += 1;
        surroundings.statistics.packets_received.fetch_add(1, Relaxed);
        let request = ConnectRequest::decode(&mut Decoder::new(frame)).map_err(Closing::NoHandshake)?;
        let seen = request.last_zxid_seen;
        let (opening, command) = open(&request, new_session, self.origin, surroundings.settings);
        surroundings
            .statistics
            .recorded
            .handshake(command.op == OpCode::AttachSession);
        if seen > here && planted!(SentAwayAtOnce) {
            return Err(Closing::Ahead { seen, here });
        }
        if seen > here {
            surroundings.statistics.clients_ahead.fetch_add(1, Relaxed);
            self.phase = Phase::Ahead(Box::new(Ahead {
                opening,
                command,
                seen,
                has_caught_up: false,
            }));
            intake.barrier = true;
        } else {
            self.phase = Phase::Opening(opening);
            intake.commands.push(command);
        }
        Ok(())
    }

    /// Lets a client in that was ahead, if what it has seen is applied `here`; sends it away if it never will be.
    fn catch_up(&mut self, here: Zxid, intake: &mut Intake) -> Result<(), Closing> {
        match std::mem::replace(&mut self.phase, Phase::Handshake) {
            Phase::Ahead(ahead) if ahead.seen <= here => {
                self.phase = Phase::Opening(ahead.opening);
                intake.commands.push(ahead.command);
            }
            Phase::Ahead(ahead) if ahead.has_caught_up => return Err(Closing::Ahead { seen: ahead.seen, here }),
            phase => self.phase = phase,
        }
        Ok(())
    }

    /// Its handshake waits for others.
    fn wait_in_line(&mut self) {
        if let Phase::Opening(opening) = &mut self.phase {
            opening.waits_in_line = true;
        }
    }

    pub(super) fn opened(&mut self, command: &Command, applied: &Applied, surroundings: &Surroundings<'_>) {
        let Phase::Opening(opening) = &self.phase else { return };
        let response = opening.response(command.session, applied.result.is_ok());
        response.encode_frame(self.outbound.last());
        self.numbers.sent += 1;
        surroundings.statistics.packets_sent.fetch_add(1, Relaxed);
        if applied.result.is_ok() {
            self.session = command.session;
            self.timeout_ms = response.timeout_ms;
            self.phase = Phase::Open;
        } else {
            self.close(Closing::SessionGone, surroundings.statistics);
        }
    }
}

/// Makes the command that opens or resumes the session.
fn open(request: &ConnectRequest, new_session: NewSession, origin: Origin, settings: &Settings) -> (Opening, Command) {
    let timeout_ms = settings.negotiate_timeout_ms(request.timeout_ms);
    let (op, session, password) = if request.session.0 == 0 {
        (OpCode::CreateSession, new_session.id, new_session.password)
    } else {
        (OpCode::AttachSession, request.session, given_password(request))
    };
    let body = SessionBody { timeout_ms, password }.to_bytes();
    let command = Command {
        origin,
        session,
        xid: Xid(0),
        identities: [].into(),
        op,
        body,
    };
    let opening = Opening {
        timeout_ms,
        password,
        read_only: request.read_only,
        waits_in_line: false,
    };
    (opening, command)
}

/// The password that a client shows. One of another length cannot be right; zeros are never given out, so they cannot be
/// right either.
pub(super) fn given_password(request: &ConnectRequest) -> [u8; PASSWORD_BYTES] {
    let given = request.password.as_deref();
    given
        .and_then(|password| password.try_into().ok())
        .unwrap_or([0; PASSWORD_BYTES])
}

#[cfg(test)]
mod tests {
    use super::super::admission::HANDSHAKES;
    use super::super::connection::Connection;
    use super::super::simulated::shared_alone;
    use super::*;
    use crate::net::{Conversation, Flow, Output};
    use std::sync::Arc;

    fn knock(connection: &Connection, seen: i64, behind: &[u8]) -> Flow {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(seen),
            timeout_ms: 10_000,
            session: SessionId(0),
            password: None,
            read_only: Some(false),
        };
        let mut body = BytesMut::new();
        request.encode(&mut body);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut received = BytesMut::from(&[&length, &body[..], behind].concat()[..]);
        let flow = connection.advance(&mut received, &mut Output::new());
        assert_eq!(received, behind);
        flow
    }

    #[test]
    fn a_client_that_hangs_up_before_its_handshake_has_begun_is_noticed_and_forgotten() {
        let shared = shared_alone();
        shared.set_serving();
        let peer = "127.0.0.1:1".parse().expect("an address");
        let admit = || shared.admit(peer).expect("there is room");
        assert_eq!(knock(&admit(), 5, b""), Flow::Read, "it waits for the ensemble");
        let in_work: Vec<Arc<Connection>> = (0..HANDSHAKES).map(|_| admit()).collect();
        for connection in &in_work {
            assert_eq!(knock(connection, 0, b""), Flow::Pause, "nothing takes it back any more");
        }
        let [gone, other, hasty] = std::array::from_fn(|_| admit());
        for connection in [&gone, &other] {
            assert_eq!(knock(connection, 0, b""), Flow::Read, "it waits in line");
        }
        assert_eq!(knock(&hasty, 0, b"more"), Flow::Pause, "what it sends is bounded");
        assert_eq!(shared.handshakes_waiting(), 3);
        gone.ended();
        in_work[0].ended();
        assert_eq!(shared.handshakes_waiting(), 1, "the next one has begun");
        in_work[1].ended();
        assert_eq!(shared.handshakes_waiting(), 0);
    }
}
