//! Reading single znodes back while the writer goes on: values that have left memory.
//!
//! The one exception from the rule that nothing reads from fjall while the server runs. It may take 100 ms when fjall
//! flushes, so that whoever reads is a thread of its own and holds no lock. What it is given is from one snapshot, never
//! half of a batch; a snapshot is held for a few reads only, since fjall keeps what is overwritten as long as it is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fjall::{Database, Keyspace, Readable, Snapshot};

use super::records::{Content, MalformedRecord, NodeKey, NodeStat, StoredData, decode_long_content, decode_node};
use super::{TreeError, TreeStore, dump, printable};

/// Reads from a store that another thread writes.
pub struct TreeReader {
    directory: PathBuf,
    database: Database,
    keyspace: Keyspace,
    salt: u64,
    _lent: Arc<dump::Lent>,
}

impl fmt::Debug for TreeReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TreeReader")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl TreeStore {
    /// A reader for another thread.
    pub fn reader(&mut self) -> TreeReader {
        TreeReader {
            directory: self.directory.clone(),
            database: self.database.clone(),
            keyspace: self.keyspace.clone(),
            salt: self.salt,
            _lent: self.lend(),
        }
    }
}

impl TreeReader {
    /// The store as of now, for a few reads: later batches are not seen.
    pub fn now(&self) -> ReadableTree<'_> {
        ReadableTree {
            reader: self,
            snapshot: self.database.snapshot(),
        }
    }
}

/// The store as of one batch.
pub struct ReadableTree<'a> {
    reader: &'a TreeReader,
    snapshot: Snapshot,
}

impl fmt::Debug for ReadableTree<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ReadableTree").field(self.reader).finish()
    }
}

impl ReadableTree<'_> {
    /// Stat and data of a znode; `parent` and `name` are empty for the root.
    pub fn node(&self, parent: &[u8], name: &[u8]) -> Result<Option<(NodeStat, Option<Bytes>)>, TreeError> {
        let key = NodeKey::new(parent, name, self.reader.salt);
        let Some(record) = self.get(&key.key)? else {
            return Ok(None);
        };
        let (stat, data) = decode_node(&record).map_err(|problem| self.malformed(&key.key, problem))?;
        let data = match data {
            StoredData::Null | StoredData::ChunkedNull(_) => None,
            StoredData::Inline(data) => Some(record.slice_ref(data)),
            StoredData::Chunked(content) => {
                let content = self.content(&key, content)?;
                Some(if key.is_long {
                    let (_, _, data) =
                        decode_long_content(&content).map_err(|problem| self.malformed(&key.key, problem))?;
                    content.slice_ref(data)
                } else {
                    content
                })
            }
        };
        Ok(Some((stat, data)))
    }

    fn content(&self, key: &NodeKey, content: Content) -> Result<Bytes, TreeError> {
        let chunk = |number| {
            let missing = || self.malformed(&key.key, MalformedRecord::MissingChunk(number));
            self.get(&key.chunk(number))?.ok_or_else(missing)
        };
        let check = |bytes: &[u8], number| {
            let is_whole = bytes.len() == content.end_of(number);
            let torn = || self.malformed(&key.key, MalformedRecord::Length);
            is_whole.then_some(()).ok_or_else(torn)
        };
        if content.chunks() == 1 {
            let only = chunk(0)?;
            check(&only, 0)?;
            return Ok(only);
        }
        let mut bytes = BytesMut::with_capacity(content.bytes as usize);
        for number in 0..content.chunks() {
            bytes.extend_from_slice(&chunk(number)?);
            check(&bytes, number)?;
        }
        Ok(bytes.freeze())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TreeError> {
        let found = self.snapshot.get(&self.reader.keyspace, key);
        let found = found.map_err(|source| TreeError::Store {
            directory: self.reader.directory.clone(),
            action: "reading",
            source,
        })?;
        Ok(found.map(Bytes::from))
    }

    fn malformed(&self, key: &[u8], problem: MalformedRecord) -> TreeError {
        TreeError::Malformed {
            directory: self.reader.directory.clone(),
            record: printable(key),
            problem,
        }
    }
}
