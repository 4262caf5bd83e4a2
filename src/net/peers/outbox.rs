//! What waits to be sent to one server.

use super::Dropped;
use super::frame::BODY_BYTES;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Bytes that are taken out at once, but at least one message: what is being written is beyond the queue's limits.
const TAKE_BYTES: usize = 1 << 20;

/// The queue of one link. Any thread puts in, the link's task alone takes out.
pub(super) struct Outbox {
    max_messages: usize,
    max_bytes: usize,
    state: Mutex<State>,
    filled: Notify,
}

/// How full an outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) is_open: bool,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
struct State {
    /// Whether the link is up. Nothing waits while it is not: what raft said then is stale when it comes up.
    is_open: bool,
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// A closed one, with its limits: whatever is put in beyond one of them is dropped.
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Outbox {
        Outbox {
            max_messages,
            max_bytes,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Puts a message in.
    pub(super) fn push(&self, body: Bytes) -> Result<(), Dropped> {
        if body.len() > BODY_BYTES {
            return Err(Dropped::TooLong(body.len()));
        }
        let mut state = self.state.lock();
        if !state.is_open {
            return Err(Dropped::Down);
        }
        if state.queue.len() >= self.max_messages || state.bytes + body.len() > self.max_bytes {
            return Err(Dropped::Full);
        }
        let was_empty = state.queue.is_empty();
        state.bytes += body.len();
        state.queue.push_back(body);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// From now on messages are kept.
    pub(super) fn open(&self) {
        self.state.lock().is_open = true;
    }

    /// Drops everything, and whatever comes from now on; says how many messages these were.
    pub(super) fn close(&self) -> usize {
        let state = std::mem::take(&mut *self.state.lock());
        state.queue.len()
    }

    /// Waits until there is something to take.
    pub(super) async fn filled(&self) {
        while self.state.lock().queue.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Moves messages, oldest first, into `taken`.
    pub(super) fn take(&self, taken: &mut Vec<Bytes>) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        while bytes < TAKE_BYTES
            && let Some(body) = state.queue.pop_front()
        {
            bytes += body.len();
            taken.push(body);
        }
        state.bytes -= bytes;
    }

    pub(super) fn level(&self) -> Level {
        let state = self.state.lock();
        Level {
            is_open: state.is_open,
            messages: state.queue.len(),
            bytes: state.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(length: usize) -> Bytes {
        vec![7; length].into()
    }

    #[test]
    fn what_exceeds_a_limit_is_dropped_and_said() {
        let outbox = Outbox::new(3, 100);
        assert_eq!(outbox.push(body(1)), Err(Dropped::Down));
        outbox.open();
        assert_eq!(outbox.push(body(60)), Ok(()));
        assert_eq!(outbox.push(body(41)), Err(Dropped::Full), "bytes");
        assert_eq!(outbox.push(body(20)), Ok(()));
        assert_eq!(outbox.push(body(20)), Ok(()));
        assert_eq!(outbox.push(body(0)), Err(Dropped::Full), "messages");
        assert_eq!(outbox.level().bytes, 100);
        let mut taken = Vec::new();
        outbox.take(&mut taken);
        assert_eq!(taken.iter().map(Bytes::len).collect::<Vec<_>>(), [60, 20, 20]);
        assert_eq!(outbox.push(body(100)), Ok(()));
        assert_eq!(outbox.push(body(BODY_BYTES + 1)), Err(Dropped::TooLong(BODY_BYTES + 1)));
    }

    #[test]
    fn closing_drops_what_waits_and_what_comes() {
        let outbox = Outbox::new(10, 100);
        outbox.open();
        outbox.push(body(1)).unwrap();
        outbox.push(body(2)).unwrap();
        assert_eq!(outbox.close(), 2);
        assert_eq!(outbox.level(), Level::default());
        assert_eq!(outbox.push(body(1)), Err(Dropped::Down));
    }

    #[test]
    fn large_messages_are_taken_in_turns() {
        let outbox = Outbox::new(10, 10 * TAKE_BYTES);
        outbox.open();
        for length in [TAKE_BYTES / 2, TAKE_BYTES, 3 * TAKE_BYTES, 1] {
            outbox.push(body(length)).unwrap();
        }
        let mut turns = Vec::new();
        while outbox.level().messages > 0 {
            let mut taken = Vec::new();
            outbox.take(&mut taken);
            turns.push(taken.len());
        }
        assert_eq!(turns, [2, 1, 1]);
        assert_eq!(outbox.level().bytes, 0);
    }
}
