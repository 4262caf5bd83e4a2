//! Sessions: who they belong to, and which ephemerals they hold.

use super::command::{Command, Origin};
use super::node::NodeId;
use crate::proto::connect::PASSWORD_BYTES;
use crate::proto::{ErrorCode, SessionId};
use hashbrown::HashSet;
use std::collections::BTreeMap;
use std::hint::black_box;

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The timeout that was negotiated last, ms.
    pub timeout_ms: i32,
    /// Who has it may resume the session.
    pub password: [u8; PASSWORD_BYTES],
    /// The connection that may write on its behalf.
    pub owner: Origin,
}

impl Session {
    /// Whether `password` is the session's. Takes the same time wherever they differ.
    pub fn has_password(&self, password: &[u8; PASSWORD_BYTES]) -> bool {
        let differing = self
            .password
            .iter()
            .zip(password)
            .fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        differing == 0
    }
}

/// Nodes that need no order: whoever lists them sorts their paths.
pub(super) type NodeSet = HashSet<NodeId, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Session,
    pub(super) ephemerals: NodeSet,
}

/// All sessions, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    entries: BTreeMap<SessionId, Entry>,
    ephemerals: usize,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many ephemerals all sessions hold.
    pub(super) fn ephemerals(&self) -> usize {
        self.ephemerals
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.entries.get(&id).map(|entry| &entry.session)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.entries.get_mut(&id).map(|entry| &mut entry.session)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The ephemerals of a session, in no order.
    pub(super) fn ephemerals_of(&self, id: SessionId) -> impl Iterator<Item = NodeId> {
        self.entries
            .get(&id)
            .into_iter()
            .flat_map(|entry| entry.ephemerals.iter().copied())
    }

    pub(super) fn insert(&mut self, session: Session) {
        let entry = Entry {
            session,
            ephemerals: NodeSet::default(),
        };
        let before = self.entries.insert(session.id, entry);
        assert!(
            before.is_none(),
            "session {} is opened once, and was open already",
            session.id
        );
    }

    /// Removes a session that holds no ephemerals any more.
    pub(super) fn remove(&mut self, id: SessionId) {
        let entry = self.entries.remove(&id);
        let held = entry.map(|entry| entry.ephemerals.len());
        assert_eq!(
            held,
            Some(0),
            "EphemeralIffSession: session {id} goes after its ephemerals"
        );
    }

    pub(super) fn add_ephemeral(&mut self, owner: SessionId, node: NodeId) {
        let entry = self.entries.get_mut(&owner);
        let entry =
            entry.unwrap_or_else(|| panic!("EphemeralIffSession: {node:?} is of session {owner}, which is not"));
        assert!(
            entry.ephemerals.insert(node),
            "{node:?} becomes an ephemeral of session {owner} once"
        );
        self.ephemerals += 1;
    }

    pub(super) fn remove_ephemeral(&mut self, owner: SessionId, node: NodeId) {
        let removed = self
            .entries
            .get_mut(&owner)
            .is_some_and(|entry| entry.ephemerals.remove(&node));
        assert!(
            removed,
            "EphemeralIffSession: {node:?} is an ephemeral of session {owner} until it goes"
        );
        self.ephemerals -= 1;
    }

    /// Whether `command` may speak for its session.
    ///
    /// # Errors
    /// `SessionExpired` if there is no such session, `SessionMoved` if another connection has it.
    pub(super) fn check(&self, command: &Command) -> Result<(), ErrorCode> {
        let session = self.get(command.session).ok_or(ErrorCode::SessionExpired)?;
        if session.owner != command.origin && !command.origin.is_internal() {
            return Err(ErrorCode::SessionMoved);
        }
        Ok(())
    }
}
