//! Making a new store of what a peer's view holds: sorted tables are written directly (fjall's ingestion), which takes a
//! quarter of the time of batches and writes nothing twice.
//!
//! Invariant: the meta record is written last, after everything that arrived was compared with what was sent, and all of
//! it is durable when [`build_tree`] returns. A store without it is no store.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::dump::{Totals, take_record, travels};
use super::opening::open_fjall_only;
use super::records::{KeyKind, MalformedRecord, Meta, SALT_KEY, TOTALS_KEY};
use super::{TreeError, TreeOptions, TreeStore, printable};

/// Bytes of a key at most: fjall's limit.
const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// What arrives, in order.
#[derive(Debug, Clone)]
pub enum IncomingPart {
    /// A chunk of a [`TreeView`](super::TreeView).
    Chunk(Bytes),
    /// That was all.
    End(Totals),
}

/// Why no store could be made.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// It cannot be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A record cannot be what a store of this version holds.
    #[error("the record {record} of the incoming tree cannot be understood: {problem}")]
    Malformed {
        /// Its key, printable.
        record: String,
        /// What is wrong.
        problem: MalformedRecord,
    },
    /// A key does not come after the one before it.
    #[error("the record {record} of the incoming tree is out of order")]
    Order {
        /// The key, printable.
        record: String,
    },
    /// Something was lost or altered on the way.
    #[error("the incoming tree is not what was sent: {found:?} arrived of {sent:?}")]
    Totals {
        /// What the sender counted.
        sent: Totals,
        /// What arrived.
        found: Totals,
    },
    /// The salt is missing.
    #[error("the incoming tree has no salt: it is not the whole of a tree")]
    NoSalt,
    /// It stopped before its end.
    #[error("the incoming tree broke off before its end")]
    Unfinished,
    /// Something is there already.
    #[error("the incoming tree cannot be written to {}, which exists already", .0.display())]
    Exists(PathBuf),
}

/// Makes a store in `directory`, which must not exist yet, of what arrives. It leads to `meta`, is durable, and was not
/// loaded yet. Blocks while it writes. After an error the directory is of no use: see `Generations::remove`.
pub fn build_tree(
    directory: &Path,
    options: TreeOptions,
    meta: Meta,
    parts: impl IntoIterator<Item = IncomingPart>,
) -> Result<TreeStore, IncomingError> {
    if directory.exists() {
        return Err(IncomingError::Exists(directory.to_path_buf()));
    }
    let (database, keyspace) = open_fjall_only(directory, &options)?;
    let mut store = TreeStore::around(directory, database, keyspace, options);
    ingest(&store, parts)?;
    if store.get(&SALT_KEY)?.is_none() {
        return Err(IncomingError::NoSalt);
    }
    store.read_or_keep_salt()?;
    store.batch()?.commit(meta)?;
    store.sync()?;
    Ok(store)
}

fn ingest(store: &TreeStore, parts: impl IntoIterator<Item = IncomingPart>) -> Result<(), IncomingError> {
    let failed = |source| store.failed("writing", source);
    let mut ingestion = store.keyspace.start_ingestion().map_err(failed)?;
    let mut last_key = Bytes::new();
    let mut found = Totals::default();
    for part in parts {
        let chunk = match part {
            IncomingPart::Chunk(chunk) => chunk,
            IncomingPart::End(sent) if sent == found => {
                return Ok(ingestion.finish().map_err(failed)?);
            }
            IncomingPart::End(sent) => return Err(IncomingError::Totals { sent, found }),
        };
        let mut rest = chunk.clone();
        let mut records = 0;
        while let Some((key, value)) = next_record(&mut rest, &last_key)? {
            // An earlier version sends what it does not know, and has not kept up to date.
            if travels(&key) {
                // A copy of the key: fjall's index would keep the whole chunk alive with it.
                ingestion.write(key.as_ref(), value).map_err(failed)?;
            }
            last_key = key;
            records += 1;
        }
        found.add(&chunk, records);
    }
    Err(IncomingError::Unfinished)
}

/// Takes a record off a chunk, and looks at its key: fjall panics at one that is too long or out of order.
fn next_record(chunk: &mut Bytes, last_key: &Bytes) -> Result<Option<(Bytes, Bytes)>, IncomingError> {
    let malformed = |key: &[u8], problem| IncomingError::Malformed {
        record: printable(key),
        problem,
    };
    let taken = take_record(chunk).map_err(|problem| malformed(last_key, problem))?;
    let Some((key, value)) = taken else { return Ok(None) };
    let is_known = match KeyKind::of(&key) {
        Some(KeyKind::Meta) => key.as_ref() == SALT_KEY || key.as_ref() == TOTALS_KEY,
        Some(_) => key.len() <= MAX_KEY_BYTES,
        None => false,
    };
    if !is_known {
        return Err(malformed(&key, MalformedRecord::Key));
    }
    if key <= *last_key {
        return Err(IncomingError::Order {
            record: printable(&key),
        });
    }
    Ok(Some((key, value)))
}
