//! A queue between threads that is emptied all at once: what arrives while a batch is worked on is the next batch.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// Many put in, one takes out. Unbounded in itself: what clients put in is bounded by their connections' own limits, what
/// peers do by raft's window of messages on their way and by what their clients may have in work.
pub(super) struct Inbox<T> {
    waiting: Mutex<Waiting<T>>,
    told: Condvar,
}

struct Waiting<T> {
    items: Vec<T>,
    /// Whether one of them should be seen to now; the others may wait until somebody looks anyway.
    is_urgent: bool,
    /// Whether the thread that sleeps here was told to wake up.
    is_told: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        Inbox {
            waiting: Mutex::new(Waiting {
                items: Vec::new(),
                is_urgent: false,
                is_told: false,
            }),
            told: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    /// Puts one in, and wakes who sleeps here.
    pub(super) fn push(&self, item: T) {
        let mut waiting = self.waiting.lock();
        waiting.items.push(item);
        waiting.is_urgent = true;
        self.tell(&mut waiting);
    }

    /// Puts one in, and wakes nobody: the caller sees to it that it is taken out soon.
    pub(super) fn put(&self, item: T) {
        let mut waiting = self.waiting.lock();
        waiting.items.push(item);
        waiting.is_urgent = true;
    }

    /// Puts one in that may wait until somebody looks anyway.
    pub(super) fn leave(&self, item: T) {
        self.waiting.lock().items.push(item);
    }

    /// Wakes who sleeps here, if there is anything to take out.
    pub(super) fn wake(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.items.is_empty() {
            self.tell(&mut waiting);
        }
    }

    /// Wakes who sleeps here, whatever there is.
    pub(super) fn call(&self) {
        self.tell(&mut self.waiting.lock());
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().items.is_empty()
    }

    /// Whether something waits that should be seen to now.
    pub(super) fn is_urgent(&self) -> bool {
        self.waiting.lock().is_urgent
    }

    /// Whether `test` holds for all that waits.
    pub(super) fn all(&self, test: impl FnMut(&T) -> bool) -> bool {
        self.waiting.lock().items.iter().all(test)
    }

    /// Takes everything out into `batch`, which must be empty.
    pub(super) fn take(&self, batch: &mut Vec<T>) {
        debug_assert!(batch.is_empty());
        let mut waiting = self.waiting.lock();
        (waiting.is_urgent, waiting.is_told) = (false, false);
        std::mem::swap(&mut waiting.items, batch);
    }

    /// Sleeps until it is told to wake up, but for `timeout` at most. One thread alone may do so.
    pub(super) fn sleep(&self, timeout: Duration) {
        // There no time passes: who is not told sleeps for ever.
        interleave_until!(self.waiting.lock().is_told);
        let mut waiting = self.waiting.lock();
        if !waiting.is_told {
            self.told.wait_for(&mut waiting, timeout);
        }
        waiting.is_told = false;
    }

    /// Takes everything out into `batch`, which must be empty; if there is nothing, sleeps first, for `timeout` at most.
    pub(super) fn await_batch(&self, batch: &mut Vec<T>, timeout: Duration) {
        if self.is_empty() {
            self.sleep(timeout);
        }
        self.take(batch);
    }

    fn tell(&self, waiting: &mut Waiting<T>) {
        if !std::mem::replace(&mut waiting.is_told, true) {
            self.told.notify_one();
        }
    }
}
