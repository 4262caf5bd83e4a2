//! One member of an ensemble without IO: raft-rs node, proposals, read barriers, session deadlines counted in ticks.
//!
//! ```text
//!   submit(commands) ┐                         ┌ append: entries and hard state, for the log
//!   barrier(token)   │                         │ send: messages for peers, now
//!   step(message)    ├──▶ Replica ── poll ──▶ Work ┤ send_after_append: messages that are promises
//!   persisted(n)     │                         │ apply: committed entries, in order
//!   applied(index)   │                         │ barriers: tokens, and the index that they wait for
//!   tick()           ┘                         └ role: when it changed
//! ```
//!
//! Invariants:
//! - Nothing that is a promise (a vote, the acknowledgement of an append) is handed out before the write that it promises
//!   was reported by [`Replica::persisted`].
//! - Only committed entries that are on this member's own disk are handed out to be applied, each once, in order.
//! - Session deadlines count only on the leader, only in ticks, and start in full when leadership begins: so neither an
//!   election nor a pause expires a session that gave a sign of life.
//!
//! A single server is an ensemble with one voter: the same path, with an election that it wins at once.
//!
//! Left out on purpose: clocks (a tick is a call, the wall time an argument), sockets, files, and what commands mean.

mod deadlines;
mod log_view;

use crate::proto::{OpCode, SessionId, Xid};
use crate::state_machine::{Batch, Command, Origin, Rules, ServerId, Stamp};
use bytes::Bytes;
use deadlines::Deadlines;
use log_view::LogView;
use raft::prelude::{ConfState, Entry, HardState, Message};
use raft::{RawNode, ReadOnlyOption, StateRole};
use std::collections::VecDeque;

pub use log_view::Recovered;

/// Commands in one entry at most: bounds how long the applier holds the state for one entry.
const BATCH_COMMANDS: usize = 512;
/// Bytes in one entry at most, unless one command alone is larger.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes that are proposed and not yet committed at most; more waits in `submitted`, whose length the connections' own
/// bounds limit.
const UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Bytes of committed entries handed out by one poll at most; the rest comes with the next one.
const APPLY_BYTES: u64 = 8 << 20;
/// Bytes of entries in one message to a follower at most.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages on their way to one follower at most: bounds what a slow one makes us hold.
const INFLIGHT_MESSAGES: usize = 64;
/// A read barrier that was not answered for so many ticks is asked again: raft drops those that come before the leader
/// has committed anything in its term.
const BARRIER_RETRY_TICKS: u64 = 2;

/// Length of a tick, ms: the replica's only unit of time. raft's heartbeat goes out every second one.
pub const TICK_MS: u64 = 50;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a heartbeat after which a follower stands for election.
const ELECTION_TICKS: usize = 20;

/// How a replica is set up.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// This member.
    pub server: ServerId,
    /// The members of a fresh ensemble; a log that is not fresh knows them itself.
    pub voters: Vec<ServerId>,
    /// What the leader stamps on its entries.
    pub rules: Rules,
    /// Election timeout of this member in ticks beyond [`ELECTION_TICKS`]: differs between members, so that they do not
    /// stand at the same moment. Chance comes in as an argument.
    pub election_jitter_ticks: usize,
}

/// Entries and hard state that belong on disk together.
#[derive(Debug)]
pub struct Append {
    /// Number to report to [`Replica::persisted`]; a later one implies the earlier.
    pub number: u64,
    /// May begin at or below the last index: then everything from there on is replaced.
    pub entries: Vec<Entry>,
    /// `None`: unchanged.
    pub hard_state: Option<HardState>,
    /// Whether it must be on disk before it is reported; otherwise it may be written with a later one.
    pub must_sync: bool,
}

/// What this member is in its ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders the commands.
    Leader,
    /// Follows one.
    Follower,
    /// Neither, for now.
    Looking,
}

/// Read barriers that may be passed once `index` is applied.
#[derive(Debug, PartialEq, Eq)]
pub struct PassedBarriers {
    /// The index to wait for.
    pub index: u64,
    /// As given to [`Replica::barrier`].
    pub tokens: Vec<u64>,
}

/// What is to be done, in any order between the fields.
#[derive(Debug, Default)]
pub struct Work {
    /// For the log.
    pub append: Option<Append>,
    /// For the peers, at once.
    pub send: Vec<Message>,
    /// For the applier, in order.
    pub apply: Vec<Entry>,
    /// For the applier, once it has come so far.
    pub barriers: Vec<PassedBarriers>,
    /// The new role, if it has changed.
    pub role: Option<Role>,
}

/// The replica cannot go on; the server must stop.
#[derive(Debug, thiserror::Error)]
#[error("raft refuses: {0}")]
pub struct ReplicaError(#[from] raft::Error);

/// One member.
pub struct Replica {
    raft: RawNode<LogView>,
    options: ReplicaOptions,
    submitted: VecDeque<Command>,
    /// Promises, by the append that must be on disk before they may leave.
    promises: VecDeque<(u64, Vec<Message>)>,
    persisted: u64,
    deadlines: Deadlines,
    barriers: Barriers,
    role: Role,
    tick: u64,
}

/// Read barriers, before and after raft was asked. One question at a time serves all that wait.
#[derive(Default)]
struct Barriers {
    waiting: Vec<u64>,
    asked: VecDeque<AskedBarriers>,
    next_question: u64,
}

struct AskedBarriers {
    question: u64,
    tick: u64,
    tokens: Vec<u64>,
}

impl Replica {
    /// A member that goes on from what its disk holds.
    pub fn new(options: ReplicaOptions, recovered: Recovered, logger: &slog::Logger) -> Result<Replica, ReplicaError> {
        let voters = options.voters.iter().map(|server| server.0).collect();
        let applied = recovered.applied_index;
        let log = LogView::new(
            recovered,
            ConfState {
                voters,
                ..ConfState::default()
            },
        );
        let config = raft::Config {
            id: options.server.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: ELECTION_TICKS + options.election_jitter_ticks,
            max_election_tick: ELECTION_TICKS + options.election_jitter_ticks + 1,
            applied,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            batch_append: true,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        let mut raft = RawNode::new(&config, log, logger)?;
        if options.voters == [options.server] {
            // Nobody else could win: waiting out an election timeout would only delay the start.
            raft.campaign()?;
        }
        Ok(Replica {
            raft,
            options,
            submitted: VecDeque::new(),
            promises: VecDeque::new(),
            persisted: 0,
            deadlines: Deadlines::default(),
            barriers: Barriers::default(),
            role: Role::Looking,
            tick: 0,
        })
    }

    /// Commands to be put into the log, in this order. They wait here until this member leads.
    pub fn submit(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.submitted.extend(commands);
    }

    /// Asks when a read that arrives now may be answered: `token` comes back in [`Work::barriers`].
    pub fn barrier(&mut self, token: u64) {
        self.barriers.waiting.push(token);
    }

    /// A message from a peer.
    pub fn step(&mut self, message: Message) -> Result<(), ReplicaError> {
        match self.raft.step(message) {
            // A message of a peer that was removed, or for a follower's proposal: nothing that this member could do.
            Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped) => Ok(()),
            result => Ok(result?),
        }
    }

    /// The append of this number, and all before it, are on disk.
    pub fn persisted(&mut self, number: u64) {
        assert!(
            number >= self.persisted,
            "append {number} is reported after {}",
            self.persisted
        );
        self.persisted = number;
        self.raft.on_persist_ready(number);
    }

    /// All entries up to `index` are applied.
    pub fn applied(&mut self, index: u64) {
        self.raft.advance_apply_to(index);
    }

    /// Entries up to `index` are durable in the tree: memory need not hold them for this member any longer.
    pub fn compact(&mut self, index: u64) {
        self.raft.mut_store().compact(index);
    }

    /// Length of the log in memory, bytes.
    pub fn log_bytes(&self) -> usize {
        self.raft.store().size_bytes()
    }

    /// One tick has passed.
    pub fn tick(&mut self) {
        self.tick += 1;
        self.raft.tick();
        let server = self.options.server;
        let expired = self.deadlines.tick();
        if self.role == Role::Leader {
            self.submitted.extend(
                expired
                    .into_iter()
                    .map(|session| internal(server, session, OpCode::CloseSession, Bytes::new())),
            );
        }
        while self
            .barriers
            .asked
            .front()
            .is_some_and(|asked| asked.tick + BARRIER_RETRY_TICKS <= self.tick)
        {
            if let Some(asked) = self.barriers.asked.pop_front() {
                self.barriers.waiting.extend(asked.tokens);
            }
        }
    }

    /// A session was opened, or bound to another connection with another timeout.
    pub fn session_opened(&mut self, session: SessionId, timeout_ms: i32) {
        self.deadlines.open(session, timeout_ticks(timeout_ms));
    }

    /// How long each session may stay silent from now on, ms, in no order. On a leader alone: others do not judge.
    pub fn session_deadlines(&self) -> impl Iterator<Item = (SessionId, u64)> {
        self.deadlines.remaining().map(|(id, ticks)| (id, ticks * TICK_MS))
    }

    /// A session is gone.
    pub fn session_closed(&mut self, session: SessionId) {
        self.deadlines.close(session);
    }

    /// Signs of life of these sessions have arrived since the last tick.
    pub fn touch(&mut self, sessions: &[SessionId]) {
        for session in sessions {
            self.deadlines.touch(*session);
        }
    }

    /// The term that this member is in.
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Puts commands of the leader itself into the log, if this member leads.
    pub fn submit_internal(&mut self, op: OpCode, bodies: impl IntoIterator<Item = Bytes>) {
        let server = self.options.server;
        if self.role == Role::Leader {
            let commands: Vec<_> = bodies
                .into_iter()
                .map(|body| internal(server, SessionId(0), op, body))
                .collect();
            self.submitted.extend(commands);
        }
    }

    /// What is to be done now; `None` if nothing is. Call it after every input, until it gives `None`.
    pub fn poll(&mut self, now_ms: i64) -> Result<Option<Work>, ReplicaError> {
        if self.role == Role::Leader {
            self.propose(now_ms)?;
            self.ask_barriers();
        }
        let mut work = Work {
            send: self.kept_promises(),
            ..Work::default()
        };
        if self.raft.has_ready() {
            self.take_ready(&mut work);
        } else if work.send.is_empty() {
            return Ok(None);
        }
        Ok(Some(work))
    }

    fn propose(&mut self, now_ms: i64) -> Result<(), ReplicaError> {
        let stamp = Stamp {
            time_ms: now_ms,
            rules: self.options.rules,
        };
        while !self.submitted.is_empty() {
            let commands = next_batch(self.submitted.make_contiguous());
            let entry = Batch::encode(stamp, &self.submitted.as_slices().0[..commands]);
            match self.raft.propose(Vec::new(), entry.into()) {
                Ok(()) => drop(self.submitted.drain(..commands)),
                // Too much is uncommitted, or leadership is on its way elsewhere: they stay in line.
                Err(raft::Error::ProposalDropped) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn ask_barriers(&mut self) {
        if self.barriers.waiting.is_empty() {
            return;
        }
        let question = self.barriers.next_question;
        self.barriers.next_question += 1;
        self.raft.read_index(question.to_be_bytes().to_vec());
        let tokens = std::mem::take(&mut self.barriers.waiting);
        self.barriers.asked.push_back(AskedBarriers {
            question,
            tick: self.tick,
            tokens,
        });
    }

    /// Promises whose append is on disk by now.
    fn kept_promises(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while self
            .promises
            .front()
            .is_some_and(|(number, _)| *number <= self.persisted)
        {
            if let Some((_, promises)) = self.promises.pop_front() {
                messages.extend(promises);
            }
        }
        messages
    }

    fn take_ready(&mut self, work: &mut Work) {
        let mut ready = self.raft.ready();
        if let Some(state) = ready.ss() {
            work.role = self.change_role(state.raft_state);
        }
        work.send.extend(ready.take_messages());
        let promises = ready.take_persisted_messages();
        if !promises.is_empty() {
            self.promises.push_back((ready.number(), promises));
        }
        for state in ready.take_read_states() {
            if let Some(passed) = self.barriers.passed(&state.request_ctx, state.index) {
                work.barriers.push(passed);
            }
        }
        work.apply = ready.take_committed_entries();
        let entries = ready.take_entries();
        let hard_state = ready.hs().cloned();
        self.raft.mut_store().append(&entries, hard_state.as_ref());
        work.append = Some(Append {
            number: ready.number(),
            entries,
            hard_state,
            must_sync: ready.must_sync(),
        });
        self.raft.advance_append_async(ready);
    }

    fn change_role(&mut self, state: StateRole) -> Option<Role> {
        let role = match state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Looking,
        };
        if role == self.role {
            return None;
        }
        self.role = role;
        if role == Role::Leader {
            self.deadlines.restart();
        }
        Some(role)
    }
}

impl Barriers {
    /// The tokens that an answer is for. Answers may come out of order, and for questions that were asked again.
    fn passed(&mut self, question: &[u8], index: u64) -> Option<PassedBarriers> {
        let question = u64::from_be_bytes(question.try_into().ok()?);
        let position = self.asked.iter().position(|asked| asked.question == question)?;
        let asked = self.asked.remove(position)?;
        Some(PassedBarriers {
            index,
            tokens: asked.tokens,
        })
    }
}

/// A command that the leader proposes of itself.
fn internal(server: ServerId, session: SessionId, op: OpCode, body: Bytes) -> Command {
    let origin = Origin {
        server,
        ..Origin::default()
    };
    Command {
        origin,
        session,
        xid: Xid(0),
        identities: [].into(),
        op,
        body,
    }
}

/// How many of the waiting commands go into one entry: at least one.
fn next_batch(commands: &[Command]) -> usize {
    let mut bytes = 0;
    let fitting = commands.iter().take(BATCH_COMMANDS).take_while(|command| {
        bytes += command.size_bytes();
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// A session's timeout in ticks, rounded up: rounding must never take time away from a session.
fn timeout_ticks(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0).div_ceil(TICK_MS)
}

#[cfg(test)]
mod tests;
