//! A queue between threads that is emptied all at once: what arrives while a batch is worked on is the next batch.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// Many put in, one takes out. Unbounded in itself: what clients put in is bounded by their connections' own limits, what
/// peers do by raft's window of messages on their way and by what their clients may have in work.
pub(super) struct Inbox<T> {
    items: Mutex<Vec<T>>,
    arrived: Condvar,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        Inbox {
            items: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    /// Puts one in.
    pub(super) fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push(item);
        if items.len() == 1 {
            // Whoever takes out waits only while it is empty.
            self.arrived.notify_one();
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.lock().is_empty()
    }

    /// Takes everything out into `batch`, which must be empty; waits at most `timeout` for something to arrive.
    pub(super) fn take(&self, batch: &mut Vec<T>, timeout: Duration) {
        debug_assert!(batch.is_empty());
        let mut items = self.items.lock();
        if items.is_empty() {
            self.arrived.wait_for(&mut items, timeout);
        }
        std::mem::swap(&mut *items, batch);
    }
}
