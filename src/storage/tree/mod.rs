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

mod batch;
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
mod unfinished;
mod unflushed;

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode};
use foldhash::fast::FixedState;

pub use batch::{CheckpointBatch, DataChange};
pub use dump::{Totals, TreeView, ViewChunks};
pub use error::TreeError;
pub use groups::{Below, GroupPiece, StoredChild, StoredGroups};
pub use incoming::{IncomingError, IncomingPart, build_tree};
pub use loading::{LoadSummary, LoadVisitor};
pub use opening::TreeOptions;
pub use reading::{ReadableTree, TreeReader};
pub use records::{
    FORMAT_VERSION, MalformedRecord, Meta, NodeStat, OLDEST_FORMAT_VERSION, SessionRecord, StoredTotals,
};

use opening::open_or_cut;
use records::{META_KEY, SALT_KEY, decode_node};

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
    /// A batch of so many bytes does not go through a memtable.
    memtable_bytes: u64,
    /// What fjall counts as unflushed for ever.
    uncounted_bytes: u64,
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
        let mut store = TreeStore::around(directory, database, keyspace, options);
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
    fn around(directory: &Path, database: Database, keyspace: Keyspace, options: TreeOptions) -> TreeStore {
        TreeStore {
            directory: directory.to_path_buf(),
            database,
            keyspace,
            salt: options.salt,
            memtable_bytes: options.memtable_bytes,
            uncounted_bytes: 0,
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
        Ok(CheckpointBatch::new(self))
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
        if !(OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&found) {
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
