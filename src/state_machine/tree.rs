//! The shape of the tree: an arena of znodes, and one index over (parent, name).
//!
//! Invariants:
//! - Nothing here is ever reallocated as a whole: the arena grows by chunks, the index is split into shards, so that the
//!   znode that makes one of them grow pays for a small part of the tree only.
//! - A child knows its place among its siblings; taking one of a hundred thousand away is one swap.
//! - `remove` and `insert_at` are exact inverses, applied in reverse order: a multi that fails leaves no trace.
//!
//! Residency: all reading of data goes through [`Tree::node`], all changing through `edit.rs`. How values leave memory and
//! come back: `values.rs`. After a start, children may be on the disk alone for a while (`residency`): looking for one of
//! them then is a defect, and stops the server.

use super::node::{Children, Node, NodeId, StoredStat};
use bytes::{BufMut, Bytes, BytesMut};
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// Znodes in a chunk of the arena (a power of two).
const CHUNK_NODES: usize = 4096;
/// Shards of the index (a power of two): growing one rehashes a 256th of the tree.
const SHARDS: usize = 256;

/// All znodes.
pub(super) struct Tree {
    chunks: Vec<Vec<Node>>,
    /// Places that deleted znodes left, used again last in first out.
    free: Vec<NodeId>,
    /// Finds a child. The order inside is never looked at: it depends on the hasher's seed.
    index: Vec<HashTable<NodeId>>,
    hasher: foldhash::fast::RandomState,
    /// Whether no znode's children are absent: then nobody need look.
    pub(super) is_whole: bool,
}

impl Tree {
    /// A tree with a root and nothing else.
    pub(super) fn new(root: Node) -> Tree {
        let mut tree = Tree {
            chunks: Vec::new(),
            free: Vec::new(),
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            is_whole: true,
        };
        let id = tree.place(root);
        assert_eq!(id, NodeId::ROOT, "the root is the first znode of a tree");
        tree
    }

    /// How many znodes there are, the root included.
    pub(super) fn len(&self) -> usize {
        self.places() - self.free.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        let place = id.0 as usize;
        &self.chunks[place / CHUNK_NODES][place % CHUNK_NODES]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        let place = id.0 as usize;
        &mut self.chunks[place / CHUNK_NODES][place % CHUNK_NODES]
    }

    /// How many places the arena has; each holds a znode, or is free.
    pub(super) fn places(&self) -> usize {
        self.chunks.len().saturating_sub(1) * CHUNK_NODES + self.chunks.last().map_or(0, Vec::len)
    }

    /// Whether a znode lives at this id.
    pub(super) fn is_live(&self, id: NodeId) -> bool {
        id == NodeId::ROOT || self.node(id).parent != NodeId::NONE
    }

    /// The child of `parent` with this name. The children of `parent` must be in memory: what is only not there yet is
    /// never taken for what does not exist.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        assert!(
            self.is_whole || !self.node(parent).children_absent,
            "Linear: the children of a znode are brought before one of them is looked for"
        );
        self.child_in_memory(parent, name)
    }

    /// The same, of those that are in memory.
    pub(super) fn child_in_memory(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hash(parent, name);
        self.shard(hash)
            .find(hash, |id| {
                let node = self.node(*id);
                node.parent == parent && *node.name == *name
            })
            .copied()
    }

    /// The znode at `path`. The empty path is the root, as in Apache; a path that is not well formed finds nothing.
    pub(super) fn find(&self, path: &[u8]) -> Option<NodeId> {
        if path.is_empty() || path == b"/" {
            return Some(NodeId::ROOT);
        }
        let (slash, names) = path.split_first()?;
        if *slash != b'/' {
            return None;
        }
        let mut id = NodeId::ROOT;
        for name in names.split(|byte| *byte == b'/') {
            // No znode has an empty name but the root, which is nobody's child.
            id = self.child(id, name)?;
        }
        Some(id)
    }

    /// Appends the path of a znode to `out`.
    pub(super) fn write_path(&self, id: NodeId, out: &mut BytesMut) {
        if id == NodeId::ROOT {
            return out.put_u8(b'/');
        }
        let mut length = 0;
        let mut ancestor = id;
        while ancestor != NodeId::ROOT {
            let node = self.node(ancestor);
            length += 1 + node.name.len();
            ancestor = node.parent;
        }
        let start = out.len();
        out.put_bytes(b'/', length);
        let mut end = start + length;
        let mut ancestor = id;
        while ancestor != NodeId::ROOT {
            let node = self.node(ancestor);
            out[end - node.name.len()..end].copy_from_slice(&node.name);
            end -= node.name.len() + 1;
            ancestor = node.parent;
        }
        assert_eq!(end, start, "a path is as long as its names and slashes");
    }

    /// The path of a znode.
    pub(super) fn path(&self, id: NodeId) -> Bytes {
        let mut out = BytesMut::new();
        self.write_path(id, &mut out);
        out.freeze()
    }

    /// Makes `node` the last child of `parent`.
    pub(super) fn insert(&mut self, parent: NodeId, mut node: Node) -> NodeId {
        node.parent = parent;
        let hash = self.hash(parent, &node.name);
        let id = self.place(node);
        let siblings = &mut self.node_mut(parent).children.get_or_insert_default().0;
        let position = u32::try_from(siblings.len()).expect("ids have 32 bits, so children have");
        siblings.push(id);
        self.node_mut(id).position = position;

        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index[shard_of(hash)].insert_unique(hash, id, |other| {
            let place = other.0 as usize;
            let node = &chunks[place / CHUNK_NODES][place % CHUNK_NODES];
            hash_of(hasher, node.parent, &node.name)
        });
        id
    }

    /// Puts a znode that was removed back to where it was.
    pub(super) fn insert_at(&mut self, id: NodeId, node: Node) {
        let (parent, position) = (node.parent, node.position);
        let placed = self.insert(parent, node);
        assert_eq!(
            placed, id,
            "taking back goes in reverse order, so the place that was left last is the first used"
        );
        let siblings = &mut self.children_mut(parent).0;
        let last = siblings.len() - 1;
        siblings.swap(position as usize, last);
        let moved = siblings[last];
        self.node_mut(moved).position = u32::try_from(last).expect("ids have 32 bits, so children have");
        self.node_mut(id).position = position;
    }

    /// Takes a znode without children out of the tree.
    pub(super) fn remove(&mut self, id: NodeId) -> Node {
        let node = self.node(id);
        let children = node.children().len();
        assert_ne!(id, NodeId::ROOT, "the root stays");
        assert_eq!(
            children, 0,
            "only a znode without children is removed, this one has {children}"
        );
        let (parent, position) = (node.parent, node.position);
        let hash = self.hash(parent, &node.name);
        let entry = self.index[shard_of(hash)].find_entry(hash, |other| *other == id);
        entry.expect("every znode but the root is indexed").remove();

        let siblings = &mut self.children_mut(parent).0;
        let removed = siblings.swap_remove(position as usize);
        assert_eq!(removed, id, "a child knows its place among its siblings");
        let moved = siblings.get(position as usize).copied();
        if siblings.is_empty() {
            self.node_mut(parent).children = None;
        } else if siblings.capacity() > 4 * siblings.len() + 64 {
            siblings.shrink_to(2 * siblings.len());
        }
        if let Some(moved) = moved {
            self.node_mut(moved).position = position;
        }
        self.free.push(id);
        std::mem::replace(self.node_mut(id), Node::new(b"", StoredStat::default(), None, false))
    }

    /// Calls `visit` for a znode and everything below it, parents first. Takes memory for one path of the tree's
    /// branches, not of its depth alone.
    pub(super) fn walk(&self, id: NodeId, mut visit: impl FnMut(NodeId, &Node)) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let node = self.node(id);
            visit(id, node);
            waiting.extend_from_slice(node.children());
        }
    }

    /// The list of children of a znode that has some.
    fn children_mut(&mut self, parent: NodeId) -> &mut Children {
        let children = self.node_mut(parent).children.as_mut();
        children.expect("a parent has a list of children while it has one")
    }

    fn place(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.free.pop() {
            *self.node_mut(id) = node;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_NODES) {
            self.chunks.push(Vec::with_capacity(CHUNK_NODES));
        }
        let full = (self.chunks.len() - 1) * CHUNK_NODES;
        let chunk = self
            .chunks
            .last_mut()
            .expect("a chunk was pushed if there was none with room");
        let place = full + chunk.len();
        chunk.push(node);
        let id = u32::try_from(place).expect("four thousand million znodes need more memory than a server has");
        assert_ne!(id, NodeId::NONE.0, "the last id stands for nobody");
        NodeId(id)
    }

    fn shard(&self, hash: u64) -> &HashTable<NodeId> {
        &self.index[shard_of(hash)]
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        hash_of(&self.hasher, parent, name)
    }
}

/// The table takes its bits from both ends of the hash; the shard takes others.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn hash_of(hasher: &foldhash::fast::RandomState, parent: NodeId, name: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent.0);
    state.write(name);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node::new(name.as_bytes(), StoredStat::default(), None, false)
    }

    fn names(tree: &Tree, id: NodeId) -> Vec<&[u8]> {
        tree.node(id)
            .children()
            .iter()
            .map(|child| &*tree.node(*child).name)
            .collect()
    }

    #[test]
    fn paths_lead_to_znodes_and_back() {
        let mut tree = Tree::new(node(""));
        let a = tree.insert(NodeId::ROOT, node("a"));
        let b = tree.insert(a, node("b"));
        assert_eq!(tree.find(b"/a/b"), Some(b));
        assert_eq!(&*tree.path(b), b"/a/b");
        assert_eq!(&*tree.path(NodeId::ROOT), b"/");
        assert_eq!(tree.find(b""), Some(NodeId::ROOT));
        for path in ["a", "a/b", "/a/", "//a", "/a//b", "/b", "//"] {
            assert_eq!(tree.find(path.as_bytes()), None, "{path}");
        }
        assert_eq!(tree.len(), 3);
    }

    #[test]
    fn removal_is_taken_back_exactly() {
        let mut tree = Tree::new(node(""));
        let ids: Vec<NodeId> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| tree.insert(NodeId::ROOT, node(name)))
            .collect();
        let first = tree.remove(ids[1]);
        let second = tree.remove(ids[3]);
        assert_eq!(names(&tree, NodeId::ROOT), [b"a", b"c"].map(|name| &name[..]).to_vec());
        tree.insert_at(ids[3], second);
        tree.insert_at(ids[1], first);
        assert_eq!(
            names(&tree, NodeId::ROOT),
            [b"a", b"b", b"c", b"d"].map(|name| &name[..]).to_vec()
        );
        assert_eq!(tree.find(b"/d"), Some(ids[3]));
    }
}
