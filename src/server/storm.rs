//! Events of a storm: what one publish step has for more connections than it may hold up everybody for.
//!
//! ```text
//!   publish step (state held exclusively)   change ─ fire ─ first events queued ─ the rest noted here
//!   then, nothing held                      slice ─ slice ─ … ─ the last slice; then the next publish step
//!   meanwhile, a connection that answers    takes what is noted for it first
//! ```
//!
//! Why EventBeforeData and SessionOrder hold all the same: what is noted is noted before the state is let go, and all of it
//! is queued before the state is held exclusively again. In between, replies are queued only by connections for
//! themselves, with the state's lock shared; there each looks here first ([`Storm::catch_up`]). So no reply gets in front of an
//! event of an earlier change. The events of one connection are noted, and queued, in their order.
//!
//! Locks: the state, then the storm, then a pipeline.

use super::connection::Connection;
use super::pipeline::Surroundings;
use crate::state_machine::{AclRef, ConnectionId};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Events that are queued at one go: a connection that wants to catch up waits for so many at most.
/// Low in tests, so that there are slices.
const EVENTS_PER_SLICE: usize = if cfg!(test) { 1 } else { 500 };

/// Stands in place of an event that has been queued.
const QUEUED: u32 = u32::MAX;

/// An event, and who may know of it.
#[derive(Debug)]
struct StormEvent {
    frame: Bytes,
    acl: AclRef,
}

/// What one publish step has left over.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    events: Vec<StormEvent>,
    /// For whom they are: connection and event, in the order of firing.
    told: Vec<(ConnectionId, u32)>,
}

impl Leftover {
    /// Another event, for those who are named from here on.
    pub(super) fn note(&mut self, frame: &Bytes, acl: &AclRef) {
        self.events.push(StormEvent {
            frame: frame.clone(),
            acl: acl.clone(),
        });
    }

    /// The last event is for this connection, too.
    pub(super) fn is_for(&mut self, connection: ConnectionId) {
        let event = self.events.len().saturating_sub(1);
        self.told.push((connection, u32::try_from(event).unwrap_or(QUEUED)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

/// The storm at hand, if there is one.
#[derive(Debug, Default)]
pub(super) struct Storm {
    is_on: AtomicBool,
    left: Mutex<Left>,
}

/// What is not queued yet.
#[derive(Debug, Default)]
struct Left {
    of: Leftover,
    /// Up to where the slices have come.
    next: usize,
}

impl Storm {
    /// Begins with what a publish step leaves over, which still holds the state.
    pub(super) fn begin(&self, mut leftover: Leftover) {
        // By connection; within one, in the order of firing.
        leftover.told.sort_unstable();
        let mut left = self.left.lock();
        assert!(
            left.next == left.of.told.len(),
            "the last storm is over before anything else changes: {} of {} events are queued",
            left.next,
            left.of.told.len()
        );
        *left = Left { of: leftover, next: 0 };
        self.is_on.store(true, Ordering::Release);
    }

    /// Queues what is noted for `connection`, which is about to answer and holds the state's lock shared.
    pub(super) fn catch_up(&self, connection: &Connection, surroundings: &Surroundings<'_>) {
        if !self.is_on.load(Ordering::Acquire) || planted!(NotCaughtUp) {
            return;
        }
        let mut left = self.left.lock();
        let Leftover { events, told } = &mut left.of;
        let first = told.partition_point(|(id, _)| *id < connection.id);
        for (_, event) in told[first..].iter_mut().take_while(|(id, _)| *id == connection.id) {
            queue(events, event, connection, surroundings);
        }
    }

    /// Queues some of what is left, and notes in `reached` who has got something; says whether there is more.
    pub(super) fn slice(
        &self,
        connection: impl Fn(ConnectionId) -> Option<Arc<Connection>>,
        surroundings: &Surroundings<'_>,
        reached: &mut Vec<Arc<Connection>>,
    ) -> bool {
        let mut left = self.left.lock();
        let Left { of, next } = &mut *left;
        let slice = of.told[*next..].iter_mut().take(EVENTS_PER_SLICE);
        for (id, event) in slice {
            *next += 1;
            if *event != QUEUED
                && let Some(connection) = connection(*id)
            {
                queue(&of.events, event, &connection, surroundings);
                reached.push(connection);
            }
        }
        let is_over = *next == of.told.len();
        if is_over {
            *left = Left::default();
            self.is_on.store(false, Ordering::Release);
        }
        // Who waits to catch up comes first.
        MutexGuard::unlock_fair(left);
        !is_over
    }
}

fn queue(events: &[StormEvent], event: &mut u32, connection: &Connection, surroundings: &Surroundings<'_>) {
    if let Some(found) = events.get(*event as usize) {
        connection.with_pipeline(|pipeline| pipeline.event(&found.frame, &found.acl, surroundings));
    }
    *event = QUEUED;
}
