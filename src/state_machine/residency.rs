//! What of the tree is in memory while a server serves before it has read everything.
//!
//! The unit is the *group*: the children of one znode are all in memory, or none of them is. A stat holds the number of
//! children, so whoever looks at a znode or changes it needs the groups of all its ancestors and its own.
//!
//! ```text
//!   start    lists of rights, sessions, what they hold, totals; `/`, its children, and all of /zookeeper
//!   then     missing_for_…(what is to be done) ─▶ Missing ─▶ bring(group) … until nothing is missing ─▶ do it
//!            and all other groups in the order of their keys ─▶ bring(group) … ─▶ finish_loading
//! ```
//!
//! Invariants:
//! - A group that is in memory is never brought again: what a command has changed in it is newer than what is stored. A
//!   znode that was created since the start has its group, which is empty, from birth.
//! - A znode that never had a child (no creation is counted, and none has touched its pzxid) has its group, too: so a leaf
//!   costs nothing. The root and what is below /zookeeper, which are made without counting, are read at the start.
//! - `missing_for_…` says at least what the command or query touches. Touching what is absent stops the server: it is never
//!   taken for a znode that does not exist.
//! - Digest, counts and the ephemerals of sessions are those of the whole tree from the start on. What is read is taken off
//!   what is absent; at the end nothing may be left over.
//!
//! Left out on purpose: groups do not leave memory again (values do: `values.rs`), and none is divided: a start waits for all children of the root,
//! and whoever wants one of a hundred thousand children waits for the others.

use super::acl::AclId;
use super::checkpoint::Totals;
use super::command::Command;
use super::loader::{LoadError, NodeRecord};
use super::node::{Kind, Marks, Node, NodeId, StoredStat};
use super::{State, digest, path};
use crate::proto::multi::ReadOperation;
use crate::proto::request::{Query, Write};
use crate::proto::{Decoder, OpCode, SessionId, Zxid};
use hashbrown::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};

/// A request that lacks more groups than this waits for the whole tree: bringing each by itself would take longer.
const GROUPS_MISSING: usize = 1024;

/// What must be brought before something can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    groups: BTreeSet<Box<[u8]>>,
    everything: bool,
    values: BTreeMap<Box<[u8]>, Zxid>,
    value_bytes: usize,
}

impl Missing {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && !self.everything && self.values.is_empty()
    }

    /// Whether groups are, or the whole tree.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty() || self.everything
    }

    /// Whether it takes the whole tree.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// The paths whose children are to be brought. There may be more once these are there.
    pub fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().map(|path| &**path)
    }

    /// The paths of the values that are to be brought, and the mzxids of the znodes: only once no group is missing.
    pub fn values(&self) -> impl Iterator<Item = (&[u8], Zxid)> {
        self.values.iter().map(|(path, mzxid)| (&**path, *mzxid))
    }

    /// Whether values are to be brought.
    pub fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// How long these values are together.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    pub(super) fn value(&mut self, path: &[u8], mzxid: Zxid, bytes: usize) {
        // The empty path finds the root, too.
        let path = if path.is_empty() { b"/" } else { path };
        if self.values.insert(path.into(), mzxid).is_none() {
            self.value_bytes += bytes;
        }
    }

    fn group(&mut self, path: &[u8]) {
        if self.groups.len() < GROUPS_MISSING {
            self.groups.insert(path.into());
        } else {
            self.everything = true;
        }
    }
}

type Paths = HashSet<Box<[u8]>, foldhash::fast::RandomState>;

/// What is still on the disk alone.
pub(super) struct Absent {
    /// The sum of its znodes' digests, how many they are, and the bytes of their paths and data. Taken off modulo 2^64:
    /// if records were lost or altered, it is not zero in the end.
    digest: u64,
    nodes: u64,
    data_bytes: u64,
    /// Ephemerals that are not in memory, or whose group is not whole yet.
    ephemerals: HashMap<SessionId, Paths, foldhash::fast::RandomState>,
    /// Znodes of groups of which a part was brought, to be listed once the group is whole: nobody may find them before.
    arriving: Vec<NodeId>,
    /// Lists of rights that are kept, because znodes may have them that are not in memory.
    held_acls: Vec<AclId>,
    /// Znodes that were marked as lacking their children, and may not be any more.
    marked: Vec<NodeId>,
}

impl Absent {
    pub(super) fn ephemerals(&self) -> usize {
        self.ephemerals.values().map(HashSet::len).sum()
    }
}

/// How far the way along a path is in memory.
enum Way<'a> {
    /// To its end, be it that there is such a znode or not.
    Known,
    /// To this znode, whose children are absent.
    Lacks(NodeId, &'a [u8]),
}

impl State {
    /// Whether all of it is in memory.
    pub fn is_whole(&self) -> bool {
        self.absent.is_none()
    }

    /// Whether all of it is in memory, values included.
    pub fn has_everything(&self) -> bool {
        self.is_whole() && self.values_away() == 0
    }

    /// How many znodes are in memory.
    pub fn nodes_in_memory(&self) -> u64 {
        self.tree.len() as u64
    }

    /// How much there is, in memory or not.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            nodes: self.nodes_in_memory() + self.absent.as_ref().map_or(0, |absent| absent.nodes),
            data_bytes: self.data_bytes,
        }
    }

    pub(super) fn absent_ephemerals(&self, session: SessionId) -> impl Iterator<Item = &[u8]> {
        let paths = self.absent.as_ref().and_then(|absent| absent.ephemerals.get(&session));
        paths.into_iter().flatten().map(|path| &**path)
    }

    /// Notes what must be brought before `command` can be applied. Commands before it that are not applied yet make no
    /// difference: they bring nothing back that is absent, and what they create is whole.
    pub fn missing_for_command(&self, command: &Command, missing: &mut Missing) {
        if self.is_whole() {
            return;
        }
        match command.op {
            OpCode::CloseSession => {
                for path in self.absent_ephemerals(command.session) {
                    self.missing_for_znode(path, missing);
                }
            }
            OpCode::DeleteContainer => {
                if let Ok(path) = Decoder::new(&command.body).text() {
                    self.missing_for_znode(path.bytes(), missing);
                }
            }
            op => {
                if let Some(Ok(write)) = Write::decode(op, &mut Decoder::new(&command.body)) {
                    self.missing_for_write(&write, missing);
                }
            }
        }
    }

    fn missing_for_write(&self, write: &Write, missing: &mut Missing) {
        match write {
            Write::Create(_, request) => {
                let wanted = request.path.bytes();
                // A stats znode counts all there is at and below its path.
                missing.everything |= wanted.starts_with(path::QUOTA_ROOT);
                if let Ok(parent) = path::parent(wanted) {
                    self.missing_for_znode(parent, missing);
                }
            }
            Write::Delete(request) | Write::Check(request) => self.missing_for_znode(request.path.bytes(), missing),
            Write::SetData(request) => self.missing_for_znode(request.path.bytes(), missing),
            Write::SetAcl(request) => self.missing_for_znode(request.path.bytes(), missing),
            Write::Multi(request) => {
                for operation in &request.operations {
                    self.missing_for_write(operation, missing);
                }
            }
            // All of /zookeeper is in memory.
            Write::Reconfig(_) => {}
        }
    }

    /// Notes what must be brought before `query` can be answered.
    pub fn missing_for_query(&self, query: &Query, missing: &mut Missing) {
        if self.is_whole() {
            return;
        }
        match query {
            Query::Exists(request)
            | Query::GetData(request)
            | Query::GetChildren(request)
            | Query::GetChildren2(request) => self.missing_for_znode(request.path.bytes(), missing),
            Query::GetAcl(request) => self.missing_for_znode(request.path.bytes(), missing),
            Query::GetAllChildrenNumber(request) => {
                // Of the root it is known.
                missing.everything |= !matches!(request.path.bytes().as_ref(), b"" | b"/");
            }
            Query::GetEphemerals(_) => {}
            Query::MultiRead(request) => {
                for operation in &request.operations {
                    let (ReadOperation::GetData(body) | ReadOperation::GetChildren(body)) = operation;
                    self.missing_for_znode(body.path.bytes(), missing);
                }
            }
        }
    }

    /// Notes what must be brought before the stat of the znode at `path` can be told, or that there is none.
    pub fn missing_for_znode(&self, path: &[u8], missing: &mut Missing) {
        if let Way::Lacks(_, ancestor) = self.way(path) {
            missing.group(ancestor);
        }
    }

    /// Whether there is a znode at `path`, and its children are absent.
    pub fn lacks_children_of(&self, path: &[u8]) -> bool {
        matches!(self.way(path), Way::Lacks(_, lacking) if lacking == path)
    }

    /// Goes as far along a path as the tree is in memory; finds what [`Tree::find`](super::tree::Tree::find) finds.
    fn way<'a>(&self, path: &'a [u8]) -> Way<'a> {
        if self.is_whole() {
            return Way::Known;
        }
        let Some((b'/', names)) = path.split_first() else {
            return Way::Known;
        };
        let (mut id, mut end) = (NodeId::ROOT, 0);
        if !names.is_empty() {
            for name in names.split(|byte| *byte == b'/') {
                if self.tree.node(id).children_absent {
                    return Way::Lacks(id, &path[..end]);
                }
                let Some(child) = self.tree.child(id, name) else {
                    return Way::Known;
                };
                id = child;
                end += 1 + name.len();
            }
        }
        if self.tree.node(id).children_absent {
            Way::Lacks(id, path)
        } else {
            Way::Known
        }
    }

    /// Makes this state, which is that of the records read so far, the part of a larger one that is in memory.
    pub(super) fn become_part(&mut self, digest: u64, totals: Totals, ephemerals: Vec<(SessionId, Box<[u8]>)>) {
        let mut of_sessions: HashMap<SessionId, Paths, _> = HashMap::default();
        for (session, path) in ephemerals {
            of_sessions.entry(session).or_default().insert(path);
        }
        let mut marked = Vec::new();
        self.tree.walk(NodeId::ROOT, |id, node| {
            let is_complete =
                id == NodeId::ROOT || node.is_hidden || *node.name == *b"zookeeper" && node.parent == NodeId::ROOT;
            if !is_complete && had_children(&node.stat) {
                marked.push(id);
            }
        });
        for id in &marked {
            self.tree.node_mut(*id).children_absent = true;
        }
        self.tree.is_whole = false;
        self.absent = Some(Box::new(Absent {
            digest: digest.wrapping_sub(self.digest),
            nodes: totals.nodes.wrapping_sub(self.tree.len() as u64),
            data_bytes: totals.data_bytes.wrapping_sub(self.data_bytes),
            ephemerals: of_sessions,
            arriving: Vec::new(),
            held_acls: self.acls.hold_restored(),
            marked,
        }));
        self.digest = digest;
        self.data_bytes = totals.data_bytes;
    }

    /// Takes stored children of the znode at `parent`, names and records; they are all once `is_last`. If the group is in memory, or the znode gone, nothing happens.
    ///
    /// # Errors
    /// `NoParent`, `BadName`, `NoAcl`, `NoSession`.
    pub fn bring<N: AsRef<[u8]>>(
        &mut self,
        parent: &[u8],
        children: impl IntoIterator<Item = (N, NodeRecord)>,
        is_last: bool,
    ) -> Result<(), LoadError> {
        assert!(self.undo.is_none(), "a group is brought between two commands");
        let id = match self.way(parent) {
            Way::Known => return Ok(()),
            Way::Lacks(id, lacking) if lacking == parent => id,
            Way::Lacks(..) => return Err(LoadError::NoParent(printable(parent))),
        };
        let Some(mut absent) = self.absent.take() else {
            return Ok(());
        };
        let mut path = Vec::with_capacity(parent.len() + 32);
        path.extend_from_slice(if parent == b"/" { b"" } else { parent });
        path.push(b'/');
        let start = path.len();
        let mut children = children.into_iter();
        let taken = children.try_for_each(|(name, record)| {
            path.truncate(start);
            path.extend_from_slice(name.as_ref());
            self.bring_one(&mut absent, id, &path, start, record)
        });
        if taken.is_ok() && is_last {
            self.tree.node_mut(id).children_absent = false;
            let is_of_it = |child: &NodeId| self.tree.node(*child).parent == id;
            let (arrived, others) = absent.arriving.iter().partition(|child| is_of_it(child));
            absent.arriving = others;
            for child in Vec::<NodeId>::into_iter(arrived) {
                self.arrived(&mut absent, child);
            }
        }
        self.absent = Some(absent);
        taken
    }

    /// One of the znode `parent`; its name begins at `start` of its path.
    fn bring_one(
        &mut self,
        absent: &mut Absent,
        parent: NodeId,
        path: &[u8],
        start: usize,
        record: NodeRecord,
    ) -> Result<(), LoadError> {
        let (name, stat) = (&path[start..], record.stat);
        if name.is_empty() || name.contains(&b'/') || self.tree.child_in_memory(parent, name).is_some() {
            return Err(LoadError::BadName(printable(path)));
        }
        if self.acls.find(stat.acl).is_none() {
            let path = printable(path);
            return Err(LoadError::NoAcl { path, acl: stat.acl });
        }
        // What a session holds was stored with it: so no owner that looks like a session's is mistaken.
        let session = SessionId(stat.owner);
        let is_ephemeral = stat.owner != 0
            && absent
                .ephemerals
                .get(&session)
                .is_some_and(|paths| paths.contains(path));
        if !is_ephemeral && Kind::from_owner(stat.owner, false) == Kind::Ephemeral {
            let path = printable(path);
            return Err(LoadError::NoSession { path, session });
        }
        self.acls.retain(stat.acl);
        let mut node = Node::new(name, stat, record.data, is_ephemeral);
        node.body_checksum = digest::body(path, node.data.bytes());
        node.marks = Marks::STORED;
        node.children_absent = had_children(&stat);
        absent.digest = absent.digest.wrapping_sub(digest::of(&node));
        absent.nodes = absent.nodes.wrapping_sub(1);
        absent.data_bytes = absent.data_bytes.wrapping_sub((path.len() + node.data_bytes()) as u64);
        let (is_marked, is_listed) = (node.children_absent, node.kind() != Kind::Persistent);
        let keeps_value = self.has_room_for(node.data_bytes());
        let id = self.tree.insert(parent, node);
        self.count_in_memory(id);
        if !keeps_value {
            self.leave_on_disk(id);
        }
        if is_marked {
            absent.marked.push(id);
        }
        if is_listed {
            absent.arriving.push(id);
        }
        Ok(())
    }

    /// The group of a znode that ends otherwise than by a delete is whole.
    fn arrived(&mut self, absent: &mut Absent, id: NodeId) {
        let node = self.tree.node(id);
        if node.is_ephemeral {
            let session = SessionId(node.stat.owner);
            let path = self.tree.path(id);
            if let Some(paths) = absent.ephemerals.get_mut(&session) {
                paths.remove(&*path);
                if paths.is_empty() {
                    absent.ephemerals.remove(&session);
                }
            }
        }
        self.list(id);
    }

    /// After all groups were brought: compares the state with what was stored, and clears at most `most` marks of znodes
    /// that turned out to have no children any more. Says whether that was the last; then all is in memory.
    ///
    /// # Errors
    /// `Digest`, `Totals` or `NoEphemeral`: records are missing or altered.
    pub fn finish_loading(&mut self, most: usize) -> Result<bool, LoadError> {
        let Some(absent) = &mut self.absent else {
            return Ok(true);
        };
        if absent.digest != 0 {
            return Err(LoadError::Digest {
                expected: self.digest,
                found: self.digest.wrapping_sub(absent.digest),
            });
        }
        if (absent.nodes, absent.data_bytes) != (0, 0) {
            return Err(LoadError::Totals {
                expected: self.tree.len() as u64,
                missing: absent.nodes.cast_signed(),
            });
        }
        if let Some((session, paths)) = absent.ephemerals.iter().next() {
            return Err(LoadError::NoEphemeral {
                path: paths.iter().next().map_or_else(String::new, |path| printable(path)),
                session: *session,
            });
        }
        let rest = absent.marked.len().saturating_sub(most);
        for id in absent.marked.drain(rest..) {
            self.tree.node_mut(id).children_absent = false;
        }
        if rest > 0 {
            return Ok(false);
        }
        let held = std::mem::take(&mut absent.held_acls);
        self.absent = None;
        self.tree.is_whole = true;
        for id in held {
            self.release_acl(id);
        }
        Ok(true)
    }
}

/// Whether a znode has children, or had some. Each creation is counted and leaves its zxid; the count may come round to
/// zero, the zxid may be that of the multi which created the znode, but never both.
fn had_children(stat: &StoredStat) -> bool {
    stat.creates != 0 || stat.pzxid != stat.czxid
}

fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
