//! The driver: feeds the replica and carries out its work. Run by whoever brings it something (`crew`), or by its own thread.
//!
//! ```text
//!   connections ─ commands ─▶ ┌────────┐ ─ append ─▶ log thread ─ persisted ─┐
//!   log thread ── persisted ▶ │ driver │ ─ apply ──▶ applier ──── applied ───┤
//!   applier ───── applied ──▶ │        │ ◀───────────────────────────────────┘
//!   links ─────── messages ─▶ └────────┘ ─ messages ─▶ links
//! ```
//!
//! Everything that waits is taken at once, so batches form by themselves while the previous fsync runs, and nothing waits
//! for a batch to fill.

use super::backlog::Backlog;
use super::crew::{Part, Turned};
use super::disks::Disks;
use super::duties::Duties;
use super::inbox::Inbox;
use super::installing::{Installing, Making};
use super::pending::Closing;
use super::recorded::OfDriver;
use super::shared::{AppliedTo, DriverInput, SERVING, Service, SessionNews, Shared};
use super::snapshot::{Arrived, SnapshotView};
use super::{ApplierInput, Failure, LogInput};
use crate::membership::Members;
use crate::proto::OpCode;
use crate::proto::jute::Encode;
use crate::replica::{PeerMessage, Replica, Standing, TICK_MS};
use crate::state_machine::{ConnectionId, ServerId};
use crate::storage::directory::DirectoryError;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of entries that are taken from peers before what they bring is carried out: what raft gives to the log at once, this and
/// one more message, must fit in one group. What a leader proposes is bounded by what may be uncommitted.
const TAKEN_BYTES: usize = 16 << 20;

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

/// How a member of an ensemble bears with the others.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a leader for so long, clients are sent away (`syncLimit` × `tickTime`), ms. `None` for a lone server.
    pub leaderless_ms: Option<u64>,
    /// Without a leader for so long, only clients that have asked for it are served, and only reads
    /// (`readonlymode.enabled`), ms. `None`: nobody is.
    pub read_only_ms: Option<u64>,
}

/// What a driver needs of the world beyond its member: the peers, and what is told to them.
pub(super) trait Peers: Send {
    /// Sends a message, or drops it if the link is down or full: the replica says again what matters.
    fn send(&mut self, to: ServerId, message: &PeerMessage);
    /// Sends a snapshot and the message that installs it; [`DriverInput::SnapshotSent`] tells how that ended.
    fn send_snapshot(&mut self, to: ServerId, view: SnapshotView, message: &PeerMessage);
    /// Makes one; it comes with [`DriverInput::SnapshotMade`].
    fn make_snapshot(&mut self);
    /// This server has founded the ensemble: it gets its name now, and the others are told.
    fn founded(&mut self) -> Result<(), DirectoryError>;
    /// Whom to be linked with from now on.
    fn set_members(&mut self, members: &Members);
}

/// The driver, on its thread.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) replica: Replica,
    pub(super) log: Arc<Inbox<LogInput>>,
    pub(super) applier: Arc<Inbox<ApplierInput>>,
    pub(super) peers: Box<dyn Peers>,
    pub(super) containers: ContainerSchedule,
    pub(super) patience: Patience,
    pub(super) progress: Progress,
    /// A snapshot's state that waits for raft to say that it is wanted.
    pub(super) arrived: Option<Arrived>,
    pub(super) making: Making,
    /// Commands of connections before this one are not submitted.
    pub(super) own_from: ConnectionId,
    pub(super) duties: Duties,
    pub(super) disks: Disks,
}

/// What the loop has to remember.
pub(super) struct Progress {
    pub(super) next_tick_us: u64,
    pub(super) next_container_check_us: u64,
    pub(super) stopping: bool,
    /// Last append handed to the log, and last one reported by it.
    pub(super) appended: u64,
    pub(super) persisted: u64,
    /// Last append handed to the log that something waits for.
    pub(super) awaited: u64,
    /// Bytes of entries that came from peers and were not carried out.
    pub(super) taken_bytes: usize,
    /// Last entry handed to the applier, and last one reported by it.
    pub(super) handed: u64,
    pub(super) applied: u64,
    /// Since when there is no leader: monotonic, µs.
    pub(super) leaderless_since_us: Option<u64>,
    /// Whether clients were sent away because of that.
    pub(super) sent_away: bool,
    pub(super) backlog: Backlog,
    pub(super) installing: Option<Installing>,
    pub(super) recorded: OfDriver,
}

impl Driver {
    /// A driver of `replica`, whose work goes to `log`, `applier` and `peers`. `membership` is what the configuration says;
    /// `None` for a lone server.
    pub(super) fn new(
        shared: Arc<Shared>,
        replica: Replica,
        (log, applier): (Arc<Inbox<LogInput>>, Arc<Inbox<ApplierInput>>),
        peers: Box<dyn Peers>,
        (containers, patience): (ContainerSchedule, Patience),
        membership: Option<Members>,
    ) -> Driver {
        let now_us = shared.clock.now_us();
        let progress = Progress {
            next_tick_us: now_us + TICK_MS * 1000,
            next_container_check_us: now_us + containers.check_interval_ms * 1000,
            stopping: false,
            appended: 0,
            persisted: 0,
            awaited: 0,
            taken_bytes: 0,
            handed: 0,
            applied: 0,
            leaderless_since_us: Some(now_us),
            sent_away: false,
            backlog: Backlog::new(shared.memory.unstored_limit()),
            installing: None,
            recorded: OfDriver::new(),
        };
        progress.recorded.looking();
        Driver {
            shared,
            replica,
            log,
            applier,
            peers,
            containers,
            patience,
            progress,
            arrived: None,
            making: Making::Nothing,
            own_from: ConnectionId(0),
            duties: Duties::new(membership),
            disks: Disks::default(),
        }
    }

    /// Takes `inputs` in and does what is to be done; says whether everything has come to its end.
    pub(super) fn step(&mut self, inputs: &mut Vec<DriverInput>) -> Result<bool, Failure> {
        for input in inputs.drain(..) {
            self.take_in(input)?;
        }
        self.tick()?;
        self.carry_out()?;
        self.refuse_arrived();
        let progress = &self.progress;
        let ends = progress.stopping && progress.appended == progress.persisted && progress.handed <= progress.applied;
        if ends {
            self.applier.push(ApplierInput::Stop);
        }
        Ok(ends)
    }

    /// Whether the log writes something that others wait for.
    fn log_is_busy(&self) -> bool {
        self.progress.awaited > self.progress.persisted
    }

    fn take_in(&mut self, input: DriverInput) -> Result<(), Failure> {
        match input {
            DriverInput::Commands(mut commands) => {
                commands.retain(|command| self.is_own(command.origin.connection));
                self.progress.recorded.proposed(commands.len());
                self.replica.submit(commands);
            }
            DriverInput::Barrier(connection) => self.replica.barrier(connection.0),
            DriverInput::Persisted(number) => self.persisted(number)?,
            DriverInput::Applied(applied) => match &mut self.progress.installing {
                Some(installing) => {
                    installing.note(applied);
                    self.end_installation()?;
                }
                None => self.applied(applied),
            },
            DriverInput::Found { conf_state, registry } => self.found(conf_state, &registry),
            DriverInput::Installed => self.installed(),
            DriverInput::SnapshotMade(view) => self.snapshot_made(view)?,
            DriverInput::SnapshotSent { to, succeeded } => self.replica.snapshot_sent(to, succeeded),
            DriverInput::SnapshotArrived(arrived) => self.snapshot_arrived(*arrived)?,
            // The log must not be cut behind a snapshot whose tree is not durable yet; the next point will do.
            DriverInput::Durable { .. } if self.progress.installing.is_some() => {}
            DriverInput::Durable { index } => {
                let below = self.replica.compact(index);
                self.log.push(LogInput::Purge { below });
            }
            DriverInput::Peer { from, messages } => {
                for message in messages {
                    match &message {
                        PeerMessage::Digest { zxid, digest } => self.duties.digest_told(from.server, *zxid, *digest),
                        PeerMessage::Members(members) => self.duties.members_told(members),
                        PeerMessage::Short => self.short_told(from.server),
                        _ => {}
                    }
                    // A snapshot's message comes with its snapshot, or is not meant.
                    if message.is_snapshot() {
                        continue;
                    }
                    let bytes = message.entries_bytes();
                    if bytes > 0 && self.progress.backlog.refuses() {
                        self.progress.recorded.append_refused();
                        continue;
                    }
                    self.replica.step(from, message)?;
                    self.progress.taken_bytes += bytes;
                    if self.progress.taken_bytes > TAKEN_BYTES {
                        self.carry_out()?;
                    }
                }
            }
            DriverInput::Linked(peer) => self.replica.linked(peer),
            DriverInput::Unlinked(server) => self.replica.unlinked(server),
            DriverInput::Gone(server) => self.replica.is_gone(server),
            DriverInput::HandOver => {
                self.hand_over();
            }
            DriverInput::HandOverAsked(answer) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(self.hand_over());
            }
            DriverInput::Deadlines(answer) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(self.replica.session_deadlines().collect());
            }
            DriverInput::Stop => self.progress.stopping = true,
        }
        Ok(())
    }

    /// Connections that were there before a snapshot took the place of the state have ended, or end now: what they still ask
    /// for is not submitted.
    fn is_own(&self, connection: ConnectionId) -> bool {
        let is_own = connection >= self.own_from;
        if !is_own && let Some(connection) = self.shared.connection(connection) {
            connection.close(Closing::NotServing);
        }
        is_own
    }

    pub(super) fn applied(&mut self, applied: AppliedTo) {
        self.progress.applied = applied.index;
        self.progress.backlog.applied(applied.index);
        self.replica.applied(applied.index, applied.term, applied.own);
        for news in applied.sessions {
            match news {
                SessionNews::Opened { session, timeout_ms } => self.replica.session_opened(session, timeout_ms),
                SessionNews::Closed { session } => self.replica.session_closed(session),
            }
        }
    }

    /// Gives leadership to another one, if this server has it; says to whom.
    pub(super) fn hand_over(&mut self) -> Option<ServerId> {
        let to = self.replica.hand_over();
        match to {
            Some(to) => tracing::info!(server = to.0, "handing leadership over"),
            None => tracing::debug!("nobody to hand leadership over to"),
        }
        to
    }

    /// At most one tick per turn: a process that was stopped for a while must not count that time against its sessions,
    /// whose signs of life still wait in its sockets.
    fn tick(&mut self) -> Result<(), Failure> {
        let now_us = self.shared.clock.now_us();
        if now_us < self.progress.next_tick_us {
            return Ok(());
        }
        self.progress.next_tick_us = now_us + TICK_MS * 1000;
        let touched = self.shared.signs.next_tick();
        if self.shared.service() == Service::ReadOnly {
            self.shared.age_read_only(&touched);
        } else {
            self.replica.touch(&touched);
        }
        self.replica.tick();
        // What nobody waits for was left to the next append, and none has come.
        self.log.wake();
        self.shared.relieve();
        self.tell_refused(now_us);
        self.lose_patience(now_us);
        self.look_at_disks(now_us);
        if now_us >= self.progress.next_container_check_us {
            self.progress.next_container_check_us = now_us + self.containers.check_interval_ms * 1000;
            self.remove_containers();
        }
        self.do_duties()
    }

    fn tell_refused(&mut self, now_us: u64) {
        if let Some(messages) = self.progress.backlog.untold(now_us) {
            tracing::warn!(
                messages,
                "this server does not take all that its leader sends: too much waits to be applied here. Mostly its disk is \
                 behind, and what is not stored yet fills its memoryBudget. It catches up by itself; what it does not take \
                 must find its majority elsewhere."
            );
        }
    }

    /// Without a leader for too long, or without an answer of the one that there is, clients are better served elsewhere, as
    /// ZooKeeper does.
    fn lose_patience(&mut self, now_us: u64) {
        let Some(patience_ms) = self.patience.leaderless_ms else {
            return;
        };
        let leaderless_us = self
            .progress
            .leaderless_since_us
            .map_or(0, |since_us| now_us.saturating_sub(since_us));
        let unanswered_us = self.replica.unanswered_ticks() * TICK_MS * 1000;
        let patience_us = patience_ms * 1000;
        if let Some(limit_ms) = self.patience.read_only_ms {
            // A leader that is there is asked now and then only: its silence of two seconds means nothing yet.
            self.consider_read_only(leaderless_us >= limit_ms * 1000 || unanswered_us >= patience_us);
        }
        if leaderless_us.max(unanswered_us) < patience_us {
            if std::mem::take(&mut self.progress.sent_away) {
                self.replica.barrier(SERVING);
            }
        } else if self.shared.is_serving() {
            tracing::warn!(
                "no leader, or no answer of it, for {patience_ms} ms (syncLimit): clients are sent away until there is one. \
                 A majority of the participants must be up, and reach each other on their quorum ports in both directions."
            );
            self.progress.sent_away = true;
            self.shared.set_out_of_service();
        }
    }

    /// Read-only mode is configured: it begins and ends.
    fn consider_read_only(&mut self, is_due: bool) {
        let is_read_only = self.shared.service() == Service::ReadOnly;
        if is_read_only && !is_due {
            // The leader that was there all along answers again.
            self.shared.set_out_of_service();
            self.replica.barrier(SERVING);
        } else if is_due && !is_read_only && self.has_belonged() && !self.shared.is_stopping() {
            tracing::warn!(
                "no leader, or no answer of it: read-only from now on (readonlymode.enabled), for clients that have asked \
                 for that; others are sent away. Writes need a majority of the participants."
            );
            self.shared.set_read_only();
        }
    }

    /// Whether this server has ever got the state of its ensemble: an empty tree is not what clients mean by old data.
    fn has_belonged(&self) -> bool {
        !self.replica.conf_state().voters.is_empty()
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

    fn carry_out(&mut self) -> Result<(), Failure> {
        self.progress.taken_bytes = 0;
        while let Some(work) = self.replica.poll(self.shared.clock.wall_ms())? {
            if let Some(standing) = work.standing {
                self.standing_changed(standing);
            }
            for (to, message) in &work.send {
                self.peers.send(*to, message);
            }
            if let Some(point) = &work.restore {
                self.restore(point.clone())?;
            }
            self.send_snapshots(work.send_snapshots);
            if work.make_snapshot {
                self.make_snapshot();
            }
            if let Some(append) = work.append {
                self.append(append, work.restore.as_ref());
            }
            if let Some(last) = work.apply.last() {
                self.progress.handed = last.index;
                let bytes = work.apply.iter().map(|entry| entry.data.len() as u64).sum();
                self.progress.backlog.handed(last.index, bytes);
                self.applier.put(ApplierInput::Entries {
                    entries: work.apply,
                    members: work.members,
                });
            }
            if !work.barriers.is_empty() {
                self.applier.put(ApplierInput::Barriers(work.barriers));
            }
        }
        Ok(())
    }

    fn standing_changed(&mut self, standing: Standing) {
        if standing.leader.is_some() && self.shared.service() == Service::ReadOnly {
            // They come back, and get sessions of the ensemble.
            self.shared.set_out_of_service();
        }
        self.shared.set_standing(standing);
        self.show_ensemble();
        self.write_first_members();
        let now_us = self.shared.clock.now_us();
        let Standing { role, term, leader } = standing;
        if let Some(leader) = leader {
            if let Some(since_us) = self.progress.leaderless_since_us.take() {
                self.progress.recorded.elected(now_us.saturating_sub(since_us));
            }
            tracing::info!(?role, term, leader = leader.0, "there is a leader");
            // Clients are served once all that was acknowledged before now is applied here.
            self.replica.barrier(SERVING);
        } else if self.progress.leaderless_since_us.is_none() {
            self.progress.leaderless_since_us = Some(now_us);
            self.progress.recorded.looking();
            tracing::warn!(?role, term, "there is no leader: writes wait until one is elected");
        }
    }
}

impl Part for Driver {
    type Input = DriverInput;
    const NAME: &'static str = "driver";

    fn turn(&mut self, inputs: &mut Vec<DriverInput>, _is_lent: bool) -> Result<Turned, Failure> {
        let ends = self.step(inputs)?;
        interleave!();
        // Before the inbox is looked at again: who has put commands in since, and finds the log busy, relies on it.
        self.shared.set_log_busy(self.log_is_busy());
        Ok(match ends {
            true => Turned::Ended,
            false if self.log_is_busy() => Turned::Patient,
            false => Turned::Done,
        })
    }

    fn rest(&self) -> Duration {
        Duration::from_micros(self.progress.next_tick_us.saturating_sub(self.shared.clock.now_us()))
    }
}

fn path_body(path: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + path.len());
    out.write_text(path);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Founder;
    use super::*;
    use crate::storage::log::{MAX_ENTRY_BYTES, MAX_GROUP_BYTES};
    use raft::prelude::{Entry, Message, MessageType};

    #[test]
    fn what_a_leader_has_sent_while_this_one_stood_still_goes_to_the_log_in_pieces_that_fit() {
        let mut founder = Founder::new();
        founder.step(DriverInput::Applied(AppliedTo {
            index: 1,
            term: 1,
            own: 0,
            sessions: Vec::new(),
        }));
        founder.step(DriverInput::Installed);
        founder.for_the_log();
        let data = Bytes::from(vec![7; MAX_ENTRY_BYTES]);
        let appends = (2..22).map(|index| {
            let entry = Entry {
                index,
                term: 5,
                data: data.clone(),
                ..Entry::default()
            };
            Message {
                term: 5,
                index: index - 1,
                log_term: if index == 2 { 1 } else { 5 },
                entries: vec![entry].into(),
                ..Message::default()
            }
        });
        founder.is_told(MessageType::MsgAppend, appends.collect());
        let (_, appends) = founder.for_the_log();
        let entries = appends.iter().map(|append| &append.entries[..]);
        let bytes = |entries: &[Entry]| entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        assert_eq!(entries.clone().map(bytes).sum::<usize>(), 20 * MAX_ENTRY_BYTES);
        for entries in entries {
            assert!(bytes(entries) <= MAX_GROUP_BYTES / 2, "{} entries", entries.len());
        }
    }
}
