//! Sending to the connections that have got an event, where one change has reached many.
//!
//! ```text
//!   applier ─ told ─▶ due at once, or within the jitter ─ a few at a time ─▶ the sockets, or their tasks
//!                 └─▶ a task for each core does so
//! ```
//!
//! Each is sent its event here, without waking its task, if that is all there is to do for it; else its task is woken. A task
//! that is woken stands in the runtime's line: if the ten thousands of a storm stood there at once, a ping that arrives would
//! stand behind them all. So a few get theirs, and the next ones when others have had their turn.
//!
//! The events themselves stand in the connections' queues before the publish step ends. Whatever else a connection sends
//! leaves behind them: no promise depends on when a connection has its turn here.

use super::connection::Connection;
use super::shared::Shared;
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A change that reaches so many connections is no storm: the applier wakes them itself, at once.
/// Low in tests, so that they have what this does.
pub(super) const AT_ONCE: usize = if cfg!(test) { 2 } else { 64 };
/// Connections that are sent theirs, or woken, before others get their turn: fewer than the tasks that a worker of the runtime
/// runs before it looks at its sockets, or they would pile up. Sending to so many takes about 0.2 ms.
const CONNECTIONS_PER_TURN: usize = 32;
/// Connections that one task takes over at a time; the rest is for the others.
const PORTION: usize = 256;

/// Connections that wait to be woken: each at most once.
#[derive(Default)]
pub(super) struct FanOut {
    told: Mutex<VecDeque<Arc<Connection>>>,
    arrived: Notify,
}

impl FanOut {
    /// Has these connections woken soon.
    pub(super) fn wake(&self, told: &mut Vec<Arc<Connection>>) {
        if told.is_empty() {
            return;
        }
        let new = told.drain(..).filter(|connection| connection.begin_to_wait());
        self.told.lock().extend(new);
        self.arrived.notify_one();
    }

    /// Has a task look, whatever there is: a thread of the runtime that has run one looks at the sockets next.
    pub(super) fn call(&self) {
        self.arrived.notify_one();
    }

    /// Some of those that wait, the first first. Another task is called for the rest.
    fn take_portion(&self) -> Vec<Arc<Connection>> {
        let mut told = self.told.lock();
        let portion = told.len().min(PORTION);
        let taken = told.drain(..portion).collect();
        if told.is_empty() {
            // A storm's worth of room is not kept.
            *told = VecDeque::new();
        } else {
            self.arrived.notify_one();
        }
        taken
    }
}

#[cfg(test)]
impl FanOut {
    /// Wakes all, where no task does.
    pub(super) fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.told.lock());
        waiting.iter().for_each(|connection| connection.end_to_wait());
    }
}

/// Serves connections until the server stops; each waits for a random part of the jitter. Any number of tasks may do so.
pub(super) async fn run(shared: Arc<Shared>) {
    let jitter_us = shared.settings.fan_out_jitter_ms * 1000;
    let mut due = BTreeMap::new();
    let mut number = 0_u64;
    let mut is_behind = false;
    loop {
        let now_us = shared.clock.now_us();
        if !is_behind {
            for connection in shared.fan_out.take_portion() {
                number += 1;
                let delay_us = match jitter_us {
                    0 => 0,
                    jitter_us => rand::rng().random_range(0..=jitter_us),
                };
                due.insert((now_us + delay_us, number), connection);
            }
        }
        is_behind = serve_due(&mut due, now_us) == CONNECTIONS_PER_TURN;
        if is_behind {
            tokio::task::yield_now().await;
            continue;
        }
        let first = due.first_key_value();
        let next_us = first.map(|((due_us, _), _)| due_us.saturating_sub(now_us));
        tokio::select! {
            () = shared.fan_out.arrived.notified() => {}
            () = sleep(next_us) => {}
            () = shared.stopped() => return,
        }
    }
}

/// Until so many µs have passed; without any, for ever.
async fn sleep(us: Option<u64>) {
    match us {
        Some(us) => tokio::time::sleep(Duration::from_micros(us)).await,
        None => pending().await,
    }
}

/// Serves the first of those that are due, and says how many.
fn serve_due(due: &mut BTreeMap<(u64, u64), Arc<Connection>>, now_us: u64) -> usize {
    let mut served = 0;
    while served < CONNECTIONS_PER_TURN
        && let Some(first) = due.first_entry()
        && first.key().0 <= now_us
    {
        first.remove().end_to_wait();
        served += 1;
    }
    served
}
