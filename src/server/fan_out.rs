//! Waking the connections that have got an event, where one change has reached many.
//!
//! ```text
//!   applier ─ told ─▶ due at once, or within the jitter ─ a few at a time ─▶ the sockets' tasks
//! ```
//!
//! A task that is woken stands in the runtime's line. If the ten thousands of a storm stood there at once, a ping that
//! arrives would stand behind them all. So a few are woken, and the next ones when those have had their turn.
//!
//! The events themselves stand in the connections' queues before the publish step ends. Whatever else a connection sends
//! leaves behind them: no promise depends on when a connection is woken here.

use super::connection::Connection;
use super::shared::Shared;
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A change that reaches so many connections is no storm: the applier wakes them itself, at once.
pub(super) const AT_ONCE: usize = 64;
/// Connections that are woken before others get their turn: fewer than the tasks that a worker of the runtime runs before
/// it looks at its sockets, or they would pile up.
const WAKES_PER_TURN: usize = 32;

/// Connections that wait to be woken: each at most once.
#[derive(Default)]
pub(super) struct FanOut {
    told: Mutex<Vec<Arc<Connection>>>,
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
}

#[cfg(test)]
impl FanOut {
    /// Wakes all, where no task does.
    pub(super) fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.told.lock());
        waiting.iter().for_each(|connection| connection.end_to_wait());
    }
}

/// Wakes connections until the server stops. Each waits for a random part of the jitter.
pub(super) async fn run(shared: Arc<Shared>) {
    let jitter_us = shared.settings.fan_out_jitter_ms * 1000;
    let mut due = BTreeMap::new();
    let mut number = 0_u64;
    loop {
        let now_us = shared.clock.now_us();
        for connection in std::mem::take(&mut *shared.fan_out.told.lock()) {
            number += 1;
            let delay_us = match jitter_us {
                0 => 0,
                jitter_us => rand::rng().random_range(0..=jitter_us),
            };
            due.insert((now_us + delay_us, number), connection);
        }
        let woken = wake_due(&mut due, now_us);
        if woken == WAKES_PER_TURN {
            tokio::task::yield_now().await;
            continue;
        }
        let next_us = due
            .first_key_value()
            .map(|((due_us, _), _)| due_us.saturating_sub(now_us));
        tokio::select! {
            () = shared.fan_out.arrived.notified() => {}
            () = tokio::time::sleep(Duration::from_micros(next_us.unwrap_or_default())), if next_us.is_some() => {}
            () = shared.stopped() => return,
        }
    }
}

/// Wakes the first of those that are due, and says how many.
fn wake_due(due: &mut BTreeMap<(u64, u64), Arc<Connection>>, now_us: u64) -> usize {
    let mut woken = 0;
    while woken < WAKES_PER_TURN
        && let Some(first) = due.first_entry()
        && first.key().0 <= now_us
    {
        first.remove().end_to_wait();
        woken += 1;
    }
    woken
}
