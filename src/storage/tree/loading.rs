//! Reading the whole store back, once, at a start: lists of rights, sessions and what these hold, then znodes with their
//! data, parents before their children and siblings together.
//!
//! A thread of its own walks over the keyspace and puts chunks together, so that what the visitor does with the records
//! overlaps with reading them.

use std::collections::HashSet;
use std::error::Error;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use fjall::{Guard, Iter, UserKey, UserValue};

use super::records::{
    KeyKind, MalformedRecord, NodeStat, SessionRecord, StoredData, acl_id, chunk_prefix, decode_long_content,
    decode_node, ephemeral_path, node_path, session_id,
};
use super::{TreeError, TreeStore, hash, printable};

/// Records that are handed over at once, and how many such lots may wait: the reader stops there.
const LOT_RECORDS: usize = 512;
const WAITING_LOTS: usize = 8;

/// Takes what a store holds. An error ends the loading.
pub trait LoadVisitor {
    /// What it refuses a record with.
    type Error: Error + Send + Sync + 'static;

    /// A list of rights. All come before the sessions.
    fn acl(&mut self, id: u32, entries: &[u8]) -> Result<(), Self::Error>;

    /// An ephemeral of a session. All come after the sessions and before the znodes.
    fn ephemeral(&mut self, session: i64, path: &[u8]) -> Result<(), Self::Error>;

    /// A session. All come before the znodes.
    fn session(&mut self, session: SessionRecord) -> Result<(), Self::Error>;

    /// A znode; parents before their children. `parent` and `name` are empty for the root. `data` has its own memory.
    fn node(&mut self, parent: &[u8], name: &[u8], stat: NodeStat, data: Option<Bytes>) -> Result<(), Self::Error>;
}

/// How much was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// Lists of rights.
    pub acls: u64,
    /// Sessions.
    pub sessions: u64,
    /// Znodes.
    pub nodes: u64,
    /// Bytes of znodes' data.
    pub data_bytes: u64,
}

/// A record as it was read, with what its chunks hold.
struct Loaded {
    key: UserKey,
    value: UserValue,
    content: Option<Bytes>,
}

type Lot = Vec<Loaded>;

impl TreeStore {
    /// Reads everything into `visitor`. Once, before the first batch.
    pub fn load<V: LoadVisitor>(&mut self, visitor: &mut V) -> Result<LoadSummary, TreeError> {
        let store = &*self;
        let (lots, waiting) = sync_channel(WAITING_LOTS);
        let loaded = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                Reader {
                    store,
                    lots,
                    lot: Vec::with_capacity(LOT_RECORDS),
                }
                .read()
            });
            let mut delivery = Delivery {
                store,
                visitor,
                summary: LoadSummary::default(),
                chunked: HashSet::new(),
                long: Vec::new(),
            };
            let delivered = delivery.take_all(waiting);
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // A visitor's refusal ends the reading too; what the reader found wrong by itself is the better reason.
            read.and(delivered).map(|()| (delivery.summary, delivery.chunked))
        });
        let (summary, chunked) = loaded?;
        self.chunked.extend(chunked);
        self.knows_chunked = true;
        Ok(summary)
    }

    fn range(&self, from: KeyKind, below: KeyKind) -> Iter {
        self.keyspace
            .range::<[u8; 1], _>((Bound::Included([from as u8]), Bound::Excluded([below as u8])))
    }
}

/// The reading side.
struct Reader<'a> {
    store: &'a TreeStore,
    lots: SyncSender<Lot>,
    lot: Lot,
}

impl Reader<'_> {
    fn read(mut self) -> Result<(), TreeError> {
        let store = self.store;
        let mut chunks = Chunks {
            store,
            iter: store.range(KeyKind::Chunk, KeyKind::LongNode).peekable(),
            next: None,
        };
        self.read_range(store.range(KeyKind::Acl, KeyKind::Node), &mut chunks)?;
        let ephemerals = store.keyspace.range([KeyKind::Ephemeral as u8]..);
        self.read_range(ephemerals, &mut chunks)?;
        self.read_range(store.range(KeyKind::Node, KeyKind::Chunk), &mut chunks)?;
        let above = store.range(KeyKind::LongChunk, KeyKind::Ephemeral).peekable();
        let mut chunks = Chunks {
            store,
            iter: above,
            next: None,
        };
        self.read_range(store.range(KeyKind::LongNode, KeyKind::LongChunk), &mut chunks)?;
        // Nobody waits any more if the visitor has refused: that is its error, not ours.
        let _ = self.lots.send(self.lot);
        Ok(())
    }

    fn read_range(&mut self, records: Iter, chunks: &mut Chunks<'_>) -> Result<(), TreeError> {
        for guard in records {
            let (key, value) = self.store.read_pair(guard)?;
            let content = match KeyKind::of(&key) {
                Some(KeyKind::Node | KeyKind::LongNode) => chunks.content(&key, &value)?,
                _ => None,
            };
            self.lot.push(Loaded { key, value, content });
            if self.lot.len() == LOT_RECORDS {
                let full = std::mem::replace(&mut self.lot, Vec::with_capacity(LOT_RECORDS));
                if self.lots.send(full).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl TreeStore {
    fn read_pair(&self, guard: Guard) -> Result<(UserKey, UserValue), TreeError> {
        guard.into_inner().map_err(|source| self.unreadable(source))
    }
}

/// The chunks of a range, which stand in the order of their znodes.
struct Chunks<'a> {
    store: &'a TreeStore,
    iter: Peekable<Iter>,
    next: Option<(UserKey, UserValue)>,
}

impl Chunks<'_> {
    /// What the chunks of the znode under `key` hold, if it has any. Chunks before them belong to no znode (a former
    /// value's, should one ever be left over) and are passed by.
    fn content(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, TreeError> {
        let malformed = |problem| self.store.malformed(key, problem);
        let (_, data) = decode_node(value).map_err(malformed)?;
        let (StoredData::Chunked(content) | StoredData::ChunkedNull(content)) = data else {
            return Ok(None);
        };
        let prefix = chunk_prefix(key);
        let mut bytes = Vec::new();
        for number in 0..content.chunks() {
            let expected = [&prefix[..], &number.to_be_bytes()].concat();
            let Some(chunk) = self.chunk(&expected)? else {
                return Err(self.store.malformed(key, MalformedRecord::MissingChunk(number)));
            };
            bytes.extend_from_slice(&chunk);
            if bytes.len() != content.end_of(number) {
                return Err(self.store.malformed(key, MalformedRecord::Length));
            }
        }
        Ok(Some(bytes.into()))
    }

    fn chunk(&mut self, expected: &[u8]) -> Result<Option<UserValue>, TreeError> {
        loop {
            let (key, value) = match self.next.take() {
                Some(pair) => pair,
                None => match self.iter.next() {
                    Some(guard) => self.store.read_pair(guard)?,
                    None => return Ok(None),
                },
            };
            if key.as_ref() == expected {
                return Ok(Some(value));
            }
            if key.as_ref() > expected {
                self.next = Some((key, value));
                return Ok(None);
            }
        }
    }
}

/// A znode with a long path, until those with shorter ones are there.
struct LongNode {
    parent: Vec<u8>,
    name: Vec<u8>,
    stat: NodeStat,
    data: Option<Bytes>,
}

/// The visitor's side.
struct Delivery<'a, V> {
    store: &'a TreeStore,
    visitor: &'a mut V,
    summary: LoadSummary,
    chunked: HashSet<u64>,
    long: Vec<LongNode>,
}

impl<V: LoadVisitor> Delivery<'_, V> {
    fn take_all(&mut self, waiting: Receiver<Lot>) -> Result<(), TreeError> {
        for lot in waiting {
            for loaded in lot {
                self.take(loaded)?;
            }
        }
        // Fingerprints have no order: a parent's path is shorter than its children's.
        let mut long = std::mem::take(&mut self.long);
        long.sort_by_key(|node| node.parent.len() + node.name.len());
        for LongNode {
            parent,
            name,
            stat,
            data,
        } in long
        {
            self.node(&parent, &name, stat, data)?;
        }
        Ok(())
    }

    fn take(&mut self, Loaded { key, value, content }: Loaded) -> Result<(), TreeError> {
        let malformed = |problem| self.store.malformed(&key, problem);
        match KeyKind::of(&key) {
            Some(KeyKind::Acl) => {
                let id = acl_id(&key).map_err(malformed)?;
                self.summary.acls += 1;
                self.visitor
                    .acl(id, &value)
                    .map_err(|source| self.refused(&key, source))
            }
            Some(KeyKind::Session) => {
                let id = session_id(&key).map_err(malformed)?;
                let session = SessionRecord::decode(id, &value).map_err(malformed)?;
                self.summary.sessions += 1;
                self.visitor
                    .session(session)
                    .map_err(|source| self.refused(&key, source))
            }
            Some(KeyKind::Ephemeral) => {
                let (session, path) = ephemeral_path(&key).map_err(malformed)?;
                let taken = self.visitor.ephemeral(session, path);
                taken.map_err(|source| self.refused(&key, source))
            }
            Some(KeyKind::Node) => {
                let (parent, name) = node_path(&key).map_err(malformed)?;
                let (stat, data) = decode_node(&value).map_err(malformed)?;
                let data = match data {
                    StoredData::Null | StoredData::ChunkedNull(_) => None,
                    StoredData::Inline(data) => Some(Bytes::copy_from_slice(data)),
                    StoredData::Chunked(_) => {
                        self.chunked.insert(hash(&key));
                        content
                    }
                };
                self.node(parent, name, stat, data)
            }
            Some(KeyKind::LongNode) => {
                let (stat, data) = decode_node(&value).map_err(malformed)?;
                let content = content.unwrap_or_default();
                let (parent, name, bytes) = decode_long_content(&content).map_err(malformed)?;
                let has_data = matches!(data, StoredData::Chunked(_));
                let data = has_data.then(|| Bytes::copy_from_slice(bytes));
                self.chunked.insert(hash(&key));
                self.long.push(LongNode {
                    parent: parent.to_vec(),
                    name: name.to_vec(),
                    stat,
                    data,
                });
                Ok(())
            }
            _ => Err(malformed(MalformedRecord::Key)),
        }
    }

    fn node(&mut self, parent: &[u8], name: &[u8], stat: NodeStat, data: Option<Bytes>) -> Result<(), TreeError> {
        self.summary.nodes += 1;
        self.summary.data_bytes += data.as_ref().map_or(0, Bytes::len) as u64;
        let taken = self.visitor.node(parent, name, stat, data);
        taken.map_err(|source| self.refused(&[parent, b" ", name].concat(), source))
    }

    fn refused(&self, record: &[u8], source: V::Error) -> TreeError {
        TreeError::Refused {
            directory: self.store.directory.clone(),
            record: printable(record),
            source: Box::new(source),
        }
    }
}
