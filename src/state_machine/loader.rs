//! Rebuilding the state from the records of checkpoints: lists of rights, sessions and what these hold first, then znodes,
//! parents before their children and siblings together.
//!
//! Everything that is derived (ephemerals, candidates, quotas, counters, digest) is derived again. If only the first
//! records are read at first ([`Loader::finish_part`]), what is derived of the others is taken as it was stored.

use super::State;
use super::acl::AclId;
use super::checkpoint::Totals;
use super::node::{Kind, Marks, Node, NodeId, StoredStat};
use super::session::Session;
use super::value::Value;
use crate::membership::BadMembers;
use crate::proto::{Acl, SessionId, Zxid};
use hashbrown::HashSet;

/// A znode as it is stored, besides where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// All but its data.
    pub stat: StoredStat,
    /// Its data; `None` is null.
    pub data: Option<Value>,
}

/// The records are not those of one state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Two lists have one id, or one list two ids.
    #[error("the list of rights with id {} is stored twice, or under the id of the open list", .0.0)]
    BadAcl(AclId),
    /// A session is there twice.
    #[error("session {0} is stored twice")]
    RepeatedSession(SessionId),
    /// A znode has no parent, or came before it.
    #[error("znode {0} has no parent, or was read before its parent")]
    NoParent(String),
    /// A znode is there twice, or has a name that no znode can have.
    #[error("znode {0} is stored twice, or has an impossible name")]
    BadName(String),
    /// A znode's list of rights is not there.
    #[error("znode {path} has the list of rights {}, which is not stored", .acl.0)]
    NoAcl {
        /// Which znode.
        path: String,
        /// Which list.
        acl: AclId,
    },
    /// An ephemeral's session is not there.
    #[error("znode {path} is an ephemeral of session {session}, which is not stored")]
    NoSession {
        /// Which znode.
        path: String,
        /// Which session.
        session: SessionId,
    },
    /// An ephemeral of a session is not there.
    #[error("session {session} holds the ephemeral {path}, which is not stored")]
    NoEphemeral {
        /// Which znode.
        path: String,
        /// Which session.
        session: SessionId,
    },
    /// The configuration of the ensemble cannot be read: it was written by another version, or altered.
    #[error("the data of /zookeeper/config is no membership: {0}")]
    BadMembership(#[from] BadMembers),
    /// There was no record of the root.
    #[error("the root is not stored")]
    NoRoot,
    /// The tree is not the one that was stored.
    #[error("the tree's digest is {found:#x} where {expected:#x} was stored: records are missing or altered")]
    Digest {
        /// The stored one.
        expected: u64,
        /// The one of the tree that the records make.
        found: u64,
    },
    /// The tree has not as many znodes as were counted.
    #[error(
        "the tree has {expected} znodes, {missing} less than were counted when it was stored: records are missing or altered"
    )]
    Totals {
        /// Those that there are.
        expected: u64,
        /// How many are not there; below zero if there are too many.
        missing: i64,
    },
}

/// Takes records and makes a state of them.
pub struct Loader {
    state: State,
    has_root: bool,
    /// Ephemerals that sessions hold, as stored besides the ephemerals' own records.
    held: HashSet<(SessionId, Box<[u8]>), foldhash::fast::RandomState>,
    /// The path of the last parent, and where it is: siblings come together.
    last_parent: (Vec<u8>, NodeId),
    path: Vec<u8>,
}

impl Loader {
    pub(super) fn new() -> Loader {
        Loader {
            state: State::bare(),
            has_root: false,
            held: HashSet::default(),
            last_parent: (b"/".to_vec(), NodeId::ROOT),
            path: Vec::new(),
        }
    }

    /// Values that would make the state take more than so many bytes are compared, and left on the disk.
    pub fn keep_values_within(&mut self, bytes: u64) {
        self.state.residency.loaded_bytes = bytes;
    }

    /// A list of rights. Before the znodes.
    ///
    /// # Errors
    /// `BadAcl`.
    pub fn acl(&mut self, id: AclId, entries: &[Acl]) -> Result<(), LoadError> {
        self.state
            .acls
            .restore(id, entries)
            .map_err(|_| LoadError::BadAcl(id))?;
        self.state.dirty.loaded_acl(id);
        Ok(())
    }

    /// A session. Before the znodes.
    ///
    /// # Errors
    /// `RepeatedSession`.
    pub fn session(&mut self, session: Session) -> Result<(), LoadError> {
        if self.state.sessions.get(session.id).is_some() {
            return Err(LoadError::RepeatedSession(session.id));
        }
        self.state.sessions.insert(session);
        self.state.dirty.loaded_session(session.id);
        Ok(())
    }

    /// An ephemeral that a session holds. Before the znodes; a store of an earlier version has none of these.
    pub fn ephemeral(&mut self, session: SessionId, path: &[u8]) {
        self.held.insert((session, path.into()));
    }

    /// A znode. Its parent must have come before; the root has neither parent nor name.
    ///
    /// # Errors
    /// `NoParent`, `BadName`, `NoAcl`, `NoSession`.
    pub fn node(&mut self, parent_path: &[u8], name: &[u8], record: NodeRecord) -> Result<(), LoadError> {
        if parent_path.is_empty() && name.is_empty() {
            return self.root(record);
        }
        self.path.clear();
        if parent_path != b"/" {
            self.path.extend_from_slice(parent_path);
        }
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        let parent = self.parent(parent_path)?;
        if name.is_empty() || name.contains(&b'/') || self.state.tree.child(parent, name).is_some() {
            return Err(LoadError::BadName(self.path_string()));
        }
        let acl = record.stat.acl;
        if self.state.acls.find(acl).is_none() {
            let path = self.path_string();
            return Err(LoadError::NoAcl { path, acl });
        }
        let session = SessionId(record.stat.owner);
        let session_lives = self.state.sessions.get(session).is_some();
        let is_ephemeral = Kind::from_owner(record.stat.owner, session_lives) == Kind::Ephemeral;
        if is_ephemeral && !session_lives {
            let path = self.path_string();
            return Err(LoadError::NoSession { path, session });
        }
        self.state.acls.retain(acl);
        let node = Node::new(name, record.stat, record.data, is_ephemeral);
        let keeps_value = self.state.has_room_for(node.data_bytes());
        let id = self.state.add(parent, &self.path, node);
        self.stored(id);
        if !keeps_value {
            self.state.leave_on_disk(id);
        }
        Ok(())
    }

    /// The state at `zxid`, after all records.
    ///
    /// # Errors
    /// `NoRoot`; `Digest` if the tree is not the one whose digest was stored with it; `BadMembership`.
    pub fn finish(mut self, zxid: Zxid, digest: u64) -> Result<State, LoadError> {
        if !self.has_root {
            return Err(LoadError::NoRoot);
        }
        if self.state.digest != digest {
            return Err(LoadError::Digest {
                expected: digest,
                found: self.state.digest,
            });
        }
        self.compare_ephemerals();
        for (session, path) in std::mem::take(&mut self.held) {
            // Left over by an earlier version, which does not know these records.
            self.state.dirty.ephemeral_lost(session, &path);
        }
        for dropped in self.state.acls.finish_restoring() {
            self.state.dirty.acl_dropped(dropped, 0);
        }
        self.state.zxid = zxid;
        self.state.find_membership()?;
        Ok(self.state)
    }

    /// The state at `zxid`, after the first records: those of the root, of its children, and of all that is below
    /// /zookeeper. The others are brought afterwards.
    ///
    /// # Errors
    /// `NoRoot`, `NoSession`, `BadMembership`.
    pub fn finish_part(mut self, zxid: Zxid, digest: u64, totals: Totals) -> Result<State, LoadError> {
        if !self.has_root {
            return Err(LoadError::NoRoot);
        }
        self.compare_ephemerals();
        for (session, path) in &self.held {
            if self.state.sessions.get(*session).is_none() {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(LoadError::NoSession {
                    path,
                    session: *session,
                });
            }
        }
        let absent = self.held.drain().collect();
        self.state.become_part(digest, totals, absent);
        self.state.zxid = zxid;
        self.state.find_membership()?;
        Ok(self.state)
    }

    /// Takes the ephemerals that were loaded off those that sessions were said to hold; the next checkpoint writes down
    /// what was not said.
    fn compare_ephemerals(&mut self) {
        let owners: Vec<SessionId> = self.state.ephemeral_owners().collect();
        for session in owners {
            for path in self.state.ephemeral_paths(session) {
                let entry = (session, Box::from(path.bytes().as_ref()));
                if !self.held.remove(&entry) {
                    self.state.dirty.ephemeral_gained(session, &entry.1);
                }
            }
        }
    }

    /// The digest of what was loaded so far, for tests that make up records.
    #[cfg(test)]
    pub(super) fn digest(&self) -> u64 {
        self.state.digest
    }

    fn root(&mut self, record: NodeRecord) -> Result<(), LoadError> {
        if self.has_root {
            return Err(LoadError::BadName("/".to_owned()));
        }
        let acl = record.stat.acl;
        if self.state.acls.find(acl).is_none() {
            let path = "/".to_owned();
            return Err(LoadError::NoAcl { path, acl });
        }
        self.state.acls.retain(acl);
        self.state.plant_root(record.stat, record.data);
        self.has_root = true;
        self.stored(NodeId::ROOT);
        Ok(())
    }

    fn parent(&mut self, path: &[u8]) -> Result<NodeId, LoadError> {
        if !self.has_root {
            return Err(LoadError::NoParent(self.path_string()));
        }
        if self.last_parent.0 != path {
            let id = self.state.tree.find(path);
            let id = id.ok_or_else(|| LoadError::NoParent(self.path_string()))?;
            self.last_parent.0.clear();
            self.last_parent.0.extend_from_slice(path);
            self.last_parent.1 = id;
        }
        Ok(self.last_parent.1)
    }

    /// This znode needs no checkpoint: it comes from one.
    fn stored(&mut self, id: NodeId) {
        self.state.tree.node_mut(id).marks = Marks::STORED;
        self.state.dirty.forget_nodes();
    }

    fn path_string(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}
