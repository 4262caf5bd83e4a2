//! The truth in memory: znode tree, sessions, ACLs, quotas.
//!
//! ```text
//!   Batch (one raft entry) ──▶ State::apply(stamp, command) ──▶ Applied { zxid, result } + Changes (events, sessions)
//!   Query                  ──▶ State::query(…)              ──▶ body of the reply, written into the caller's buffer
//! ```
//!
//! Invariants:
//! - [`State::apply`] is a function of the state, the stamp and the command alone: every member of an ensemble that
//!   applies the same commands holds the same state, whatever its clock, configuration or hash seeds are. What depends
//!   on configuration comes in with the entry, as the leader's [`Rules`].
//! - Every applied command takes one zxid, whether it succeeded or not.
//! - A failed command changes nothing but the zxid.
//! - An ephemeral exists exactly as long as its session.
//!
//! Left out on purpose: watches (local to a server, in `watch`), who is connected (in `server`), when a session expires
//! (in `replica`), and the disk (in `storage`): the state only remembers which records a checkpoint must write.

mod acl;
mod checkpoint;
pub mod command;
mod data;
mod digest;
mod edit;
mod listings;
mod loader;
mod node;
mod ops;
mod path;
mod query;
mod quota;
mod residency;
mod session;
mod tree;
mod value;
mod values;

pub use acl::{AclId, AclRef};
pub use checkpoint::{Checkpoint, DataRecord, Draft, Record, Totals, place_of};
pub use command::{Batch, Command, ConnectionId, LeaderKnowledge, MembershipBody, Origin, Rules, ServerId, Stamp};
pub use loader::{LoadError, Loader, NodeRecord};
pub use node::StoredStat;
pub use quota::QuotaTotals;
pub use residency::Missing;
pub use session::Session;
pub use value::Value;
pub use values::{Fetched, Gone, PutBack};

use crate::membership::{BadMembers, Members};
use crate::proto::{Acl, ErrorCode, Identity, Permissions, Reply, SessionId, Stat, Text, Zxid};
use hashbrown::HashSet;
use node::{Kind, Node, NodeId};
use std::collections::{BTreeSet, VecDeque};

/// The truth: every znode, session and list of rights, as of one zxid.
///
/// Reading goes through `&self` and may run on many threads; [`State::apply`] needs the state for itself.
pub struct State {
    zxid: Zxid,
    /// The sum of [`digest::of`] over all znodes.
    digest: u64,
    /// The digest at every [`DIGEST_INTERVAL`]th zxid since the start, the last [`DIGESTS_KEPT`] of them.
    recorded_digests: VecDeque<(Zxid, u64)>,
    /// Bytes of all paths and all data.
    data_bytes: u64,
    tree: tree::Tree,
    acls: acl::AclTable,
    sessions: session::Sessions,
    /// Containers and TTL znodes.
    removable: BTreeSet<NodeId>,
    /// Paths that have a quota.
    quotas: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    /// What `/zookeeper/config` says, if this is an ensemble's.
    membership: Option<Members>,
    dirty: checkpoint::Dirty,
    residency: values::Residency,
    listings: listings::Listings,
    /// While a multi runs: how to take it back.
    undo: Option<Vec<edit::Undo>>,
    /// What is still on the disk alone; `None`: nothing.
    absent: Option<Box<residency::Absent>>,
}

/// The digest is recorded at the multiples of this zxid, as in ZooKeeper.
const DIGEST_INTERVAL: i64 = 128;
/// So many recorded digests are kept, the newest.
const DIGESTS_KEPT: usize = 1024;

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub zxid: Zxid,
    /// What its reply says.
    pub result: Result<Reply, ErrorCode>,
}

/// Something that happened, for watches and for the server's table of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A znode was created.
    Created {
        /// Its path.
        path: Text,
        /// Its rights.
        acl: AclRef,
        /// Its parent's rights.
        parent_acl: AclRef,
    },
    /// A znode was deleted.
    Deleted {
        /// Its path.
        path: Text,
        /// The rights that it had.
        acl: AclRef,
        /// Its parent's rights.
        parent_acl: AclRef,
    },
    /// A znode's data was set.
    DataChanged {
        /// Its path.
        path: Text,
        /// Its rights.
        acl: AclRef,
    },
    /// A session was opened.
    SessionOpened {
        /// Which.
        session: SessionId,
    },
    /// A session was bound to another connection, or to the same again.
    SessionAttached {
        /// Which.
        session: SessionId,
    },
    /// A session was closed; its ephemerals were deleted before.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Znodes as ZooKeeper counts them: the root twice. 5 on a fresh server.
    pub znodes: usize,
    /// Ephemerals among them.
    pub ephemerals: usize,
    /// Sessions.
    pub sessions: usize,
    /// Bytes of all paths and data, as in ZooKeeper. 44 on a fresh server.
    pub approximate_data_bytes: u64,
}

impl State {
    /// The state of a server that has never run: only the znodes that are always there, their stats all zero.
    pub fn new() -> State {
        let mut state = State::bare();
        state.plant_root(StoredStat::default(), Some(Value::default()));
        let read_only = Acl {
            permissions: Permissions::READ,
            identity: Identity::anyone(),
        };
        let config = StoredStat {
            // As Apache's: its ACL is set with the version -1.
            aversion: -1,
            acl: state.acquire_acl(&[read_only]),
            ..StoredStat::default()
        };
        let mut plant = |parent: &[u8], path: &[u8], stat: StoredStat| {
            let parent = state
                .tree
                .find(parent)
                .expect("parents are planted before their children");
            state.add(
                parent,
                path,
                Node::new(path::name(path), stat, Some(Value::default()), false),
            );
        };
        plant(b"/", b"/zookeeper", StoredStat::default());
        plant(b"/zookeeper", path::QUOTA_ROOT, StoredStat::default());
        plant(b"/zookeeper", path::CONFIG, config);
        state
    }

    /// A state to be loaded from records.
    pub fn loader() -> Loader {
        Loader::new()
    }

    /// A root without any meaning yet, and nothing else.
    fn bare() -> State {
        State {
            zxid: Zxid::ZERO,
            digest: 0,
            recorded_digests: VecDeque::new(),
            data_bytes: 0,
            tree: tree::Tree::new(Node::new(b"", StoredStat::default(), None, false)),
            acls: acl::AclTable::new(),
            sessions: session::Sessions::default(),
            removable: BTreeSet::new(),
            quotas: HashSet::default(),
            membership: None,
            dirty: checkpoint::Dirty::default(),
            residency: values::Residency::default(),
            listings: listings::Listings::default(),
            undo: None,
            absent: None,
        }
    }

    /// Gives the bare root its stat and data.
    fn plant_root(&mut self, stat: StoredStat, data: Option<Value>) {
        let root = self.tree.node_mut(NodeId::ROOT);
        root.stat = stat;
        root.body_checksum = digest::body(b"/", data.as_deref());
        root.data = data.into();
        self.dirty.added(b"/", root);
        self.dirty.push(NodeId::ROOT);
        self.count_in(NodeId::ROOT, b"/");
    }

    /// Does what a command says, at the next zxid. What happened is appended to `changes`, in order; nothing if it
    /// failed.
    pub fn apply(&mut self, stamp: &Stamp, command: &Command, changes: &mut Vec<Change>) -> Applied {
        self.zxid = self.zxid.next();
        let changes_before = changes.len();
        let result = ops::apply(self, stamp, command, changes);
        assert!(
            self.undo.is_none(),
            "Atomic: a multi is committed or taken back at its end"
        );
        assert!(
            result.is_ok() || changes.len() == changes_before,
            "a failed command changes nothing: {} changes, {changes_before} before it",
            changes.len()
        );
        self.record_digest();
        Applied {
            zxid: self.zxid,
            result,
        }
    }

    fn record_digest(&mut self) {
        if self.zxid.0 % DIGEST_INTERVAL != 0 {
            return;
        }
        if self.recorded_digests.len() == DIGESTS_KEPT {
            self.recorded_digests.pop_front();
        }
        self.recorded_digests.push_back((self.zxid, self.digest));
    }

    /// The digests at every 128th zxid, oldest first: for the operator who compares members.
    pub fn recorded_digests(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.recorded_digests.iter().copied()
    }

    /// The last command that was applied.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Apache's digest of the tree, version 2: equal on members that are equal at equal zxid.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The membership that is wanted: the first one that the leader wrote, and what every reconfig made of it. `None`: no
    /// ensemble of several was ever founded on this state.
    pub fn membership(&self) -> Option<&Members> {
        self.membership.as_ref()
    }

    /// Finds the membership in a tree that was loaded.
    fn find_membership(&mut self) -> Result<(), BadMembers> {
        let node = self.tree.find(path::CONFIG).map(|id| self.tree.node(id));
        let node = node.filter(|node| node.stat.version == ops::reconfig::CONFIG_VERSION);
        let text = node.map(|node| String::from_utf8_lossy(node.data.bytes().unwrap_or_default()));
        self.membership = text.map(|text| Members::parse(&text)).transpose()?;
        Ok(())
    }

    /// The stat of the znode at `path`, if there is one. Nobody's rights are asked for.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        Some(self.tree.node(self.tree.find(path.as_bytes())?).visible_stat())
    }

    /// The rights of the znode at `path`, if there is one.
    pub fn acl_of(&self, path: &str) -> Option<AclRef> {
        let node = self.tree.node(self.tree.find(path.as_bytes())?);
        Some(self.acls.get(node.stat.acl).clone())
    }

    /// A session, if it is open.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// All sessions, in the order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|entry| &entry.session)
    }

    /// The ephemerals of each session that has any: sessions in the order of their ids, paths sorted.
    pub fn ephemerals(&self) -> Vec<(SessionId, Vec<Text>)> {
        self.ephemeral_owners()
            .map(|session| (session, self.ephemeral_paths(session)))
            .collect()
    }

    /// The sessions that hold ephemerals, in the order of their ids.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = SessionId> {
        let holds = |entry: &&session::Entry| {
            !entry.ephemerals.is_empty() || self.absent_ephemerals(entry.session.id).next().is_some()
        };
        self.sessions.iter().filter(holds).map(|entry| entry.session.id)
    }

    /// The ephemerals of a session, sorted.
    pub fn ephemeral_paths(&self, session: SessionId) -> Vec<Text> {
        let mut paths: Vec<Text> = self
            .sessions
            .ephemerals_of(session)
            .map(|id| self.path_text(id))
            .chain(self.absent_ephemerals(session).map(path_text))
            .collect();
        paths.sort_unstable();
        paths
    }

    fn path_text(&self, id: NodeId) -> Text {
        path_text(&self.tree.path(id))
    }

    /// How much there is. Costs nothing.
    pub fn counts(&self) -> Counts {
        Counts {
            znodes: usize::try_from(self.totals().nodes).unwrap_or(usize::MAX) + 1,
            ephemerals: self.sessions.ephemerals() + self.absent.as_ref().map_or(0, |absent| absent.ephemerals()),
            sessions: self.sessions.len(),
            approximate_data_bytes: self.data_bytes,
        }
    }

    /// Containers and TTL znodes that have had their time at `now_ms`, at most `limit`: the leader may propose to remove
    /// them. A container that never had a child stays for `max_never_used_ms`, or for ever if that is 0. Looks at every
    /// container and TTL znode there is; gives none before all of the tree is in memory.
    pub fn removable(&self, now_ms: i64, max_never_used_ms: i64, limit: usize) -> Vec<Text> {
        let is_due = |id: &&NodeId| {
            let node = self.tree.node(**id);
            let age_ms = now_ms.saturating_sub(node.stat.mtime);
            node.children().is_empty()
                && match node.kind() {
                    Kind::Container if node.stat.creates > 0 => true,
                    Kind::Container => max_never_used_ms != 0 && age_ms > max_never_used_ms,
                    Kind::Ttl(ttl_ms) => age_ms > ttl_ms,
                    Kind::Persistent | Kind::Ephemeral => false,
                }
        };
        if !self.is_whole() {
            return Vec::new();
        }
        let due = self.removable.iter().filter(is_due).take(limit);
        due.map(|id| self.path_text(*id)).collect()
    }
}

/// Paths in the tree have been validated, so they are UTF-8.
fn path_text(path: &[u8]) -> Text {
    Text::from(std::str::from_utf8(path).unwrap_or_default())
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod reconfig_tests;
#[cfg(test)]
mod tests;
