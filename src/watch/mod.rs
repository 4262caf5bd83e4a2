//! The local watch tables: register, fire, remove. One server's affair, never replicated.
//!
//! Two tables, as in ZooKeeper: the data table (exists and getData watches, persistent and recursive ones) and the child
//! table (getChildren watches, and persistent ones again). Within a table, one watcher has one entry per path, holding
//! the modes in which it watches: so one trigger gives it one event, however often it registered.
//!
//! | change | data table | child table |
//! |---|---|---|
//! | `/a/b` created | Created at `/a/b`, and to recursive watches of it and of every ancestor | ChildrenChanged at `/a` |
//! | data set | DataChanged, likewise | – |
//! | deleted | Deleted, likewise | Deleted at `/a/b`, for those not told yet; ChildrenChanged at `/a` |
//!
//! Invariants:
//! - A one-shot watch is gone once it has fired; persistent ones stay until they are removed or their watcher goes.
//! - `by_watcher` names exactly the paths at which a watcher has an entry, so that a connection's end is cheap.
//! - No lock of one map is held while another is touched.
//!
//! The tables are shared: registrations come from many connections at once (each under the shared side of the state's
//! lock), firing from the applier alone (under the exclusive side). That lock gives the order that the promises
//! EventBeforeData and WatchComplete need; the tables' own locks only keep them whole.
//!
//! Left out on purpose: ACLs (checked by whoever delivers), encoding, and memory of what was fired.
//!
//! Source: Apache's `WatchManager`, `DataTree`.

mod table;

use crate::proto::EventKind;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::Arc;
use table::{Modes, Table};

/// Who watches: one connection of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// The kinds of watch that a request can register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// One event, by exists or getData.
    Data,
    /// One event, by getChildren.
    Child,
    /// Every event of this znode, by addWatch.
    Persistent,
    /// Every event of this znode and all below it, by addWatch.
    PersistentRecursive,
}

/// The kinds of watch that checkWatches and removeWatches name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchSelector {
    /// Every kind in both tables.
    Any,
    /// One kind.
    Only(WatchKind),
}

impl WatchSelector {
    /// The selector with this number on the wire (Apache's `WatcherType`).
    pub fn from_wire(kind: i32) -> Option<WatchSelector> {
        Some(match kind {
            1 => WatchSelector::Only(WatchKind::Child),
            2 => WatchSelector::Only(WatchKind::Data),
            3 => WatchSelector::Any,
            4 => WatchSelector::Only(WatchKind::Persistent),
            5 => WatchSelector::Only(WatchKind::PersistentRecursive),
            _ => return None,
        })
    }
}

/// A watch would exceed a limit; the request that wanted it fails, and nothing was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyWatches {
    /// `maxWatchesPerConnection`.
    #[error("the connection has as many watches as it may")]
    OfConnection,
    /// `maxWatchesPerZnode`.
    #[error("the znode has as many watches as it may")]
    OfZnode,
}

/// Limits on watches; 0 is none, as in ZooKeeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchLimits {
    /// Paths that one connection may watch.
    pub per_connection: usize,
    /// Connections that may watch one path, per table.
    pub per_znode: usize,
}

/// Numbers for the `wchs` command and the metrics. Of the data table only, as ZooKeeper tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Connections that watch anything.
    pub connections: usize,
    /// Paths that are watched.
    pub paths: usize,
    /// Watches: pairs of connection and path.
    pub watches: usize,
}

/// What a watcher has at one path, in either table.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    data: bool,
    child: bool,
}

/// Both tables.
#[derive(Default)]
pub struct Watches {
    data: Table,
    child: Table,
    by_watcher: DashMap<WatcherId, HashMap<Arc<str>, Held, RandomState>, RandomState>,
    limits: WatchLimits,
}

impl Watches {
    /// Empty tables.
    pub fn new(limits: WatchLimits) -> Watches {
        Watches {
            limits,
            ..Watches::default()
        }
    }

    /// Registers a watch; registering it again changes nothing.
    pub fn add(&self, watcher: WatcherId, path: &str, kind: WatchKind) -> Result<(), TooManyWatches> {
        let (data, child) = match kind {
            WatchKind::Data => (Some(Modes::ONE_SHOT), None),
            WatchKind::Child => (None, Some(Modes::ONE_SHOT)),
            WatchKind::Persistent => (Some(Modes::PERSISTENT), Some(Modes::PERSISTENT)),
            WatchKind::PersistentRecursive => (Some(Modes::RECURSIVE), None),
        };
        self.check_limits(watcher, path, data.is_some(), child.is_some())?;
        let path: Arc<str> = path.into();
        if let Some(modes) = data {
            self.data.add(&path, watcher, modes);
        }
        if let Some(modes) = child {
            self.child.add(&path, watcher, modes);
        }
        let mut paths = self.by_watcher.entry(watcher).or_default();
        let held = paths.entry(path).or_default();
        held.data |= data.is_some();
        held.child |= child.is_some();
        Ok(())
    }

    fn check_limits(&self, watcher: WatcherId, path: &str, data: bool, child: bool) -> Result<(), TooManyWatches> {
        if self.limits.per_connection > 0
            && let Some(paths) = self.by_watcher.get(&watcher)
            && paths.len() >= self.limits.per_connection
            && !paths.contains_key(path)
        {
            return Err(TooManyWatches::OfConnection);
        }
        let full = |table: &Table| self.limits.per_znode > 0 && table.is_full_for(path, watcher, self.limits.per_znode);
        if (data && full(&self.data)) || (child && full(&self.child)) {
            return Err(TooManyWatches::OfZnode);
        }
        Ok(())
    }

    /// Whether such a watch is registered.
    pub fn contains(&self, watcher: WatcherId, path: &str, selector: WatchSelector) -> bool {
        let (table, modes) = match selector {
            WatchSelector::Any => return self.data.modes(path, watcher).any() || self.child.modes(path, watcher).any(),
            WatchSelector::Only(WatchKind::Child) => (&self.child, Modes::ONE_SHOT),
            WatchSelector::Only(WatchKind::Data) => (&self.data, Modes::ONE_SHOT),
            WatchSelector::Only(WatchKind::Persistent) => (&self.data, Modes::PERSISTENT),
            WatchSelector::Only(WatchKind::PersistentRecursive) => (&self.data, Modes::RECURSIVE),
        };
        table.modes(path, watcher).has(modes)
    }

    /// Removes such watches, and no others at the same path; returns whether there were any.
    pub fn remove(&self, watcher: WatcherId, path: &str, selector: WatchSelector) -> bool {
        let (data, child) = match selector {
            WatchSelector::Any => (Modes::ALL, Modes::ALL),
            WatchSelector::Only(WatchKind::Child) => (Modes::NONE, Modes::ONE_SHOT),
            WatchSelector::Only(WatchKind::Data) => (Modes::ONE_SHOT, Modes::NONE),
            WatchSelector::Only(WatchKind::Persistent) => (Modes::PERSISTENT, Modes::PERSISTENT),
            WatchSelector::Only(WatchKind::PersistentRecursive) => (Modes::RECURSIVE, Modes::NONE),
        };
        let from_data = self.data.remove(path, watcher, data);
        let from_child = self.child.remove(path, watcher, child);
        self.forget(watcher, path, !from_data.left.any(), !from_child.left.any());
        from_data.removed.any() || from_child.removed.any()
    }

    /// Removes all watches of a connection that has ended.
    pub fn remove_watcher(&self, watcher: WatcherId) {
        let Some((_, paths)) = self.by_watcher.remove(&watcher) else {
            return;
        };
        for (path, held) in paths {
            if held.data {
                self.data.remove(&path, watcher, Modes::ALL);
            }
            if held.child {
                self.child.remove(&path, watcher, Modes::ALL);
            }
        }
    }

    /// Fires the watches of a znode's creation; `deliver` is called once per watcher and event.
    pub fn fire_created(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        self.fire_data(path, EventKind::Created, deliver);
        self.fire_child(parent_of(path), EventKind::ChildrenChanged, &[], deliver);
    }

    /// Fires the watches of a znode whose data was set.
    pub fn fire_data_changed(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        self.fire_data(path, EventKind::DataChanged, deliver);
    }

    /// Fires the watches of a znode's deletion.
    pub fn fire_deleted(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        let mut told = self.fire_data(path, EventKind::Deleted, deliver);
        told.sort_unstable();
        self.fire_child(path, EventKind::Deleted, &told, deliver);
        self.fire_child(parent_of(path), EventKind::ChildrenChanged, &[], deliver);
    }

    fn fire_data(
        &self,
        path: &str,
        kind: EventKind,
        deliver: &mut dyn FnMut(WatcherId, EventKind, &str),
    ) -> Vec<WatcherId> {
        let fired = self.data.fire(path);
        for watcher in &fired.spent {
            self.forget(*watcher, path, true, false);
        }
        let mut told = fired.watchers;
        if self.data.has_recursive() {
            let mut ancestor = path;
            while ancestor != "/" {
                ancestor = parent_of(ancestor);
                self.data.recursive_watchers(ancestor, &mut told);
            }
            told.sort_unstable();
            told.dedup();
        }
        for watcher in &told {
            deliver(*watcher, kind, path);
        }
        told
    }

    fn fire_child(
        &self,
        path: &str,
        kind: EventKind,
        told_sorted: &[WatcherId],
        deliver: &mut dyn FnMut(WatcherId, EventKind, &str),
    ) {
        let fired = self.child.fire(path);
        for watcher in &fired.spent {
            self.forget(*watcher, path, false, true);
        }
        for watcher in fired
            .watchers
            .iter()
            .filter(|watcher| told_sorted.binary_search(watcher).is_err())
        {
            deliver(*watcher, kind, path);
        }
    }

    /// Keeps `by_watcher` true after entries have gone.
    fn forget(&self, watcher: WatcherId, path: &str, data: bool, child: bool) {
        let Some(mut paths) = self.by_watcher.get_mut(&watcher) else {
            return;
        };
        let Some(held) = paths.get_mut(path) else { return };
        held.data &= !data;
        held.child &= !child;
        if !held.data && !held.child {
            paths.remove(path);
        }
        let empty = paths.is_empty();
        drop(paths);
        if empty {
            self.by_watcher.remove_if(&watcher, |_, paths| paths.is_empty());
        }
    }

    /// Numbers for `wchs`. Walks the data table: for operators, not for the request path.
    pub fn counts(&self) -> WatchCounts {
        let mut connections = hashbrown::HashSet::<WatcherId, RandomState>::default();
        let mut counts = WatchCounts::default();
        self.data.for_each(|_, watcher| {
            connections.insert(watcher);
            counts.watches += 1;
        });
        counts.paths = self.data.paths();
        counts.connections = connections.len();
        counts
    }

    /// How many watches there are in both tables, in constant time.
    pub fn len(&self) -> usize {
        self.data.len() + self.child.len()
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with every watcher and path of the data table, in no order: for `wchc` and `wchp`.
    pub fn for_each(&self, visit: impl FnMut(&str, WatcherId)) {
        self.data.for_each(visit);
    }
}

/// The parent's path; the root is its own.
fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

#[cfg(test)]
mod tests;
