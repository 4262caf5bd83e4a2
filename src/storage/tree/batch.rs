//! One checkpoint on its way into the store.
//!
//! ```text
//!   small                         journal, memtable; a table when that is full   durable with the next persist
//!   large, or with a large chunk  a table, at once                               durable when it is committed
//! ```
//!
//! A batch that would fill a memtable by itself need not stand in the journal, which is there to be read until what it holds
//! stands in tables: it becomes one with nothing in between (fjall's ingestion). A megabyte that a client sets is then written
//! twice, to the log and to a table, and not three times. Either way a batch is there whole or not at all.

use super::records::{
    ChunkSize, Content, EPHEMERAL_PATH_BYTES, INLINE_BYTES, META_KEY, NodeKey, StoredData, StoredTotals, TOTALS_KEY,
    acl_key, decode_node, encode_long_content, encode_node, ephemeral_key, session_key,
};
use super::{Meta, NodeStat, SessionRecord, TreeError, TreeStore, hash, printable};
use bytes::Bytes;
use fjall::{OwnedWriteBatch, UserKey, UserValue};
use std::fmt;
use std::time::{Duration, Instant};

/// Fresh tables beyond which a large batch waits until some are merged: fjall holds up small ones likewise. Each has to be
/// looked into by who reads a value back.
const MOST_FRESH_TABLES: usize = 28;
/// How often it is looked whether they are fewer.
const TABLES_LOOK: Duration = Duration::from_millis(2);
/// How long that is waited for: better many tables than no writes.
const TABLES_PATIENCE: Duration = Duration::from_secs(10);

/// A znode's data in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataChange<'a> {
    /// What is stored stays. The znode must be stored.
    Keep,
    /// It is this now; `None` is null, which is not empty.
    Set(Option<&'a [u8]>),
    /// It is this now: of long data, no copy is made.
    Share(Bytes),
}

impl DataChange<'_> {
    fn into_bytes(self) -> Bytes {
        match self {
            DataChange::Keep => Bytes::new(),
            DataChange::Set(data) => Bytes::copy_from_slice(data.unwrap_or_default()),
            DataChange::Share(data) => data,
        }
    }
}

/// What changed in one interval: all of it becomes visible and durable together, or none. No two of its records concern
/// the same znode, session or list.
pub struct CheckpointBatch<'a> {
    store: &'a mut TreeStore,
    changes: Vec<Change>,
    /// Of their keys and values.
    bytes: u64,
    /// Whether one of them must not stand in the journal.
    has_large_chunk: bool,
    totals: Option<(u64, u64)>,
}

/// What stands under a key from now on; `None`: nothing.
struct Change {
    key: UserKey,
    value: Option<UserValue>,
}

impl fmt::Debug for CheckpointBatch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CheckpointBatch")
            .field("records", &self.changes.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> CheckpointBatch<'a> {
    pub(super) fn new(store: &'a mut TreeStore) -> CheckpointBatch<'a> {
        CheckpointBatch {
            store,
            changes: Vec::new(),
            bytes: 0,
            has_large_chunk: false,
            totals: None,
        }
    }
}

impl CheckpointBatch<'_> {
    /// A znode is new or has changed. `parent` is the path of its parent ("/" for the children of the root), `name` the
    /// last part of its own; both are empty for the root.
    pub fn put_node(
        &mut self,
        parent: &[u8],
        name: &[u8],
        stat: &NodeStat,
        data: DataChange<'_>,
    ) -> Result<(), TreeError> {
        let key = self.node_key(parent, name)?;
        let given = match &data {
            DataChange::Keep => return self.put_stat(parent, name, key, stat),
            DataChange::Set(data) => *data,
            DataChange::Share(data) => Some(&data[..]),
        };
        let bytes = given.unwrap_or_default();
        if parent.len() + name.len() + bytes.len() > u32::MAX as usize - ChunkSize::Large.bytes() {
            return Err(impossible(parent, name, "it has more than 4 GiB"));
        }
        let former_chunks = self.store.stored_chunks(&key.key)?;
        let stored = if key.is_long {
            let content = encode_long_content(parent, name, bytes);
            let content = self.put_chunks(&key, content.into());
            if given.is_some() {
                StoredData::Chunked(content)
            } else {
                StoredData::ChunkedNull(content)
            }
        } else if bytes.len() > INLINE_BYTES {
            StoredData::Chunked(self.put_chunks(&key, data.into_bytes()))
        } else {
            given.map_or(StoredData::Null, StoredData::Inline)
        };
        self.remove_chunks(&key, stored.chunks()..former_chunks);
        self.insert(key.key, encode_node(stat, stored));
        Ok(())
    }

    /// A znode is gone.
    pub fn remove_node(&mut self, parent: &[u8], name: &[u8]) -> Result<(), TreeError> {
        let key = self.node_key(parent, name)?;
        let former_chunks = self.store.stored_chunks(&key.key)?;
        self.remove_chunks(&key, 0..former_chunks);
        self.remove(key.key);
        Ok(())
    }

    /// A session is new or has changed.
    pub fn put_session(&mut self, session: &SessionRecord) {
        self.insert(session_key(session.id), session.encode());
    }

    /// A session is gone.
    pub fn remove_session(&mut self, id: i64) {
        self.remove(session_key(id));
    }

    /// A session holds an ephemeral. One whose path is long is not noted: a store with such is read whole.
    pub fn put_ephemeral(&mut self, session: i64, path: &[u8]) {
        if path.len() <= EPHEMERAL_PATH_BYTES {
            self.insert(ephemeral_key(session, path), Bytes::new());
        }
    }

    /// A session does not hold an ephemeral any more.
    pub fn remove_ephemeral(&mut self, session: i64, path: &[u8]) {
        if path.len() <= EPHEMERAL_PATH_BYTES {
            self.remove(ephemeral_key(session, path));
        }
    }

    /// How many znodes there are after this batch, and how many bytes all paths and data have. Said by whoever has noted
    /// every ephemeral.
    pub fn totals(&mut self, nodes: u64, data_bytes: u64) {
        self.totals = Some((nodes, data_bytes));
    }

    /// A list of rights is new, or its id stands for another list now.
    pub fn put_acl(&mut self, id: u32, entries: &[u8]) {
        self.insert(acl_key(id), entries);
    }

    /// No znode has this list any more.
    pub fn remove_acl(&mut self, id: u32) {
        self.remove(acl_key(id));
    }

    /// Writes the batch, without fsync unless it becomes a table. May wait for 100 ms and more while fjall is behind with its
    /// flushes, and for seconds while it is behind with its merges. An error poisons the store: the server must stop.
    pub fn commit(mut self, meta: Meta) -> Result<(), TreeError> {
        self.insert(META_KEY, meta.encode());
        if let Some((nodes, data_bytes)) = self.totals {
            let applied = meta.applied;
            let totals = StoredTotals {
                applied,
                nodes,
                data_bytes,
            };
            self.insert(TOTALS_KEY, totals.encode());
        }
        let is_table = self.has_large_chunk || self.bytes >= self.store.memtable_bytes;
        let CheckpointBatch { store, changes, .. } = self;
        let records = changes.len() as u64;
        let committed = if is_table {
            store.write_table(changes)
        } else {
            store.write_journal(changes)
        };
        store.watched("writing", committed)?;
        store.statistics.batches += 1;
        store.statistics.records += records;
        store.committed = Some(meta);
        if is_table {
            store.durable = store.committed.clone();
        }
        Ok(())
    }

    fn insert(&mut self, key: impl Into<UserKey>, value: impl Into<UserValue>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += (key.len() + value.len()) as u64;
        self.changes.push(Change {
            key,
            value: Some(value),
        });
    }

    fn remove(&mut self, key: impl Into<UserKey>) {
        let key = key.into();
        self.bytes += key.len() as u64;
        self.changes.push(Change { key, value: None });
    }

    fn node_key(&self, parent: &[u8], name: &[u8]) -> Result<NodeKey, TreeError> {
        if parent.contains(&0) || name.contains(&0) {
            return Err(impossible(parent, name, "its path has a NUL"));
        }
        Ok(NodeKey::new(parent, name, self.store.salt))
    }

    /// Only the stat changed: the rest of the stored record stays.
    fn put_stat(&mut self, parent: &[u8], name: &[u8], key: NodeKey, stat: &NodeStat) -> Result<(), TreeError> {
        let Some(former) = self.store.get(&key.key)? else {
            return Err(TreeError::NothingToKeep {
                path: path(parent, name),
            });
        };
        let (_, stored) = decode_node(&former).map_err(|problem| self.store.malformed(&key.key, problem))?;
        self.insert(key.key, encode_node(stat, stored));
        Ok(())
    }

    fn put_chunks(&mut self, key: &NodeKey, mut bytes: Bytes) -> Content {
        self.store.chunked.insert(hash(&key.key));
        let content = Content::of(bytes.len());
        self.has_large_chunk |= content.chunk_size == ChunkSize::Large;
        for number in 0..content.chunks() {
            let chunk = bytes.split_to(bytes.len().min(content.chunk_size.bytes()));
            self.insert(key.chunk(number), chunk);
        }
        content
    }

    fn remove_chunks(&mut self, key: &NodeKey, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.remove(key.chunk(number));
        }
    }
}

impl TreeStore {
    fn write_journal(&self, changes: Vec<Change>) -> fjall::Result<()> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), changes.len());
        for Change { key, value } in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch.durability(None).commit()
    }

    /// What stands in memtables becomes a table before.
    fn write_table(&mut self, mut changes: Vec<Change>) -> fjall::Result<()> {
        self.wait_for_merges();
        // The last one of a key counts, as in the journal.
        changes.sort_by(|one, other| one.key.cmp(&other.key));
        changes.dedup_by(|later, earlier| {
            let is_same = later.key == earlier.key;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        let mut ingestion = self.keyspace.start_ingestion()?;
        for Change { key, value } in changes {
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()?;
        self.nothing_unflushed();
        Ok(())
    }

    fn wait_for_merges(&self) {
        let started = Instant::now();
        while self.keyspace.l0_table_count() > MOST_FRESH_TABLES && started.elapsed() < TABLES_PATIENCE {
            std::thread::sleep(TABLES_LOOK);
        }
    }
}

fn path(parent: &[u8], name: &[u8]) -> String {
    let slash: &[u8] = if parent == b"/" { b"" } else { b"/" };
    printable(&[parent, slash, name].concat())
}

fn impossible(parent: &[u8], name: &[u8], reason: &'static str) -> TreeError {
    TreeError::Impossible {
        path: path(parent, name),
        reason,
    }
}
