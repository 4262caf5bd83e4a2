//! Values that have left memory come back when they are read.
//!
//! ```text
//!   connection   a read whose value is away stays at the front of its pipeline, parked; its wish goes to the fetcher
//!   fetcher      takes all wishes that wait ─▶ reads from the disk, no lock held ─▶ puts the values back, exclusively
//!                ─▶ answers those reads, sharing the state without a gap: nobody lets a value go in between
//! ```
//!
//! Invariants:
//! - A value is read after its wish was made, and is the znode's if it has the znode's mzxid, length and CRC. If the znode was
//!   set meanwhile and its new value is away too, the read wishes again; if it was not and what was read differs, the disk
//!   is damaged, and the server stops rather than answer.
//! - The state and what it was read from are exchanged together ([`Fetcher::replace`]); what was read from the former is
//!   dropped.
//! - Each connection has at most one wish, so that their number is limited with that of connections.

use super::Failure;
use super::connection::Connection;
use super::inbox::Inbox;
use super::memory;
use super::shared::Shared;
use crate::proto::Zxid;
use crate::state_machine::{ConnectionId, Fetched, Missing, PutBack, place_of};
use crate::storage::tree::TreeReader;
use parking_lot::{Mutex, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Values that are put back under one hold, and bytes of them; a single read may wish for more.
const VALUES_PER_HOLD: usize = 64;
const BYTES_PER_HOLD: usize = 4 << 20;
/// How long the thread waits for a wish at a time.
const WAIT: Duration = Duration::from_secs(1);

/// Reads values from where checkpoints went.
pub(super) trait Values: Send + Sync {
    /// The values of the znodes at `paths` as of one moment; `None` for a znode that is not stored, or has no data.
    fn read(&self, paths: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<Option<Fetched>>, Failure>;
}

impl Values for TreeReader {
    fn read(&self, paths: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<Option<Fetched>>, Failure> {
        let now = self.now();
        paths
            .map(|path| {
                let (parent, name) = place_of(path);
                let found = now.node(parent, name)?;
                Ok(found.and_then(|(stat, data)| Some(Fetched::new(path, Zxid(stat.mzxid), &data?))))
            })
            .collect()
    }
}

/// What is put in.
pub(super) struct Wish {
    missing: Missing,
    connection: ConnectionId,
}

/// Who waits for values, and where they are read.
#[derive(Default)]
pub(super) struct Fetcher {
    wishes: Inbox<Wish>,
    source: Mutex<Option<Arc<dyn Values>>>,
    /// How often the source was replaced.
    generation: AtomicU64,
    is_stopped: AtomicBool,
}

impl Fetcher {
    /// A read of `connection` waits for values.
    pub(super) fn wish(&self, missing: Missing, connection: ConnectionId) {
        self.wishes.push(Wish { missing, connection });
    }

    /// Another state takes the place of ours, whose values are here. The caller holds the state exclusively.
    pub(super) fn replace(&self, source: Option<Arc<dyn Values>>) {
        *self.source.lock() = source;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody waits any more.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        // Wakes the thread.
        self.wish(Missing::default(), ConnectionId(0));
    }

    fn source(&self) -> (Option<Arc<dyn Values>>, u64) {
        let source = self.source.lock();
        (source.clone(), self.generation.load(Ordering::Acquire))
    }

    /// Whether somebody waits.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.wishes.is_empty()
    }
}

/// Brings values until the server stops.
pub(super) fn run(shared: &Shared) -> Result<(), Failure> {
    while !shared.fetcher.is_stopped.load(Ordering::Acquire) {
        turn(shared, WAIT)?;
    }
    // The store's files may be closed.
    shared.fetcher.replace(None);
    Ok(())
}

/// Waits for wishes, at most for `wait`, and fulfils all of them.
pub(super) fn turn(shared: &Shared, wait: Duration) -> Result<(), Failure> {
    let mut wishes = Vec::new();
    shared.fetcher.wishes.await_batch(&mut wishes, wait);
    wishes.retain(|wish| wish.missing.has_values());
    let mut portion = Vec::new();
    let (mut values, mut bytes) = (0, 0);
    for wish in wishes {
        values += wish.missing.values().count();
        bytes += wish.missing.value_bytes();
        portion.push(wish);
        if values >= VALUES_PER_HOLD || bytes >= BYTES_PER_HOLD {
            fetch(shared, &std::mem::take(&mut portion))?;
            (values, bytes) = (0, 0);
        }
    }
    if portion.is_empty() {
        return Ok(());
    }
    fetch(shared, &portion)
}

fn fetch(shared: &Shared, wishes: &[Wish]) -> Result<(), Failure> {
    let (source, generation) = shared.fetcher.source();
    let Some(source) = source else { return Ok(()) };
    // Sorted and each once: neighbours stand in the same blocks.
    let asked: BTreeMap<&[u8], Zxid> = wishes.iter().flat_map(|wish| wish.missing.values()).collect();
    let fetched = source.read(&mut asked.keys().copied())?;
    shared.memory.fetched(fetched.len());
    let mut state = shared.state.write();
    if shared.fetcher.generation.load(Ordering::Acquire) == generation {
        for ((path, mzxid), fetched) in asked.into_iter().zip(fetched) {
            if state.put_back(path, mzxid, fetched) == PutBack::Damaged {
                return Err(Failure::Value(String::from_utf8_lossy(path).into_owned()));
            }
        }
    }
    let state = RwLockWriteGuard::downgrade(state);
    let surroundings = shared.surroundings();
    let reached: Vec<Arc<Connection>> = wishes
        .iter()
        .filter_map(|wish| shared.connection(wish.connection))
        .collect();
    for connection in &reached {
        connection.answer_parked(&state, &surroundings);
    }
    drop(state);
    reached.iter().for_each(|connection| connection.wake_up());
    memory::keep_within_budget(shared, || !shared.fetcher.wishes.is_empty());
    Ok(())
}
