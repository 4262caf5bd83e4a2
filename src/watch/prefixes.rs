//! The beginnings of watched paths, up to the last slash: each kept once, however many watched paths have it.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

/// Parts that are locked one by one.
const SHARDS: usize = 16;

/// Prefixes that an empty part keeps room for.
const SPARE: usize = 256;

/// A beginning of paths, shared. Thin, because every watched path has one.
#[derive(Debug)]
pub(super) struct Prefix(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the same allocation if it is of ordinary length.
    text: SmallVec<[u8; 32]>,
    hash: u64,
}

impl Deref for Prefix {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.text
    }
}

/// All prefixes in use.
#[derive(Default)]
pub(super) struct Prefixes {
    shards: [Mutex<HashTable<Arc<Shared>>>; SHARDS],
    random: RandomState,
}

impl Prefixes {
    /// The prefix with this text. To be given back by [`Prefixes::leave`].
    pub(super) fn enter(&self, text: &[u8]) -> Prefix {
        let hash = self.random.hash_one(text);
        let make = || {
            Arc::new(Shared {
                text: SmallVec::from_slice(text),
                hash,
            })
        };
        let mut shard = self.shard(hash).lock();
        let entry = shard.entry(hash, |known| *known.text == *text, |known| known.hash);
        Prefix(entry.or_insert_with(make).get().clone())
    }

    /// A user of the prefix is gone; with the last one it is forgotten.
    pub(super) fn leave(&self, prefix: Prefix) {
        let hash = prefix.0.hash;
        let mut shard = self.shard(hash).lock();
        // Users come and go under this lock alone: the count is true.
        let is_last = Arc::strong_count(&prefix.0) == 2;
        if is_last && let Ok(entry) = shard.find_entry(hash, |known| Arc::ptr_eq(known, &prefix.0)) {
            entry.remove();
        }
        drop(prefix);
        if shard.is_empty() && shard.capacity() > SPARE {
            // What a burst has taken is given back.
            *shard = HashTable::new();
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<Arc<Shared>>> {
        // Neither the bits by which the table finds a place, nor those by which it tells entries apart.
        &self.shards[(hash >> 48) as usize % SHARDS]
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }
}
