//! A view of the store for a peer, and the form in which its records travel.
//!
//! ```text
//!   chunk   record*                                    about as long as the reader asked for
//!   record  key_bytes u32 │ value_bytes u32 │ key │ value      little-endian; keys ascend over all chunks
//! ```
//!
//! The records are those of `records`, as they are stored, salt included (fingerprints of long paths depend on it);
//! [`Meta`] travels apart, because it is written last; totals and the ephemerals of sessions do not, because whoever takes
//! the tree derives them.
//!
//! A view costs while it is held: fjall keeps every value that was overwritten since (building-blocks §2). Whoever has
//! one reads it through without waiting for anything, and drops it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fjall::{Database, Iter, Keyspace, Readable, Snapshot};

use super::records::{KeyKind, META_KEY, MalformedRecord, Meta, TOTALS_KEY};
use super::{TreeError, TreeStore};

/// The store as it was at its last committed checkpoint; the store goes on, on another thread.
pub struct TreeView {
    directory: PathBuf,
    keyspace: Keyspace,
    snapshot: Snapshot,
    meta: Meta,
    lent: Arc<Lent>,
}

/// What keeps the store's files from being closed or removed under a reader.
pub(super) struct Lent {
    _database: Database,
}

impl std::fmt::Debug for TreeView {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TreeView")
            .field("directory", &self.directory)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl TreeStore {
    /// The store as of its last committed checkpoint. `None` in a store that was never written.
    pub fn view(&mut self) -> Result<Option<TreeView>, TreeError> {
        self.refuse_if_poisoned()?;
        let snapshot = self.database.snapshot();
        let record = snapshot
            .get(&self.keyspace, META_KEY)
            .map_err(|source| self.unreadable(source))?;
        let Some(record) = record else { return Ok(None) };
        let meta = Meta::decode(&record).map_err(|problem| self.malformed(&META_KEY, problem))?;
        let lent = self.lend();
        Ok(Some(TreeView {
            directory: self.directory.clone(),
            keyspace: self.keyspace.clone(),
            snapshot,
            meta,
            lent,
        }))
    }

    /// Keeps the store's files while it is alive.
    pub(super) fn lend(&mut self) -> Arc<Lent> {
        self.lent.upgrade().unwrap_or_else(|| {
            let lent = Arc::new(Lent {
                _database: self.database.clone(),
            });
            self.lent = Arc::downgrade(&lent);
            lent
        })
    }

    /// Whether a view of it is still read: then its files must stay.
    pub fn is_viewed(&self) -> bool {
        self.lent.strong_count() > 0
    }
}

impl TreeView {
    /// What the view's records lead to.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Everything that travels, in chunks of about `chunk_bytes`; a record is never divided, so that one chunk
    /// may be longer by one record.
    pub fn into_chunks(self, chunk_bytes: usize) -> ViewChunks {
        ViewChunks {
            records: Some(self.snapshot.iter(&self.keyspace)),
            directory: self.directory,
            chunk_bytes,
            totals: Totals::default(),
            _lent: self.lent,
        }
    }
}

/// What was sent, to be compared with what arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// crc32c over the bytes of all chunks.
    pub checksum: u32,
}

impl Totals {
    /// Counts a chunk of so many records.
    pub(super) fn add(&mut self, chunk: &[u8], records: u64) {
        self.records += records;
        self.bytes += chunk.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, chunk);
    }
}

/// See [`TreeView::into_chunks`]. Ends after the first error.
pub struct ViewChunks {
    directory: PathBuf,
    chunk_bytes: usize,
    /// `None` at the end.
    records: Option<Iter>,
    totals: Totals,
    _lent: Arc<Lent>,
}

impl std::fmt::Debug for ViewChunks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ViewChunks")
            .field("directory", &self.directory)
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}

impl ViewChunks {
    /// What was given out until now.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn fill(&mut self) -> Result<Option<Bytes>, TreeError> {
        let Some(records) = &mut self.records else {
            return Ok(None);
        };
        let mut chunk = BytesMut::with_capacity(self.chunk_bytes + (self.chunk_bytes / 8).max(8 << 10));
        let mut count = 0;
        let mut is_last = true;
        for guard in records {
            let (key, value) = guard.into_inner().map_err(|source| TreeError::Store {
                directory: self.directory.clone(),
                action: "reading",
                source,
            })?;
            if travels(&key) {
                put_record(&mut chunk, &key, &value);
                count += 1;
            }
            if chunk.len() >= self.chunk_bytes {
                is_last = false;
                break;
            }
        }
        if is_last {
            self.records = None;
        }
        self.totals.add(&chunk, count);
        Ok((count > 0).then(|| chunk.freeze()))
    }
}

impl Iterator for ViewChunks {
    type Item = Result<Bytes, TreeError>;

    fn next(&mut self) -> Option<Result<Bytes, TreeError>> {
        let filled = self.fill();
        if filled.is_err() {
            self.records = None;
        }
        filled.transpose()
    }
}

/// Whether a record is sent: not the meta, and not what a peer derives by itself.
pub(super) fn travels(key: &[u8]) -> bool {
    key != META_KEY && key != TOTALS_KEY && KeyKind::of(key) != Some(KeyKind::Ephemeral)
}

/// Adds a record to a chunk.
fn put_record(chunk: &mut BytesMut, key: &[u8], value: &[u8]) {
    // fjall's keys end at 64 KiB, its values at 4 GiB.
    chunk.put_u32_le(key.len() as u32);
    chunk.put_u32_le(value.len() as u32);
    chunk.put_slice(key);
    chunk.put_slice(value);
}

/// The reverse of [`put_record`]: takes the next key and value off `chunk`; `None` at its end.
pub(super) fn take_record(chunk: &mut Bytes) -> Result<Option<(Bytes, Bytes)>, MalformedRecord> {
    if chunk.is_empty() {
        return Ok(None);
    }
    let key_bytes = chunk.try_get_u32_le()? as usize;
    let value_bytes = chunk.try_get_u32_le()? as usize;
    let all = key_bytes.checked_add(value_bytes).ok_or(MalformedRecord::Length)?;
    if all > chunk.len() {
        return Err(MalformedRecord::Length);
    }
    let key = chunk.split_to(key_bytes);
    let value = chunk.split_to(value_bytes);
    Ok(Some((key, value)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_went(records in prop::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..20)) {
            let mut chunk = BytesMut::new();
            for (key, value) in &records {
                put_record(&mut chunk, key, value);
            }
            let mut chunk = chunk.freeze();
            let mut found = Vec::new();
            while let Some((key, value)) = take_record(&mut chunk).expect("well formed") {
                found.push((key.to_vec(), value.to_vec()));
            }
            prop_assert_eq!(found, records);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut chunk = Bytes::from(bytes);
            while let Ok(Some(_)) = take_record(&mut chunk) {}
        }
    }
}
