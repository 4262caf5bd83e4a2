//! Serving while the tree is still being read: a thread reads the groups that a start has left on the disk, and those out
//! of turn that somebody waits for.
//!
//! ```text
//!   loader     next slice ─▶ state ─ next slice ─▶ state ─ …          all are read ─▶ compared with what was stored
//!                 ▲ between two slices: what reads wish for
//!   connection    └─ a read that lacks a group stays at the front of its pipeline, parked, until the group is there
//!   applier    what the next commands lack ─▶ brought by itself, before it takes the state for itself
//! ```
//!
//! Invariants:
//! - Whoever brings a group holds [`Loading`]'s lock from before it is read until it is whole, so that no two bring the
//!   same; the loader gives it up after each slice. It is taken before the state's.
//! - One hold of the state is bounded by a slice. While a large group comes in slices, nobody finds anything in it.
//! - Once a snapshot takes the place of the state, nothing is brought into that.
//!
//! Left out on purpose: a limit on how often groups come out of turn. Each comes once, so that all of it takes at most
//! twice as long as reading them in order.

use super::Failure;
use super::inbox::Inbox;
use super::recorded;
use super::shared::Shared;
use super::store::{StoreInput, from_stored};
use crate::state_machine::{ConnectionId, Missing, NodeRecord, State, Value};
use crate::storage::tree::{StoredChild, StoredGroups};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Znodes that are put into the state under one hold: about a quarter of a millisecond.
pub(super) const SLICE_NODES: usize = 512;
/// Marks that are cleared under one hold when all is read.
const MARKS_PER_HOLD: usize = 4096;

/// A stored znode below its parent: its name, and what is stored of it.
pub(super) type StoredNode = (Bytes, NodeRecord);

/// Some stored children of one znode.
pub(super) struct Piece {
    pub(super) parent: Bytes,
    pub(super) children: Vec<StoredNode>,
    /// Whether those are the last.
    pub(super) is_last: bool,
}

/// Takes some children of a znode, and whether those are the last.
pub(super) type Bring<'a> = dyn FnMut(Vec<StoredNode>, bool) -> Result<(), Failure> + 'a;

/// The groups of a tree as it was stored when the server started.
pub(super) trait Groups: Send {
    /// The next znodes in the order of their keys, at most `most`; none at the end.
    fn next(&mut self, most: usize) -> Result<Vec<Piece>, Failure>;

    /// Gives all children of one znode to `bring`, at most `most` at a time, and whether those are the last: once at least.
    fn children(&mut self, parent: &[u8], most: usize, bring: &mut Bring<'_>) -> Result<(), Failure>;

    /// All of them were read.
    fn end(self: Box<Self>);
}

/// Those of the keyspace.
pub(super) struct KeyspaceGroups {
    pub(super) groups: StoredGroups,
    pub(super) store: Arc<Inbox<StoreInput>>,
}

fn node(child: StoredChild) -> StoredNode {
    let stat = from_stored(&child.stat);
    let data = child.data.as_deref().map(Value::from);
    (child.name, NodeRecord { stat, data })
}

impl Groups for KeyspaceGroups {
    fn next(&mut self, most: usize) -> Result<Vec<Piece>, Failure> {
        let pieces = self.groups.next(most)?.into_iter().map(|piece| Piece {
            parent: piece.parent,
            children: piece.children.into_iter().map(node).collect(),
            is_last: piece.is_last,
        });
        Ok(pieces.collect())
    }

    fn children(&mut self, parent: &[u8], most: usize, bring: &mut Bring<'_>) -> Result<(), Failure> {
        let mut below = self.groups.below(parent);
        let mut slice = self.groups.next_below(&mut below, most)?;
        loop {
            let following = self.groups.next_below(&mut below, most)?;
            let is_last = following.is_empty();
            bring(slice.into_iter().map(node).collect(), is_last)?;
            if is_last {
                return Ok(());
            }
            slice = following;
        }
    }

    fn end(self: Box<Self>) {
        // The store's thread owns what it is told of.
        self.store.push(StoreInput::GroupsRead(Box::new(self.groups)));
    }
}

/// What a read waits for.
struct Wish {
    missing: Missing,
    connection: ConnectionId,
}

/// What is still to be read, and who waits for it.
pub(super) struct Loading {
    reading: Mutex<Option<Reading>>,
    /// `None` once nobody brings anything any more.
    wishes: Mutex<Option<VecDeque<Wish>>>,
    is_under_way: AtomicBool,
    is_stopped: AtomicBool,
}

struct Reading {
    groups: Box<dyn Groups>,
    slice_nodes: usize,
    /// The group of which the last slice has brought a part.
    open: Option<Bytes>,
    is_read: bool,
    started: Instant,
}

impl Loading {
    /// Of these groups, or of none: all is in memory.
    pub(super) fn new(groups: Option<Box<dyn Groups>>, slice_nodes: usize) -> Loading {
        let is_under_way = groups.is_some();
        let reading = groups.map(|groups| Reading {
            groups,
            slice_nodes,
            open: None,
            is_read: false,
            started: Instant::now(),
        });
        Loading {
            wishes: Mutex::new(is_under_way.then(VecDeque::new)),
            reading: Mutex::new(reading),
            is_under_way: AtomicBool::new(is_under_way),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Whether something may still be absent.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    /// The server stops: what was not read need not be.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// The state is replaced by another one.
    pub(super) fn give_up(&self) {
        *self.reading.lock() = None;
        self.is_under_way.store(false, Ordering::Release);
    }

    /// A read of `connection` waits for what is missing. Says whether it will be woken; else all is there.
    pub(super) fn wish(&self, missing: Missing, connection: ConnectionId) -> bool {
        let mut wishes = self.wishes.lock();
        let Some(wishes) = &mut *wishes else { return false };
        wishes.push_back(Wish { missing, connection });
        true
    }

    /// Brings what is missing.
    pub(super) fn bring(&self, state: &RwLock<State>, missing: &Missing) -> Result<(), Failure> {
        if missing.is_everything() {
            while self.read_slice(state)? {}
            return Ok(());
        }
        missing.groups().try_for_each(|group| self.bring_group(state, group))
    }

    fn bring_group(&self, state: &RwLock<State>, parent: &[u8]) -> Result<(), Failure> {
        let mut guard = self.reading.lock();
        let Some(reading) = &mut *guard else { return Ok(()) };
        while reading.open.as_deref() == Some(parent) {
            reading.read_slice(state)?;
        }
        if state.read().lacks_children_of(parent) {
            let mut bring = |slice, is_last| Ok(state.write().bring(parent, slice, is_last)?);
            reading.groups.children(parent, reading.slice_nodes, &mut bring)?;
        }
        MutexGuard::unlock_fair(guard);
        Ok(())
    }

    /// Reads the next slice; says whether there may be more.
    pub(super) fn read_slice(&self, state: &RwLock<State>) -> Result<bool, Failure> {
        let mut guard = self.reading.lock();
        let Some(reading) = &mut *guard else { return Ok(false) };
        let is_done = reading.read_slice(state)?;
        if is_done && let Some(reading) = guard.take() {
            let (took, znodes) = (reading.started.elapsed(), state.read().nodes_in_memory());
            recorded::whole(took);
            tracing::info!(znodes, took_ms = took.as_millis(), "the whole tree is in memory");
            reading.groups.end();
            self.is_under_way.store(false, Ordering::Release);
        }
        MutexGuard::unlock_fair(guard);
        Ok(!is_done)
    }
}

impl Reading {
    /// Says whether that was the last.
    fn read_slice(&mut self, state: &RwLock<State>) -> Result<bool, Failure> {
        if self.is_read {
            return Ok(state.write().finish_loading(MARKS_PER_HOLD)?);
        }
        let pieces = self.groups.next(self.slice_nodes)?;
        self.is_read = pieces.is_empty();
        self.open = pieces
            .last()
            .filter(|piece| !piece.is_last)
            .map(|piece| piece.parent.clone());
        let mut state = state.write();
        for Piece {
            parent,
            children,
            is_last,
        } in pieces
        {
            state.bring(&parent, children, is_last)?;
        }
        Ok(false)
    }
}

/// Reads until all is in memory, nothing more is wanted, or the server stops.
pub(super) fn run(shared: &Shared) -> Result<(), Failure> {
    while turn(shared)? {
        if shared.loading.is_stopped.load(Ordering::Acquire) {
            return Ok(());
        }
    }
    Ok(())
}

/// Fulfils one wish, and reads a slice; says whether there is more to do.
pub(super) fn turn(shared: &Shared) -> Result<bool, Failure> {
    let loading = &shared.loading;
    let wish = loading.wishes.lock().as_mut().and_then(VecDeque::pop_front);
    match wish {
        Some(wish) if wish.missing.is_everything() => {
            // When its turn comes again it will be there, if nothing else is.
            if loading.read_slice(&shared.state)? {
                loading.wish(wish.missing, wish.connection);
            } else {
                unpark(shared, wish.connection);
            }
        }
        Some(wish) => {
            loading.bring(&shared.state, &wish.missing)?;
            unpark(shared, wish.connection);
        }
        None => {}
    }
    if loading.read_slice(&shared.state)? {
        return Ok(true);
    }
    // From here on whoever has a wish is told that all is there.
    for wish in loading.wishes.lock().take().unwrap_or_default() {
        unpark(shared, wish.connection);
    }
    Ok(false)
}

fn unpark(shared: &Shared, connection: ConnectionId) {
    if let Some(connection) = shared.connection(connection) {
        connection.unpark();
    }
}
