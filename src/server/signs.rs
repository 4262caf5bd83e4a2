//! Signs of life: which sessions have said something in this tick, for the deadlines.

use crate::proto::SessionId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Signs of life of sessions, each once per tick.
pub(super) struct Signs {
    /// Sessions that gave one in this tick.
    touched: Mutex<Vec<SessionId>>,
    tick: AtomicU64,
}

impl Default for Signs {
    fn default() -> Signs {
        Signs {
            touched: Mutex::default(),
            // 0 is what a connection starts with that has not been touched.
            tick: AtomicU64::new(1),
        }
    }
}

impl Signs {
    pub(super) fn tick(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Begins the next tick; gives the sessions that gave a sign of life in the last one.
    pub(super) fn next_tick(&self) -> Vec<SessionId> {
        self.tick.fetch_add(1, Ordering::Relaxed);
        std::mem::take(&mut *self.touched.lock())
    }

    /// A session gave one. Whoever calls this does so once per tick.
    pub(super) fn touch(&self, session: SessionId) {
        self.touched.lock().push(session);
    }
}
