//! How much memory the state takes, and what is done about it (`memoryBudget`).
//!
//! ```text
//!   0 ─────────────────── 21/32 ───────── 3/4 ──────────────────── 15/16 ─ budget
//!                           │ reads hold    │ stored values that      │ what makes the state larger is refused,
//!                           │ back writes   │ nobody reads leave      │ until 7/8
//! ```
//!
//! The part above three quarters is for what is not the state's: memtables, the log's entries, checkpoints on their way to
//! the store, replies, and what the allocator does not give back.
//!
//! A read of a value that is away is answered once the value is back (`fetcher`). A write of the same session behind it must
//! wait until then, else the read would see it; so from a little before the first value leaves, writes are not handed on
//! before the reads in front of them are answered.

use super::shared::Shared;
use crate::proto::Zxid;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// Znodes that are looked at under one hold of the state's lock: about 0.1 ms.
const NODES_PER_HOLD: usize = 1024;
/// Such holds in one go; then whoever let values go does its own work again.
const HOLDS: usize = 32;
/// After a whole go that freed nothing (all is being read, or not stored yet), so long nothing is tried, µs.
const PAUSE_US: u64 = 50_000;

/// Limits of what may wait for the store: the one so that a small budget does not make checkpoints tiny, the other because
/// more never makes anything faster.
const LEAST_UNSTORED_BYTES: u64 = 4 << 20;
const MOST_UNSTORED_BYTES: u64 = 48 << 20;
/// How many times that the disk engine may hold: a compaction that is soon over holds up nobody. With 128 MiB, values of 1 MiB
/// were written a fifth slower than with twice as much.
const UNFLUSHED_FACTOR: u64 = 5;

/// What is known of the state's memory.
#[derive(Debug)]
pub struct Memory {
    budget_bytes: u64,
    /// Values leave above so many bytes.
    leave_bytes: u64,
    /// Growth is refused above so many bytes.
    refuse_bytes: u64,
    used_bytes: AtomicU64,
    away: AtomicU64,
    values_may_leave: AtomicBool,
    is_short: AtomicBool,
    /// The last command of the last checkpoint that is committed.
    stored: AtomicI64,
    /// Bytes of checkpoints that are on their way to the store.
    on_their_way: AtomicU64,
    fetched: AtomicU64,
    gone: AtomicU64,
    pause_until_us: AtomicU64,
}

impl Memory {
    /// Of a state up to whose `zxid` all is stored, and which would take so many bytes if all of it were in memory.
    /// `budget_bytes` is `u64::MAX` for no limit.
    pub(super) fn new(budget_bytes: u64, zxid: Zxid, expected_bytes: u64) -> Memory {
        let leave_bytes = Memory::kept_bytes(budget_bytes);
        Memory {
            budget_bytes,
            leave_bytes,
            refuse_bytes: budget_bytes / 16 * 15,
            used_bytes: AtomicU64::new(0),
            away: AtomicU64::new(0),
            values_may_leave: AtomicBool::new(expected_bytes >= leave_bytes / 8 * 7),
            is_short: AtomicBool::new(false),
            stored: AtomicI64::new(zxid.0),
            on_their_way: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            pause_until_us: AtomicU64::new(0),
        }
    }

    /// Every value leaves as soon as it can, and nothing is refused.
    #[cfg(test)]
    pub(super) fn none_to_spare(zxid: Zxid) -> Memory {
        Memory {
            leave_bytes: 0,
            values_may_leave: AtomicBool::new(true),
            ..Memory::new(u64::MAX, zxid, 0)
        }
    }

    /// So much of a budget the state may take before values leave.
    pub(super) fn kept_bytes(budget_bytes: u64) -> u64 {
        budget_bytes / 4 * 3
    }

    /// `memoryBudget`, bytes; `None` for no limit.
    pub fn budget_bytes(&self) -> Option<u64> {
        (self.budget_bytes != u64::MAX).then_some(self.budget_bytes)
    }

    /// About how much the state takes, bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// What another state may take beside this one before its values stay on the disk: a snapshot's is loaded while this one
    /// is still there.
    pub(super) fn room_bytes(&self) -> u64 {
        self.leave_bytes.saturating_sub(self.used_bytes())
    }

    /// Values that are on the disk alone.
    pub fn values_away(&self) -> u64 {
        self.away.load(Relaxed)
    }

    /// Values that were read back from the disk, ever.
    pub fn values_fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// Values that left memory, ever.
    pub fn values_gone(&self) -> u64 {
        self.gone.load(Relaxed)
    }

    /// Whether what makes the state larger must be refused.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Relaxed)
    }

    /// Whether values should leave faster than they can: those that are not stored yet cannot.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_much(self.used_bytes())
    }

    fn is_much(&self, used_bytes: u64) -> bool {
        used_bytes > self.leave_bytes + self.budget_bytes / 16
    }

    /// Whether a value that is in memory now may be away when a read's turn comes.
    pub(super) fn values_may_leave(&self) -> bool {
        self.values_may_leave.load(Relaxed)
    }

    /// A checkpoint of so many bytes is on its way to the store.
    pub(super) fn checkpoint_taken(&self, bytes: u64) {
        self.on_their_way.fetch_add(bytes, Relaxed);
    }

    /// It is committed: what it leads to is stored.
    pub(super) fn checkpoint_stored(&self, zxid: Zxid, bytes: u64) {
        self.on_their_way.fetch_sub(bytes, Relaxed);
        self.all_stored(zxid);
    }

    /// All up to this command is stored.
    pub(super) fn all_stored(&self, zxid: Zxid) {
        self.stored.fetch_max(zxid.0, Relaxed);
    }

    /// Bytes of checkpoints that are on their way to the store; 0 only if it has nothing to write.
    pub(super) fn bytes_on_their_way(&self) -> u64 {
        self.on_their_way.load(Relaxed)
    }

    /// Bytes of changed records that may wait for the store before a leader's applier does.
    pub(super) fn unstored_limit(&self) -> u64 {
        (self.budget_bytes / 8).clamp(LEAST_UNSTORED_BYTES, MOST_UNSTORED_BYTES)
    }

    /// Bytes of changed records that make large values wait for the store: half of what makes everybody wait. A checkpoint is
    /// due with them, else the large values would wait for the next interval.
    pub(super) fn behind_bytes(&self) -> u64 {
        self.unstored_limit() / 2
    }

    /// Whether more values are to leave, after so many holds of one go.
    fn goes_on(&self, holds: usize, used_bytes: u64, is_needed: impl Fn() -> bool) -> bool {
        let may_end = || !self.is_much(used_bytes) && is_needed();
        used_bytes > self.leave_bytes && holds < HOLDS && (holds == 0 || !may_end())
    }

    /// Bytes that the store may hold in memory until they stand in tables; then it takes no further checkpoint. What the
    /// budget leaves beside the state's part, at most.
    pub(super) fn unflushed_limit(&self) -> u64 {
        let rest_bytes = self.budget_bytes - Memory::kept_bytes(self.budget_bytes);
        (self.unstored_limit() * UNFLUSHED_FACTOR).min(rest_bytes)
    }

    /// So many values were read back.
    pub(super) fn fetched(&self, values: usize) {
        self.fetched.fetch_add(values as u64, Relaxed);
    }
}

/// Looks at the memory that the state takes, and lets values go if it is too much. Called by whoever changes it, after each
/// batch, without a lock; each hold of the state's is short. Ends early as soon as `is_needed` elsewhere, but does some, and
/// goes on if it is much too much.
pub(super) fn keep_within_budget(shared: &Shared, is_needed: impl Fn() -> bool) {
    let memory = &shared.memory;
    let (mut used_bytes, away) = look(shared);
    let may_leave = away > 0
        || used_bytes >= memory.leave_bytes / 8 * 7
        || (memory.values_may_leave() && shared.loading.is_under_way());
    if memory.values_may_leave.swap(may_leave, Relaxed) != may_leave {
        shared.state.write().set_values_may_leave(may_leave);
    }
    let now_us = shared.clock.now_us();
    if used_bytes > memory.leave_bytes && now_us >= memory.pause_until_us.load(Relaxed) {
        let (before, mut holds) = (used_bytes, 0);
        while memory.goes_on(holds, used_bytes, &is_needed) {
            holds += 1;
            let stored = Zxid(memory.stored.load(Relaxed));
            let wanted = used_bytes - memory.leave_bytes;
            let gone = shared.state.write().let_values_go(stored, NODES_PER_HOLD, wanted);
            used_bytes -= gone.bytes;
            memory.gone.fetch_add(gone.values.len() as u64, Relaxed);
        }
        if holds == HOLDS && used_bytes == before {
            memory.pause_until_us.store(now_us + PAUSE_US, Relaxed);
        }
        look(shared);
    }
    refuse_or_allow(memory);
}

fn look(shared: &Shared) -> (u64, u64) {
    let state = shared.state.read();
    let (used_bytes, away) = (state.memory_bytes(), state.values_away());
    drop(state);
    shared.memory.used_bytes.store(used_bytes, Relaxed);
    shared.memory.away.store(away, Relaxed);
    (used_bytes, away)
}

fn refuse_or_allow(memory: &Memory) {
    let (used, budget) = (memory.used_bytes(), memory.budget_bytes);
    if used > memory.refuse_bytes && !memory.is_short.swap(true, Relaxed) {
        tracing::error!(
            used,
            budget,
            "the tree's znodes alone take nearly all of the memoryBudget: where this server leads, what makes the state \
             larger is refused (SystemError). Deletes, sessions and writes that do not grow go on. Delete znodes or raise \
             memoryBudget; it heals by itself"
        );
    } else if used < memory.refuse_bytes / 15 * 14 && memory.is_short.swap(false, Relaxed) {
        tracing::info!(used, budget, "the tree is well within the memoryBudget again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_needed_elsewhere_lets_values_go_all_the_same_when_there_are_far_too_many() {
        // Values leave above 1200; above 1300 it is much too much.
        let memory = Memory::new(1600, Zxid(7), 0);
        let goes_on = |holds, used_bytes, is_needed| memory.goes_on(holds, used_bytes, || is_needed);
        assert!(!goes_on(0, 1200, false), "there is room");
        assert!(goes_on(0, 1201, true), "one hold at least");
        assert!(goes_on(1, 1300, false) && !goes_on(1, 1300, true));
        assert!(goes_on(HOLDS - 1, 1301, true));
        assert!(!goes_on(HOLDS, 1600, false), "and others have their turn");
    }

    #[test]
    fn growth_is_refused_at_the_end_of_the_budget_and_allowed_well_below_it() {
        let memory = Memory::new(1600, Zxid(7), 0);
        for (used, is_short) in [(1400, false), (1500, false), (1501, true), (1450, true), (1399, false)] {
            memory.used_bytes.store(used, Relaxed);
            refuse_or_allow(&memory);
            assert_eq!(memory.is_short(), is_short, "{used}");
        }
        assert_eq!((memory.budget_bytes(), memory.leave_bytes), (Some(1600), 1200));
        assert_eq!(Memory::new(u64::MAX, Zxid(7), 0).budget_bytes(), None);
    }

    #[test]
    fn what_the_store_holds_is_bounded_and_fits_beside_the_state_whatever_the_budget() {
        for budget in [16 << 20, 100 << 20, 1 << 30, 1 << 40, u64::MAX] {
            let memory = Memory::new(budget, Zxid(7), 0);
            let (unstored, unflushed) = (memory.unstored_limit(), memory.unflushed_limit());
            assert!(unflushed <= MOST_UNSTORED_BYTES * UNFLUSHED_FACTOR);
            assert!(unflushed <= budget - memory.leave_bytes);
            // A checkpoint of the usual size never waits for itself.
            assert!(unflushed >= unstored, "{budget}: {unflushed} < {unstored}");
        }
    }
}
