//! The sessions of a sequence: opened, dropped, taken up again, refused.

use crate::client::{Connection, Handshake, Malformed, Received, Welcome};
use crate::operation::{Request, Resume};
use crate::player::{Incoming, Player, SESSIONS, StepView, USUAL_TIMEOUT_MS, receive};

/// One of a sequence's sessions.
#[derive(Default)]
pub struct Slot {
    pub connection: Option<Connection>,
    pub session: Option<Identity>,
    /// The session before the current one, if that was closed: to try to take it up again.
    pub closed: Option<Identity>,
    pub last_zxid: i64,
    pub next_xid: i32,
}

/// What a session is taken up again with.
#[derive(Clone)]
pub struct Identity {
    pub id: i64,
    pub password: Vec<u8>,
}

impl Player {
    pub fn connect_if_needed(&mut self, session: usize, view: &mut StepView) {
        if self.slots[session].connection.is_some() {
            return;
        }
        if let Some(identity) = self.slots[session].session.clone() {
            if self.take_up(session, &identity, self.slots[session].last_zxid, view) {
                return;
            }
            self.slots[session].session = None;
        }
        self.open_session(session, USUAL_TIMEOUT_MS, true, Vec::new(), view);
    }

    pub fn drop_connection(&mut self, session: usize) {
        if let Some(connection) = self.slots[session].connection.take() {
            connection.drop_now();
        }
    }

    pub fn resume(&mut self, session: usize, resume: Resume, view: &mut StepView) {
        let slot = &self.slots[session];
        let Some(mut identity) = slot.session.clone().or_else(|| slot.closed.clone()) else {
            view.push(format!("session {session} has never been open"));
            return;
        };
        let mut last_zxid = slot.last_zxid;
        match resume {
            Resume::AfterDrop => self.drop_connection(session),
            Resume::TakeOver => {
                let old = self.slots[session].connection.take();
                self.take_up(session, &identity, last_zxid, view);
                if let Some(mut old) = old {
                    while let Incoming::Event(_) = receive(&mut old) {}
                    view.push("the old connection is closed".to_owned());
                }
                return;
            }
            Resume::WrongPassword => {
                // Only without a connection: Apache's closes the owner's before it looks at the password, ours must not.
                self.drop_connection(session);
                match identity.password.first_mut() {
                    Some(byte) => *byte ^= 1,
                    None => view.push("the password is empty".to_owned()),
                }
            }
            Resume::Ahead => {
                self.drop_connection(session);
                last_zxid = i64::MAX;
            }
        }
        self.take_up(session, &identity, last_zxid, view);
    }

    /// Whether the session is alive and has a connection now.
    fn take_up(&mut self, session: usize, identity: &Identity, last_zxid: i64, view: &mut StepView) -> bool {
        let handshake = Handshake {
            last_zxid_seen: last_zxid,
            timeout_ms: USUAL_TIMEOUT_MS,
            session_id: identity.id,
            password: identity.password.clone(),
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        self.shake_hands(session, &handshake, view)
    }

    /// Opens a new session, with these bytes behind its handshake. Whether it has a connection now is the answer.
    pub fn open_session(
        &mut self,
        session: usize,
        timeout_ms: i32,
        with_read_only_byte: bool,
        behind: Vec<u8>,
        view: &mut StepView,
    ) -> bool {
        let slot = &mut self.slots[session];
        slot.session = None;
        let handshake = Handshake {
            last_zxid_seen: 0,
            timeout_ms,
            session_id: 0,
            password: vec![0; 16],
            with_read_only_byte,
            behind,
        };
        self.shake_hands(session, &handshake, view)
    }

    fn shake_hands(&mut self, session: usize, handshake: &Handshake, view: &mut StepView) -> bool {
        let mut connection = match Connection::open(self.address) {
            Ok(connection) => connection,
            Err(error) => {
                view.push(format!("session {session}: no connection: {:?}", error.kind()));
                return false;
            }
        };
        match connection.shake_hands(handshake) {
            Ok(Some(welcome)) => {
                let alive = welcome.timeout_ms > 0;
                view.push(self.welcomed(session, handshake, &welcome));
                if alive {
                    let slot = &mut self.slots[session];
                    slot.session = Some(Identity {
                        id: welcome.session_id,
                        password: welcome.password,
                    });
                    slot.connection = Some(connection);
                } else if !matches!(connection.receive(), Received::Closed) {
                    view.push("a refused connection stays open".to_owned());
                }
                alive
            }
            Ok(None) => {
                view.push(format!("session {session}: the handshake is answered by closing"));
                false
            }
            Err(Malformed(text)) => {
                view.push(format!("session {session}: handshake: {text}"));
                false
            }
        }
    }

    fn welcomed(&mut self, session: usize, handshake: &Handshake, welcome: &Welcome) -> String {
        let identity = match (welcome.session_id, handshake.session_id) {
            (0, _) => "no session".to_owned(),
            (id, 0) => format!("new session {}", self.names.number_session(id)),
            (id, asked) if id == asked => format!("session {} again", self.names.number_session(id)),
            (id, _) => format!("another session {}", self.names.number_session(id)),
        };
        let password = if welcome.password.iter().all(|byte| *byte == 0) {
            "zeros"
        } else {
            "random"
        };
        format!(
            "session {session}: welcomed: {identity}, timeout {} ms, password {} bytes {password}, readOnly {:?}",
            welcome.timeout_ms,
            welcome.password.len(),
            welcome.read_only
        )
    }

    /// Closes what the sequence left open, so that its ephemerals do not outlive the run.
    pub fn leave(&mut self) {
        for session in 0..SESSIONS {
            if self.slots[session].session.is_none() {
                self.drop_connection(session);
                continue;
            }
            let mut ignored = Vec::new();
            self.connect_if_needed(session, &mut ignored);
            self.exchange(session, &[Request::CloseSession]);
            self.drop_connection(session);
        }
    }
}
