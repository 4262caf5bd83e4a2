//! One table: path → who watches it, in which modes.

use super::WatcherId;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Up to so many watchers of a path stand in a list that is searched; beyond, in a hash table, so that fifty thousand
/// connections that watch one path can each leave it in constant time.
const LIST_LIMIT: usize = 16;

/// In which modes a watcher watches a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes(u8);

impl Modes {
    pub(super) const NONE: Modes = Modes(0);
    pub(super) const ONE_SHOT: Modes = Modes(1);
    pub(super) const PERSISTENT: Modes = Modes(2);
    pub(super) const RECURSIVE: Modes = Modes(4);
    pub(super) const ALL: Modes = Modes(7);

    pub(super) fn any(self) -> bool {
        self.0 != 0
    }
    pub(super) fn has(self, modes: Modes) -> bool {
        self.0 & modes.0 != 0
    }
    fn with(self, modes: Modes) -> Modes {
        Modes(self.0 | modes.0)
    }
    fn without(self, modes: Modes) -> Modes {
        Modes(self.0 & !modes.0)
    }
}

/// What a removal took and what it left.
pub(super) struct Removal {
    pub(super) removed: Modes,
    pub(super) left: Modes,
}

/// Whom a trigger reached.
#[derive(Default)]
pub(super) struct Fired {
    /// All watchers of the path.
    pub(super) watchers: Vec<WatcherId>,
    /// Those of them that have no entry left, since their watch was a one-shot.
    pub(super) spent: Vec<WatcherId>,
}

/// The watchers of one path.
enum Watchers {
    List(SmallVec<[(WatcherId, Modes); 1]>),
    Hashed(HashMap<WatcherId, Modes, RandomState>),
}

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers::List(SmallVec::new())
    }
}

impl Watchers {
    fn get(&self, watcher: WatcherId) -> Modes {
        match self {
            Watchers::List(list) => list
                .iter()
                .find(|(id, _)| *id == watcher)
                .map_or(Modes::NONE, |(_, modes)| *modes),
            Watchers::Hashed(table) => table.get(&watcher).copied().unwrap_or_default(),
        }
    }

    fn set(&mut self, watcher: WatcherId, modes: Modes) {
        match self {
            Watchers::Hashed(table) => {
                table.insert(watcher, modes);
            }
            Watchers::List(list) => {
                if let Some((_, held)) = list.iter_mut().find(|(id, _)| *id == watcher) {
                    *held = modes;
                } else if list.len() < LIST_LIMIT {
                    list.push((watcher, modes));
                } else {
                    let mut table: HashMap<_, _, RandomState> = list.drain(..).collect();
                    table.insert(watcher, modes);
                    *self = Watchers::Hashed(table);
                }
            }
        }
    }

    fn unset(&mut self, watcher: WatcherId) {
        match self {
            Watchers::List(list) => list.retain(|(id, _)| *id != watcher),
            Watchers::Hashed(table) => {
                table.remove(&watcher);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Watchers::List(list) => list.len(),
            Watchers::Hashed(table) => table.len(),
        }
    }

    fn for_each(&self, mut visit: impl FnMut(WatcherId, Modes)) {
        match self {
            Watchers::List(list) => list.iter().for_each(|(watcher, modes)| visit(*watcher, *modes)),
            Watchers::Hashed(table) => table.iter().for_each(|(watcher, modes)| visit(*watcher, *modes)),
        }
    }

    /// Takes the one-shot mode from everybody.
    fn fire(&mut self, fired: &mut Fired) {
        let mut keep = |watcher: WatcherId, modes: &mut Modes| {
            fired.watchers.push(watcher);
            *modes = modes.without(Modes::ONE_SHOT);
            if !modes.any() {
                fired.spent.push(watcher);
            }
            modes.any()
        };
        match self {
            Watchers::List(list) => list.retain(|(watcher, modes)| keep(*watcher, modes)),
            Watchers::Hashed(table) => table.retain(|watcher, modes| keep(*watcher, modes)),
        }
    }
}

/// Path → watchers, shared.
#[derive(Default)]
pub(super) struct Table {
    paths: DashMap<Arc<str>, Watchers, RandomState>,
    /// Entries in all: pairs of path and watcher.
    entries: AtomicUsize,
    /// Entries with the recursive mode: while there are none, firing need not walk up to the root.
    recursive: AtomicUsize,
}

impl Table {
    pub(super) fn add(&self, path: &Arc<str>, watcher: WatcherId, modes: Modes) {
        let mut watchers = self.paths.entry(path.clone()).or_default();
        let held = watchers.get(watcher);
        watchers.set(watcher, held.with(modes));
        if !held.any() {
            self.entries.fetch_add(1, Ordering::Relaxed);
        }
        if modes.has(Modes::RECURSIVE) && !held.has(Modes::RECURSIVE) {
            self.recursive.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn modes(&self, path: &str, watcher: WatcherId) -> Modes {
        self.paths
            .get(path)
            .map_or(Modes::NONE, |watchers| watchers.get(watcher))
    }

    pub(super) fn is_full_for(&self, path: &str, watcher: WatcherId, limit: usize) -> bool {
        self.paths
            .get(path)
            .is_some_and(|watchers| watchers.len() >= limit && !watchers.get(watcher).any())
    }

    pub(super) fn remove(&self, path: &str, watcher: WatcherId, modes: Modes) -> Removal {
        let Some(mut watchers) = self.paths.get_mut(path) else {
            return Removal {
                removed: Modes::NONE,
                left: Modes::NONE,
            };
        };
        let held = watchers.get(watcher);
        let removed = Modes(held.0 & modes.0);
        let left = held.without(modes);
        if removed.any() {
            if left.any() {
                watchers.set(watcher, left);
            } else {
                watchers.unset(watcher);
                self.entries.fetch_sub(1, Ordering::Relaxed);
            }
            if removed.has(Modes::RECURSIVE) {
                self.recursive.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let empty = watchers.len() == 0;
        drop(watchers);
        if empty {
            self.paths.remove_if(path, |_, watchers| watchers.len() == 0);
        }
        Removal { removed, left }
    }

    pub(super) fn fire(&self, path: &str) -> Fired {
        let mut fired = Fired::default();
        let Some(mut watchers) = self.paths.get_mut(path) else {
            return fired;
        };
        watchers.fire(&mut fired);
        let empty = watchers.len() == 0;
        drop(watchers);
        self.entries.fetch_sub(fired.spent.len(), Ordering::Relaxed);
        if empty {
            self.paths.remove_if(path, |_, watchers| watchers.len() == 0);
        }
        fired
    }

    pub(super) fn has_recursive(&self) -> bool {
        self.recursive.load(Ordering::Relaxed) > 0
    }

    pub(super) fn recursive_watchers(&self, path: &str, found: &mut Vec<WatcherId>) {
        let Some(watchers) = self.paths.get(path) else { return };
        watchers.for_each(|watcher, modes| {
            if modes.has(Modes::RECURSIVE) {
                found.push(watcher);
            }
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(super) fn paths(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&str, WatcherId)) {
        for entry in &self.paths {
            entry.value().for_each(|watcher, _| visit(entry.key(), watcher));
        }
    }
}
