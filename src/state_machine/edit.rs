//! The edits that every operation is made of, and how they are taken back.
//!
//! An edit changes the tree together with everything that is derived from it: the digest, the counters, the ephemerals
//! of sessions, the candidates for removal, the paths that have quotas, and what the next checkpoint must write. While a
//! multi runs, each edit also notes how to take it back.

use super::acl::AclId;
use super::checkpoint::{Dirty, Marked};
use super::data::Data;
use super::node::{Kind, Node, NodeId, StoredStat};
use super::value::Value;
use super::{State, digest, quota};
use crate::proto::SessionId;

/// How to take an edit back.
pub(super) enum Undo {
    /// A znode was added: it goes again.
    Added(NodeId),
    /// A znode was removed: it returns to its place.
    Removed(NodeId, Node),
    /// A stat was changed: it gets this one again.
    Stat(NodeId, StoredStat),
    /// Data and stat were changed: it gets these again.
    Data(NodeId, Content),
}

/// A znode's data, the CRC of path and data, and the stat.
pub(super) struct Content {
    data: Data,
    checksum: u32,
    stat: StoredStat,
}

impl State {
    /// Adds a znode to `parent`, whose stat is not touched. `path` is the new znode's. The ACL in its stat has been
    /// acquired for it.
    pub(super) fn add(&mut self, parent: NodeId, path: &[u8], mut node: Node) -> NodeId {
        let above = self.tree.node(parent);
        assert!(
            !above.children_absent,
            "the children of a znode are brought before it gets another: {path:?}"
        );
        node.is_hidden = above.is_hidden || (above.parent == NodeId::ROOT && *above.name == *b"zookeeper");
        node.body_checksum = digest::body(path, node.data.bytes());
        let id = self.tree.insert(parent, node);
        let node = self.tree.node_mut(id);
        self.dirty.added(path, node);
        self.dirty.push(id);
        self.count_in(id, path);
        self.note(Undo::Added(id));
        id
    }

    /// Removes a znode without children; its parent's stat is not touched. `path` is the znode's.
    pub(super) fn remove(&mut self, id: NodeId, path: &[u8]) {
        let node = self.take_out(id, path);
        match &mut self.undo {
            Some(undo) => undo.push(Undo::Removed(id, node)),
            None => self.release_acl(node.stat.acl),
        }
    }

    /// Changes a stat.
    pub(super) fn edit_stat(&mut self, id: NodeId, edit: impl FnOnce(&mut StoredStat)) {
        let node = self.tree.node_mut(id);
        let before = node.stat;
        self.digest = self.digest.wrapping_sub(digest::of(node));
        edit(&mut node.stat);
        self.digest = self.digest.wrapping_add(digest::of(node));
        if Dirty::stat_changed(node) == Marked::First {
            self.dirty.push(id);
        }
        self.note(Undo::Stat(id, before));
    }

    /// Replaces data, and changes the stat. `path` is the znode's.
    pub(super) fn replace_data(
        &mut self,
        id: NodeId,
        path: &[u8],
        data: Option<Value>,
        edit: impl FnOnce(&mut StoredStat),
    ) {
        let checksum = digest::body(path, data.as_deref());
        let mut stat = self.tree.node(id).stat;
        edit(&mut stat);
        let data = Data::from(data);
        data.note_read();
        self.swap_content(id, Content { data, checksum, stat });
    }

    /// Starts to note how edits are taken back.
    pub(super) fn begin(&mut self) {
        assert!(self.undo.is_none(), "a multi does not contain another");
        self.undo = Some(Vec::new());
    }

    /// What was edited since `begin` stays.
    pub(super) fn commit(&mut self) {
        for edit in self.undo.take().unwrap_or_default() {
            if let Undo::Removed(_, node) = edit {
                self.release_acl(node.stat.acl);
            }
        }
    }

    /// What was edited since `begin` is taken back.
    pub(super) fn roll_back(&mut self) {
        for edit in self.undo.take().unwrap_or_default().into_iter().rev() {
            match edit {
                Undo::Added(id) => {
                    let path = self.tree.path(id);
                    let node = self.take_out(id, &path);
                    self.release_acl(node.stat.acl);
                }
                Undo::Removed(id, node) => {
                    self.tree.insert_at(id, node);
                    let path = self.tree.path(id);
                    self.dirty.returned(&path, self.tree.node(id));
                    self.count_in(id, &path);
                }
                Undo::Stat(id, before) => self.edit_stat(id, |stat| *stat = before),
                Undo::Data(id, before) => self.swap_content(id, before),
            }
        }
    }

    fn swap_content(&mut self, id: NodeId, content: Content) {
        self.count_out_of_memory(id);
        let node = self.tree.node_mut(id);
        let bytes_before = node.data_bytes();
        self.digest = self.digest.wrapping_sub(digest::of(node));
        let before = Content {
            data: std::mem::replace(&mut node.data, content.data),
            checksum: std::mem::replace(&mut node.body_checksum, content.checksum),
            stat: std::mem::replace(&mut node.stat, content.stat),
        };
        self.digest = self.digest.wrapping_add(digest::of(node));
        self.data_bytes = self.data_bytes + node.data_bytes() as u64 - bytes_before as u64;
        if self.dirty.data_changed(node, bytes_before) == Marked::First {
            self.dirty.push(id);
        }
        self.count_in_memory(id);
        self.note(Undo::Data(id, before));
    }

    fn take_out(&mut self, id: NodeId, path: &[u8]) -> Node {
        self.count_out(id, path);
        let node = self.tree.remove(id);
        self.dirty.removed(path, &node);
        node
    }

    /// Tells everything that is derived from the tree of a znode that is there now.
    pub(super) fn count_in(&mut self, id: NodeId, path: &[u8]) {
        self.count_in_memory(id);
        let node = self.tree.node(id);
        self.digest = self.digest.wrapping_add(digest::of(node));
        self.data_bytes += (path.len() + node.data_bytes()) as u64;
        if node.is_ephemeral {
            self.dirty.ephemeral_gained(SessionId(node.stat.owner), path);
        }
        self.list(id);
        if let Some(limited) = quota::limited_path(path) {
            self.quotas.insert(limited.into());
        }
    }

    /// Lists a znode among those that end otherwise than by a delete, if it is one.
    pub(super) fn list(&mut self, id: NodeId) {
        let node = self.tree.node(id);
        match node.kind() {
            Kind::Persistent => {}
            Kind::Ephemeral => self.sessions.add_ephemeral(SessionId(node.stat.owner), id),
            Kind::Container | Kind::Ttl(_) => assert!(self.removable.insert(id), "{id:?} was no candidate before"),
        }
    }

    /// Tells everything that is derived from the tree of a znode that is about to go.
    fn count_out(&mut self, id: NodeId, path: &[u8]) {
        self.count_out_of_memory(id);
        let node = self.tree.node(id);
        self.digest = self.digest.wrapping_sub(digest::of(node));
        self.data_bytes -= (path.len() + node.data_bytes()) as u64;
        match node.kind() {
            Kind::Persistent => {}
            Kind::Ephemeral => {
                self.dirty.ephemeral_lost(SessionId(node.stat.owner), path);
                self.sessions.remove_ephemeral(SessionId(node.stat.owner), id);
            }
            Kind::Container | Kind::Ttl(_) => assert!(self.removable.remove(&id), "{id:?} was a candidate"),
        }
        if let Some(limited) = quota::limited_path(path) {
            self.quotas.remove(limited);
        }
    }

    pub(super) fn acquire_acl(&mut self, entries: &[crate::proto::Acl]) -> AclId {
        let before = self.acls.bytes();
        let (id, is_new) = self.acls.acquire(entries);
        if is_new {
            self.dirty.acl_made(id, self.acls.bytes() - before);
        }
        id
    }

    pub(super) fn release_acl(&mut self, id: AclId) {
        let before = self.acls.bytes();
        if self.acls.release(id) {
            self.dirty.acl_dropped(id, before - self.acls.bytes());
        }
    }

    fn note(&mut self, edit: Undo) {
        if let Some(undo) = &mut self.undo {
            undo.push(edit);
        }
    }
}
