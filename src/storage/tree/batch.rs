//! One checkpoint on its way into the store.

use super::records::{
    CHUNK_BYTES, EPHEMERAL_PATH_BYTES, INLINE_BYTES, META_KEY, NodeKey, StoredData, StoredTotals, TOTALS_KEY, acl_key,
    decode_node, encode_long_content, encode_node, ephemeral_key, session_key,
};
use super::{Meta, NodeStat, SessionRecord, TreeError, TreeStore, hash, printable};
use fjall::OwnedWriteBatch;
use std::fmt;

/// A znode's data in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataChange<'a> {
    /// What is stored stays. The znode must be stored.
    Keep,
    /// It is this now; `None` is null, which is not empty.
    Set(Option<&'a [u8]>),
}

/// What changed in one interval: all of it becomes visible and durable together, or none. No two of its records concern
/// the same znode, session or list.
pub struct CheckpointBatch<'a> {
    store: &'a mut TreeStore,
    batch: OwnedWriteBatch,
    totals: Option<(u64, u64)>,
}

impl fmt::Debug for CheckpointBatch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CheckpointBatch")
            .field("records", &self.batch.len())
            .finish_non_exhaustive()
    }
}

impl<'a> CheckpointBatch<'a> {
    pub(super) fn new(store: &'a mut TreeStore) -> CheckpointBatch<'a> {
        let batch = OwnedWriteBatch::with_capacity(store.database.clone(), 64);
        CheckpointBatch {
            store,
            batch,
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
        let data = match data {
            DataChange::Keep => return self.put_stat(parent, name, key, stat),
            DataChange::Set(data) => data,
        };
        let bytes = data.unwrap_or_default();
        if parent.len() + name.len() + bytes.len() > u32::MAX as usize - CHUNK_BYTES {
            return Err(impossible(parent, name, "it has more than 4 GiB"));
        }
        let former_chunks = self.store.stored_chunks(&key.key)?;
        let stored = if key.is_long {
            let content = encode_long_content(parent, name, bytes);
            self.put_chunks(&key, &content);
            let content_bytes = content.len() as u32;
            if data.is_some() {
                StoredData::Chunked(content_bytes)
            } else {
                StoredData::ChunkedNull(content_bytes)
            }
        } else if bytes.len() > INLINE_BYTES {
            self.put_chunks(&key, bytes);
            StoredData::Chunked(bytes.len() as u32)
        } else {
            data.map_or(StoredData::Null, StoredData::Inline)
        };
        self.remove_chunks(&key, stored.chunks()..former_chunks);
        self.batch
            .insert(&self.store.keyspace, key.key, encode_node(stat, stored));
        Ok(())
    }

    /// A znode is gone.
    pub fn remove_node(&mut self, parent: &[u8], name: &[u8]) -> Result<(), TreeError> {
        let key = self.node_key(parent, name)?;
        let former_chunks = self.store.stored_chunks(&key.key)?;
        self.remove_chunks(&key, 0..former_chunks);
        self.batch.remove(&self.store.keyspace, key.key);
        Ok(())
    }

    /// A session is new or has changed.
    pub fn put_session(&mut self, session: &SessionRecord) {
        self.batch
            .insert(&self.store.keyspace, session_key(session.id), session.encode());
    }

    /// A session is gone.
    pub fn remove_session(&mut self, id: i64) {
        self.batch.remove(&self.store.keyspace, session_key(id));
    }

    /// A session holds an ephemeral. One whose path is long is not noted: a store with such is read whole.
    pub fn put_ephemeral(&mut self, session: i64, path: &[u8]) {
        if path.len() <= EPHEMERAL_PATH_BYTES {
            self.batch
                .insert(&self.store.keyspace, ephemeral_key(session, path), []);
        }
    }

    /// A session does not hold an ephemeral any more.
    pub fn remove_ephemeral(&mut self, session: i64, path: &[u8]) {
        if path.len() <= EPHEMERAL_PATH_BYTES {
            self.batch.remove(&self.store.keyspace, ephemeral_key(session, path));
        }
    }

    /// How many znodes there are after this batch, and how many bytes all paths and data have. Said by whoever has noted
    /// every ephemeral.
    pub fn totals(&mut self, nodes: u64, data_bytes: u64) {
        self.totals = Some((nodes, data_bytes));
    }

    /// A list of rights is new, or its id stands for another list now.
    pub fn put_acl(&mut self, id: u32, entries: &[u8]) {
        self.batch.insert(&self.store.keyspace, acl_key(id), entries);
    }

    /// No znode has this list any more.
    pub fn remove_acl(&mut self, id: u32) {
        self.batch.remove(&self.store.keyspace, acl_key(id));
    }

    /// Writes the batch, without fsync. May wait for 100 ms and more while fjall is behind with its flushes. An error
    /// poisons the store: the server must stop.
    pub fn commit(mut self, meta: Meta) -> Result<(), TreeError> {
        self.batch.insert(&self.store.keyspace, META_KEY, meta.encode());
        if let Some((nodes, data_bytes)) = self.totals {
            let applied = meta.applied;
            let totals = StoredTotals {
                applied,
                nodes,
                data_bytes,
            };
            self.batch.insert(&self.store.keyspace, TOTALS_KEY, totals.encode());
        }
        let records = self.batch.len() as u64;
        let committed = self.batch.durability(None).commit();
        self.store.watched("writing", committed)?;
        self.store.statistics.batches += 1;
        self.store.statistics.records += records;
        self.store.committed = Some(meta);
        Ok(())
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
        self.batch
            .insert(&self.store.keyspace, key.key, encode_node(stat, stored));
        Ok(())
    }

    fn put_chunks(&mut self, key: &NodeKey, content: &[u8]) {
        self.store.chunked.insert(hash(&key.key));
        for (chunk, number) in content.chunks(CHUNK_BYTES).zip(0..) {
            self.batch.insert(&self.store.keyspace, key.chunk(number), chunk);
        }
    }

    fn remove_chunks(&mut self, key: &NodeKey, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.batch.remove(&self.store.keyspace, key.chunk(number));
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
