//! Reading a store back group by group while the server serves: first what it must have to serve at all, then every other
//! group, in the order of the keys or out of turn.
//!
//! ```text
//!   first     ACL lists, sessions, ephemerals, the root, its children, all below /zookeeper     ─▶ LoadVisitor
//!   then      next(most) ─▶ pieces of groups, in order           below(parent), next_below(most) ─▶ one group, out of turn
//! ```
//!
//! All of it is read from one snapshot, taken before the first batch: a group that was changed since is in memory, and
//! nobody asks for it any more. The snapshot makes fjall keep what is overwritten until the last group was read.
//!
//! Left out on purpose: stores of an earlier version, which have neither totals nor ephemerals of their own, and stores with
//! paths too long for a key, which stand in no order. Both are read whole ([`TreeStore::load`]).

use std::collections::HashSet;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Guard, Iter, Keyspace, Readable, Snapshot};

use super::dump::Lent;
use super::loading::{LoadSummary, LoadVisitor};
use super::records::{
    Content, KeyKind, MalformedRecord, NodeKey, NodeStat, SessionRecord, StoredData, StoredTotals, TOTALS_KEY, acl_id,
    chunk_prefix, decode_node, ephemeral_path, node_path, session_id,
};
use super::{TreeError, TreeStore, hash, printable};

/// Bytes of data with which a piece ends though it has few znodes yet: large values are not read by the hundred before the
/// first is kept, or found to have no room.
const PIECE_BYTES: usize = 4 << 20;

/// A stored znode below its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChild {
    /// Its name.
    pub name: Bytes,
    /// All but its data.
    pub stat: NodeStat,
    /// Its data, as it was read: whoever keeps it copies it.
    pub data: Option<Bytes>,
}

/// Some children of one znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPiece {
    /// The path of the parent.
    pub parent: Bytes,
    /// Of its children, the next ones.
    pub children: Vec<StoredChild>,
    /// Whether those are the last.
    pub is_last: bool,
}

impl StoredChild {
    pub(super) fn data_bytes(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }
}

/// One group, out of turn: as far as it was read.
pub struct Below {
    /// The key in front of all of its children's, which is the root's own if they are the root's.
    first: Vec<u8>,
    /// `None`: there are no more.
    records: Option<Iter>,
}

impl std::fmt::Debug for Below {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Below").finish_non_exhaustive()
    }
}

/// The groups of a store, as of the moment when it was opened.
pub struct StoredGroups {
    directory: PathBuf,
    keyspace: Keyspace,
    snapshot: Snapshot,
    salt: u64,
    records: Iter,
    /// The record behind the last piece that was given out.
    ahead: Option<(Bytes, Bytes)>,
    /// Hashes of the keys of the znodes seen that have chunks.
    chunked: HashSet<u64>,
    _lent: Arc<Lent>,
}

impl std::fmt::Debug for StoredGroups {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StoredGroups")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl TreeStore {
    /// Reads what a server must have before it can serve into `visitor`; gives the totals of the tree, and what all else is
    /// read from. `None`, and nothing was read: this store is to be read whole. Before the first batch.
    pub fn load_first<V: LoadVisitor>(
        &mut self,
        visitor: &mut V,
    ) -> Result<Option<(StoredTotals, StoredGroups)>, TreeError> {
        let Some(totals) = self.totals()? else {
            return Ok(None);
        };
        let mut long = self
            .keyspace
            .range([KeyKind::LongNode as u8]..[KeyKind::Ephemeral as u8]);
        if long.next().is_some() {
            return Ok(None);
        }
        let snapshot = self.database.snapshot();
        let mut groups = StoredGroups {
            directory: self.directory.clone(),
            keyspace: self.keyspace.clone(),
            records: snapshot.range(&self.keyspace, between(KeyKind::Node, KeyKind::Chunk)),
            ahead: None,
            snapshot,
            salt: self.salt,
            chunked: HashSet::new(),
            _lent: self.lend(),
        };
        let summary = groups.read_first(visitor)?;
        tracing::debug!(?summary, "the first records of a stored tree were read");
        Ok(Some((totals, groups)))
    }

    /// The totals, if they were written with the last committed batch: an earlier version leaves them as they were.
    fn totals(&self) -> Result<Option<StoredTotals>, TreeError> {
        let Some(record) = self.get(&TOTALS_KEY)? else {
            return Ok(None);
        };
        let totals = StoredTotals::decode(&record).map_err(|problem| self.malformed(&TOTALS_KEY, problem))?;
        let is_of_now = self
            .committed
            .as_ref()
            .is_some_and(|meta| meta.applied == totals.applied);
        Ok(is_of_now.then_some(totals))
    }

    /// All groups were read: from now on it is known which znodes have chunks.
    pub fn groups_read(&mut self, groups: StoredGroups) {
        self.chunked.extend(groups.chunked);
        self.knows_chunked = true;
    }
}

type Range = (Bound<[u8; 1]>, Bound<[u8; 1]>);

fn between(from: KeyKind, below: KeyKind) -> Range {
    (Bound::Included([from as u8]), Bound::Excluded([below as u8]))
}

impl StoredGroups {
    fn read_first<V: LoadVisitor>(&mut self, visitor: &mut V) -> Result<LoadSummary, TreeError> {
        let mut summary = LoadSummary::default();
        let above = (Bound::Included([KeyKind::Ephemeral as u8]), Bound::Unbounded);
        for range in [between(KeyKind::Acl, KeyKind::Node), above] {
            for guard in self.snapshot.range(&self.keyspace, range) {
                let (key, value) = self.pair(guard)?;
                let malformed = |problem| self.malformed(&key, problem);
                let taken = match KeyKind::of(&key) {
                    Some(KeyKind::Acl) => {
                        summary.acls += 1;
                        visitor.acl(acl_id(&key).map_err(malformed)?, &value)
                    }
                    Some(KeyKind::Session) => {
                        summary.sessions += 1;
                        let id = session_id(&key).map_err(malformed)?;
                        visitor.session(SessionRecord::decode(id, &value).map_err(malformed)?)
                    }
                    Some(KeyKind::Ephemeral) => {
                        let (session, path) = ephemeral_path(&key).map_err(malformed)?;
                        visitor.ephemeral(session, path)
                    }
                    _ => return Err(malformed(MalformedRecord::Key)),
                };
                taken.map_err(|source| self.refused(&key, source))?;
            }
        }
        let mut waiting: Vec<(Bytes, Bytes)> = vec![(Bytes::new(), Bytes::new())];
        while let Some((parent, name)) = waiting.pop() {
            let path = joined(&parent, &name);
            if parent.is_empty() {
                let key = NodeKey::new(b"", b"", self.salt).key;
                let value = self.snapshot.get(&self.keyspace, &key);
                if let Some(value) = value.map_err(|source| self.unreadable(source))? {
                    let (_, root) = self.child(&Bytes::from(key), &value.into())?;
                    summary.nodes += 1;
                    let taken = visitor.node(b"", b"", root.stat, root.data);
                    taken.map_err(|source| self.refused(b"/", source))?;
                }
            }
            let mut below = self.below(&path);
            while let Some(child) = self.child_below(&mut below)? {
                summary.nodes += 1;
                let is_below = path.starts_with(b"/zookeeper") || child.name.as_ref() == b"zookeeper";
                let taken = visitor.node(&path, &child.name, child.stat, child.data);
                taken.map_err(|source| self.refused(&joined(&path, &child.name), source))?;
                if is_below {
                    waiting.push((path.clone(), child.name));
                }
            }
        }
        Ok(summary)
    }

    /// The children of the znode at `parent`, which may be none.
    pub fn below(&self, parent: &[u8]) -> Below {
        let NodeKey { key: first, is_long } = NodeKey::new(parent, b"", self.salt);
        // The children of a long path have long paths too, of which there are none.
        let records = (!is_long).then(|| self.snapshot.prefix(&self.keyspace, &first));
        Below { first, records }
    }

    /// The next of them, at most `most`, or fewer that are large; none after the last.
    pub fn next_below(&mut self, below: &mut Below, most: usize) -> Result<Vec<StoredChild>, TreeError> {
        let (mut children, mut bytes) = (Vec::new(), 0);
        while children.len() < most && bytes < PIECE_BYTES {
            let Some(child) = self.child_below(below)? else { break };
            bytes += child.data_bytes();
            children.push(child);
        }
        Ok(children)
    }

    fn child_below(&mut self, below: &mut Below) -> Result<Option<StoredChild>, TreeError> {
        let Some(records) = &mut below.records else {
            return Ok(None);
        };
        for guard in records {
            let (key, value) = self.pair(guard)?;
            // The root has neither parent nor name.
            if key != below.first {
                return Ok(Some(self.child(&key, &value)?.1));
            }
        }
        // Nobody says that it may be asked again once it has ended.
        below.records = None;
        Ok(None)
    }

    /// The next records in the order of their keys, at most `most`, or fewer that are large; none after the last. The root is
    /// not among them.
    pub fn next(&mut self, most: usize) -> Result<Vec<GroupPiece>, TreeError> {
        let mut pieces: Vec<GroupPiece> = Vec::new();
        let (mut left, mut bytes) = (most, 0);
        loop {
            let Some((key, value)) = self.read_ahead()? else { break };
            if left == 0 {
                let (parent, _) = node_path(&key).map_err(|problem| self.malformed(&key, problem))?;
                if let Some(piece) = pieces.last_mut() {
                    piece.is_last = piece.parent != parent;
                }
                self.ahead = Some((key, value));
                break;
            }
            let (parent, child) = self.child(&key, &value)?;
            if parent.is_empty() {
                continue;
            }
            bytes += child.data_bytes();
            left = if bytes < PIECE_BYTES { left - 1 } else { 0 };
            match pieces.last_mut() {
                Some(piece) if piece.parent == parent => piece.children.push(child),
                _ => pieces.push(GroupPiece {
                    parent,
                    children: vec![child],
                    is_last: true,
                }),
            }
        }
        Ok(pieces)
    }

    fn read_ahead(&mut self) -> Result<Option<(Bytes, Bytes)>, TreeError> {
        if let Some(pair) = self.ahead.take() {
            return Ok(Some(pair));
        }
        let guard = self.records.next();
        guard.map(|guard| self.pair(guard)).transpose()
    }

    /// A znode's record as its parent's path and what is below it.
    fn child(&mut self, key: &Bytes, value: &Bytes) -> Result<(Bytes, StoredChild), TreeError> {
        let malformed = |problem| self.malformed(key, problem);
        let (parent, name) = node_path(key).map_err(malformed)?;
        let (stat, data) = decode_node(value).map_err(malformed)?;
        let data = match data {
            StoredData::Null => None,
            StoredData::Inline(data) => Some(value.slice_ref(data)),
            StoredData::Chunked(content) | StoredData::ChunkedNull(content) => {
                let content = self.content(key, content)?;
                self.chunked.insert(hash(key));
                matches!(data, StoredData::Chunked(_)).then_some(content)
            }
        };
        let name = key.slice_ref(name);
        Ok((key.slice_ref(parent), StoredChild { name, stat, data }))
    }

    /// What the chunks of a znode hold.
    fn content(&self, key: &[u8], content: Content) -> Result<Bytes, TreeError> {
        let prefix = chunk_prefix(key);
        let number = |number: u32| [&prefix[..], &number.to_be_bytes()].concat();
        let mut bytes = Vec::new();
        let mut expected = 0;
        for guard in self.snapshot.range(&self.keyspace, number(0)..number(content.chunks())) {
            let (chunk_key, chunk) = self.pair(guard)?;
            if chunk_key != number(expected) {
                break;
            }
            bytes.extend_from_slice(&chunk);
            if bytes.len() != content.end_of(expected) {
                return Err(self.malformed(key, MalformedRecord::Length));
            }
            expected += 1;
        }
        if expected != content.chunks() {
            return Err(self.malformed(key, MalformedRecord::MissingChunk(expected)));
        }
        Ok(bytes.into())
    }

    fn pair(&self, guard: Guard) -> Result<(Bytes, Bytes), TreeError> {
        let (key, value) = guard.into_inner().map_err(|source| self.unreadable(source))?;
        Ok((key.into(), value.into()))
    }

    fn unreadable(&self, source: fjall::Error) -> TreeError {
        TreeError::Store {
            directory: self.directory.clone(),
            action: "reading",
            source,
        }
    }

    fn malformed(&self, key: &[u8], problem: MalformedRecord) -> TreeError {
        TreeError::Malformed {
            directory: self.directory.clone(),
            record: printable(key),
            problem,
        }
    }

    fn refused<E: std::error::Error + Send + Sync + 'static>(&self, record: &[u8], source: E) -> TreeError {
        TreeError::Refused {
            directory: self.directory.clone(),
            record: printable(record),
            source: Box::new(source),
        }
    }
}

/// The path of a child; of the root, if both are empty.
fn joined(parent: &[u8], name: &[u8]) -> Bytes {
    let slash: &[u8] = if parent == b"/" { b"" } else { b"/" };
    [parent, slash, name].concat().into()
}
