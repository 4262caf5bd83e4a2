//! The tree's keyspace in fjall: checkpoints of the state, always behind the log.
//!
//! One thread of the server owns a [`TreeStore`]. At a start everything is read back once: at one go ([`TreeStore::load`]),
//! or first what it takes to serve and then the rest ([`TreeStore::load_first`]). It
//! takes what changed in an interval as one [`CheckpointBatch`], and now and then makes a point durable
//! ([`TreeStore::persist`]). `records` says what every byte is.
//!
//! Invariants:
//! - A batch holds the records that changed and the [`Meta`] that they lead to; after any crash the store is at the end of
//!   one batch that was committed, at or behind the last durable one. All kinds share one keyspace for that reason.
//! - Nothing reads from it while the server runs, but the writer itself; whoever brings back values that have left memory
//!   (`reading`); and for the first seconds whoever reads the rest of the tree. These are threads that nobody waits for but
//!   their readers: fjall stalls readers and writers for 100 ms and
//!   more when it flushes, and shows half a batch to readers (building-blocks §2).
//! - The raft log may be cut up to [`TreeStore::durable`], no further.
//! - After the first failed write every call fails. fjall may show the failed batch after the next start: that is sound,
//!   a batch is whole or not there, and the log has what follows it.
//!
//! A peer that is far behind gets the whole store: `dump` reads a view of it, `incoming` makes a new store of that.
//!
//! Left out on purpose: what the records mean (rights, owners, members are opaque bytes), how a view gets to a peer, any cache.

mod dump;
mod error;
mod groups;
mod incoming;
mod journal;
mod loading;
mod opening;
mod reading;
mod records;
#[cfg(test)]
mod tests;
mod unflushed;

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use bytes::Bytes;
use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};
use foldhash::fast::FixedState;

pub use dump::{Totals, TreeView, ViewChunks};
pub use error::TreeError;
pub use groups::{GroupPiece, StoredChild, StoredGroups};
pub use incoming::{IncomingError, IncomingPart, build_tree};
pub use loading::{LoadSummary, LoadVisitor};
pub use opening::TreeOptions;
pub use reading::{ReadableTree, TreeReader};
pub use records::{FORMAT_VERSION, MalformedRecord, Meta, NodeStat, SessionRecord, StoredTotals};

use opening::open_or_cut;
use records::{
    CHUNK_BYTES, EPHEMERAL_PATH_BYTES, INLINE_BYTES, META_KEY, NodeKey, SALT_KEY, StoredData, TOTALS_KEY, acl_key,
    decode_node, encode_long_content, encode_node, ephemeral_key, session_key,
};

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeStatistics {
    /// Batches committed.
    pub batches: u64,
    /// Keys written and removed.
    pub records: u64,
    /// Calls of [`TreeStore::persist`] that had something to do.
    pub persists: u64,
}

/// The store, open. See the module's head.
pub struct TreeStore {
    directory: PathBuf,
    database: Database,
    keyspace: Keyspace,
    salt: u64,
    /// What the last committed batch led to.
    committed: Option<Meta>,
    /// What the last durable batch led to.
    durable: Option<Meta>,
    /// Hashes of the keys of znodes that have chunks, and perhaps of some that had. Only for these must a write look up how
    /// many former chunks it leaves over, once all of them are known. A false entry costs one lookup.
    chunked: HashSet<u64>,
    knows_chunked: bool,
    /// Alive while a view is read.
    lent: Weak<dump::Lent>,
    poison: Option<String>,
    statistics: TreeStatistics,
}

impl fmt::Debug for TreeStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TreeStore")
            .field("directory", &self.directory)
            .field("committed", &self.committed)
            .field("durable", &self.durable)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

impl TreeStore {
    /// Opens the store in `directory`, which is created when absent, and makes durable what it found. Takes about a
    /// second per 64 MiB of journal that a killed server left.
    pub fn open(directory: &Path, options: TreeOptions) -> Result<TreeStore, TreeError> {
        let (database, keyspace) = open_or_cut(directory, &options)?;
        let mut store = TreeStore::around(directory, database, keyspace, options.salt);
        store.read_meta()?;
        if store.committed.is_none() {
            // A new store: nobody needs to load it to know that there are no chunks.
            store.knows_chunked = true;
        }
        store.read_or_keep_salt()?;
        // A killed server leaves batches that are visible and not yet stored.
        store.sync()?;
        Ok(store)
    }

    /// What was opened, before anything of it was read.
    fn around(directory: &Path, database: Database, keyspace: Keyspace, salt: u64) -> TreeStore {
        TreeStore {
            directory: directory.to_path_buf(),
            database,
            keyspace,
            salt,
            committed: None,
            durable: None,
            chunked: HashSet::new(),
            knows_chunked: false,
            lent: Weak::new(),
            poison: None,
            statistics: TreeStatistics::default(),
        }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the last committed batch led to; `None` in a new store.
    pub fn committed(&self) -> Option<&Meta> {
        self.committed.as_ref()
    }

    /// What the last durable batch led to: the raft log may be cut up to its `applied`. `None` in a new store.
    pub fn durable(&self) -> Option<&Meta> {
        self.durable.as_ref()
    }

    /// Counters since the store was opened.
    pub fn statistics(&self) -> TreeStatistics {
        self.statistics
    }

    /// Begins the batch of one checkpoint. Dropping it writes nothing.
    pub fn batch(&mut self) -> Result<CheckpointBatch<'_>, TreeError> {
        self.refuse_if_poisoned()?;
        let batch = OwnedWriteBatch::with_capacity(self.database.clone(), 64);
        Ok(CheckpointBatch {
            store: self,
            batch,
            totals: None,
        })
    }

    /// Makes everything that was committed durable, and returns what it led to. May take as long as an fsync of all that
    /// was written since the last one. An error poisons the store: the server must stop.
    pub fn persist(&mut self) -> Result<Option<&Meta>, TreeError> {
        self.refuse_if_poisoned()?;
        if self.durable != self.committed {
            self.sync()?;
        }
        Ok(self.durable.as_ref())
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        self.statistics.persists += 1;
        let synced = self.database.persist(PersistMode::SyncAll);
        self.watched("making it durable", synced)?;
        self.durable = self.committed.clone();
        Ok(())
    }

    /// Passes a result of fjall on; an error poisons the store.
    fn watched<T>(&mut self, action: &'static str, result: fjall::Result<T>) -> Result<T, TreeError> {
        result.map_err(|source| {
            let error = self.failed(action, source);
            tracing::error!(%error, "the tree's store cannot be written; the server must stop");
            self.poison = Some(error.to_string());
            error
        })
    }

    fn refuse_if_poisoned(&self) -> Result<(), TreeError> {
        match &self.poison {
            Some(first) => Err(TreeError::Poisoned { first: first.clone() }),
            None => Ok(()),
        }
    }

    fn read_meta(&mut self) -> Result<(), TreeError> {
        let Some(record) = self.get(&META_KEY)? else {
            return Ok(());
        };
        let malformed = |problem| self.malformed(&META_KEY, problem);
        let found = Meta::format_version(&record).map_err(malformed)?;
        if found != FORMAT_VERSION {
            let directory = self.directory.clone();
            return Err(TreeError::FormatVersion {
                directory,
                found,
                supported: FORMAT_VERSION,
            });
        }
        self.committed = Some(Meta::decode(&record).map_err(malformed)?);
        Ok(())
    }

    fn read_or_keep_salt(&mut self) -> Result<(), TreeError> {
        match self.get(&SALT_KEY)? {
            Some(record) => {
                let salt = record
                    .as_ref()
                    .try_into()
                    .map_err(|_| self.malformed(&SALT_KEY, MalformedRecord::Length))?;
                self.salt = u64::from_le_bytes(salt);
            }
            None => {
                let written = self.keyspace.insert(SALT_KEY, self.salt.to_le_bytes());
                self.watched("writing", written)?;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TreeError> {
        let found = self.keyspace.get(key).map_err(|source| self.unreadable(source))?;
        Ok(found.map(Bytes::from))
    }

    fn unreadable(&self, source: fjall::Error) -> TreeError {
        self.failed("reading", source)
    }

    fn failed(&self, action: &'static str, source: fjall::Error) -> TreeError {
        TreeError::Store {
            directory: self.directory.clone(),
            action,
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

    /// How many chunks the znode under `key` has in the store.
    fn stored_chunks(&self, key: &[u8]) -> Result<u32, TreeError> {
        if self.knows_chunked && !self.chunked.contains(&hash(key)) {
            return Ok(0);
        }
        let Some(record) = self.get(key)? else { return Ok(0) };
        let (_, data) = decode_node(&record).map_err(|problem| self.malformed(key, problem))?;
        Ok(data.chunks())
    }
}

fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

fn printable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

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
