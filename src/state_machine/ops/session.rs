//! Opening, resuming and closing sessions.

use super::{Change, State, remove};
use crate::proto::{ErrorCode, Reply, SessionId};
use crate::state_machine::command::{Command, SessionBody};
use crate::state_machine::node::CONTAINER_OWNER;
use crate::state_machine::session::Session;

/// createSession: the id and the password come with the command, from the server that took the connection.
pub(super) fn open(state: &mut State, command: &Command, changes: &mut Vec<Change>) -> Result<Reply, ErrorCode> {
    let body = decode(command)?;
    // As owners, the first two ids mark persistent znodes and containers.
    let is_taken = matches!(command.session.0, 0 | CONTAINER_OWNER) || state.sessions.get(command.session).is_some();
    if is_taken {
        return Err(ErrorCode::SystemError);
    }
    state.sessions.insert(Session {
        id: command.session,
        timeout_ms: body.timeout_ms,
        password: body.password,
        owner: command.origin,
    });
    state.dirty.session_changed(command.session);
    changes.push(Change::SessionOpened {
        session: command.session,
    });
    Ok(Reply::Empty)
}

/// attachSession: who has the password gets the session, with the timeout negotiated anew.
pub(super) fn attach(state: &mut State, command: &Command, changes: &mut Vec<Change>) -> Result<Reply, ErrorCode> {
    let body = decode(command)?;
    let session = state
        .sessions
        .get_mut(command.session)
        .ok_or(ErrorCode::SessionExpired)?;
    if !session.has_password(&body.password) {
        return Err(ErrorCode::SessionExpired);
    }
    session.owner = command.origin;
    session.timeout_ms = body.timeout_ms;
    state.dirty.session_changed(command.session);
    changes.push(Change::SessionAttached {
        session: command.session,
    });
    Ok(Reply::Empty)
}

/// closeSession: the session and all its ephemerals go in one step.
pub(super) fn close(state: &mut State, session: SessionId, changes: &mut Vec<Change>) -> Reply {
    let zxid = state.zxid;
    for path in state.ephemeral_paths(session) {
        let id = state
            .tree
            .find(path.bytes())
            .expect("EphemeralIffSession: the session's ephemerals exist");
        if planted!(EphemeralForgotten) {
            state.sessions.remove_ephemeral(session, id);
            continue;
        }
        remove(state, zxid, id, path, changes);
    }
    state.sessions.remove(session);
    state.dirty.session_changed(session);
    changes.push(Change::SessionClosed { session });
    Reply::Empty
}

fn decode(command: &Command) -> Result<SessionBody, ErrorCode> {
    SessionBody::decode(&command.body).map_err(|_| ErrorCode::MarshallingError)
}
