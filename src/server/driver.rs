//! The driver's thread: feeds the replica and carries out its work.
//!
//! ```text
//!   connections ─ commands ─▶ ┌────────┐ ─ append ─▶ log thread ─ persisted ─┐
//!   log thread ── persisted ▶ │ driver │ ─ apply ──▶ applier ──── applied ───┤
//!   applier ───── applied ──▶ └────────┘ ◀───────────────────────────────────┘
//! ```
//!
//! Everything that waits is taken at once, so batches form by themselves while the previous fsync runs, and nothing waits
//! for a batch to fill.

use super::inbox::Inbox;
use super::recorded::OfDriver;
use super::shared::{DriverInput, SessionNews, Shared};
use super::{ApplierInput, Failure, LogInput};
use crate::proto::OpCode;
use crate::proto::jute::Encode;
use crate::replica::{Replica, ReplicaError, Role, TICK_MS, Work};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// How containers and TTL znodes are removed (`znode.container.*`).
#[derive(Clone, Copy, Debug)]
pub struct ContainerSchedule {
    /// Time between two looks, ms.
    pub check_interval_ms: u64,
    /// Removals per minute at most.
    pub max_per_minute: u32,
    /// A container that never had children is removed after so long, ms; 0 for never.
    pub max_never_used_ms: i64,
}

/// The driver, on its thread.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) replica: Replica,
    pub(super) log: Arc<Inbox<LogInput>>,
    pub(super) applier: Arc<Inbox<ApplierInput>>,
    pub(super) containers: ContainerSchedule,
}

/// What the loop has to remember.
struct Progress {
    next_tick_us: u64,
    next_container_check_us: u64,
    stopping: bool,
    /// Last append handed to the log, and last one reported by it.
    appended: u64,
    persisted: u64,
    /// Last entry handed to the applier, and last one reported by it.
    handed: u64,
    applied: u64,
    /// Since when there is no leader: monotonic, µs.
    leaderless_since_us: Option<u64>,
    recorded: OfDriver,
}

impl Driver {
    /// Runs until it is told to stop and all work is done.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let now_us = self.shared.clock.now_us();
        let mut progress = Progress {
            next_tick_us: now_us + TICK_MS * 1000,
            next_container_check_us: now_us + self.containers.check_interval_ms * 1000,
            stopping: false,
            appended: 0,
            persisted: 0,
            handed: 0,
            applied: 0,
            leaderless_since_us: Some(now_us),
            recorded: OfDriver::new(),
        };
        progress.recorded.looking();
        self.carry_out(&mut progress)?;
        let mut inputs = Vec::new();
        loop {
            let wait_us = progress.next_tick_us.saturating_sub(self.shared.clock.now_us());
            self.shared.driver.take(&mut inputs, Duration::from_micros(wait_us));
            for input in inputs.drain(..) {
                self.take_in(input, &mut progress);
            }
            self.tick(&mut progress);
            self.carry_out(&mut progress)?;
            if progress.stopping && progress.appended == progress.persisted && progress.handed <= progress.applied {
                self.applier.push(ApplierInput::Stop);
                return Ok(());
            }
        }
    }

    fn take_in(&mut self, input: DriverInput, progress: &mut Progress) {
        match input {
            DriverInput::Commands(commands) => {
                progress.recorded.proposed(commands.len());
                self.replica.submit(commands);
            }
            DriverInput::Barrier(connection) => self.replica.barrier(connection.0),
            DriverInput::Persisted(number) => {
                progress.persisted = number;
                self.replica.persisted(number);
            }
            DriverInput::Applied { index, sessions } => {
                progress.applied = index;
                self.replica.applied(index);
                for news in sessions {
                    match news {
                        SessionNews::Opened { session, timeout_ms } => self.replica.session_opened(session, timeout_ms),
                        SessionNews::Closed { session } => self.replica.session_closed(session),
                    }
                }
            }
            DriverInput::Durable { index } => {
                self.replica.compact(index);
                self.log.push(LogInput::Purge { below: index + 1 });
            }
            DriverInput::Deadlines(answer) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(self.replica.session_deadlines().collect());
            }
            DriverInput::Stop => progress.stopping = true,
        }
    }

    /// At most one tick per turn: a process that was stopped for a while must not count that time against its sessions,
    /// whose signs of life still wait in its sockets.
    fn tick(&mut self, progress: &mut Progress) {
        let now_us = self.shared.clock.now_us();
        if now_us < progress.next_tick_us {
            return;
        }
        progress.next_tick_us = now_us + TICK_MS * 1000;
        let touched = self.shared.next_tick();
        self.replica.touch(&touched);
        self.replica.tick();
        if now_us >= progress.next_container_check_us {
            progress.next_container_check_us = now_us + self.containers.check_interval_ms * 1000;
            self.remove_containers();
        }
    }

    /// Proposes the removal of containers and TTL znodes that have served their time; the state checks again.
    fn remove_containers(&mut self) {
        if !self.replica.is_leader() {
            return;
        }
        let per_check = u64::from(self.containers.max_per_minute) * self.containers.check_interval_ms / 60_000;
        let limit = usize::try_from(per_check.max(1)).unwrap_or(usize::MAX);
        let now_ms = self.shared.clock.wall_ms();
        let removable = self
            .shared
            .state
            .read()
            .removable(now_ms, self.containers.max_never_used_ms, limit);
        if !removable.is_empty() {
            tracing::info!(
                znodes = removable.len(),
                "removing containers and TTL znodes that have served their time"
            );
        }
        self.replica
            .submit_internal(OpCode::DeleteContainer, removable.iter().map(|path| path_body(path)));
    }

    fn carry_out(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        while let Some(work) = self.poll()? {
            if let Some(role) = work.role {
                tracing::info!(?role, "this server's role has changed");
                self.role_changed(role, progress);
                self.applier.push(ApplierInput::Role {
                    leads: role == Role::Leader,
                    term: self.replica.term(),
                });
            }
            // With one voter there are no peers to send to; messages to ourselves do not exist in raft.
            debug_assert!(work.send.is_empty());
            if let Some(append) = work.append {
                progress.appended = append.number;
                self.log.push(LogInput::Append(append));
            }
            if let Some(last) = work.apply.last() {
                progress.handed = last.index;
                self.applier.push(ApplierInput::Entries(work.apply));
            }
            if !work.barriers.is_empty() {
                self.applier.push(ApplierInput::Barriers(work.barriers));
            }
        }
        Ok(())
    }

    fn role_changed(&self, role: Role, progress: &mut Progress) {
        let now_us = self.shared.clock.now_us();
        if role != Role::Looking {
            if let Some(since_us) = progress.leaderless_since_us.take() {
                progress.recorded.elected(now_us.saturating_sub(since_us));
            }
        } else if progress.leaderless_since_us.is_none() {
            progress.leaderless_since_us = Some(now_us);
            progress.recorded.looking();
        }
    }

    fn poll(&mut self) -> Result<Option<Work>, ReplicaError> {
        self.replica.poll(self.shared.clock.wall_ms())
    }
}

fn path_body(path: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + path.len());
    out.write_text(path);
    out.freeze()
}
