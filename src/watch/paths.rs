//! The watched paths: found by their text, known to others by a number.
//!
//! A path is kept as a prefix that it shares with its siblings, and a name. With its audience of one it takes 40 bytes, and
//! some 10 in the index.

use super::audience::{Audience, Crowd};
use super::prefixes::{Prefix, Prefixes};
use super::slab::Slab;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};

/// Parts that are locked one by one, and grow one by one.
const SHARDS: u32 = 64;
/// Paths of one part at most: all their numbers fit 32 bits. One more is refused.
const PATHS_PER_SHARD: u32 = u32::MAX / SHARDS;
/// Paths that the index of an empty part keeps room for.
const SPARE: usize = 256;

/// All watched paths.
pub(super) struct Paths {
    /// As many as [`SHARDS`].
    shards: Box<[Mutex<Shard>]>,
    prefixes: Prefixes,
    random: RandomState,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            prefixes: Prefixes::default(),
            random: RandomState::default(),
        }
    }
}

#[derive(Default)]
struct Shard {
    index: HashTable<u32>,
    entries: Slab<Entry>,
    crowds: Slab<Crowd>,
}

/// A watched path.
struct Entry {
    prefix: Prefix,
    name: Name,
    audience: Audience,
}

/// The rest of a path behind its prefix: within the entry if it is short.
#[derive(Debug)]
enum Name {
    Short { length: u8, bytes: [u8; SHORT_NAME_BYTES] },
    Long(Box<[u8]>),
}

/// Makes [`Name`] 24 bytes.
const SHORT_NAME_BYTES: usize = 22;

/// A path that was looked up, with the lock of its part.
pub(super) struct Found<'a> {
    paths: &'a Paths,
    shard: MutexGuard<'a, Shard>,
    shard_number: u32,
    hash: u64,
    local: u32,
}

/// A path's place, locked, where none may be yet.
pub(super) struct Place<'a> {
    paths: &'a Paths,
    shard: MutexGuard<'a, Shard>,
    shard_number: u32,
    hash: u64,
    path: &'a str,
}

impl Paths {
    /// Locks the place where `path` is, or would be.
    pub(super) fn place<'a>(&'a self, path: &'a str) -> Place<'a> {
        let hash = self.hash(path.as_bytes());
        // Neither the bits by which the index finds a place, nor those by which it tells entries apart.
        let shard_number = (hash >> 48) as u32 % SHARDS;
        Place {
            paths: self,
            shard: self.shards[shard_number as usize].lock(),
            shard_number,
            hash,
            path,
        }
    }

    /// The watched path `path`.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        self.place(path).find().ok()
    }

    /// The watched path of this number.
    pub(super) fn by_number(&self, number: u32) -> Option<Found<'_>> {
        let (shard_number, local) = (number % SHARDS, number / SHARDS);
        let shard = self.shards[shard_number as usize].lock();
        let hash = self.hash(&shard.entries.get(local)?.path());
        Some(Found {
            paths: self,
            shard,
            shard_number,
            hash,
            local,
        })
    }

    /// Calls `visit` with each path and its audience, part by part, each under its lock.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&str, &Audience, &Slab<Crowd>)) {
        for shard in self.shards.iter() {
            let shard = shard.lock();
            for entry in shard.entries.iter() {
                // It was split at a slash.
                if let Ok(path) = std::str::from_utf8(&entry.path()) {
                    visit(path, &entry.audience, &shard.crowds);
                }
            }
        }
    }

    fn hash(&self, path: &[u8]) -> u64 {
        let mut hasher = self.random.build_hasher();
        hasher.write(path);
        hasher.finish()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = |shard: &Shard| shard.entries.is_empty() && shard.index.is_empty() && shard.crowds.is_empty();
        self.shards.iter().all(|shard| is_empty(&shard.lock())) && self.prefixes.is_empty()
    }
}

impl<'a> Place<'a> {
    /// The path, if it is watched; else the place again.
    pub(super) fn find(self) -> Result<Found<'a>, Place<'a>> {
        let entries = &self.shard.entries;
        let same = |local: &u32| entries.get(*local).is_some_and(|entry| entry.is_at(self.path));
        match self.shard.index.find(self.hash, same) {
            None => Err(self),
            Some(&local) => Ok(Found {
                paths: self.paths,
                shard: self.shard,
                shard_number: self.shard_number,
                hash: self.hash,
                local,
            }),
        }
    }

    /// Makes the path one that nobody watches yet. `None`: there are as many as can be numbered.
    pub(super) fn make(mut self) -> Option<Found<'a>> {
        let (prefix, name) = split(self.path);
        let entry = Entry {
            prefix: self.paths.prefixes.enter(prefix.as_bytes()),
            name: Name::new(name.as_bytes()),
            audience: Audience::Nobody,
        };
        let Shard { index, entries, .. } = &mut *self.shard;
        let local = match entries.insert(entry, PATHS_PER_SHARD) {
            Ok(local) => local,
            Err(entry) => {
                self.paths.prefixes.leave(entry.prefix);
                return None;
            }
        };
        let hash = |local: &u32| entries.get(*local).map_or(0, |entry| self.paths.hash(&entry.path()));
        index.insert_unique(self.hash, local, hash);
        Some(Found {
            paths: self.paths,
            shard: self.shard,
            shard_number: self.shard_number,
            hash: self.hash,
            local,
        })
    }
}

impl Found<'_> {
    pub(super) fn number(&self) -> u32 {
        self.local * SHARDS + self.shard_number
    }

    /// Lets `look` see its audience.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Audience, &Slab<Crowd>) -> T) -> T {
        match self.shard.entries.get(self.local) {
            Some(entry) => look(&entry.audience, &self.shard.crowds),
            None => look(&Audience::Nobody, &self.shard.crowds),
        }
    }

    /// Lets `change` change its audience. If nobody is left, the path is forgotten.
    pub(super) fn change<T>(mut self, change: impl FnOnce(&mut Audience, &mut Slab<Crowd>) -> T) -> T {
        let Shard { index, entries, crowds } = &mut *self.shard;
        let Some(entry) = entries.get_mut(self.local) else {
            return change(&mut Audience::Nobody, crowds);
        };
        let outcome = change(&mut entry.audience, crowds);
        if entry.audience.is_nobody()
            && let Some(entry) = entries.remove(self.local)
        {
            if let Ok(found) = index.find_entry(self.hash, |local| *local == self.local) {
                found.remove();
            }
            self.paths.prefixes.leave(entry.prefix);
            if index.is_empty() && index.capacity() > SPARE {
                // What a burst has taken is given back.
                *index = HashTable::new();
            }
        }
        outcome
    }
}

impl Entry {
    fn is_at(&self, path: &str) -> bool {
        let rest = path.as_bytes().strip_suffix(self.name.bytes());
        rest.is_some_and(|rest| *rest == *self.prefix)
    }

    /// The whole path, on the stack if it is of ordinary length.
    fn path(&self) -> SmallVec<[u8; 128]> {
        let mut path = SmallVec::from_slice(&self.prefix);
        path.extend_from_slice(self.name.bytes());
        path
    }
}

impl Name {
    fn new(name: &[u8]) -> Name {
        match u8::try_from(name.len()) {
            Ok(length) if name.len() <= SHORT_NAME_BYTES => {
                let mut bytes = [0; SHORT_NAME_BYTES];
                bytes[..name.len()].copy_from_slice(name);
                Name::Short { length, bytes }
            }
            _ => Name::Long(name.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Name::Short { length, bytes } => &bytes[..usize::from(*length)],
            Name::Long(name) => name,
        }
    }
}

/// The path up to its last slash, and the rest. A watch may stand on anything that a client calls a path.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_path_takes_40_bytes() {
        assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>()), (40, 40));
    }

    #[test]
    fn whatever_a_client_calls_a_path_is_kept() {
        let long = format!("/{}", "n".repeat(300));
        for path in ["/", "", "/a", "/a/b", "a", "a/b", "/a/", "//", "/a//b", "/ä/ö", &long] {
            let (prefix, name) = split(path);
            assert_eq!([prefix, name].concat(), path);
            assert_eq!(Name::new(name.as_bytes()).bytes(), name.as_bytes());
        }
    }
}
