//! The handshake: a new session, or an old one on a new connection.

use super::pending::Closing;
use super::settings::Settings;
use crate::proto::connect::PASSWORD_BYTES;
use crate::proto::{ConnectRequest, ConnectResponse, Decoder, OpCode, SessionId, Xid, Zxid};
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Command, Origin};
use bytes::Bytes;

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

/// Reads a ConnectRequest and makes the command that opens or resumes the session.
pub(super) fn open(
    frame: &Bytes,
    here: Zxid,
    new_session: NewSession,
    origin: Origin,
    settings: &Settings,
) -> Result<(Opening, Command), Closing> {
    let request = ConnectRequest::decode(&mut Decoder::new(frame)).map_err(Closing::NoHandshake)?;
    if request.last_zxid_seen > here {
        // Serving it would show this client the past.
        return Err(Closing::Behind {
            seen: request.last_zxid_seen,
            here,
        });
    }
    let timeout_ms = settings.negotiate_timeout_ms(request.timeout_ms);
    let (op, session, password) = if request.session.0 == 0 {
        (OpCode::CreateSession, new_session.id, new_session.password)
    } else {
        (OpCode::AttachSession, request.session, given_password(&request))
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
    Ok((
        Opening {
            timeout_ms,
            password,
            read_only: request.read_only,
        },
        command,
    ))
}

/// The password that a client shows. One of another length cannot be right; zeros are never given out, so they cannot be
/// right either.
pub(super) fn given_password(request: &ConnectRequest) -> [u8; PASSWORD_BYTES] {
    let given = request.password.as_deref();
    given
        .and_then(|password| password.try_into().ok())
        .unwrap_or([0; PASSWORD_BYTES])
}
