//! The applier: the one place that changes the state, in the order of the log.
//!
//! For each command, in one exclusive hold of the state's lock (the publish step):
//!
//! ```text
//!   the connection's reads that stand before it are answered
//!   state.apply(command)
//!   watches fire: events are queued to their connections
//!   the reply is queued to its connection
//! ```
//!
//! Every read holds the shared side of that lock while it looks, registers its watch and queues its reply. So nobody sees
//! a change before its event, and no watch misses a change (EventBeforeData, SessionOrder, WatchComplete).
//!
//! One hold is bounded ([`COMMANDS_PER_HOLD`], [`EVENTS_PER_HOLD`]); then readers get their turn. After it
//! replies are sent to few sockets, or their tasks are woken; those of a storm have [`super::fan_out`].

use super::Failure;
use super::connection::Connection;
use super::fan_out::AT_ONCE;
use super::fetcher::Values;
use super::pending::Closing;
use super::pipeline::Surroundings;
use super::recorded::OfApplier;
use super::shared::{AppliedTo, SERVING, SessionNews, Shared};
use super::storm::Leftover;
use crate::proto::{EventKind, Malformed, OpCode, SessionId, WatchEvent, Zxid};
use crate::replica::{MembersAt, PassedBarriers, SnapshotPoint};
use crate::state_machine::{AclRef, Applied, Batch, Change, Command, ConnectionId, Missing, Stamp, State};
use crate::watch::WatcherId;
use bytes::Bytes;
use raft::prelude::{Entry, EntryType};
use std::collections::VecDeque;
use std::sync::Arc;

/// Commands that are applied under one hold of the state's lock.
const COMMANDS_PER_HOLD: usize = 64;

/// Connections that are sent their replies without waking their tasks, at most in one step: cheaper than to wake so many, and
/// sooner. Half as many writes again at 30 x 1; with more connections in a step, sending would hold up what is to be applied.
const PROMPT_CONNECTIONS: usize = 32;
/// Events that are queued under one hold; those beyond are a storm's ([`super::storm`]), and end the hold with the command that
/// they belong to. Low in tests, so that the simulation has storms.
const EVENTS_PER_HOLD: usize = if cfg!(test) { 2 } else { 1000 };

/// An entry of the log that this program cannot apply: going on would part this member from the others.
#[derive(Debug, thiserror::Error)]
pub enum Unappliable {
    /// Its bytes are no batch of commands.
    #[error(
        "log entry {index} cannot be read ({reason}): it was written by another version of this program, or its memory was damaged. \
         Start the version that wrote it, or rebuild this server from a copy of its data directory."
    )]
    Malformed {
        /// The entry.
        index: u64,
        /// What is wrong with it.
        reason: Malformed,
    },
}

/// Applies committed entries.
pub(super) struct Applier {
    shared: Arc<Shared>,
    /// The last entry applied.
    index: u64,
    term: u64,
    /// The members as of that entry.
    members: Arc<MembersAt>,
    /// Commands of connections from this one on were submitted to the replica as it is now: not those of an earlier start.
    own_from: ConnectionId,
    /// How many of those were applied since the last report.
    own: usize,
    barriers: VecDeque<PassedBarriers>,
    /// Clients may be served as soon as the ensemble's membership is known.
    waits_to_serve: bool,
    sessions: Vec<SessionNews>,
    changes: Vec<Change>,
    /// Connections that have got something in this step, and are woken after it.
    reached: Vec<Arc<Connection>>,
    /// Those that have got an event of the change at hand.
    told: Vec<Arc<Connection>>,
    /// Those of changes that have reached very many: they are woken a few at a time.
    storm: Vec<Arc<Connection>>,
    /// Events queued in this hold, and those beyond what it may queue.
    queued: usize,
    leftover: Leftover,
    recorded: OfApplier,
}

impl Applier {
    /// An applier that goes on after the entry `index` of `term`, with the members as of then.
    pub(super) fn new(shared: Arc<Shared>, index: u64, term: u64, members: MembersAt) -> Applier {
        Applier {
            own_from: shared.next_connection(),
            own: 0,
            members: Arc::new(members),
            shared,
            index,
            term,
            barriers: VecDeque::new(),
            waits_to_serve: false,
            sessions: Vec::new(),
            changes: Vec::new(),
            reached: Vec::new(),
            told: Vec::new(),
            storm: Vec::new(),
            queued: 0,
            leftover: Leftover::default(),
            recorded: OfApplier::new(),
        }
    }

    /// Index and term of the last entry applied.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.index, self.term)
    }

    /// The members as of the last entry applied.
    pub(super) fn members(&self) -> &Arc<MembersAt> {
        &self.members
    }

    /// How far this has come, and what became of sessions since the last report.
    pub(super) fn take_report(&mut self) -> AppliedTo {
        AppliedTo {
            index: self.index,
            term: self.term,
            own: std::mem::take(&mut self.own),
            sessions: std::mem::take(&mut self.sessions),
        }
    }

    /// Applies entries; `members` are those as of the entries that change them.
    pub(super) fn apply(&mut self, entries: &[Entry], members: Vec<MembersAt>) -> Result<(), Failure> {
        let mut members = members.into_iter().peekable();
        for entry in entries {
            assert_eq!(entry.index, self.index + 1, "entries are applied in order, each once");
            if entry.get_entry_type() != EntryType::EntryNormal {
                self.members = members.next_if(|members| members.index == entry.index).map_or_else(
                    // The replica hands out both together.
                    || self.members.clone(),
                    Arc::new,
                );
            } else if !entry.data.is_empty() {
                let batch = Batch::decode(&entry.data).map_err(|reason| Unappliable::Malformed {
                    index: entry.index,
                    reason,
                })?;
                self.publish_batch(&batch)?;
            }
            self.index = entry.index;
            self.term = entry.term;
        }
        self.pass_barriers();
        Ok(())
    }

    /// Replaces the state by a snapshot's; `values` is where those are that are away, if it is another place than before.
    /// Connections from `own_from` on belong to it; the others were sent away.
    pub(super) fn install(
        &mut self,
        mut state: State,
        point: SnapshotPoint,
        own_from: ConnectionId,
        values: Option<Arc<dyn Values>>,
    ) {
        self.own_from = own_from;
        self.own = 0;
        self.sessions.clear();
        let opened = state.sessions().map(|session| SessionNews::Opened {
            session: session.id,
            timeout_ms: session.timeout_ms,
        });
        self.sessions.extend(opened);
        self.shared.set_applied_zxid(state.zxid());
        self.shared.loading.give_up();
        state.set_values_may_leave(self.shared.memory.values_may_leave());
        let mut here = self.shared.state.write();
        *here = state;
        if let Some(values) = values {
            self.shared.fetcher.replace(Some(values));
        }
        drop(here);
        self.index = point.members.index;
        self.term = point.term;
        self.members = Arc::new(point.members);
    }

    /// Barriers that may be passed once their index is applied.
    pub(super) fn barriers(&mut self, barriers: Vec<PassedBarriers>) {
        self.barriers.extend(barriers);
        self.pass_barriers();
    }

    fn publish_batch(&mut self, batch: &Batch) -> Result<(), Failure> {
        let clock = self.shared.clock.clone();
        let started_us = clock.now_us();
        for commands in batch.commands.chunks(COMMANDS_PER_HOLD) {
            let mut stamp = batch.stamp;
            if planted!(OwnClock) {
                stamp.time_ms = clock.wall_ms();
            }
            self.bring_missing(commands)?;
            self.publish(&stamp, commands);
        }
        let since_stamp_ms = clock.wall_ms().saturating_sub(batch.stamp.time_ms);
        let took_us = clock.now_us().saturating_sub(started_us);
        self.recorded.applied(batch.commands.len(), since_stamp_ms, took_us);
        Ok(())
    }

    /// While the tree is still being read: brings what the commands look at, and the reads that are answered before them.
    /// Nothing of that goes again before they are applied, since only this changes the state.
    fn bring_missing(&self, commands: &[Command]) -> Result<(), Failure> {
        while self.shared.loading.is_under_way() {
            let mut missing = Missing::default();
            let state = self.shared.state.read();
            for command in commands {
                state.missing_for_command(command, &mut missing);
                if let Some(connection) = self.origin_of(command) {
                    connection.with_pipeline(|pipeline| pipeline.note_missing(&state, &mut missing));
                }
            }
            drop(state);
            if !missing.has_groups() {
                break;
            }
            self.shared.loading.bring(&self.shared.state, &missing)?;
        }
        Ok(())
    }

    fn publish(&mut self, stamp: &Stamp, commands: &[Command]) {
        let shared = self.shared.clone();
        let surroundings = shared.surroundings();
        let mut commands = commands.iter();
        while !commands.as_slice().is_empty() {
            let mut state = shared.state.write();
            self.queued = 0;
            for command in commands.by_ref() {
                self.publish_command(&mut state, stamp, command, &surroundings);
                if !self.leftover.is_empty() {
                    break;
                }
            }
            shared.set_applied_zxid(state.zxid());
            let is_storm = !self.leftover.is_empty();
            if is_storm {
                shared.storm.begin(std::mem::take(&mut self.leftover));
            }
            drop(state);
            interleave!();
            self.wake_reached();
            if is_storm {
                self.weather(&surroundings);
            }
        }
    }

    /// Queues the events of a storm, slice by slice; only then anything else is applied.
    fn weather(&mut self, surroundings: &Surroundings<'_>) {
        let shared = self.shared.clone();
        loop {
            let goes_on = shared
                .storm
                .slice(|id| shared.connection(id), surroundings, &mut self.storm);
            interleave!();
            self.wake_reached();
            if !goes_on {
                return;
            }
        }
    }

    fn publish_command(
        &mut self,
        state: &mut State,
        stamp: &Stamp,
        command: &Command,
        surroundings: &Surroundings<'_>,
    ) {
        let connection = self.origin_of(command);
        let is_own = command.origin.server == self.shared.settings.server && command.origin.connection >= self.own_from;
        self.own += usize::from(is_own);
        if let Some(connection) = &connection {
            connection.with_pipeline(|pipeline| pipeline.before_apply(state, surroundings));
        }
        let mut changes = std::mem::take(&mut self.changes);
        let applied = state.apply(stamp, command, &mut changes);
        if planted!(EventAfterReply)
            && let Some(connection) = &connection
        {
            connection.with_pipeline(|pipeline| pipeline.applied(command, &applied, surroundings));
        }
        let asker = connection.as_ref().map(|connection| connection.id);
        for change in changes.drain(..) {
            self.announce(&change, &applied, (command, asker), state, surroundings);
            let woken = if self.told.len() > AT_ONCE {
                &mut self.storm
            } else {
                &mut self.reached
            };
            woken.append(&mut self.told);
            self.recorded.announced();
        }
        self.changes = changes;
        if let Some(connection) = connection {
            if !planted!(EventAfterReply) {
                connection.with_pipeline(|pipeline| pipeline.applied(command, &applied, surroundings));
            }
            self.reached.push(connection);
        }
    }

    /// The connection of this server that a command came from, if it is still there.
    fn origin_of(&self, command: &Command) -> Option<Arc<Connection>> {
        if command.origin.is_internal() || command.origin.server != self.shared.settings.server {
            return None;
        }
        self.shared.connection(command.origin.connection)
    }

    fn announce(
        &mut self,
        change: &Change,
        applied: &Applied,
        (command, asker): (&Command, Option<ConnectionId>),
        state: &State,
        surroundings: &Surroundings<'_>,
    ) {
        let watches = &surroundings.watches;
        match change {
            Change::Created { path, acl, parent_acl } => {
                watches.fire_created(
                    path,
                    &mut self.delivery(applied.zxid, asker, (acl, parent_acl), surroundings),
                );
            }
            Change::Deleted { .. } if planted!(EventForgotten) && command.op == OpCode::CloseSession => {}
            Change::Deleted { path, acl, parent_acl } => {
                watches.fire_deleted(
                    path,
                    &mut self.delivery(applied.zxid, asker, (acl, parent_acl), surroundings),
                );
            }
            Change::DataChanged { path, acl } => {
                watches.fire_data_changed(path, &mut self.delivery(applied.zxid, asker, (acl, acl), surroundings));
            }
            Change::SessionOpened { session } | Change::SessionAttached { session } => {
                self.session_opened(*session, command, state);
            }
            Change::SessionClosed { session } => self.session_closed(*session, command, surroundings),
        }
    }

    /// Queues events to the connections that watch. An event is encoded once, however many do. What goes beyond what one
    /// hold may queue is left over, but for `asker`: it gets the reply to the command in this hold.
    fn delivery<'a>(
        &'a mut self,
        zxid: Zxid,
        asker: Option<ConnectionId>,
        (acl, parent_acl): (&'a AclRef, &'a AclRef),
        surroundings: &'a Surroundings<'a>,
    ) -> impl FnMut(WatcherId, EventKind, &str) + 'a {
        let mut encoded: Option<(EventKind, Bytes)> = None;
        let mut noted: Option<EventKind> = None;
        move |watcher, kind, path| {
            let id = ConnectionId(watcher.0);
            // One change makes at most one event of each kind, so the kind says which path it is.
            let frame = match &encoded {
                Some((encoded_kind, frame)) if *encoded_kind == kind => frame,
                _ => {
                    let event = WatchEvent {
                        kind,
                        path: path.into(),
                    };
                    &encoded.insert((kind, event.to_frame(zxid))).1
                }
            };
            let acl = if kind == EventKind::ChildrenChanged {
                parent_acl
            } else {
                acl
            };
            self.recorded.fired(kind);
            if self.queued >= EVENTS_PER_HOLD && asker != Some(id) {
                if noted != Some(kind) {
                    noted = Some(kind);
                    self.leftover.note(frame, acl);
                }
                return self.leftover.is_for(id);
            }
            self.queued += 1;
            if let Some(connection) = self.shared.connection(id) {
                connection.with_pipeline(|pipeline| pipeline.event(frame, acl, surroundings));
                self.told.push(connection);
            }
        }
    }

    fn session_opened(&mut self, session: SessionId, command: &Command, state: &State) {
        if let Some(opened) = state.session(session) {
            self.sessions.push(SessionNews::Opened {
                session,
                timeout_ms: opened.timeout_ms,
            });
        }
        let previous = match self.origin_of(command) {
            Some(connection) => self.shared.bind(session, connection.id),
            None => self.shared.unbind(session),
        };
        if let Some(previous) = previous {
            previous.close(Closing::SessionGone);
        }
    }

    fn session_closed(&mut self, session: SessionId, command: &Command, surroundings: &Surroundings<'_>) {
        self.sessions.push(SessionNews::Closed { session });
        if command.origin.is_internal() {
            self.recorded.session_expired();
        }
        let Some(connection) = self.shared.unbind(session) else {
            return;
        };
        // Who closes his own session gets a reply first.
        if connection.id != command.origin.connection {
            tracing::info!(%session, peer = %connection.peer, "session expired");
            connection.with_pipeline(|pipeline| pipeline.close(Closing::SessionGone, surroundings.statistics));
            self.reached.push(connection);
        }
    }

    fn pass_barriers(&mut self) {
        while self
            .barriers
            .front()
            .is_some_and(|barriers| barriers.index <= self.index)
        {
            let Some(passed) = self.barriers.pop_front() else {
                return;
            };
            for token in passed.tokens {
                if token == SERVING {
                    self.waits_to_serve = true;
                } else if let Some(connection) = self.shared.connection(ConnectionId(token)) {
                    connection.with_pipeline(super::pipeline::Pipeline::barrier_passed);
                    self.reached.push(connection);
                }
            }
        }
        if self.waits_to_serve && self.may_serve() {
            self.waits_to_serve = false;
            self.shared.set_serving();
        }
        self.wake_reached();
    }

    /// A new ensemble's first leader writes down who belongs to it; until then clients would read that nobody does.
    fn may_serve(&self) -> bool {
        !self.shared.settings.in_ensemble || self.shared.state.read().membership().is_some()
    }

    fn wake_reached(&mut self) {
        // Runs of the same connection are common: one wake serves them all.
        self.reached.dedup_by_key(|connection| connection.id);
        if self.reached.len() > 1 || !self.storm.is_empty() {
            self.shared.signs.others_are_there();
        }
        let is_prompt = self.reached.len() <= PROMPT_CONNECTIONS;
        for connection in self.reached.drain(..) {
            if is_prompt {
                connection.send_promptly();
            } else {
                connection.wake_up();
            }
        }
        self.shared.fan_out.wake(&mut self.storm);
    }
}

#[cfg(test)]
mod tests;
