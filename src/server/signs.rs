//! Signs of life: which sessions have said something in this tick, for the deadlines; and whether one client is alone.

use crate::proto::SessionId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Signs of life of sessions, each once per tick.
pub(super) struct Signs {
    /// Sessions that gave one in this tick.
    touched: Mutex<Vec<SessionId>>,
    tick: AtomicU64,
    /// Whether one client at most speaks, and no change reaches more than one: as far as one knows, since the last tick.
    is_quiet: AtomicBool,
}

impl Default for Signs {
    fn default() -> Signs {
        Signs {
            touched: Mutex::default(),
            // 0 is what a connection starts with that has not been touched.
            tick: AtomicU64::new(1),
            is_quiet: AtomicBool::new(false),
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
        let mut touched = self.touched.lock();
        self.is_quiet.store(touched.len() <= 1, Ordering::Relaxed);
        std::mem::take(&mut *touched)
    }

    /// A session gave one. Whoever calls this does so once per tick.
    pub(super) fn touch(&self, session: SessionId) {
        let mut touched = self.touched.lock();
        touched.push(session);
        if touched.len() > 1 {
            self.others_are_there();
        }
    }

    /// Others than one client have something to do.
    pub(super) fn others_are_there(&self) {
        self.is_quiet.store(false, Ordering::Relaxed);
    }

    /// Whether one client at most has spoken in the last tick and in this one, and no change has reached more than one in this one.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    /// As after a tick in which nobody has spoken, where there are no ticks.
    #[cfg(test)]
    pub(super) fn set_quiet(&self) {
        self.is_quiet.store(true, Ordering::Relaxed);
    }
}
