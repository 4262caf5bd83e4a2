//! What a checkpoint must write: the records that changed since the last one, each once.
//!
//! A znode that was set a thousand times is one record; one that was created and deleted in between is none. A znode's
//! data is in its record only if the data changed, so that the creation of a child rewrites its parent's stat alone.
//!
//! ```text
//!   /            parent ""    name ""
//!   /a           parent "/"   name "a"
//!   /a/b         parent "/a"  name "b"       parents sort before children, siblings stand together
//! ```

use super::State;
use super::acl::{AclId, AclRef};
use super::node::{Marks, Node, NodeId, StoredStat};
use super::session::Session;
use super::value::Value;
use crate::proto::{SessionId, Text, Zxid};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeSet;

/// About what a record takes besides names, data and lists of rights, bytes.
const RECORD_BYTES: u64 = 100;

/// Everything that changed since the last checkpoint, and the state that it leads to. One atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last command that it contains.
    pub zxid: Zxid,
    /// The digest of the tree.
    pub digest: u64,
    /// How much there is in the tree.
    pub totals: Totals,
    /// What to write and what to remove. No two concern the same key, so their order means nothing.
    pub records: Vec<Record>,
}

/// How much there is in a tree: what a start must know before it has read everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Znodes, the root included.
    pub nodes: u64,
    /// Bytes of all paths and data.
    pub data_bytes: u64,
}

/// A checkpoint in the making.
#[derive(Debug)]
pub struct Draft {
    zxid: Zxid,
    records: Vec<Record>,
    /// Changed znodes that are not in it yet.
    nodes: std::vec::IntoIter<NodeId>,
    /// Siblings share the bytes of their parent's path.
    parents: HashMap<NodeId, Text, foldhash::fast::FixedState>,
}

impl Checkpoint {
    /// About how many bytes it has, as [`State::dirty_bytes`] counts them; 0 only if nothing has changed.
    pub fn bytes(&self) -> u64 {
        let contents = self.records.iter().map(|record| match record {
            Record::Node {
                data: DataRecord::Set(Some(value)),
                ..
            } => value.len() as u64,
            Record::Acl(_, list) => list.bytes(),
            _ => 0,
        });
        contents.sum::<u64>() + RECORD_BYTES * self.records.len() as u64
    }
}

/// A change of the stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A znode is new or has changed.
    Node {
        /// The path of its parent; empty for the root.
        parent: Text,
        /// Its name; empty for the root.
        name: Text,
        /// All but its data.
        stat: StoredStat,
        /// Its data.
        data: DataRecord,
    },
    /// A znode is gone.
    NodeRemoved {
        /// The path of its parent.
        parent: Text,
        /// Its name.
        name: Text,
    },
    /// A session is new or has changed.
    Session(Session),
    /// A session is gone.
    SessionRemoved(SessionId),
    /// A session holds this ephemeral, whose own record says the same: so a start knows what a session holds before it has
    /// read the tree.
    Ephemeral(SessionId, Text),
    /// It does not any more.
    EphemeralRemoved(SessionId, Text),
    /// A list of rights is new (or its id stands for another list now).
    Acl(AclId, AclRef),
    /// No znode has this list any more.
    AclRemoved(AclId),
}

/// A znode's data in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataRecord {
    /// What was stored before is right.
    Kept,
    /// It is this now; `None` is null, which is not empty.
    Set(Option<Value>),
}

/// Whether a znode is among the changed ones for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    First,
    Again,
}

/// What changed since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Znodes that have a mark, and some that had one before they went: ids may be stale or repeated.
    nodes: Vec<NodeId>,
    /// Paths that are stored and have no znode any more.
    removed: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    /// Ephemerals that a session has gained or lost, and whether the last checkpoint had them.
    ephemerals: HashMap<(SessionId, Box<[u8]>), bool, foldhash::fast::RandomState>,
    sessions: BTreeSet<SessionId>,
    /// Sessions that are stored.
    stored_sessions: BTreeSet<SessionId>,
    acls: BTreeSet<AclId>,
    /// Lists that are stored.
    stored_acls: BTreeSet<AclId>,
    /// Bytes of changed data.
    data_bytes: u64,
    /// Bytes of lists that were made since the last checkpoint.
    acl_bytes: u64,
}

impl Dirty {
    /// A znode is new.
    pub(super) fn added(&mut self, path: &[u8], node: &mut Node) {
        let was_stored = !self.removed.is_empty() && self.removed.remove(path);
        node.marks = Marks::STAT.with(Marks::DATA);
        if was_stored {
            node.marks = node.marks.with(Marks::STORED);
        }
        self.data_bytes += node.data_bytes() as u64;
    }

    /// A znode is gone.
    pub(super) fn removed(&mut self, path: &[u8], node: &Node) {
        if node.marks.has(Marks::DATA) {
            self.data_bytes = self.data_bytes.saturating_sub(node.data_bytes() as u64);
        }
        if node.marks.has(Marks::STORED) {
            self.removed.insert(path.into());
        }
    }

    /// A znode that was gone is back as it was.
    pub(super) fn returned(&mut self, path: &[u8], node: &Node) {
        if node.marks.has(Marks::DATA) {
            self.data_bytes += node.data_bytes() as u64;
        }
        self.removed.remove(path);
    }

    pub(super) fn stat_changed(node: &mut Node) -> Marked {
        let before = node.marks;
        node.marks = before.with(Marks::STAT);
        if before.has(Marks::STAT.with(Marks::DATA)) {
            Marked::Again
        } else {
            Marked::First
        }
    }

    pub(super) fn data_changed(&mut self, node: &mut Node, bytes_before: usize) -> Marked {
        let before = node.marks;
        node.marks = before.with(Marks::DATA);
        if before.has(Marks::DATA) {
            self.data_bytes = self.data_bytes.saturating_sub(bytes_before as u64);
        }
        self.data_bytes += node.data_bytes() as u64;
        if before.has(Marks::STAT.with(Marks::DATA)) {
            Marked::Again
        } else {
            Marked::First
        }
    }

    pub(super) fn push(&mut self, id: NodeId) {
        self.nodes.push(id);
    }

    /// A list of so many bytes is new.
    pub(super) fn acl_made(&mut self, id: AclId, bytes: u64) {
        self.acls.insert(id);
        self.acl_bytes += bytes;
    }

    /// A list of so many bytes is gone.
    pub(super) fn acl_dropped(&mut self, id: AclId, bytes: u64) {
        let is_stored = self.acls.insert(id);
        if !is_stored {
            self.acl_bytes -= bytes;
        }
    }

    /// A session holds an ephemeral that it did not hold.
    pub(super) fn ephemeral_gained(&mut self, session: SessionId, path: &[u8]) {
        self.ephemerals.entry((session, path.into())).or_insert(false);
    }

    /// A session does not hold an ephemeral any more that it held; or none holds it, and a loader found that one does.
    pub(super) fn ephemeral_lost(&mut self, session: SessionId, path: &[u8]) {
        self.ephemerals.entry((session, path.into())).or_insert(true);
    }

    pub(super) fn session_changed(&mut self, id: SessionId) {
        self.sessions.insert(id);
    }

    /// A loader found these stored.
    pub(super) fn loaded_session(&mut self, id: SessionId) {
        self.stored_sessions.insert(id);
    }

    /// Likewise; a list that no znode had is to be removed.
    pub(super) fn loaded_acl(&mut self, id: AclId) {
        self.stored_acls.insert(id);
    }

    /// The znodes that were marked are stored already.
    pub(super) fn forget_nodes(&mut self) {
        self.nodes.clear();
        self.ephemerals.clear();
        self.data_bytes = 0;
    }

    fn len(&self) -> usize {
        self.nodes.len() + self.removed.len() + self.ephemerals.len() + self.sessions.len() + self.acls.len()
    }
}

impl State {
    /// About how many records the next checkpoint has.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// About how many bytes the next checkpoint has.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.data_bytes + self.dirty.acl_bytes + RECORD_BYTES * self.dirty.len() as u64
    }

    /// What changed since the last call (or since the state was new). Takes 65 to 200 ns per changed znode: see
    /// [`State::begin_checkpoint`] where somebody waits meanwhile.
    pub fn take_dirty(&mut self) -> Checkpoint {
        let mut draft = self.begin_checkpoint();
        self.draft_nodes(&mut draft, usize::MAX);
        self.finish_checkpoint(draft)
    }

    /// Begins a checkpoint that is made in several steps: [`State::draft_nodes`] until it says that there are no more, then
    /// [`State::finish_checkpoint`]. No command may be applied in between; queries may be answered, and values come and go.
    pub fn begin_checkpoint(&mut self) -> Draft {
        let mut records = Vec::with_capacity(self.dirty.len());
        let mut removed: Vec<Box<[u8]>> = self.dirty.removed.drain().collect();
        removed.sort_unstable();
        records.extend(removed.iter().map(|path| {
            let (parent, name) = place_of(path);
            Record::NodeRemoved {
                parent: text(parent),
                name: text(name),
            }
        }));
        Draft {
            zxid: self.zxid,
            records,
            nodes: std::mem::take(&mut self.dirty.nodes).into_iter(),
            parents: HashMap::default(),
        }
    }

    /// Takes so many of the changed znodes into the draft; says whether there are more.
    pub fn draft_nodes(&mut self, draft: &mut Draft, nodes: usize) -> bool {
        let Draft {
            records,
            nodes: changed,
            parents,
            ..
        } = draft;
        for id in changed.by_ref().take(nodes) {
            let node = self.tree.node(id);
            let marks = node.marks;
            if !self.tree.is_live(id) || !marks.has(Marks::STAT.with(Marks::DATA)) {
                continue;
            }
            let parent = if id == NodeId::ROOT {
                Text::EMPTY
            } else {
                let path = || text(&self.tree.path(node.parent));
                parents.entry(node.parent).or_insert_with(path).clone()
            };
            records.push(Record::Node {
                parent,
                name: text(&node.name),
                stat: node.stat,
                data: match node.data.shared() {
                    Some(data) if marks.has(Marks::DATA) => DataRecord::Set(data),
                    // Away: a multi that was taken back has put it there again, and what is stored is right.
                    _ => DataRecord::Kept,
                },
            });
            self.tree.node_mut(id).marks = Marks::STORED;
        }
        changed.len() > 0
    }

    /// The draft becomes a checkpoint.
    pub fn finish_checkpoint(&mut self, draft: Draft) -> Checkpoint {
        let Draft {
            zxid,
            mut records,
            nodes,
            ..
        } = draft;
        assert!(
            nodes.len() == 0 && zxid == self.zxid,
            "Durable: a checkpoint is all that changed up to one command"
        );
        self.take_dirty_ephemerals(&mut records);
        self.take_dirty_sessions(&mut records);
        self.take_dirty_acls(&mut records);
        self.dirty.data_bytes = 0;
        Checkpoint {
            zxid,
            digest: self.digest,
            totals: self.totals(),
            records,
        }
    }

    fn take_dirty_ephemerals(&mut self, records: &mut Vec<Record>) {
        let mut changed: Vec<_> = self.dirty.ephemerals.drain().collect();
        changed.sort_unstable();
        for ((session, path), was_stored) in changed {
            let node = self.tree.find(&path).map(|id| self.tree.node(id));
            let is_held = node.is_some_and(|node| node.is_ephemeral && node.stat.owner == session.0);
            match (was_stored, is_held) {
                (false, true) => records.push(Record::Ephemeral(session, text(&path))),
                (true, false) => records.push(Record::EphemeralRemoved(session, text(&path))),
                _ => {}
            }
        }
    }

    fn take_dirty_sessions(&mut self, records: &mut Vec<Record>) {
        for id in std::mem::take(&mut self.dirty.sessions) {
            if planted!(SessionsNotStored) {
                continue;
            }
            if let Some(session) = self.sessions.get(id) {
                records.push(Record::Session(*session));
                self.dirty.stored_sessions.insert(id);
            } else if self.dirty.stored_sessions.remove(&id) {
                records.push(Record::SessionRemoved(id));
            }
        }
    }

    fn take_dirty_acls(&mut self, records: &mut Vec<Record>) {
        self.dirty.acl_bytes = 0;
        for id in std::mem::take(&mut self.dirty.acls) {
            if let Some(list) = self.acls.find(id) {
                records.push(Record::Acl(id, list.clone()));
                self.dirty.stored_acls.insert(id);
            } else if self.dirty.stored_acls.remove(&id) {
                records.push(Record::AclRemoved(id));
            }
        }
    }
}

/// The parent and the name of a stored path, as records have them.
pub fn place_of(path: &[u8]) -> (&[u8], &[u8]) {
    if path == b"/" {
        return (b"", b"");
    }
    let name = super::path::name(path);
    let parent = &path[..path.len() - name.len() - 1];
    (if parent.is_empty() { b"/" } else { parent }, name)
}

/// Paths in the tree have been validated, so they are UTF-8.
fn text(bytes: &[u8]) -> Text {
    Text::from(std::str::from_utf8(bytes).unwrap_or_default())
}
