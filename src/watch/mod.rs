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
//! Both tables are kept as one: a watched path has one entry, with the modes of each watcher in both.
//!
//! ```text
//!   text of a path ──▶ paths: entry by number ──▶ audience: numbers of watchers, with their modes
//!                                  ▲                            │
//!                                  └──── paths of each ◀── watchers ──▶ connection
//! ```
//!
//! Invariants:
//! - A one-shot watch is gone once it has fired; persistent ones stay until they are removed or their watcher goes.
//! - An audience names a watcher if and only if the watcher's paths name the entry: both change under the entry's lock. So a
//!   connection's end is cheap, and a number that an audience names is good as long as the entry is locked.
//! - Locks are taken in this order: an entry's part, then a part of the watchers or of the prefixes. None is held while an
//!   event is delivered.
//! - A watch alone on its path takes at most 64 bytes, one among a thousand at most 10, all in.
//!
//! The tables are shared: registrations come from many connections at once (each under the shared side of the state's
//! lock), firing from the applier alone (under the exclusive side). That lock gives the order that the promises
//! EventBeforeData and WatchComplete need; the tables' own locks only keep them whole.
//!
//! Left out on purpose: ACLs (checked by whoever delivers), encoding, and memory of what was fired.
//!
//! Source: Apache's `WatchManager`, `DataTree`.

mod audience;
mod modes;
mod numbers;
mod paths;
mod prefixes;
mod slab;
mod watchers;

use crate::proto::EventKind;
use audience::{Audience, Crowd};
use modes::Modes;
use paths::{Found, Paths};
use roaring::RoaringBitmap;
use slab::Slab;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use watchers::Watchers;

/// Paths of a connection that has ended that are left at one go: in between, others get at the watchers.
const LEFT_AT_ONCE: usize = 1024;

/// Those whom a trigger reached: mostly one.
type Told = SmallVec<[WatcherId; 8]>;

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
    /// Four billion paths, or 268 million connections that watch: there is no memory for so many.
    #[error("the server has as many watches as it can number")]
    OfServer,
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

/// Both tables.
#[derive(Default)]
pub struct Watches {
    paths: Paths,
    watchers: Watchers,
    limits: WatchLimits,
    /// Triples of table, path and watcher.
    entries: AtomicUsize,
    /// Recursive watches: while there are none, firing need not walk up to the root.
    recursive: AtomicUsize,
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
        let wanted = Modes::of(kind);
        let place = self.paths.place(path);
        let mut watchers = self.watchers.of_id(watcher);
        let known = watchers.number(watcher);
        let (found, held) = match place.find() {
            Ok(found) => {
                let held = known.map_or(Modes::NONE, |number| {
                    found.look(|audience, crowds| audience.modes(number, crowds))
                });
                if held.within(wanted) == wanted {
                    return Ok(());
                }
                self.check_znode(&found, wanted, held)?;
                (Ok(found), held)
            }
            Err(place) => (Err(place), Modes::NONE),
        };
        let limit = self.limits.per_connection;
        if limit > 0 && held.is_empty() && known.is_some_and(|number| watchers.paths_of(number) >= limit) {
            return Err(TooManyWatches::OfConnection);
        }
        let found = match found {
            Ok(found) => found,
            Err(place) => place.make().ok_or(TooManyWatches::OfServer)?,
        };
        let Some(number) = known.or_else(|| watchers.enter(watcher)) else {
            found.change(|_, _| ());
            return Err(TooManyWatches::OfServer);
        };
        watchers.joined(number, found.number());
        let modes = held.and(wanted);
        found.change(|audience, crowds| audience.set(number, modes, crowds));
        self.entries.fetch_add(modes.tables() - held.tables(), Relaxed);
        if wanted.has(Modes::RECURSIVE) {
            self.recursive.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn check_znode(&self, found: &Found<'_>, wanted: Modes, held: Modes) -> Result<(), TooManyWatches> {
        let limit = self.limits.per_znode;
        let is_full = |table: Modes| {
            let joins = wanted.has(table) && !held.has(table);
            joins && found.look(|audience, crowds| audience.count(table, crowds)) >= limit
        };
        if limit > 0 && (is_full(Modes::DATA_TABLE) || is_full(Modes::CHILD_TABLE)) {
            return Err(TooManyWatches::OfZnode);
        }
        Ok(())
    }

    /// Whether such a watch is registered.
    pub fn contains(&self, watcher: WatcherId, path: &str, selector: WatchSelector) -> bool {
        let Some(found) = self.paths.find(path) else {
            return false;
        };
        let Some(number) = self.watchers.of_id(watcher).number(watcher) else {
            return false;
        };
        found
            .look(|audience, crowds| audience.modes(number, crowds))
            .has(Modes::selected(selector))
    }

    /// Removes such watches, and no others at the same path; returns whether there were any.
    pub fn remove(&self, watcher: WatcherId, path: &str, selector: WatchSelector) -> bool {
        let Some(found) = self.paths.find(path) else {
            return false;
        };
        self.remove_at(found, watcher, Modes::selected(selector))
    }

    /// Removes all watches of a connection that has ended: it registers none any more.
    pub fn remove_watcher(&self, watcher: WatcherId) {
        loop {
            let paths = self.watchers.some_paths(watcher, LEFT_AT_ONCE);
            if paths.is_empty() {
                return;
            }
            for path in paths {
                // If it is not there, or another one by now, it has fired meanwhile.
                if let Some(found) = self.paths.by_number(path) {
                    self.remove_at(found, watcher, Modes::ALL);
                }
            }
        }
    }

    fn remove_at(&self, found: Found<'_>, watcher: WatcherId, selected: Modes) -> bool {
        let path = found.number();
        let mut watchers = self.watchers.of_id(watcher);
        let Some(number) = watchers.number(watcher) else {
            return false;
        };
        let (held, left) = found.change(|audience, crowds| {
            let held = audience.modes(number, crowds);
            let left = held.without(selected);
            if left != held {
                audience.set(number, left, crowds);
            }
            (held, left)
        });
        if left == held {
            return false;
        }
        if left.is_empty() {
            watchers.parted(number, path);
        }
        self.entries.fetch_sub(held.tables() - left.tables(), Relaxed);
        if held.without(left).has(Modes::RECURSIVE) {
            self.recursive.fetch_sub(1, Relaxed);
        }
        true
    }

    /// Fires the watches of a znode's creation; `deliver` is called once per watcher and event.
    pub fn fire_created(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        self.fire(path, Modes::DATA_TABLE, EventKind::Created, deliver);
        self.fire(parent_of(path), Modes::CHILD_TABLE, EventKind::ChildrenChanged, deliver);
    }

    /// Fires the watches of a znode whose data was set.
    pub fn fire_data_changed(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        self.fire(path, Modes::DATA_TABLE, EventKind::DataChanged, deliver);
    }

    /// Fires the watches of a znode's deletion.
    pub fn fire_deleted(&self, path: &str, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        self.fire(path, Modes::ALL, EventKind::Deleted, deliver);
        self.fire(parent_of(path), Modes::CHILD_TABLE, EventKind::ChildrenChanged, deliver);
    }

    /// Fires the watches of `path` among `among`; where the data table is part of that, the recursive ones above it too.
    fn fire(&self, path: &str, among: Modes, kind: EventKind, deliver: &mut dyn FnMut(WatcherId, EventKind, &str)) {
        if self.is_empty() {
            return;
        }
        let mut told = Told::new();
        if let Some(found) = self.paths.find(path) {
            self.spend(found, among, &mut told);
        }
        if among.has(Modes::RECURSIVE) && self.recursive.load(Relaxed) > 0 {
            let mut ancestor = path;
            while ancestor != "/" {
                ancestor = parent_of(ancestor);
                if let Some(found) = self.paths.find(ancestor) {
                    found.look(|audience, crowds| self.note(audience, crowds, Modes::RECURSIVE, &mut told));
                }
            }
            told.sort_unstable();
            told.dedup();
        }
        for watcher in told {
            deliver(watcher, kind, path);
        }
    }

    /// Notes who watches in any of `among`, and takes the one-shot modes from them.
    fn spend(&self, found: Found<'_>, among: Modes, told: &mut Told) {
        let path = found.number();
        let gone = found.change(|audience, crowds| {
            let before = entries(audience, crowds);
            audience.fire(among, crowds, |watcher, left| {
                told.extend(if left.is_empty() {
                    self.watchers.left(watcher, path)
                } else {
                    self.watchers.id(watcher)
                });
            });
            before - entries(audience, crowds)
        });
        self.entries.fetch_sub(gone, Relaxed);
    }

    fn note(&self, audience: &Audience, crowds: &Slab<Crowd>, among: Modes, told: &mut Told) {
        audience.for_each(among, crowds, |watcher| told.extend(self.watchers.id(watcher)));
    }

    /// Numbers for `wchs`. Walks the data table: for operators, not for the request path.
    pub fn counts(&self) -> WatchCounts {
        let mut connections = RoaringBitmap::new();
        let mut counts = WatchCounts::default();
        self.paths.for_each(|_, audience, crowds| {
            let watches = audience.count(Modes::DATA_TABLE, crowds);
            counts.watches += watches;
            counts.paths += usize::from(watches > 0);
            audience.for_each(Modes::DATA_TABLE, crowds, |watcher| {
                connections.insert(watcher.0);
            });
        });
        counts.connections = usize::try_from(connections.len()).unwrap_or(usize::MAX);
        counts
    }

    /// How many watches there are in both tables, in constant time.
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with every watcher and path of the data table, in no order: for `wchc` and `wchp`.
    pub fn for_each(&self, mut visit: impl FnMut(&str, WatcherId)) {
        let mut found = Told::new();
        self.paths.for_each(|path, audience, crowds| {
            self.note(audience, crowds, Modes::DATA_TABLE, &mut found);
            found.drain(..).for_each(|watcher| visit(path, watcher));
        });
    }
}

/// In both tables.
fn entries(audience: &Audience, crowds: &Slab<Crowd>) -> usize {
    audience.count(Modes::DATA_TABLE, crowds) + audience.count(Modes::CHILD_TABLE, crowds)
}

/// The parent's path; the root is its own.
fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
