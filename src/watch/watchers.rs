//! Who watches, by number, and the paths of each: so that a connection's end is cheap.

use super::WatcherId;
use super::audience::WatcherNumber;
use super::numbers::Numbers;
use super::slab::Slab;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use std::hash::BuildHasher;

/// Parts that are locked one by one.
const SHARDS: u32 = 16;

/// Watchers that an empty part keeps room for.
const SPARE: usize = 256;

/// All watchers.
#[derive(Default)]
pub(super) struct Watchers {
    shards: [Mutex<Shard>; SHARDS as usize],
}

/// Those whose ids leave the same remainder.
#[derive(Default)]
pub(super) struct Shard {
    by_id: HashTable<u32>,
    watchers: Slab<Watcher>,
    random: RandomState,
}

/// A connection that watches something.
struct Watcher {
    id: WatcherId,
    /// The numbers of the paths at which it has an entry: never empty.
    paths: Numbers,
}

impl Watchers {
    /// The part that `id` belongs to.
    pub(super) fn of_id(&self, id: WatcherId) -> MutexGuard<'_, Shard> {
        self.shards[(id.0 % u64::from(SHARDS)) as usize].lock()
    }

    /// Calls `visit` with a watcher, which has an entry, so that its number is good.
    fn with<T>(&self, watcher: WatcherNumber, visit: impl FnOnce(&mut Shard, u32) -> T) -> T {
        let mut shard = self.shards[(watcher.0 % SHARDS) as usize].lock();
        visit(&mut shard, watcher.0 / SHARDS)
    }

    /// Whose number it is. The caller holds the lock of an entry of this watcher.
    pub(super) fn id(&self, watcher: WatcherNumber) -> Option<WatcherId> {
        self.with(watcher, |shard, local| Some(shard.watchers.get(local)?.id))
    }

    /// The watcher has no entry at `path` any more; gives its id. The caller holds the lock of the entry.
    pub(super) fn left(&self, watcher: WatcherNumber, path: u32) -> Option<WatcherId> {
        self.with(watcher, |shard, local| shard.left(local, path))
    }

    /// Some of the paths at which `id` has an entry.
    pub(super) fn some_paths(&self, id: WatcherId, limit: usize) -> Vec<u32> {
        let shard = self.of_id(id);
        let watcher = shard.find(id).and_then(|local| shard.watchers.get(local));
        watcher.map_or_else(Vec::new, |watcher| watcher.paths.some(limit))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().watchers.is_empty())
    }
}

impl Shard {
    fn find(&self, id: WatcherId) -> Option<u32> {
        let same = |local: &u32| self.watchers.get(*local).is_some_and(|watcher| watcher.id == id);
        self.by_id.find(self.random.hash_one(id), same).copied()
    }

    /// The number of `id`, if it watches anything.
    pub(super) fn number(&self, id: WatcherId) -> Option<WatcherNumber> {
        self.find(id).map(|local| number(id, local))
    }

    /// At how many paths `id` has an entry.
    pub(super) fn paths_of(&self, watcher: WatcherNumber) -> usize {
        let watcher = self.watchers.get(watcher.0 / SHARDS);
        watcher.map_or(0, |watcher| watcher.paths.len())
    }

    /// Takes `id` in, which has no number yet; `None`: there are no more numbers.
    pub(super) fn enter(&mut self, id: WatcherId) -> Option<WatcherNumber> {
        let watcher = Watcher {
            id,
            paths: Numbers::default(),
        };
        let local = self.watchers.insert(watcher, WatcherNumber::LIMIT / SHARDS).ok()?;
        let (watchers, random) = (&self.watchers, &self.random);
        let hash = |local: &u32| {
            let id = watchers.get(*local).map_or(WatcherId(0), |watcher| watcher.id);
            random.hash_one(id)
        };
        self.by_id.insert_unique(random.hash_one(id), local, hash);
        Some(number(id, local))
    }

    /// The watcher has an entry at `path` from now on.
    pub(super) fn joined(&mut self, watcher: WatcherNumber, path: u32) {
        if let Some(watcher) = self.watchers.get_mut(watcher.0 / SHARDS) {
            watcher.paths.insert(path);
        }
    }

    /// And has none any more.
    pub(super) fn parted(&mut self, watcher: WatcherNumber, path: u32) {
        self.left(watcher.0 / SHARDS, path);
    }

    fn left(&mut self, local: u32, path: u32) -> Option<WatcherId> {
        let watcher = self.watchers.get_mut(local)?;
        let id = watcher.id;
        watcher.paths.remove(path);
        if watcher.paths.is_empty() {
            self.watchers.remove(local);
            let found = self.by_id.find_entry(self.random.hash_one(id), |other| *other == local);
            if let Ok(entry) = found {
                entry.remove();
            }
            if self.watchers.is_empty() && self.by_id.capacity() > SPARE {
                // What a burst has taken is given back.
                self.by_id = HashTable::new();
            }
        }
        Some(id)
    }
}

fn number(id: WatcherId, local: u32) -> WatcherNumber {
    WatcherNumber(local * SHARDS + (id.0 % u64::from(SHARDS)) as u32)
}
